"""Models in use: pictures to vectors, runs to result cards, exported artefacts."""
