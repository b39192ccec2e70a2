"""What a league says: one line a method with its cost, and which differences in mAP are real."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tapetum.core.atomic import write_bytes
from tapetum.core.errors import DataError
from tapetum.core.processor import tells_generation
from tapetum.core.seeding import numpy_generator
from tapetum.core.versions import read_versions
from tapetum.evaluation.bootstrap import mean_and_deviation, paired_bootstrap
from tapetum.evaluation.slices import BIAS, OWN_FIRST, OWN_SHARE
from tapetum.plots.differences import describe_differences, draw_differences
from tapetum.plots.style import figure_bytes

QUALITY = {"rank1": "rank-1", "rank5": "rank-5", "mean_ap": "mAP", "mean_inp": "mINP"}
PAIRED = ("mean_ap", "rank1")
DRAWS = 4000
LEVEL = 0.95
SEARCHES = ("visible", "infrared")  # queries of a gallery of both modalities
UNTOLD = "several generations have one name, so the speeds of such rows order nothing."
COST = ("training_pictures_per_second", "extraction_pictures_per_second", "peak_memory_bytes")


def summarise(
    results: Sequence[Mapping[str, Any]],
    *,
    family: str,
    pictures: str,
    scene: Mapping[str, Any],
    starts: Mapping[str, str],
    planned: Mapping[str, int],
    mixed: str | None = None,
) -> dict[str, Any]:
    """The content of ``league.json``: fractions, per method, and every pair of methods.

    Args:
        results: one a run, as in the run folders.
        pictures: fingerprint of the scene as it is generated here and now.
        scene: settings of the scene and how many pictures it has.
        starts: label -> what its networks start from.
        planned: label -> seeds that the league asks for, in the order of the rows.
        mixed: protocol of its scene with one gallery of both modalities; None where there is one modality.
    """
    runs = {label: [each for each in results if each["label"] == label] for label in planned}
    rows = [_summarise_row(label, some, starts[label], planned[label]) for label, some in runs.items() if some]
    return {
        "family": family,
        "scene": dict(scene),
        "chance": results[0]["testing"]["chance"],
        "protocol": results[0]["testing"]["protocol"],
        "ap": results[0]["testing"]["ap"],
        "versions": read_versions(),
        "pictures": pictures,
        "other_pictures": _list_strangers(results, pictures),
        "mixed": None if mixed is None else _summarise_mixed(mixed, results),
        "rows": rows,
        "open": [label for label, some in runs.items() if not some],
        "pairs": compare_rows([some for some in runs.values() if some]),
    }


def check_result(result: Mapping[str, Any]) -> None:
    """All that a table takes from a run is there.

    Raises:
        AttributeError, LookupError, TypeError, ValueError: something is not.
    """
    _summarise_row(result["label"], [result], "", 1)
    _summarise_mixed("", [result])
    testing, (_, counts) = result["testing"], _count_queries(result)
    wanted = {"protocol", "ap", "chance"} - testing.keys() or {"rank1", "mean_ap"} - testing["chance"].keys()
    if wanted:
        raise LookupError(f"no {', '.join(sorted(wanted))} in testing")
    for name in PAIRED:
        if len(_of_queries(result, name)) != counts.sum():
            raise ValueError(f"queries: {name} is not of all people")


def _summarise_mixed(protocol: str, results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What a gallery of both modalities is to all rows, and of how many runs it is not known."""
    found = [each["testing"]["mixed"] for each in results if "mixed" in each["testing"]]
    summary: dict[str, Any] = {"protocol": protocol, "runs_without": len(results) - len(found)}
    if found:
        summary |= {name: found[0][name] for name in ("chance", "infrared_share")}
        summary[OWN_SHARE] = {name: found[0]["modality"][name][OWN_SHARE] for name in SEARCHES}
    return summary


def _list_strangers(results: Sequence[Mapping[str, Any]], pictures: str) -> dict[str, list[str]]:
    """Fingerprint -> the runs that were made on it and not on the scene as it is now."""
    strangers: dict[str, list[str]] = {}
    for each in results:
        if (theirs := each.get("data") or pictures) != pictures:
            strangers.setdefault(theirs, []).append(f"{each['label']} by seed {each['seed']}")
    return strangers


def _summarise_row(label: str, runs: Sequence[Mapping[str, Any]], start: str, planned: int) -> dict[str, Any]:
    trained, tested = [run["training"] for run in runs], [run["testing"] for run in runs]
    columns: list[list[float | None]] = [
        [each["pictures_per_second"] for each in trained],
        [each["pictures_per_second"] for each in tested],
        [each["peak_memory_bytes"] for each in trained],
    ]
    return {
        "label": label,
        "recipe": runs[0]["recipe"],
        "start": start,
        "seeds": [run["seed"] for run in runs],
        "seeds_planned": planned,
        **{name: _spread([each["metrics"][name] for each in tested]) for name in QUALITY},
        "epochs": trained[0]["epochs"],
        "steps_an_epoch": trained[0]["steps"],
        "batch": trained[0]["batch"],
        "training_seconds": [each["seconds"] for each in trained],
        "checkpoint": tested[0]["checkpoint"],
        "parameters": tested[0]["parameters"],
        "multiply_adds": tested[0]["multiply_adds"],
        "mirror": tested[0]["mirror"],
        "mixed": _summarise_row_mixed(runs),
        **{name: _median(values) for name, values in zip(COST, columns, strict=True)},
        "machines": sorted({f"{each['machine']}, {each['threads']} threads, {each['precision']}" for each in trained}),
        "load": max((each["load"][0] for each in (*trained, *tested) if each.get("load")), default=None),
    }


def _summarise_row_mixed(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Of the runs that were tested in a gallery of both modalities; None where none was."""
    known = [(run["seed"], run["testing"]["mixed"]) for run in runs if "mixed" in run["testing"]]
    if not known:
        return None
    return {
        "seeds": [seed for seed, _ in known],
        **{name: _spread([each["metrics"][name] for _, each in known]) for name in ("rank1", "mean_ap")},
        **{
            name: {level: _spread([each["modality"][level][name] for _, each in known]) for level in SEARCHES}
            for name in (OWN_FIRST, BIAS)
        },
    }


def _spread(values: Sequence[float]) -> dict[str, Any]:
    mean, deviation = mean_and_deviation(values)
    return {"mean": mean, "deviation": deviation if len(values) > 1 else None, "each": list(values)}


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.median(known)) if known else None


def compare_rows(runs: Sequence[Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """Every pair of methods: differences with their intervals, and whether that in mAP is real.

    With a single training of one of them nobody can say: ``real`` is None.
    """
    labels = [some[0]["label"] for some in runs]
    people, counts = _count_queries(runs[0][0])
    for label, some in zip(labels, runs, strict=True):
        if any(not np.array_equal(_count_queries(each), (people, counts)) for each in some):
            raise DataError(f"{label} was tested with other queries than {labels[0]}; delete its run folders")
    found = {}
    people = np.repeat(people, counts)
    for name in PAIRED:
        values = [np.stack([_of_queries(each, name) for each in some]) for some in runs]
        rng = numpy_generator(0, "league")  # the same people for both quantities
        found[name] = paired_bootstrap(values, people, rng=rng, draws=DRAWS, level=LEVEL)
    pairs = []
    for i, first in enumerate(labels):
        for j in range(i + 1, len(labels)):
            entry: dict[str, Any] = {"rows": [first, labels[j]]}
            for name, paired in found.items():
                entry[name] = {
                    "difference": round(float(paired.difference[i, j]), 6),
                    "low": round(float(paired.low[i, j]), 6),
                    "high": round(float(paired.high[i, j]), 6),
                }
            decidable = min(len(runs[i]), len(runs[j])) > 1
            entry["real"] = found["mean_ap"].is_real(i, j) if decidable else None
            pairs.append(entry)
    return pairs


def _count_queries(run: Mapping[str, Any]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """People, sorted, and how many queries each of them has."""
    queries = run["queries"]
    if "counts" in queries:
        return np.array(queries["pids"], dtype=np.int64), np.array(queries["counts"], dtype=np.int64)
    pids, counts = np.unique(np.array(queries["pids"], dtype=np.int64), return_counts=True)
    return pids, counts.astype(np.int64)


def _of_queries(run: Mapping[str, Any], name: str) -> NDArray[np.float64]:
    """What each query gave, by person; in its place the person's mean where no more was kept."""
    queries = run["queries"]
    values = np.array(queries[name], dtype=np.float64)
    if "counts" in queries:
        return np.repeat(values, queries["counts"])
    return values[np.argsort(np.array(queries["pids"]), kind="stable")]


def _matrix(content: Mapping[str, Any]) -> tuple[list[str], NDArray[np.float64], list[list[bool | None]]]:
    """Labels, (R, R) differences in mAP, and whether each is real."""
    labels = [row["label"] for row in content["rows"]]
    differences = np.zeros((len(labels), len(labels)))
    real: list[list[bool | None]] = [[False] * len(labels) for _ in labels]
    for pair in content["pairs"]:
        i, j = map(labels.index, pair["rows"])
        differences[i, j], differences[j, i] = pair["mean_ap"]["difference"], -pair["mean_ap"]["difference"]
        real[i][j] = real[j][i] = pair["real"]
    return labels, differences, real


def write_figure(path: Path, content: Mapping[str, Any]) -> None:
    """The matrix of differences in mAP as a figure; one that cannot be decided yet is drawn like none."""
    labels, differences, real = _matrix(content)
    write_bytes(path, figure_bytes(draw_differences(labels, differences, _is_true(real)), path.suffix))


def _is_true(real: Sequence[Sequence[bool | None]]) -> NDArray[np.bool_]:
    return np.array([[entry is True for entry in row] for row in real])


def render_league(content: Mapping[str, Any], figure: str = "league.svg") -> str:
    """A league as Markdown.

    Args:
        figure: where `write_figure` wrote, seen from the page.
    """
    scene, rows, chance, count = content["scene"], content["rows"], content["chance"], len(content["pairs"])
    missing = sum(row["seeds_planned"] - len(row["seeds"]) for row in rows)
    lines = [
        f"# League: {content['family']} methods on one generated night scene",
        "",
        "Percent, mean ± deviation over seeds.",
        "",
        f"{scene['num_train_people']} people to train on ({scene['training_pictures']} pictures), "
        f"{scene['num_test_people']} others to find ({scene['testing_pictures']} pictures), {scene['cameras']} "
        f"cameras. Protocol {content['protocol']}, AP {content['ap']}; chance: rank-1 {100 * chance['rank1']:.2f}, "
        f"mAP {100 * chance['mean_ap']:.2f}. Generated pictures tell methods apart under known conditions; they do not "
        "say how a method does on a street.",
        "",
    ]
    for fingerprint, runs in content["other_pictures"].items():
        lines += [
            f"**Not the same pictures**: {', '.join(runs)}, on pictures with the fingerprint {fingerprint}; this "
            f"scene's is {content['pictures']}. A machine that rounds otherwise renders alike but for last bits; "
            "another version of the generator may not: then delete these runs' files to train them again.",
            "",
        ]
    open_still = [f"{missing} runs of these rows are still to come"] if missing else []
    open_still += [f"of {', '.join(content['open'])} there is nothing yet"] if content["open"] else []
    if open_still:
        lines += [f"**Not complete**: {'; '.join(open_still)}.", ""]
    lines += _table(
        ["method", *QUALITY.values(), "seeds", "starts from"],
        [
            [
                row["label"],
                *(_percent(row[name]) for name in QUALITY),
                ", ".join(map(str, row["seeds"])),
                row["start"],
            ]
            for row in rows
        ],
    )
    if content["mixed"] is not None:
        lines += ["", *_render_mixed(content["mixed"], rows)]
    lines += ["", "What it costs:", ""]
    lines += _table(
        [
            "method",
            "parameters, 10⁶",
            "multiply-adds a picture, 10⁹",
            "training, pictures/s",
            "extraction, pictures/s",
            "peak memory in training, MiB",
            "epochs x steps x batch",
        ],
        [
            [
                row["label"],
                f"{row['parameters'] / 1e6:.2f}",
                f"{row['multiply_adds'] / 1e9:.3f}{' (with its mirror)' if row['mirror'] else ''}",
                _number(row["training_pictures_per_second"]),
                _number(row["extraction_pictures_per_second"]),
                _number(row["peak_memory_bytes"] and row["peak_memory_bytes"] / 2**20),
                f"{row['epochs']} x {row['steps_an_epoch']} x {row['batch']}",
            ]
            for row in rows
        ],
    )
    machines = sorted({machine for row in rows for machine in row["machines"]})
    load = max((row["load"] for row in rows if row["load"] is not None), default=None)
    untold = [machine for machine in machines if not tells_generation(machine)]
    lines += [
        "",
        f"Speeds are medians over seeds, measured in these very runs on {'; '.join(machines)}"
        + (f", with a load of up to {load:.1f}" if load is not None else "")
        + ": another process beside them slows a row down, so they order methods only roughly. Peak memory is of the "
        "whole process in training, with the pictures that it keeps. Parameters count the classifiers; multiply-adds "
        "are those of describing one picture, by `torch.utils.flop_counter`, which leaves out norms and activations.",
        "",
        *([f"**Of {'; '.join(untold)} the CPU's generation was not noted**: {UNTOLD}", ""] if untold else []),
        f"Differences in mAP, row minus column, in points. *Real*: the {100 * LEVEL:.0f} % interval of a paired "
        "bootstrap excludes 0, with the testing people drawn anew (the same for both) and the trainings of each row "
        f"drawn anew. With {count} pairs, {count * (1 - LEVEL):.1f} would be called real by chance if "
        "all were alike. *One seed*: not decidable yet.",
        "",
        *_render_matrix(content, figure),
        "",
        *_table(
            ["pair", "mAP", "interval", "verdict", "rank-1", "interval"],
            [
                [
                    " − ".join(pair["rows"]),
                    _signed(pair["mean_ap"]["difference"]),
                    _ends(pair["mean_ap"]),
                    _verdict(pair["real"]),
                    _signed(pair["rank1"]["difference"]),
                    _ends(pair["rank1"]),
                ]
                for pair in content["pairs"]
            ],
        ),
    ]
    return "\n".join([*lines, ""])


def _render_mixed(mixed: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The table of the gallery of both modalities, and how to read it."""
    text = (
        f"One gallery of both modalities: every test picture searches among all others, protocol {mixed['protocol']}. "
        "*Own first*: for what part of the visible and of the infrared queries the nearest picture, whoever it shows, "
        "is of their own modality. *Bias*: that, divided by what part of the pictures is of it; 1 where the modality "
        "plays no part."
    )
    if "infrared_share" in mixed:
        shares, chance = [mixed[OWN_SHARE][name] for name in SEARCHES], mixed["chance"]
        text += (
            f" {100 * mixed['infrared_share']:.1f} % of the pictures are infrared. Of those ranked, "
            f"{100 * shares[0]:.1f} % are visible for a visible query and {100 * shares[1]:.1f} % infrared for an "
            f"infrared one, so no bias can be above {1 / shares[0]:.2f} and {1 / shares[1]:.2f}. Chance: rank-1 "
            f"{100 * chance['rank1']:.2f}, mAP {100 * chance['mean_ap']:.2f}."
        )
    if mixed["runs_without"]:
        text += f" **{mixed['runs_without']} runs were kept before this was measured** and have no part in it."
    cells = []
    for row in rows:
        of_row = row["mixed"]
        if of_row is None:
            cells.append([row["label"], *["–"] * 7])
            continue
        firsts = [_percent(of_row[OWN_FIRST][name]) for name in SEARCHES]
        biases = [_ratio(of_row[BIAS][name]) for name in SEARCHES]
        quality = [_percent(of_row[name]) for name in ("rank1", "mean_ap")]
        cells.append([row["label"], *quality, *firsts, *biases, ", ".join(map(str, of_row["seeds"]))])
    columns = [f"{name}, {queries}" for name in ("own first", "bias") for queries in SEARCHES]
    return [text, "", *_table(["method", "rank-1", "mAP", *columns, "seeds"], cells)]


def _render_matrix(content: Mapping[str, Any], figure: str) -> list[str]:
    labels, differences, real = _matrix(content)
    described = describe_differences(labels, differences, _is_true(real))
    table = _table(
        ["", *labels],
        [
            [
                label,
                *(
                    "" if i == j else f"{_signed(float(differences[i, j]))} {_verdict(real[i][j])}"
                    for j in range(len(labels))
                ),
            ]
            for i, label in enumerate(labels)
        ],
    )
    return [*table, "", f"![{described}]({figure})"]


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return ["| " + " | ".join(cells) + " |" for cells in (header, ["---"] * len(header), *rows)]


def _percent(value: Mapping[str, Any]) -> str:
    text = f"{100 * value['mean']:.1f}"
    return text if value["deviation"] is None else f"{text} ± {100 * value['deviation']:.1f}"


def _ratio(value: Mapping[str, Any]) -> str:
    text = f"{value['mean']:.2f}"
    return text if value["deviation"] is None else f"{text} ± {value['deviation']:.2f}"


def _signed(value: float) -> str:
    return f"{100 * value:+.1f}"


def _ends(value: Mapping[str, float]) -> str:
    return f"{_signed(value['low'])} to {_signed(value['high'])}"


def _verdict(real: bool | None) -> str:
    return "one seed" if real is None else "real" if real else "none"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.0f}"
