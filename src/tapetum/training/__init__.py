"""The loop that trains a method by a recipe."""
