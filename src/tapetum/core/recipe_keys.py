"""Which keys of a recipe say nothing about the weights that come of it."""

DECIDE_NO_WEIGHTS = (  # keys and sections: about itself, where pictures lie and how they are kept, tests
    "about",
    "data.root",
    "data.cache",
    "data.workers",
    "training.save_minutes",
    "evaluation",
)


def is_within(key: str, keys: tuple[str, ...]) -> bool:
    """Whether a key, e.g. "evaluation.batch", is one of several keys or in one of several sections."""
    return f"{key}.".startswith(tuple(f"{each}." for each in keys))
