"""Training, extraction, evaluation and checkpoints."""
