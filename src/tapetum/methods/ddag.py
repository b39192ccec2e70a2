"""DDAG: the two-stream network, an attention over three parts of each picture, and in training one over the batch.

Source: "Dynamic Dual-Attentive Aggregation Learning for Visible-Infrared Person Re-Identification" (Ye et al., ECCV
2020) and its release.
Differs: pictures of both modalities come in one batch in any order, and neighbours in the graph are found by label; the
two ResNets of which the release uses the stem alone are not kept, and
- the four heads of the graph's attention are one product, and no pair of two pictures' features is formed;
- how the part attention's projections begin is not known to us: normal by fan-in;
- the parts are added up before the last of the part attention's three projections, which is linear;
- the two further classifiers and the projection `wpa.W`, which the release makes and never uses, are kept in exported
  checkpoints only, as zeros.
Mirrored pictures are not part of its test; where a recipe asks for them, raw vectors are summed.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from tapetum.core.errors import TrainingError
from tapetum.core.method import EpochStart, TrainingFacts
from tapetum.core.options import option
from tapetum.core.types import Batch
from tapetum.layers.branch import HeadOutput
from tapetum.layers.pooling import pool_stripes
from tapetum.methods import two_stream
from tapetum.methods._official import FEWER_SCORES, OfficialFormat, Renaming, Tensors, read_tensor_size
from tapetum.methods._two_stream import RELEASED, TestFeature, two_stream_renaming, unused_tensors

SMALL = {**two_stream.SMALL, "graph_width": 8, "graph_dropout": 0.0}  # for tests
SLOPE = 0.2  # of the graph's leaky ReLU below zero
GAIN = 1.414  # of the graph's first weights


@dataclass(frozen=True)
class Options(two_stream.Options):
    """What a recipe may set under ``method:``: the two-stream network's options and these."""

    parts: int = option(3, "horizontal stripes that the part attention weighs", least=1)
    part_weight: float = option(1.0, "of cross-entropy behind the part attention; 0 switches the term off", least=0)
    graph_weight: float | None = option(
        None,
        "of the graph's term; null: none in the first epoch, then 1 / (1 + the mean of all other terms in the epoch "
        "before)",
        least=0,
    )
    graph_heads: int = option(4, "attentions side by side in the graph's first layer", least=1)
    graph_width: int = option(512, "numbers that each of them gives", least=1)
    graph_dropout: float = option(0.2, "of the graph's features and of its attention, in training", least=0, below=1)
    test_feature: TestFeature | Literal["part"] = option(  # type: ignore[assignment]  # one more than its relatives have
        "part", "'part': behind the part attention; 'head': behind the neck; 'backbone': before it; 'both': the two"
    )


@dataclass(frozen=True)
class Output(HeadOutput):
    """What the network gives: of the neck, and of the part attention.

    Attributes:
        logits: (2, B, num_ids) class scores behind the neck and behind the part attention, by one classifier.
        attended: (B, width) float32 behind the part attention.
    """

    attended: Tensor = field(kw_only=True)


class PartAttention(nn.Module):
    """Intra-modality weighted parts: stripes of a map attend to each other, are weighed, and join the whole picture.

    With x_p the mean of stripe p, A = softmax over q of (query(x_p) . key(x_q)) and w = softmax(gate):
    norm(embedding + sum_p w_p sum_q A_pq value(x_q)). Beyond the projections it is computed in float32.
    """

    def __init__(self, width: int, parts: int) -> None:
        super().__init__()
        self.gate = nn.Parameter(torch.full((parts,), 1 / parts))
        self.query = nn.Conv2d(width, width, 1)
        self.key = nn.Conv2d(width, width, 1)
        self.value = nn.Conv2d(width, width, 1)
        for projection in (self.query, self.key, self.value):
            nn.init.kaiming_normal_(projection.weight)
        self.norm = nn.BatchNorm1d(width)
        self.norm.bias.requires_grad_(False)
        nn.init.normal_(self.norm.weight, mean=1.0, std=0.01)

    def forward(self, maps: Tensor, embedding: Tensor) -> Tensor:
        """(B, C) from a map, (B, C, h, w), and the whole picture's embedding, (B, C)."""
        stripes = pool_stripes(maps, len(self.gate))  # (B, P, C)
        query, key = _project(self.query, stripes), _project(self.key, stripes)
        with torch.autocast(maps.device.type, enabled=False):
            kind = embedding.dtype
            attention = torch.bmm(query.to(kind), key.to(kind).mT).softmax(2)  # (B, P, P)
            weights = self.gate.softmax(0) @ attention  # (B, P); each row adds up to one, as value's bias needs
            summed = torch.bmm(weights[:, None], stripes)[:, 0]
        value = _project(self.value, summed)
        with torch.autocast(maps.device.type, enabled=False):
            attended: Tensor = self.norm(embedding + value.to(kind))
        return attended


def _project(convolution: nn.Conv2d, vectors: Tensor) -> Tensor:
    """What a 1 x 1 convolution makes of (..., C) vectors, which are no map: one product, several times as fast."""
    return functional.linear(vectors, convolution.weight.flatten(1), convolution.bias)


class GraphHead(nn.Module):
    """The weights of one attention over a graph: a projection, and what scores a pair of projected nodes."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(nn.init.xavier_uniform_(torch.empty(width, out), gain=GAIN))
        self.score = nn.Parameter(nn.init.xavier_uniform_(torch.empty(2 * out, 1), gain=GAIN))


def attend(nodes: Tensor, weights: Tensor, scores: Tensor, neighbours: Tensor, dropout: float = 0.0) -> Tensor:
    """What nodes of a graph hear from their neighbours, by several attentions at once.

    With h_i = nodes_i weight: the mean of h_j over the neighbours j of i, weighed by a softmax over j of
    LeakyReLU(score . [h_i, h_j]). The score of a pair is the sum of one of each node, so no pair is put together.

    Args:
        nodes: (B, D).
        weights: (H, D, F), of each attention.
        scores: (H, 2 F), for the node itself and for its neighbour.
        neighbours: (B, B) bool; each node has one.
        dropout: share of the attention that is left out.
    Returns:
        (H, B, F).
    Source: Velickovic et al., "Graph Attention Networks", ICLR 2018.
    """
    hidden = nodes @ weights
    own, other = (hidden @ part[..., None] for part in scores.chunk(2, dim=1))  # (H, B, 1)
    attention = functional.leaky_relu(own + other.mT, SLOPE).masked_fill(~neighbours, -torch.inf).softmax(2)
    return torch.bmm(functional.dropout(attention, dropout), hidden)


class GraphLayer(nn.ModuleList):
    """Several attentions over one graph; a node gets what all of them give, side by side."""

    def __init__(self, width: int, out: int, *, heads: int) -> None:
        super().__init__(GraphHead(width, out) for _ in range(heads))

    def forward(self, nodes: Tensor, neighbours: Tensor, dropout: float) -> Tensor:
        """(B, heads out) of (B, width) nodes; see `attend`."""
        heads = [cast(GraphHead, head) for head in self]
        weights = torch.stack([head.weight for head in heads])
        scores = torch.stack([head.score[:, 0] for head in heads])
        return functional.elu(attend(nodes, weights, scores, neighbours, dropout)).transpose(0, 1).flatten(1)


class GraphAttention(nn.Module):
    """Two layers of attention among the pictures of a person in a batch, of both modalities; gives class scores."""

    def __init__(self, width: int, num_ids: int, *, heads: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.dropout = dropout
        self.heads = GraphLayer(width, hidden, heads=heads)
        self.out = GraphLayer(heads * hidden, num_ids, heads=1)

    def forward(self, features: Tensor, labels: Tensor) -> Tensor:
        """(B, num_ids) log-probabilities from (B, width) features of pictures in any order, and their labels.

        Raises:
            TrainingError: the batch shows one identity only.
        """
        neighbours = labels[:, None] == labels[None, :]
        if bool(neighbours.all()):
            raise TrainingError(
                "ddag: the batch shows one identity only, so that its graph tells nobody apart; use a sampler of at "
                "least 2 identities, or set method.graph_weight to 0"
            )
        dropout = self.dropout if self.training else 0.0
        nodes = functional.dropout(features, dropout)
        nodes = functional.dropout(self.heads(nodes, neighbours, dropout), dropout)
        scores: Tensor = self.out(nodes, neighbours, dropout)
        return scores.log_softmax(1)


class Method(two_stream.Method):
    """Two stems, one trunk, BNNeck, part attention; an attention over the batch beside them while it trains.

    Attributes:
        graph_weight: of the graph's term in this epoch, where it follows the others'.
    """

    options: Options
    graph_weight: Tensor

    def __init__(self, options: Options, facts: TrainingFacts) -> None:
        super().__init__(options, facts)
        self.parts = PartAttention(self.width, options.parts)
        self.graph = GraphAttention(
            self.width, facts.num_ids, heads=options.graph_heads, hidden=options.graph_width,
            dropout=options.graph_dropout,
        )  # fmt: skip
        self.register_buffer("graph_weight", torch.tensor(options.graph_weight or 0.0), persistent=False)

    def begin_epoch(self, start: EpochStart) -> None:
        """The better the network told people apart in the epoch before, the more the graph counts in this one."""
        if self.options.graph_weight is None and start.losses:
            others = sum(value for name, value in start.losses.items() if name != "graph")
            self.graph_weight.fill_(1 / (1 + others))

    def forward(self, images: Tensor, modalities: Tensor, camids: Tensor) -> Output:  # noqa: ARG002
        """Features, embeddings and class scores of pictures of both modalities in any order."""
        maps = self.compute_maps(self.normalise(images), modalities)
        made: HeadOutput = self.head(self.pool(maps))
        attended = self.parts(maps, made.embedding)
        with torch.autocast(maps.device.type, enabled=False):
            scores = torch.stack([made.logits, self.head.classifier(attended)])
        return Output(made.feature, made.embedding, scores, attended=attended)

    def losses(self, output: HeadOutput, batch: Batch) -> dict[str, Tensor]:
        """The two-stream network's, cross-entropy behind the part attention, and of what the graph says of a picture.

        Raises:
            TrainingError: the batch shows one identity only.
        """
        options = self.options
        losses = super().losses(replace(output, logits=output.first_logits), batch)
        if options.part_weight:
            scores, smoothing = output.logits[1], options.label_smoothing
            part = functional.cross_entropy(scores, batch.labels, label_smoothing=smoothing)
            losses["part"] = options.part_weight * part
        if options.graph_weight != 0:
            told = self.graph(output.feature, batch.labels)
            losses["graph"] = self.graph_weight * functional.nll_loss(told, batch.labels)
        return losses

    def _describe(self, images: Tensor, modalities: Tensor, camids: Tensor) -> list[Tensor]:
        output = self.forward(images, modalities, camids)
        parts = {"part": [output.attended], "head": [output.embedding], "backbone": [output.feature]}
        return parts.get(self.options.test_feature) or [output.feature, output.embedding]

    def parameter_groups(self) -> Mapping[str, list[nn.Parameter]]:
        """Head (neck, classifier, part attention and graph), and everything else as the backbone."""
        head = [*self.head.parameters(), *self.parts.parameters(), *self.graph.parameters()]
        inside = {id(parameter) for parameter in head}
        backbone = [parameter for parameter in self.parameters() if id(parameter) not in inside]
        return {"backbone": backbone, "head": [parameter for parameter in head if parameter.requires_grad]}


# Checkpoints of the release.
FORMAT = "ddag-official"
HEAD = re.compile(r"attention_\d+\.W")


def _renaming(options: Options) -> Renaming:
    heads = [(f"graph.heads.{number}.", f"attention_{number}.") for number in range(options.graph_heads)]
    return (
        *two_stream_renaming("network."),
        *((f"{ours}{a}", f"{theirs}{b}") for ours, theirs in (*heads, ("graph.out.0.", "out_att."))
          for a, b in (("weight", "W"), ("score", "a"))),
        ("parts.gate", "wpa.gate"),
        ("parts.query.", "wpa.fc1.0."),
        ("parts.key.", "wpa.fc2."),
        ("parts.value.", "wpa.fc3."),
        ("parts.norm.", "wpa.bottleneck."),
        ("head.norm.", "bottleneck."),
        ("head.classifier.", "classifier."),
    )  # fmt: skip


def _read_architecture(state: Tensors, place: str) -> tuple[Options, dict[str, Any]]:
    read_tensor_size(state, "attention_0.W", place)
    options = Options(
        parts=read_tensor_size(state, "wpa.gate", place),
        graph_heads=sum(HEAD.fullmatch(name) is not None for name in state),
        graph_width=state["attention_0.W"].shape[-1],
    )
    return options, {"num_ids": read_tensor_size(state, "classifier.weight", place)}


def _unused(options: Options, used: Tensors) -> dict[str, Tensor]:
    """Two more classifiers, and a projection with its norm; beside what the two streams leave unused."""
    norm = {f"wpa.W.1.{name.rpartition('.')[2]}": name for name in used if name.startswith("wpa.bottleneck.")}
    alike = {f"classifier{number}.weight": "classifier.weight" for number in (1, 2)}
    alike |= {f"wpa.W.0.{name}": f"wpa.fc3.{name}" for name in ("weight", "bias")} | norm
    return unused_tensors(options.backbone) | {name: torch.zeros_like(used[like]) for name, like in alike.items()}


OFFICIAL_FORMATS = {
    FORMAT: OfficialFormat(
        FORMAT, "ddag", Method, Options, _read_architecture, _renaming, "ddag_sysu",
        {206: "ddag_regdb", 713: "ddag_llcm"}, "net", _unused, released=RELEASED, scores=FEWER_SCORES,
    )
}  # fmt: skip
