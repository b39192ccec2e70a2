"""IDE+: identity classification on a pooled backbone feature, the baseline of the IDF paper.

Source: layumi/Person_reID_baseline_pytorch, as carried in the IDF release (Alexadlu/IDF).
Differs: the backbone's dead 1000-way ImageNet classifier is not built; exported checkpoints hold it as zeros.
"""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from tapetum.core.options import option
from tapetum.core.types import Batch
from tapetum.layers.backbones import Pooling
from tapetum.layers.branch import HeadOutput
from tapetum.layers.normalisation import Normalisation
from tapetum.methods._official import OfficialFormat, Renaming, Tensors, read_tensor_size
from tapetum.methods._single_branch import BackboneBranch, SingleBranch

SMALL = {"backbone": "test_resnet", "width": 16, "dropout": 0.0}  # for tests


@dataclass(frozen=True)
class Options:
    """What a recipe may set under ``method:``."""

    backbone: str = option("resnet50", "a timm model that gives maps, or a plain vision transformer")
    last_stride: int = option(2, "1 keeps the last stage's resolution")
    patch_stride: int | None = option(
        None, "of a vision transformer: pixels from one patch to the next; null: a patch's side", least=1
    )
    pooling: Pooling = option("average", "of maps or of the patches' tokens; or a vision transformer's class token")
    width: int = option(512, "of the embedding", least=1)
    dropout: float = option(0.5, "probability of dropping an element of the embedding in training", least=0, below=1)
    label_smoothing: float = option(0.0, "share of the target that goes to all classes alike", least=0, below=1)
    classifier_std: float = option(0.001, "initial weights; later layumi releases use 0.0001", least=0)
    input_scale: float = option(
        1.0, "pictures in 0..1 are multiplied by this; 1/255 with normalisation none is IDF's range", above=0
    )
    normalisation: Normalisation = option("imagenet", "of pictures in 0..1")
    test_feature: Literal["head", "backbone"] = option(
        "head", "'head': after the head's batch norm; 'backbone': pooled"
    )


class ClassBlock(nn.Module):
    """The head: linear, batch norm, dropout, linear; no activation between. The embedding is taken after the norm.

    Computed in float32 also under autocast: batch statistics and class scores are cheap here and sensitive.

    Source: IDF release, class "ClassBlock" (shared with the IDE+ baseline).
    """

    def __init__(
        self,
        width: int,
        num_ids: int,
        *,
        embedding_width: int = 512,
        dropout: float = 0.5,
        classifier_std: float = 0.001,
    ) -> None:
        super().__init__()
        self.reduce = nn.Linear(width, embedding_width)
        self.norm = nn.BatchNorm1d(embedding_width)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(embedding_width, num_ids)
        nn.init.kaiming_normal_(self.reduce.weight, a=0, mode="fan_out")
        nn.init.zeros_(self.reduce.bias)
        nn.init.normal_(self.norm.weight, mean=1.0, std=0.02)
        nn.init.zeros_(self.norm.bias)
        nn.init.normal_(self.classifier.weight, std=classifier_std)
        nn.init.zeros_(self.classifier.bias)

    def forward(self, feature: Tensor) -> HeadOutput:
        """Embedding and class scores of (B, width) features."""
        with torch.autocast(feature.device.type, enabled=False):
            feature = feature.float()
            embedding: Tensor = self.norm(self.reduce(feature))
            return HeadOutput(feature, embedding, self.classifier(self.dropout(embedding)))


class Branch(BackboneBranch):
    """The extractor: backbone and pooling."""

    def build_fused_head(self, width: int, num_ids: int) -> nn.Module:
        """The classifier head for features of a width."""
        options = self.options
        return ClassBlock(
            width,
            num_ids,
            embedding_width=options.width,
            dropout=options.dropout,
            classifier_std=options.classifier_std,
        )

    def losses(self, output: HeadOutput, batch: Batch, head: nn.Module) -> dict[str, Tensor]:  # noqa: ARG002
        """Softmax cross-entropy."""
        smoothing = self.options.label_smoothing
        return {"id": functional.cross_entropy(output.logits, batch.labels, label_smoothing=smoothing)}


class Method(SingleBranch):
    """IDE+: one branch and its head."""

    extractor = Branch


# Checkpoints of the released baseline, and what they have in common with IDF's.
HEAD: Renaming = (("reduce.", "add_block.0."), ("norm.", "add_block.1."), ("classifier.", "classifier.0."))
DEAD_CLASSIFIER = {"fc.weight": (1000, 2048), "fc.bias": (1000,)}  # torchvision's, carried but never used


def head_renaming(ours: str, theirs: str) -> Renaming:
    """Renaming of one classifier head, from its prefixes here and there."""
    return tuple((ours + a, theirs + b) for a, b in HEAD)


def dead_classifiers(*prefixes: str) -> dict[str, Tensor]:
    """Those of the backbones with these prefixes, as zeros."""
    return {prefix + name: torch.zeros(shape) for prefix in prefixes for name, shape in DEAD_CLASSIFIER.items()}


def read_architecture(state: Tensors, place: str) -> tuple[Options, dict[str, Any]]:
    """The embedding's width and the number of identities."""
    num_ids = read_tensor_size(state, "classifier.classifier.0.weight", place)
    return Options(width=read_tensor_size(state, "classifier.add_block.0.weight", place)), {"num_ids": num_ids}


RENAMING = (("branch.backbone.", "model."), *head_renaming("head.", "classifier."))
OFFICIAL_FORMATS = {
    "ide-official": OfficialFormat(
        "ide-official", "ide", Method, Options, read_architecture, lambda _: RENAMING, "ide_night600",
        unused=lambda *_: dead_classifiers("model."), needs_unused=("",),
        released=("last_stride", "input_scale", "normalisation"),
    )
}  # fmt: skip
