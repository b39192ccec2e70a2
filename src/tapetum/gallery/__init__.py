"""Search in a set of embeddings."""
