"""``tapetum plot``: one figure of finished runs, as PNG, SVG or PDF."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tapetum.cli._choices import Quiet

if TYPE_CHECKING:
    from tapetum.evaluation.metrics import Sides
    from tapetum.plots.style import Figure

app = typer.Typer(
    help="Draw one figure of finished runs, as PNG, SVG or PDF.",
    epilog="Example: tapetum plot cmc runs/ide_synth runs/idf_synth --out runs/cmc.png",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Runs = Annotated[list[Path], typer.Argument(help="Run folders, the baseline first.")]
Run = Annotated[Path, typer.Argument(help="An evaluated run folder.")]
Data = Annotated[str | None, typer.Option(help="NAME=ROOT of another dataset than the run's, or synth; described now.")]
ProtocolName = Annotated[
    str | None,
    typer.Option(
        "--protocol",
        help="One of the dataset's protocols; default: the recipe's, else the dataset's usual one, where a result card "
        "is of it; otherwise that of the first card.",
    ),
]
Out = Annotated[Path, typer.Option(help="The picture; its ending (.png, .svg, .pdf) says the format.")]


@app.command()
def curves(
    runs: Runs,
    out: Out = Path("runs/curves.png"),
    quantity: Annotated[
        list[str] | None, typer.Option(help="Part of a name, e.g. exposure; repeatable; default: everything.")
    ] = None,
) -> None:
    """Losses and validation on held-out people over the epochs, one panel each.

    Example: tapetum plot curves runs/ide_synth runs/idf_synth --out runs/curves.png
    """
    from tapetum.core.errors import DataError, nearest_name
    from tapetum.plots.curves import describe_curves, draw_curves, list_quantities
    from tapetum.report.runs import read_training

    training = read_training(runs)
    names = list_quantities(training)
    if quantity:
        some = [name for name in names if any(part in name for part in quantity)]
        if not some:
            raise DataError(
                f"--quantity {quantity[0]}: nothing logged is called so; {nearest_name(quantity[0], names)}"
            )
        names = some
    _write(out, draw_curves(training, quantities=names), describe_curves(training, quantities=names))


@app.command()
def cmc(
    runs: Runs,
    out: Out = Path("runs/cmc.png"),
    ranks: Annotated[int, typer.Option(min=1, help="Ranks shown.")] = 20,
) -> None:
    """How often the right person is among the first k answers, one line a result.

    Example: tapetum plot cmc runs/ide_synth runs/idf_synth --out runs/cmc.png
    """
    from tapetum.plots.cmc import describe_cmc, draw_cmc
    from tapetum.report.runs import read_runs

    lines = {result.label: result.card.metrics["cmc"] for run in read_runs(runs) for result in run.results}
    _write(out, draw_cmc(lines, ranks=ranks), describe_cmc(lines))


@app.command()
def slices(
    runs: Runs,
    out: Out = Path("runs/slices.png"),
    by: Annotated[str, typer.Option(help="Property the queries are cut by: light, size, noise, camera.")] = "light",
) -> None:
    """mAP by light, size, noise or camera of the queries, with bootstrap intervals and numbers of queries.

    Example: tapetum plot slices runs/ide_synth runs/idf_synth --by size --out runs/size.png
    """
    from tapetum.core.errors import DataError, nearest_name
    from tapetum.plots.slices import describe_slices, draw_slices
    from tapetum.report import cards
    from tapetum.report.runs import read_runs

    charts = cards.breakdowns([result for run in read_runs(runs) for result in run.results])
    known = {breakdown.name.lower(): breakdown for breakdown in charts}
    if by not in known:
        hint = nearest_name(by, known) if known else "the results were not cut into slices; evaluate again"
        raise DataError(f"--by {by}: no such slices in the result cards; {hint}")
    one = known[by]
    figure = draw_slices(one.levels, one.counts, one.values, intervals=one.intervals, quantity=one.quantity)
    words = describe_slices(one.levels, one.counts, one.values, intervals=one.intervals, quantity=one.quantity)
    _write(out, figure, words)


@app.command()
def ranking(
    runs: Runs,
    out: Out = Path("runs/ranking.png"),
    count: Annotated[int, typer.Option(min=1, help="Queries shown.")] = 5,
    depth: Annotated[int | None, typer.Option(min=1, help="Answers of each; default: 10, across modalities 8.")] = None,
    brighten: Annotated[
        bool, typer.Option("--brighten", help="Show the square root of each value, for the eye.")
    ] = False,
    worst: Annotated[bool, typer.Option("--worst", help="The worst queries, not some from easy to hard.")] = False,
    data: Data = None,
    protocol: ProtocolName = None,
    quiet: Quiet = False,
) -> None:
    """Rank lists: queries beside their first answers, right and wrong framed; several runs answer the same queries.

    The queries are the first run's worst, or spread from easy to hard over all runs; across modalities each says of
    which it is.

    Example: tapetum plot ranking runs/ide_synth runs/idf_synth --worst --brighten --out runs/worst.png
    """
    from tapetum.evaluation.slices import worst_queries
    from tapetum.plots.ranking_list import Answers, describe_ranking_list, draw_ranking_list
    from tapetum.report.collect import choose_queries, collect_rank_lists, crosses_modalities

    tests = _tests(runs, data, protocol, quiet=quiet)
    _check_alike(tests, "ranking")
    name, first = next(iter(tests.items()))
    across = crosses_modalities(first.query, first.gallery)
    evaluations = [test.evaluation for test in tests.values()]
    rows = worst_queries(first.evaluation, count).tolist() if worst else choose_queries(evaluations, count)
    lists = {
        label: collect_rank_lists(label, test, rows, depth=depth or (8 if across else 10))
        for label, test in tests.items()
    }
    answers = {
        label: Answers(
            [[answer.picture for answer in one.answers] for one in each],
            [[answer.right for answer in one.answers] for one in each],
        )
        for label, each in lists.items()
    }
    asked = lists[name]
    modalities = [one.modality for one in asked] if across else None
    title = name if len(tests) == 1 else "Rank lists"
    figure = draw_ranking_list(
        [one.query for one in asked],
        answers,
        captions=[one.caption.replace(", ", "\n") for one in asked],
        modalities=modalities,
        title=f"{title} (shown brightened)" if brighten else title,
        exponent=0.5 if brighten else 1.0,
    )
    words = describe_ranking_list(answers, captions=[one.caption for one in asked], modalities=modalities)
    _write(out, figure, words)


@app.command()
def distances(
    runs: Runs,
    out: Out = Path("runs/distances.png"),
    data: Data = None,
    protocol: ProtocolName = None,
    quiet: Quiet = False,
) -> None:
    """Cosine distances of all pairs, of one person and of two, infrared to visible where there are both.

    Example: tapetum plot distances runs/ide_synth runs/idf_synth --out runs/distances.png
    """
    from tapetum.plots.distances import describe_distances, draw_distances
    from tapetum.report.collect import collect_distances

    tests = _tests(runs, data, protocol, quiet=quiet)
    _check_alike(tests, "distances")
    pairs = collect_distances(tests)
    _write(out, draw_distances(pairs), describe_distances(pairs))


@app.command()
def embedding(
    runs: Runs,
    out: Out = Path("runs/embedding.png"),
    people: Annotated[int, typer.Option(min=1, help="People shown.")] = 20,
    pictures: Annotated[int, typer.Option(min=1, help="Pictures of a person in a modality at most.")] = 30,
    seed: Annotated[int, typer.Option(min=0, help="Draws people and pictures, and begins the map.")] = 0,
    data: Data = None,
    protocol: ProtocolName = None,
    quiet: Quiet = False,
) -> None:
    """A map (t-SNE) of some people's embeddings: a colour is a person, circles are visible, triangles infrared.

    Example: tapetum plot embedding runs/idf_synth --people 10 --out runs/embedding.svg
    """
    from tapetum.plots.embedding import describe_embedding, draw_embedding
    from tapetum.report.collect import collect_maps

    tests = _tests(runs, data, protocol, quiet=quiet)
    _check_alike(tests, "embedding")
    maps = collect_maps(tests, people=people, pictures=pictures, seed=seed)
    _write(out, draw_embedding(maps), describe_embedding(maps))


@app.command()
def enhancement(
    run: Run,
    out: Out = Path("runs/enhancement.png"),
    count: Annotated[int, typer.Option(min=1, help="Pictures shown.")] = 6,
) -> None:
    """Night pictures beside what the method's enhancer makes of them.

    Example: tapetum plot enhancement runs/idf_synth --out runs/enhancement.png
    """
    from tapetum.core.errors import DataError
    from tapetum.plots.enhancement import describe_enhancement, draw_enhancement
    from tapetum.report.runs import collect_run_pairs

    pairs = collect_run_pairs(run, count=count)
    if not pairs:
        raise DataError(f"{run}: its method has no enhancer; give a run of one that has, e.g. of the recipe idf_synth")
    night, enhanced = [pair.night for pair in pairs], [pair.enhanced for pair in pairs]
    figure = draw_enhancement(night, enhanced, captions=[pair.caption.replace(", ", "\n") for pair in pairs])
    _write(out, figure, describe_enhancement(night, enhanced))


@app.command()
def activation(
    runs: Runs,
    out: Out = Path("runs/activation.png"),
    data: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=ROOT[,KEY=VALUE]", help="A dataset; repeatable: side by side. Default: the first run's."
        ),
    ] = None,
    layer: Annotated[
        list[str] | None,
        typer.Option(
            help="A module with maps, a transformer's block, or a branch (night, enhanced); repeatable. Default: the "
            "last maps before pooling, or the last block, of each branch."
        ),
    ] = None,
    pictures: Annotated[int, typer.Option(min=1, help="Pictures of each dataset.")] = 4,
    query: Annotated[
        list[str] | None, typer.Option(help="A picture, by its file name or path, instead of drawn ones; repeatable.")
    ] = None,
    split: Annotated[str, typer.Option(help="Where the pictures are from: query, gallery or train.")] = "query",
    seed: Annotated[int, typer.Option(min=0, help="Draws the pictures, and the other picture of each person.")] = 0,
    brighten: Annotated[
        bool, typer.Option("--brighten", help="Show the square root of each value, for the eye.")
    ] = False,
    quiet: Quiet = False,
) -> None:
    """Where networks look: Grad-CAM of convolutional maps, attention rollout of a transformer's tokens.

    Grad-CAM explains a number: the score of the person's own class where the run was trained on them (--split train),
    else the cosine to another picture of the same person, of another camera where there is one. The rollout follows
    attention from the class token (or the pooled patches) back to the patches and explains no number. Each map is
    divided by its largest value. Pictures are not mirrored.

    Example: tapetum plot activation runs/ide_synth runs/idf_synth --pictures 2 --brighten --out runs/activation.png
    """
    from tapetum.plots.activation import describe_activation, draw_activation
    from tapetum.report.activation import Choice, collect_activations
    from tapetum.runs.progress import showing_pictures

    choice = Choice(pictures, split, tuple(query or ()), seed)
    with showing_pictures("reading", quiet=quiet) as progress:
        sheets = collect_activations(runs, sources=data or (), layers=layer or (), choice=choice, progress=progress)
    _write(out, draw_activation(sheets, exponent=0.5 if brighten else 1.0), describe_activation(sheets))


@app.command()
def samples(
    data: Annotated[
        list[str],
        typer.Option(
            metavar="NAME=ROOT[,KEY=VALUE]", help="A dataset, with its reading options, or synth; repeatable."
        ),
    ],
    out: Out = Path("runs/samples.png"),
    people: Annotated[int, typer.Option(min=1, help="People of each dataset: rows, from dark to bright.")] = 4,
    cameras: Annotated[int, typer.Option(min=1, help="Cameras at most: columns, infrared ones last.")] = 8,
    seed: Annotated[int, typer.Option(min=0, help="Draws people and pictures.")] = 0,
    brighten: Annotated[
        bool, typer.Option("--brighten", help="Show the square root of each value, for the eye.")
    ] = False,
    quiet: Quiet = False,
) -> None:
    """Pictures of datasets: a row a person, a column a camera, with the mean lightness of each.

    Example: tapetum plot samples --data synth=runs/scene --people 2 --brighten --out runs/samples.png
    """
    from tapetum.plots.samples import describe_samples, draw_samples
    from tapetum.report.samples import collect_samples
    from tapetum.runs.progress import showing_pictures
    from tapetum.runs.sources import parse_named_root

    sources = [parse_named_root(text) for text in data]
    with showing_pictures("reading", quiet=quiet) as progress:
        sheets = collect_samples(sources, people=people, cameras=cameras, seed=seed, progress=progress)
    _write(out, draw_samples(sheets, exponent=0.5 if brighten else 1.0), describe_samples(sheets))


@app.command()
def reliability(runs: Runs, out: Out = Path("runs/reliability.png")) -> None:
    """Of the pairs that `tapetum calibrate` gave a probability, how many show one person.

    Example: tapetum plot reliability runs/idf_synth --out runs/reliability.png
    """
    from tapetum.plots.reliability import describe_reliability, draw_reliability

    checks = _calibrations(runs)
    _write(out, draw_reliability(checks), describe_reliability(checks))


@app.command()
def verification(runs: Runs, out: Out = Path("runs/verification.png")) -> None:
    """Pairs of one person found against false alarms of comparisons, with the thresholds of `tapetum calibrate`.

    Example: tapetum plot verification runs/ide_synth runs/idf_synth --out runs/verification.png
    """
    from tapetum.plots.verification import describe_verification, draw_verification

    checks = _calibrations(runs)
    _write(out, draw_verification(checks), describe_verification(checks))


@app.command("open-set")
def open_set(runs: Runs, out: Out = Path("runs/open_set.png")) -> None:
    """People missed against false alarms of whole searches, FNIR at FPIR, with the thresholds of `tapetum calibrate`.

    Example: tapetum plot open-set runs/ide_synth runs/idf_synth --out runs/open_set.png
    """
    from tapetum.plots.verification import describe_verification, draw_open_set

    checks = _calibrations(runs)
    _write(out, draw_open_set(checks), describe_verification(checks))


def _calibrations(runs: list[Path]) -> "dict[str, Mapping[str, Any]]":
    """What the calibration of each run was worth on people it was not fitted on, one entry a pair of modalities."""
    from tapetum.evaluation.calibration import read_calibration
    from tapetum.inference.identity import calibration_path

    return {
        f"{run.name}, {pair}" if len(runs) > 1 else pair: check
        for run in runs
        for pair, check in read_calibration(calibration_path(run)).checked.items()
    }


def _tests(runs: list[Path], data: str | None, protocol: str | None, *, quiet: bool) -> "dict[str, Sides]":
    """Both sides of each run's test: as evaluated, or described now where others are asked for."""
    from tapetum.report.runs import find_test
    from tapetum.report.sides import describe_sides
    from tapetum.runs.progress import showing_pictures

    tests: dict[str, Sides] = {}
    label: str
    test: Sides
    for run in runs:
        name, card = protocol, None
        if data is None and protocol is None:
            result, test = find_test(run)
            label, card = result.label, result.card
            if card.rules.drawn:  # of the drawn side, only what some trial takes is kept
                name = card.rules.name
        if data is not None or name is not None:
            with showing_pictures("extracting", quiet=quiet) as progress:
                label, test = describe_sides(run, data=data, protocol=name, card=card, progress=progress)
        tests[label if label not in tests else str(run)] = test
    return tests


def _check_alike(tests: "Mapping[str, Sides]", figure: str) -> None:
    """Runs side by side were tested on the same pictures.

    Raises:
        DataError: one was not.
    """
    from tapetum.core.errors import DataError
    from tapetum.report.sides import hold_same_pictures

    (name, first), *others = tests.items()
    for other, test in others:
        sides = ((test.query, first.query), (test.gallery, first.gallery))
        if not all(hold_same_pictures(*side) for side in sides):
            raise DataError(
                f"plot {figure}: {other} was tested on other pictures than {name}, so they cannot stand side by side; "
                "name runs of one data set and protocol, or add --data NAME=ROOT"
            )


def _write(out: Path, figure: "Figure", words: str) -> None:
    """The file, and on the screen what it shows for whoever cannot see it."""
    from tapetum.core.atomic import make_folder, write_bytes
    from tapetum.core.errors import OutputError
    from tapetum.plots.style import figure_bytes

    try:
        content = figure_bytes(figure, out.suffix.lower())
    except OutputError as error:
        raise OutputError(f"{out}: {error}") from None
    make_folder(out.parent)
    write_bytes(out, content)
    typer.echo(words)
    typer.echo(f"{out}: written")
