"""IDE+: identity classification on a pooled backbone feature, the baseline of the IDF paper.

Source: layumi/Person_reID_baseline_pytorch, as carried in the IDF release (Alexadlu/IDF).
Differs: the backbone's dead 1000-way ImageNet classifier is not built (see `from_official`).
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from tapetum.core.method import TrainingFacts
from tapetum.core.options import option
from tapetum.core.types import Batch
from tapetum.layers.backbones import Pooling, build_any_backbone, load_backbone
from tapetum.layers.branch import HeadOutput
from tapetum.layers.heads import ClassBlock
from tapetum.layers.normalisation import Normalisation
from tapetum.methods._official import Converted, OfficialFormat, head_renaming, read_tensor_size, to_ours, to_theirs
from tapetum.methods._single_branch import SingleBranch

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


class Branch(nn.Module):
    """The extractor: backbone and pooling (see `tapetum.layers.branch`)."""

    def __init__(self, options: Options, facts: TrainingFacts) -> None:
        super().__init__()
        self.options = options
        self.backbone, self.gives = build_any_backbone(
            options.backbone,
            size=facts.size,
            last_stride=options.last_stride,
            patch_stride=options.patch_stride,
            pooling=options.pooling,
        )
        self.width = self.gives.width

    def forward(self, images: Tensor, modalities: Tensor, camids: Tensor) -> Tensor:  # noqa: ARG002
        """Pooled features, (B, width) float32.

        Args:
            images: (B, 3, H, W), normalised.
        """
        return self.gives.pool(self.backbone(images))

    def build_head(self, num_ids: int) -> nn.Module:
        """The classifier head for this branch's features.

        Args:
            num_ids: number of classes.
        """
        return self.build_fused_head(self.width, num_ids)

    def build_fused_head(self, width: int, num_ids: int) -> nn.Module:
        """The same head for another width.

        Args:
            width: of the feature.
            num_ids: number of classes.
        """
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

    def load_pretrained(self, source: str) -> None:
        """Fill the backbone.

        Args:
            source: "imagenet", "package", "none" or a weights file.
        """
        load_backbone(self.backbone, self.options.backbone, source)


class Method(SingleBranch):
    """IDE+: one branch and its head."""

    def __init__(self, options: Options, facts: TrainingFacts) -> None:
        super().__init__(options, Branch(options, facts), facts)


# Checkpoints of the released baseline.
RENAMING = (("branch.backbone.", "model."), *head_renaming("head.", "classifier."))
DEAD = ("model.",)


def from_official(state: Mapping[str, Tensor]) -> Converted:
    """A checkpoint of the released baseline in our terms.

    Args:
        state: its tensors; the class count and the embedding's width are read from them.
    Raises:
        CheckpointError: a tensor is unknown, missing, or has another shape.
    """
    place = "ide-official checkpoint"
    num_ids = read_tensor_size(state, "classifier.classifier.0.weight", place)
    options = Options(width=read_tensor_size(state, "classifier.add_block.0.weight", place))
    with torch.device("meta"):
        expected = Method(options, TrainingFacts(num_ids)).state_dict()
    return Converted("ide", asdict(options), num_ids, to_ours(state, expected, RENAMING, DEAD, place))


def to_official(options: Mapping[str, Any], state: Mapping[str, Tensor]) -> dict[str, Tensor]:  # noqa: ARG001
    """A state of ours in the layout of the released baseline.

    Args:
        options: the method's options.
        state: the method's state.
    Raises:
        CheckpointError: it is not the released network (another backbone or width).
    """
    theirs = to_theirs(state, RENAMING, DEAD)
    from_official(theirs)  # the same strict check
    return theirs


OFFICIAL_FORMATS = {"ide-official": OfficialFormat(read=from_official, write=to_official, recipe="ide_night600")}
