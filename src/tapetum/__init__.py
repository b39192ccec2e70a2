"""Tapetum: person re-identification at night."""

__version__ = "0.1.0"
