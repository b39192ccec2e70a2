"""How cost grows with size, one command each: `python -m benchmarks.growth evaluation|gallery|index|service`."""
