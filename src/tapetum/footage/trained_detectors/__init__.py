"""Trained detectors that lie in package registries, one a file; see `tapetum.footage.detector_catalogue`."""
