"""Figures, one per file: arrays in, Figure out."""
