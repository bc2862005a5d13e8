"""Benchmarks: import, ask, score, compare, report."""
