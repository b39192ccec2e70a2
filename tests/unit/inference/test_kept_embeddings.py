import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch

from tapetum.core.types import Record
from tapetum.data.catalog import Dataset, open_dataset
from tapetum.evaluation.card import read_card
from tapetum.inference.embedder import Embedder
from tapetum.inference.evaluate import evaluate_run
from tapetum.report.runs import read_test
from tapetum.report.sides import describe_sides
from tapetum.runs.checkpoint import load_checkpoint, save_checkpoint
from tapetum.runs.run_folder import RunFolder

MakeRun = Callable[..., Path]
LLCM = [f"llcm_revised_{name}" for name in ("nir_to_vis", "vis_to_nir", "vis_to_nir_released_script")]


def test_a_second_evaluation_takes_the_embeddings_of_the_first_only_where_nothing_has_changed(
    make_run: MakeRun, people: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    night = partial(evaluate_run, make_run("ide"), dataset=open_dataset("night600", people), out=tmp_path, draws=10)
    night()
    described: list[int] = []
    honest = Embedder.describe

    def counting(self: Embedder, records: list[object], **settings: object) -> object:
        described.append(len(records))
        return honest(self, records, **settings)  # type: ignore[arg-type]

    monkeypatch.setattr(Embedder, "describe", counting)
    (a,) = night(["night600_step"])
    assert described == []
    assert a.path.name == "night600_night600_step.json"
    night(mirror=not a.card.mirror)
    night(precision="bf16")
    assert described == [8, 32, 8, 32]
    kept = tmp_path / "night600_bf16_query.safetensors"
    kept.write_bytes(kept.read_bytes()[:100])
    night(precision="bf16")
    assert described == [8, 32, 8, 32, 8]


def test_other_weights_in_the_same_place_or_another_picture_of_the_same_name_are_described_anew(
    make_run: MakeRun, people: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = RunFolder(tmp_path / "run")
    run.best.parent.mkdir(parents=True)
    shutil.copy(make_run("ide"), run.best)
    root = shutil.copytree(people, tmp_path / "people")
    described: list[int] = []
    honest = Embedder.describe

    def counting(self: Embedder, records: list[object], **settings: object) -> object:
        described.append(len(records))
        return honest(self, records, **settings)  # type: ignore[arg-type]

    def evaluate() -> None:
        evaluate_run(run.root, dataset=open_dataset("night600", root), out=tmp_path / "cards", draws=10)

    monkeypatch.setattr(Embedder, "describe", counting)
    evaluate()
    evaluate()
    assert described == [8, 32]
    checkpoint = load_checkpoint(run.best)
    with torch.no_grad():
        next(checkpoint.network.parameters()).mul_(2)
    save_checkpoint(run.best, checkpoint.network, checkpoint.header)
    evaluate()
    assert described == [8, 32, 8, 32]
    first, *_, last = (each.path for each in open_dataset("night600", root).records if each.split == "query")
    shutil.copy(last, first)
    evaluate()
    assert described == [8, 32, 8, 32, 8, 32], "apart from what is known of the pictures before"


def test_several_protocols_describe_each_picture_once(
    make_run: MakeRun, crossed: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    described: list[str] = []
    honest = Embedder.describe

    def counting(self: Embedder, records: list[Record], **settings: object) -> object:
        described.extend(record.path.name for record in records)
        return honest(self, records, **settings)  # type: ignore[arg-type]

    monkeypatch.setattr(Embedder, "describe", counting)
    run = make_run("ide")
    (first,) = evaluate_run(run, LLCM[:1], dataset=crossed, out=tmp_path, draws=10)
    assert len(described) == len(set(described)) == len(first.query) + len(first.gallery)
    found = evaluate_run(run, LLCM, dataset=crossed, out=tmp_path, draws=10)
    assert [each.card.rules.name for each in found] == LLCM
    assert len(described) == len(set(described)) == 72
    assert torch.equal(found[0].trials[3].per_query_ap, first.trials[3].per_query_ap)
    released = found[2]
    assert (len(released.trials[0].matched), released.card.data["gallery"]) == (12, 36)  # a person under a camera
    assert released.card.galleries == "queries drawn by the released codes' seeded choice"
    evaluate_run(run, [*LLCM, LLCM[0]], dataset=crossed, out=tmp_path, draws=10)
    assert len(described) == 72
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        *sorted(f"llcm_{name}.json" for name in LLCM), "llcm_test.safetensors",
    ]  # fmt: skip
    folder = RunFolder(tmp_path / "copy")
    shutil.copytree(tmp_path, folder.evaluation, ignore=shutil.ignore_patterns("copy"))
    for each in found:
        kept = read_test(folder, read_card(each.path))
        assert kept is not None
        assert torch.equal(kept.gallery.vectors, each.gallery.vectors)
        assert torch.equal(kept.evaluation.per_query_ap, each.evaluation.per_query_ap)


def test_what_a_figure_shows_of_a_test_is_without_what_the_card_s_camera_norm_took_out(
    make_run: MakeRun, people: Path, crossed: Dataset, tmp_path: Path
) -> None:
    run = RunFolder(tmp_path / "run")
    run.best.parent.mkdir(parents=True)
    shutil.copy(make_run("ide"), run.best)
    (mixed,) = evaluate_run(run.root, ["llcm_mixed"], dataset=crossed, camera_norm="modality", draws=10)
    (plain,) = evaluate_run(run.root, ["llcm_mixed"], dataset=crossed, draws=10)
    for each in (mixed, plain):
        kept = read_test(run, each.card)
        assert kept is not None
        rows = [kept.whole.query.paths.index(path) for path in each.query.paths]
        assert torch.allclose(kept.whole.query.vectors[rows], each.query.vectors, atol=1e-6)

    source = f"night600={people}"
    (centred,) = evaluate_run(
        run.root, dataset=open_dataset("night600", people), camera_norm="centre", mirror=False, draws=10
    )
    _, sides = describe_sides(run.root, data=source, card=centred.card)
    assert torch.allclose(sides.query.vectors, centred.query.vectors, atol=1e-6)
    assert torch.allclose(sides.gallery.vectors, centred.gallery.vectors, atol=1e-6)
