"""The page about others' weights names the sizes of pictures that converted checkpoints take."""

import re
from pathlib import Path

from tapetum.methods import official_formats
from tapetum.runs.recipe import load_recipe

PAGE = (Path(__file__).parents[2] / "docs/bring_your_weights.md").read_text(encoding="utf-8")


def test_sizes_of_pictures_are_those_of_the_recipes_that_converted_checkpoints_get() -> None:
    rows = re.findall(r"^\| `([a-z-]+-official)` \| [^|]+ \| ([^|]+) \|", PAGE, re.MULTILINE)
    assert len(rows) > 20
    for layout, said in rows:
        if layout == "transreid-official":  # its files tell their size
            continue
        form = official_formats()[layout]
        sizes = {tuple(load_recipe(name).data.size) for name in (form.recipe, *form.recipes_by_ids.values())}
        assert sizes == {(int(height), int(width)) for height, width in re.findall(r"(\d+) x (\d+)", said)}, layout
