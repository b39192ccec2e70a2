"""Losses, one a file. They are computed in the type of what they get: a training hands them float32."""
