from collections.abc import Callable

import pytest
import torch

from tapetum.data.loader import TrainLoader
from tapetum.data.sampler import Sampling
from tapetum.runs.recipe import Recipe
from tapetum.runs.sources import augment_options, open_data, picture_options, sampler_options, training_records
from tapetum.training import beginning
from tapetum.training.beginning import Beginning


def begin(recipe: Recipe, *, rank: int = 0, world: int = 1) -> Beginning:
    records = training_records(open_data(recipe.data).dataset)
    sampling: Sampling = sampler_options(recipe)
    loader = TrainLoader(
        records,
        picture_options(recipe.data),
        augment=augment_options(recipe),
        sampler=sampling,
        seed=1,
        rank=rank,
        world=world,
    )
    return Beginning(2, {}, loader, 10, lambda batch: batch)


def test_each_picture_is_seen_once_by_one_process_and_what_is_found_lies_at_its_row(
    tiny_recipe: Callable[..., Recipe],
) -> None:
    recipe = tiny_recipe()
    whole = begin(recipe)
    seen = torch.cat([batch.rows for batch in whole.pictures()])
    assert seen.tolist() == list(range(64))
    shares = [
        torch.cat([batch.rows for batch in begin(recipe, rank=rank, world=2).pictures()]).tolist() for rank in (0, 1)
    ]
    assert sorted(shares[0] + shares[1]) == list(range(64))
    labels = torch.cat([batch.labels for batch in whole.pictures()])
    order = torch.randperm(64)
    assert torch.equal(whole.gather(seen[order], labels[order]), labels)


def test_what_the_other_process_found_is_added(
    tiny_recipe: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = (begin(tiny_recipe(), rank=rank, world=2) for rank in (0, 1))
    rows = [torch.cat([batch.rows for batch in start.pictures()]) for start in (ours, theirs)]
    other = theirs.gather(rows[1], 10 + rows[1])
    monkeypatch.setattr(beginning, "add_up", lambda values: values + other)
    assert torch.equal(ours.gather(rows[0], 10 + rows[0]), 10 + torch.arange(64))


def test_what_is_found_of_several_views_has_a_place_for_each(tiny_recipe: Callable[..., Recipe]) -> None:
    start = begin(tiny_recipe(overrides=["sampler.views=[2, 1]"]))
    batches = list(start.pictures(augmented=True))
    rows, views = (torch.cat([getattr(batch, name) for batch in batches]) for name in ("rows", "views"))
    assert len(rows) == 128  # the people of the small data set are all visible
    found = start.gather(rows, 10 * rows + views, views)
    assert torch.equal(found, 10 * torch.arange(64)[:, None] + torch.arange(2))
