"""Models in use: a run or an exported artefact, opened in one way, computing in a stated precision."""
