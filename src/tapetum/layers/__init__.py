"""Blocks that two methods share."""
