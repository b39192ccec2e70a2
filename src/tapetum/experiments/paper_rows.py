"""What a table of a paper is made of: rows, the pictures of each, and what is printed of it."""

from collections.abc import Callable
from dataclasses import dataclass

from tapetum.experiments.published import Published

QUANTITIES = {"rank1": "R-1", "rank5": "R-5", "rank10": "R-10", "rank20": "R-20", "mean_ap": "mAP"}


@dataclass(frozen=True)
class Rewriting:
    """A data set's pictures, all written anew once before a training.

    Attributes:
        by: "ada_gamma", "enlighten_gan" or "zero_dce" brightens them, "gamma" darkens them.
        recipe: trains the network that does it, on the training pictures, where no weights are given; None where there
            is nothing to train, or where the weights must be given.
    """

    by: str
    recipe: str | None = None

    @property
    def folder(self) -> str:
        """Where the pictures lie in a table's folder."""
        return f"pictures_{self.by}"


@dataclass(frozen=True)
class Domain:
    """Pictures to train or test on.

    Attributes:
        overrides: changes that these pictures bring to a recipe beyond name and root.
        rewriting: how they are made of those that `data` and `overrides` name; None takes these as they are.
    """

    data: str
    overrides: tuple[str, ...] = ()
    title: str = ""
    rewriting: Rewriting | None = None


@dataclass(frozen=True)
class PaperRow:
    """One row of a table.

    Attributes:
        run: name of the run folder; rows with the same one share a training.
        recipe: None where the row is shown as published and nothing is run.
        published: the paper's row; None where the paper has none.
        enhancer: recipe of a curve network that is trained first and brightens this row's pictures in the network.
        group, series: of a figure, the bars that stand together and the method that they are of.
    """

    label: str
    run: str
    recipe: str | None
    train_on: Domain
    test_on: Domain
    overrides: tuple[str, ...] = ()
    published: Published | None = None
    enhancer: str | None = None
    group: str = ""
    series: str = ""


@dataclass(frozen=True)
class PaperTable:
    """A printed table.

    Attributes:
        paper: where it is printed.
        pictures: what its figures were counted on.
        rows: its rows; given True, those on the generated scene.
        remark: what holds for the printed table as a whole.
        scenes: its rows on the generated scene need several, which are made for them.
        figure: it is drawn as well, in groups of bars.
        quantities: what is shown of each row, of `QUANTITIES`.
    """

    paper: str
    title: str
    pictures: str
    rows: Callable[[bool], list[PaperRow]]
    remark: str = ""
    scenes: bool = False
    figure: bool = False
    quantities: tuple[str, ...] = ("rank1", "rank5", "rank10", "mean_ap")
