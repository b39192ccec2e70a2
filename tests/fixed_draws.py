"""Draws whose numbers a test chooses."""

import numpy as np

from tapetum.data.transforms import Draws


class FixedDraws(Draws):
    """Gives the same numbers whatever is asked for."""

    def __init__(self, numbers: np.ndarray) -> None:
        super().__init__(np.random.default_rng(0), np.ones(len(numbers), bool), np.arange(len(numbers)))
        object.__setattr__(self, "numbers", np.asarray(numbers))

    def random(self, *shape: int) -> np.ndarray:
        numbers = self.numbers  # type: ignore[attr-defined]
        assert numbers.shape == (len(self.positions), *shape)
        return numbers


def draw_anew(seed: int, count: int) -> Draws:
    """Draws of a global batch of `count` pictures, all of which are changed here."""
    return Draws(np.random.default_rng(seed), np.ones(count, bool), np.arange(count))
