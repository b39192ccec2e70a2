"""Footage into a gallery, by one process or many."""
