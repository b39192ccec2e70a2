"""Whole experiments: the demo, and the paper's tables, row by row."""
