"""BDTR: a network of its own for each modality, a shared layer, and rankings in both directions across modalities.

Source: "Visible Thermal Person Re-Identification via Dual-Constrained Top-Ranking" (Ye et al., IJCAI 2018) and its
release for RegDB, mangye16/Visible-Thermal-Person-Re-Identification, whose networks are Caffe's AlexNet.
Differs:
- `backbone` also takes a convolutional network of timm, such as "resnet50", since AlexNet's weights are no download
  here. The average of its maps then stands for what the sixth layer gives;
- losses find people and modalities by label and modality. The release has one picture of each person and modality in a
  batch; of several, an anchor is ranked by the farthest of its person's and the nearest of all others';
- search uses the running statistics of the norms, as every network here does; the release, as its code reads, norms by
  the batch that it searches with, so that a vector depends on its company (not verified: its library's default);
- how the shared layer and the classifier begin is not known to us: normal by fan-in, and normal with deviation 0.001;
- Caffe's mean is subtracted channel by channel; the release subtracts that of red from blue and the other way round.
  `normalisation` "released" does so.
Mirrored pictures are not part of its test; where a recipe asks for them, raw vectors are summed.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from tapetum.core.errors import CheckpointError, RecipeError, TrainingError
from tapetum.core.method import TrainingFacts
from tapetum.core.options import option
from tapetum.core.types import Batch, Modality
from tapetum.core.vectors import euclidean, normalise
from tapetum.layers.backbones import build_backbone, load_backbone, pool_average
from tapetum.layers.branch import HeadOutput
from tapetum.layers.normalisation import Normalise
from tapetum.layers.two_stream import apply_by_modality
from tapetum.layers.weights import check_tensors, read_state
from tapetum.layers.winograd import use_winograd
from tapetum.methods._mirrored import Mirrored

# For tests. Dropout goes by place in the batch. Norms by picture: of five, a modality's batch norm magnifies rounding.
SMALL = {"backbone": "test_convnext", "width": 64, "dropout": 0.0}
ALEXNET = "alexnet"  # Caffe's, which timm does not have
LEAST_SIDE = 67  # pixels of which AlexNet's last pooling still gives a place
PLACES = 6  # across and down, that AlexNet's sixth layer sees
MEANS = (123.68, 116.779, 103.939)  # Caffe's, of red, green and blue in 0..255


@dataclass(frozen=True)
class Options:
    """What a recipe may set under ``method:``."""

    backbone: str = option(ALEXNET, "'alexnet': Caffe's; or a convolutional network of timm, e.g. 'resnet50'")
    width: int = option(1024, "numbers of the embedding, the shared layer's", least=1)
    dropout: float = option(0.5, "share left out before and behind the shared layer", least=0, below=1)
    normalisation: Literal["own", "released", "none", "imagenet", "half"] = option(
        "own",
        "'own': AlexNet in 0..255 without Caffe's mean, others ImageNet's; 'released': AlexNet's with the means of red "
        "and blue in each other's place",
    )
    ranking_weight: float = option(
        1.0, "of both ranking terms; 0 switches them off; the release advises more for RegDB, without a number", least=0
    )
    margin: float = option(0.5, "by which a stranger of the other modality is farther", least=0)
    intra_weight: float = option(0.1, "of the term within a modality, within the ranking's", least=0)
    intra_margin: float = option(0.1, "distance of two people of one modality that is too small", least=0)


class AlexNet(nn.Module):
    """Caffe's AlexNet up to its sixth layer, which is left linear; the layers have Caffe's names.

    Pictures of another size than 227 x 227 have their last maps averaged to 6 x 6.
    """

    width = 4096

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 96, 11, stride=4)
        self.conv2 = nn.Conv2d(96, 256, 5, padding=2, groups=2)
        self.conv3 = nn.Conv2d(256, 384, 3, padding=1)
        self.conv4 = nn.Conv2d(384, 384, 3, padding=1, groups=2)
        self.conv5 = nn.Conv2d(384, 256, 3, padding=1, groups=2)
        self.fc6 = nn.Conv2d(256, self.width, PLACES)  # as a convolution: one place of 6 x 6
        for layer in self.children():
            nn.init.kaiming_normal_(cast(Tensor, layer.weight), nonlinearity="relu")
            nn.init.zeros_(cast(Tensor, layer.bias))

    def forward(self, images: Tensor) -> Tensor:
        """(B, 4096, 1, 1) of (B, 3, H, W) pictures, at least 67 x 67."""
        maps = pool_and_damp(self.conv1(images).relu())
        maps = pool_and_damp(self.conv2(maps).relu())
        maps = self.conv4(self.conv3(maps).relu()).relu()
        maps = functional.max_pool2d(self.conv5(maps).relu(), 3, 2)
        made: Tensor = self.fc6(functional.adaptive_avg_pool2d(maps, PLACES))
        return made

    def load_weights(self, path: str) -> None:
        """Fill it from Caffe's weights under Caffe's names (``conv1.weight`` ... ``fc6.bias``); others are left out.

        Args:
            path: the first layer in it takes blue, green, red; ``fc6.weight`` is (4096, 9216) or (4096, 256, 6, 6).
        Raises:
            CheckpointError: the file does not hold them.
        """
        state, expected = read_state(path), self.state_dict()
        own = {name: value for name, value in state.items() if name in expected}
        sixth = own.get("fc6.weight")
        if sixth is not None and sixth.shape == expected["fc6.weight"].flatten(1).shape:
            own["fc6.weight"] = sixth.reshape(expected["fc6.weight"].shape)
        check_tensors(own, expected, f"Caffe's AlexNet in {path}")
        own["conv1.weight"] = own["conv1.weight"].flip(1)
        self.load_state_dict(own)


def pool_and_damp(maps: Tensor) -> Tensor:
    """3 x 3 pooling, then each number divided by (1 + 2e-5 of the squares of five neighbouring channels) ** 0.75."""
    pooled = functional.max_pool2d(maps, 3, 2)
    return functional.local_response_norm(pooled, 5, alpha=5 * 2e-5, beta=0.75, k=1.0)  # of their mean


class Stream(nn.Module):
    """One modality's network and its norm, which shifts and does not scale."""

    def __init__(self, backbone: str) -> None:
        super().__init__()
        if backbone == ALEXNET:
            self.network: nn.Module = AlexNet()
            self.width = AlexNet.width
        else:
            self.network, self.width = build_backbone(backbone)
            use_winograd(self.network)
        self.norm = nn.BatchNorm2d(self.width)
        self.norm.weight.requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        """(B, width, 1, 1) float32 of normalised pictures."""
        pooled = pool_average(self.network(images), self.width)
        made: Tensor = self.norm(pooled[:, :, None, None])
        return made


class SubtractMean(nn.Module):
    """Pictures in 0..1 to 0..255, without a mean for each channel; keeps no tensor in checkpoints."""

    means: Tensor

    def __init__(self, means: tuple[float, ...]) -> None:
        super().__init__()
        self.register_buffer("means", torch.tensor(means).view(1, 3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) of the same."""
        return 255 * images - self.means


def rank_across(
    features: Tensor, labels: Tensor, modalities: Tensor, *, margin: float = 0.5, intra_margin: float = 0.1
) -> tuple[Tensor, Tensor]:
    """Top ranking in both directions, and what keeps the people of one modality apart.

    Each picture a is an anchor with two partners of the other modality: p, the farthest of its person, and n, the
    nearest of all others. With d the Euclidean distance of unit vectors, across: [d(a, p) - d(a, n) + margin]_+;
    within: [intra_margin - d(p, n)]_+. Each is the mean over visible plus the mean over infrared anchors.

    Args:
        features: (B, D), of any length; rows in any order.
        labels: (B,) int64.
        modalities: (B,) values of `Modality`.
    Returns:
        The terms across and within, scalars without a weight.
    Raises:
        TrainingError: the batch shows one identity only, or one of them in one modality only.
    """
    apart = modalities[:, None] != modalities[None, :]
    same = labels[:, None] == labels[None, :]
    _check_partners(labels, same & apart)
    unit = normalise(features)
    distances = euclidean(unit, unit)
    far, positive = distances.masked_fill(~(same & apart), -torch.inf).max(1)
    near, negative = distances.masked_fill(same | ~apart, torch.inf).min(1)
    share = 1 / torch.bincount(modalities, minlength=len(Modality)).to(distances.dtype)[modalities]
    across = (share * functional.relu(far - near + margin)).sum()
    within = (share * functional.relu(intra_margin - distances[positive, negative])).sum()
    return across, within


def _check_partners(labels: Tensor, positives: Tensor) -> None:
    count = len(torch.unique(labels))
    if count < 2:
        raise TrainingError(
            "bdtr: the batch shows one identity only, so that nobody can be ranked behind it; use a sampler of at "
            "least 2 identities, or set method.ranking_weight to 0"
        )
    if lonely := len(torch.unique(labels[~positives.any(1)])):
        raise TrainingError(
            f"bdtr: {lonely} of {count} people of the batch are there in one modality only, so that their pictures "
            "have nothing to rank first; set sampler.name to cross_modality, or method.ranking_weight to 0"
        )


class Method(Mirrored):
    """Two networks, one for each modality, and behind them a shared layer and a classifier.

    Attributes:
        streams: `Stream`, by modality number.
    """

    def __init__(self, options: Options, facts: TrainingFacts) -> None:
        super().__init__()
        self.options = options
        self.facts, self.num_ids = facts, facts.num_ids
        is_alexnet = options.backbone == ALEXNET
        if is_alexnet and min(facts.size) < LEAST_SIDE:
            raise RecipeError(
                f"backbone {ALEXNET}: takes pictures of at least {LEAST_SIDE} x {LEAST_SIDE}, these are "
                f"{facts.size[0]} x {facts.size[1]}; set data.size, or method.backbone to another such as resnet50"
            )
        if options.normalisation == "released" and not is_alexnet:
            raise RecipeError(
                f"method.normalisation released is {ALEXNET}'s, method.backbone is {options.backbone}; leave it out"
            )
        self.normalise = build_normalisation(options)
        self.streams = nn.ModuleList(Stream(options.backbone) for _ in Modality)
        self.shared = nn.Linear(cast(Stream, self.streams[0]).width, options.width)
        self.classifier = nn.Linear(options.width, facts.num_ids)
        nn.init.kaiming_normal_(self.shared.weight, nonlinearity="relu")
        nn.init.normal_(self.classifier.weight, std=0.001)
        for layer in (self.shared, self.classifier):
            nn.init.zeros_(layer.bias)

    def forward(self, images: Tensor, modalities: Tensor, camids: Tensor) -> HeadOutput:  # noqa: ARG002
        """What a picture's own network gives, the shared layer's embedding, and class scores.

        Raises:
            TrainingError: in training, one modality has a single picture.
        """
        if self.training and bool((torch.bincount(modalities) == 1).any()):
            raise TrainingError(
                "bdtr: the batch has a single picture of a modality, and each modality's norm needs two; set "
                "sampler.ids to 2 or more"
            )
        feature = apply_by_modality(self.streams, self.normalise(images), modalities).flatten(1)
        with torch.autocast(images.device.type, enabled=False):
            feature = feature.to(torch.promote_types(feature.dtype, torch.float32))
            embedding = self.shared(self._drop(feature).relu()).relu()
            return HeadOutput(feature, embedding, self.classifier(self._drop(embedding)))

    def _drop(self, values: Tensor) -> Tensor:
        return functional.dropout(values, self.options.dropout, self.training)

    def losses(self, output: HeadOutput, batch: Batch) -> dict[str, Tensor]:
        """Cross-entropy of both modalities, ranking across them, and distance within them.

        Raises:
            TrainingError: the batch shows one identity only, or one of them in one modality only.
        """
        options = self.options
        losses = {"id": functional.cross_entropy(output.logits, batch.labels)}
        if options.ranking_weight:
            across, within = rank_across(
                output.embedding, batch.labels, batch.modalities, margin=options.margin,
                intra_margin=options.intra_margin,
            )  # fmt: skip
            losses["ranking"] = options.ranking_weight * across
            if options.intra_weight:
                losses["intra"] = options.ranking_weight * options.intra_weight * within
        return losses

    def describe(self, output: HeadOutput) -> Tensor:
        """The shared layer's embedding."""
        return output.embedding

    def parameter_groups(self) -> Mapping[str, list[nn.Parameter]]:
        """Both networks as the backbone; shared layer and classifier as the head; scales of norms in neither."""
        return {
            "backbone": [parameter for parameter in self.streams.parameters() if parameter.requires_grad],
            "head": [*self.shared.parameters(), *self.classifier.parameters()],
        }

    def load_pretrained(self, source: str) -> None:
        """Fill both networks with the same weights.

        Raises:
            CheckpointError: they cannot be had; of AlexNet there are none but in a file.
        """
        backbone = self.options.backbone
        if backbone == ALEXNET and source in ("imagenet", "package"):
            raise CheckpointError(
                f"backbone {ALEXNET}: Caffe's weights cannot be fetched; pass a file with init.weights=PATH (tensors "
                "conv1.weight to fc6.bias), or set method.backbone to another such as resnet50"
            )
        if source == "none":
            return
        for stream in self.streams:
            network = cast(Stream, stream).network
            if isinstance(network, AlexNet):
                network.load_weights(source)
            else:
                load_backbone(network, backbone, source)


def build_normalisation(options: Options) -> nn.Module:
    """What a picture becomes before either network sees it."""
    if options.normalisation == "released":
        return SubtractMean(MEANS[::-1])
    if options.normalisation != "own":
        return Normalise(options.normalisation)
    return SubtractMean(MEANS) if options.backbone == ALEXNET else Normalise("imagenet")
