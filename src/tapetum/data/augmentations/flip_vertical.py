"""Mirror pictures top to bottom, as trainings of enhancers do; people who are searched for stand upright.

A file beside `flip` and no option of it: recipes are kept with every option written out, and a run's settings are told
by that text, so that a new option would make every earlier training with flips one of other settings.
"""

from dataclasses import dataclass

from tapetum.data.transforms import Draws, Pictures

WORKS_ON = "either"
PROBABILITY = 0.5


@dataclass(frozen=True)
class Options:
    """None of its own."""


def change(pictures: Pictures, options: Options, draws: Draws) -> Pictures:  # noqa: ARG001
    """Pictures upside down."""
    return pictures[:, ::-1]
