"""Student: what IDF knows of a night picture, taught to one branch that searches at the cost of the baseline.

IDF trains as ever. Beside it trains one network of its own, an ordinary one of the extractor's method, that is searched
with on the night picture alone: it learns the identities, on that picture and as IDF brightens it, follows the class
scores of IDF's fused head, and is to find pictures as similar to each other as IDF's vectors for search are. Nothing
flows back into IDF. A search uses the student alone.

Source: ours; there is no paper. The teacher is `tapetum.methods.idf`; for the two losses see
`tapetum.losses.distillation` (Hinton et al., 2015) and `tapetum.losses.similarity` (Tung and Mori, 2019).
Differs: from IDF in the vector for search, which is the student's.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

from torch import Tensor, nn

from tapetum.core.errors import RecipeError
from tapetum.core.method import TrainingFacts
from tapetum.core.options import option, plain_options, read_options, require
from tapetum.core.types import Batch
from tapetum.layers.branch import HeadOutput
from tapetum.layers.normalisation import Normalisation
from tapetum.layers.recompute import without_statistics
from tapetum.losses.distillation import distillation
from tapetum.losses.similarity import similarity_distillation
from tapetum.methods import idf
from tapetum.methods._single_branch import SingleBranch

SHARED = ("extractor", "extractor_options", *idf.OWN_EXTRACTOR_OPTIONS)  # the teacher's, unless it names its own
SMALL = {  # for tests
    "extractor_options": {"backbone": "test_resnet", "width": 16, "dropout": 0.0},
    "teacher": {"curve_width": 4},
}
TRAINING_ONLY = ("teacher", "centres")


@dataclass(frozen=True)
class Options:
    """What a recipe may set under ``method:``."""

    # the student, and each extractor of the teacher that does not name its own
    extractor: str = option("ide", "a method file with a class Branch")
    extractor_options: Mapping[str, Any] = option({}, "that file's options, e.g. backbone: resnet18")
    input_scale: float = option(1.0, "pictures in 0..1 are multiplied by this", above=0)
    normalisation: Normalisation = option("imagenet", "of the pictures")
    test_feature: Literal["head", "backbone"] = option("head", "'head': the embedding; 'backbone': pooled features")

    teacher: Mapping[str, Any] = option({}, "IDF's options; those above hold for it too where it names no others")

    # losses; 0 switches a term off
    score_weight: float = option(1.0, "of the divergence from the class scores of the teacher's fused head", least=0)
    score_temperature: float = option(2.0, "divides both scores; the loss is multiplied by its square", above=0)
    similarity_weight: float = option(0.0, "of the difference from the similarities of the teacher's vectors", least=0)
    bright_weight: float = option(1.0, "of the student's own losses on the pictures as IDF brightens them", least=0)

    def __post_init__(self) -> None:
        idf.extractor_settings(self)
        require(
            teacher_options(self).fusion != "none" or not self.score_weight,
            "method.teacher.fusion: none leaves no fused head to follow; set method.score_weight: 0, or a fusion",
        )
        require(
            teacher_options(self).streams != "night_twice" or not self.bright_weight,
            "method.teacher.streams: night_twice brightens nothing; set method.bright_weight: 0, or other streams",
        )

    def written_out(self) -> dict[str, Any]:
        """As plain values, the options of extractor and teacher whole."""
        own, teacher = idf.write_extractor_options(self), teacher_options(self).written_out()
        return {**plain_options(self), "extractor_options": own, "teacher": teacher}


def teacher_options(options: Options) -> idf.Options:
    """IDF's options.

    Raises:
        RecipeError: one of them is unknown or wrong.
    """
    shared = {name: getattr(options, name) for name in SHARED}
    if "extractor" in options.teacher:
        del shared["extractor_options"]  # they are another file's
    try:
        return read_options(idf.Options, {**shared, **options.teacher})
    except RecipeError as error:
        raise RecipeError(f"method.teacher: {error}") from error


@dataclass(frozen=True)
class Output:
    """What the two networks give.

    Attributes:
        student: feature, embedding and class scores of the student.
        teacher: all that IDF gives.
        bright: what the student makes of the brightened pictures; None outside training and where it has no weight.
    """

    student: HeadOutput
    teacher: idf.Output
    bright: HeadOutput | None

    @property
    def logits(self) -> Tensor:
        """(B, num_ids) class scores of the student."""
        return self.student.first_logits


class Method(nn.Module):
    """IDF as the teacher, and the student."""

    def __init__(self, options: Options, facts: TrainingFacts) -> None:
        super().__init__()
        self.options = options
        self.facts, self.num_ids = facts, facts.num_ids
        module, settings = idf.extractor_settings(options)
        own = {name: getattr(options, name) for name in idf.OWN_EXTRACTOR_OPTIONS}
        self.student = cast(SingleBranch, module.Method(dataclasses.replace(settings, **own), facts))
        self.teacher = idf.Method(teacher_options(options), facts)
        self.normalise = self.student.normalise

    def forward(self, images: Tensor, modalities: Tensor, camids: Tensor) -> Output:
        """What both make of the pictures; a search needs the student's half, see `embed`."""
        teacher = self.teacher(images, modalities, camids)
        bright = None
        if self.training and self.options.bright_weight and teacher.enhanced is not None:
            scale = self.teacher.options.input_scale
            pictures = teacher.enhanced.detach().float().clamp(0, scale) / scale
            with without_statistics(self.student):  # batch norms are to know night pictures, as a search has no others
                bright = self.student(pictures, modalities, camids)
        return Output(self.student(images, modalities, camids), teacher, bright)

    def losses(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        """IDF's, the student's own (of night and bright pictures), and what it learns from the teacher, weighted."""
        options = self.options
        student, teacher = output.student, output.teacher
        losses = self.teacher.losses(teacher, batch)
        losses |= {f"{name}_student": value for name, value in self.student.losses(student, batch).items()}
        if output.bright is not None:
            bright = self.student.branch.losses(output.bright, batch, self.student.head)  # weights' own count once
            losses |= {f"{name}_bright": options.bright_weight * value for name, value in bright.items()}
        if options.score_weight:
            losses["scores"] = options.score_weight * distillation(
                student.first_logits, teacher.heads["f"].first_logits, temperature=options.score_temperature
            )
        if options.similarity_weight:
            losses["similarities"] = options.similarity_weight * similarity_distillation(
                self.student.scale(self.student.describe(student)), self.teacher.describe(teacher)
            )
        return losses

    def embed(self, images: Tensor, modalities: Tensor, camids: Tensor, *, mirror: bool = False) -> Tensor:
        """The student's vectors for search, (B, D) float32 of unit length; the teacher is not run."""
        return self.student.embed(images, modalities, camids, mirror=mirror)

    def for_search(self) -> nn.Module:
        """The student."""
        return self.student

    def parameter_groups(self) -> Mapping[str, list[nn.Parameter]]:
        """IDF's groups, the student's backbone and head among them."""
        groups = {name: list(members) for name, members in self.teacher.parameter_groups().items()}
        for name, members in self.student.parameter_groups().items():
            groups.setdefault(name, []).extend(members)
        return groups

    def load_pretrained(self, source: str) -> None:
        """Give the student and both of the teacher's extractors the same weights."""
        self.student.load_pretrained(source)
        self.teacher.load_pretrained(source)
