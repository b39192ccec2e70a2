"""Footage into a gallery, and a person out of it."""
