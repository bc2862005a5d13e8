"""Modality-Grounded Reasoning Distillation: rounds of distilling, filtering and reinforcement learning."""
