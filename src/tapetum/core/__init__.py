"""Contracts every layer shares: the travelling values, protocols, errors, vectors, seeds, discovery."""
