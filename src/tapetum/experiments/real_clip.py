"""Trained methods on a real clip: people cut out of it, as they are and darkened by the sensor model."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from tapetum.core.errors import DataError
from tapetum.data.catalog import Dataset, open_dataset
from tapetum.data.darken import darken_dataset
from tapetum.data.lighting import light_levels, measure_pictures
from tapetum.data.threads import Progress
from tapetum.evaluation.rerank import RerankOptions
from tapetum.footage.crop_video import crop_video, open_clip
from tapetum.footage.frames import read_frame_at
from tapetum.inference.evaluate import Evaluated, evaluate_run
from tapetum.report import cards
from tapetum.report.collect import choose_queries, collect_pairs, collect_rank_lists
from tapetum.report.content import EnhancedPair, QueryRanking, RealClip, Result
from tapetum.runs.checkpoint import load_checkpoint

CLIP_WEIGHT = 40.0  # seconds on two CPU cores
SEARCHES = 2
PAIRS = 6
LOOKS = {"day": "as they are", "night": "darkened"}


def check_clip(clip: Path) -> None:
    """Refuse at once what is no clip.

    Raises:
        DataError: it is missing, holds no video or is damaged at its beginning.
    """
    if not clip.is_file():
        raise DataError(f"{clip}: no such clip; give a video file, e.g. make demo-real CLIP=path/to/clip.mp4")
    read_frame_at(open_clip(clip), 0.0)


def run_clip(
    clip: Path, runs: Mapping[str, Path], out: Path, *, command: str, progress: Progress | None = None
) -> RealClip:
    """Cut people out of a clip, darken a copy, and evaluate every method on both.

    The first half of each appearance searches, the second half is searched.

    Args:
        runs: label -> run folder of a trained method, the baseline first.
    Raises:
        DataError: the clip is missing, damaged or shows nobody.
    """
    crops = crop_video(clip, out / "day", progress=progress)
    darken_dataset(out / "day", out / "night")
    datasets = {look: open_dataset("folder", out / look) for look in LOOKS}
    found = {
        look: {
            label: evaluate_run(
                run, dataset=dataset, rerank=RerankOptions(), out=out / "evaluation" / f"{run.name}_{look}"
            )[0]
            for label, run in runs.items()
        }
        for look, dataset in datasets.items()
    }
    results = {
        look: tuple(Result(label, each.card) for label, each in by_label.items()) for look, by_label in found.items()
    }
    times = [crop.time_seconds for crop in crops.crops]
    return RealClip(
        name=clip.name,
        facts={
            "frames": crops.frames,
            "appearances found": crops.appearances,
            "crops": len(crops.crops),
            "from / to (seconds)": f"{min(times):.1f} / {max(times):.1f}",
            **{f"light, {LOOKS[look]} (low / medium / high)": _light(dataset) for look, dataset in datasets.items()},
        },
        as_is=results["day"],
        darkened=results["night"],
        rank_lists=tuple(ranked for look in LOOKS for ranked in _rank_lists(found[look], LOOKS[look])),
        pairs=next(filter(None, (_pairs(out, run, datasets["night"]) for run in reversed(list(runs.values())))), ()),
        command=command,
        note=(
            "One static camera saw each person once. Query and gallery are the two halves of one appearance, so "
            "background and clothes agree: this is far easier than finding a person under another camera, and says "
            "that the parts work together on real pictures, no more. The methods never saw a real picture in training."
        ),
        chance=cards.chance(results["day"][0].card),
    )


def _light(dataset: Dataset) -> str:
    levels = light_levels(measure_pictures(dataset.records).lightness)
    return " / ".join(f"{100 * float((levels == name).mean()):.0f} %" for name in ("low", "medium", "high"))


def _rank_lists(found: Mapping[str, Evaluated], look: str) -> list[QueryRanking]:
    rows = choose_queries([each.evaluation for each in found.values()], SEARCHES)
    lists = [collect_rank_lists(label, each, rows) for label, each in found.items()]
    return [
        replace(ranked, caption=f"{ranked.caption}, {look}") for group in zip(*lists, strict=True) for ranked in group
    ]


def _pairs(out: Path, run: Path, night: Dataset) -> tuple[EnhancedPair, ...]:
    """Darkened queries beside their enhancement and what they were before."""
    queries = night.split("query")
    chosen = queries[:: max(1, len(queries) // PAIRS)][:PAIRS]
    checkpoint = load_checkpoint(run)
    data = checkpoint.header.recipe["data"]
    return collect_pairs(
        checkpoint.network,
        [record.path for record in chosen],
        size=tuple(data["size"]),
        captions=[f"person {record.pid}" for record in chosen],
        originals=[out / "day" / record.path.relative_to(night.root) for record in chosen],
        interpolation=data["interpolation"],
        backend=data["backend"],
    )
