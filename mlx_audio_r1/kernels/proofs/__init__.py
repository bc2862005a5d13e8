"""What proves each op: one file an op, with its cases and its float64 reference. See ../proof.py."""
