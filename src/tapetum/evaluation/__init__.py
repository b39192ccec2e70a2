"""From embeddings to numbers: ranking, metrics, re-ranking, result cards."""
