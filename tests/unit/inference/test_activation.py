"""Heat maps: against the formulas written out, on networks whose gaze is known, and on every method there is."""

import re
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tapetum.core.discovery import list_names
from tapetum.core.errors import RecipeError
from tapetum.inference.activation import BATCH, Targets, explain, grad_cam, roll_out
from tapetum.methods import build_method, small_options

SIZE, NUM_IDS, CAMIDS = (64, 32), 3, (1, 2)
BRIGHTENERS = ("zero_dce", "enlighten_gan")  # describe nobody


@dataclass(frozen=True)
class Output:
    logits: Tensor


class Backbone(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.Conv2d(3, 6, 3, padding=1), nn.Tanh(), nn.Conv2d(6, 4, 3, stride=2, padding=1), nn.ReLU())


class Branch(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.backbone = Backbone()


class Net(nn.Module):
    """Two convolutions, an average, and a head that is not linear; looks at some rows of its maps only."""

    def __init__(self, rows: slice = slice(None)) -> None:
        super().__init__()
        self.branch, self.rows = Branch(), rows
        self.hidden, self.classifier = nn.Linear(4, 5), nn.Linear(5, NUM_IDS)
        self.unused = nn.Conv2d(3, 2, 1)

    def score(self, maps: Tensor) -> Tensor:
        return self.classifier(self.hidden(maps[:, :, self.rows].mean((2, 3))).tanh())

    def forward(self, images: Tensor, modalities: Tensor, camids: Tensor) -> Output:
        self.unused(images)
        return Output(self.score(self.branch.backbone(images)))

    def embed(self, images: Tensor, modalities: Tensor, camids: Tensor, *, mirror: bool = False) -> Tensor:
        return functional.normalize(self.forward(images, modalities, camids).logits)


def pictures(count: int, size: tuple[int, int] = (16, 8), seed: int = 0) -> Tensor:
    return torch.rand(count, 3, *size, generator=torch.Generator().manual_seed(seed))


def ask(network: nn.Module, images: Tensor, *layers: str, labels: list[int] | None = None, vectors=None):
    count = len(images)
    numbers = torch.tensor(labels or [-1] * count)
    if vectors is None:
        vectors = torch.zeros(count, 1) if labels else network.embed(images.flip(0), *facts(count)).detach()
    return explain(network.eval(), images, *facts(count), Targets(numbers, vectors), layers=layers)


def facts(count: int) -> tuple[Tensor, Tensor]:
    return torch.zeros(count, dtype=torch.int64), torch.ones(count, dtype=torch.int64)


def tiny(seed: int = 3, rows: slice = slice(None)) -> Net:
    torch.manual_seed(seed)
    return Net(rows)


def slow_grad_cam(network: Net, picture: Tensor, label: int) -> Tensor:
    """Selvaraju et al., equations 1 and 2, one picture, one channel and one place at a time."""
    maps = network.branch.backbone(picture[None]).detach()
    _, channels, height, width = maps.shape
    double = tiny().double().requires_grad_(False)
    step, combined = 1e-3, torch.zeros(height, width)
    for channel in range(channels):
        alpha = 0.0
        for i in range(height):
            for j in range(width):
                up, down = maps.clone().double(), maps.clone().double()
                up[0, channel, i, j] += step
                down[0, channel, i, j] -= step
                rise = double.score(up)[0, label] - double.score(down)[0, label]
                alpha += float(rise) / (2 * step) / (height * width)
        combined += alpha * maps[0, channel]
    combined = combined.clamp(min=0)
    large = functional.interpolate(combined[None, None], picture.shape[1:], mode="bilinear", align_corners=False)[0, 0]
    return large / large.max() if large.max() > 0 else large


def test_the_map_of_a_class_score_is_the_published_formula_of_finite_differences() -> None:
    images, labels = pictures(3), [2, 0, 1]
    found = ask(tiny(), images, labels=labels)
    assert [(each.layer, each.rule, each.name) for each in found.maps] == [("branch.backbone", "Grad-CAM", "")]
    for row, label in enumerate(labels):
        assert torch.allclose(found.maps[0].values[row], slow_grad_cam(tiny(), images[row], label), atol=1e-4)
    scores = tiny()(images, *facts(3)).logits
    assert torch.allclose(found.scores, scores[range(3), labels])


def test_pictures_explained_together_have_the_maps_that_each_has_alone() -> None:
    images = pictures(BATCH + 3)
    vectors = functional.normalize(torch.rand(len(images), NUM_IDS, generator=torch.Generator().manual_seed(1)) - 0.5)
    labels = [row % (NUM_IDS + 1) - 1 for row in range(len(images))]  # some are known, some are not
    together = ask(tiny(), images, labels=labels, vectors=vectors)
    for row, label in enumerate(labels):
        alone = ask(tiny(), images[row : row + 1], labels=[label], vectors=vectors[row : row + 1])
        assert torch.allclose(together.maps[0].values[row], alone.maps[0].values[0], atol=1e-5)
        assert together.scores[row] == pytest.approx(float(alone.scores[0]), abs=1e-5)


def test_a_similarity_is_the_cosine_to_the_other_picture_and_explaining_leaves_no_gradients() -> None:
    network, images = tiny(), pictures(4)
    found = ask(network, images)
    vectors = network.embed(images, *facts(4))
    assert torch.allclose(found.scores, (vectors * vectors.flip(0)).sum(1), atol=1e-6)
    assert all(parameter.grad is None for parameter in network.parameters())


def test_a_frozen_network_has_the_same_maps() -> None:
    images = pictures(2)
    frozen = tiny().requires_grad_(False)
    one, other = (ask(each, images, labels=[0, 1]).maps[0].values for each in (tiny(), frozen))
    assert torch.equal(one, other)


@pytest.mark.parametrize("labels", [None, [1, 1, 1]])
def test_the_map_of_a_network_that_sees_the_upper_half_only_lies_in_the_upper_half(labels: list[int] | None) -> None:
    class TopHalf(Net):
        """Its maps are those of the picture whose lower half is black, and its filters see one pixel."""

        def __init__(self) -> None:
            super().__init__()
            self.branch.backbone = Upper()  # type: ignore[assignment]

    class Upper(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.filters = nn.Conv2d(3, 4, 1, bias=False)

        def forward(self, images: Tensor) -> Tensor:
            seen = torch.arange(images.shape[2]) < images.shape[2] // 2
            return self.filters(images * seen[:, None])

    torch.manual_seed(1)
    found = ask(TopHalf(), pictures(3), labels=labels)
    heat = found.maps[0].values
    assert float(heat[:, :8].sum()) > 0
    assert float(heat[:, 8:].sum()) == 0


def test_each_map_is_divided_by_its_largest_value_and_one_without_warmth_stays_empty() -> None:
    assert torch.equal(grad_cam(torch.ones(1, 2, 2, 2), -torch.ones(1, 2, 2, 2)), torch.zeros(1, 2, 2))
    maps = ask(tiny(), pictures(6), labels=[0, 1, 2, 0, 1, 2]).maps[0].values
    for each in maps:
        assert float(each.max()) in (0.0, pytest.approx(1.0))
        assert float(each.min()) >= 0


def test_rollout_is_the_product_of_matrices_written_out() -> None:
    torch.manual_seed(0)
    weights = [torch.rand(2, 5, 5).softmax(2) for _ in range(3)]
    start = torch.tensor([0.5, 0.0, 0.5, 0.0, 0.0])
    for picture in range(2):
        product = [[float(i == j) for j in range(5)] for i in range(5)]
        for block in weights:  # Abnar and Zuidema: each block from the left
            mixed = [[(float(block[picture, i, j]) + (i == j)) / 2 for j in range(5)] for i in range(5)]
            product = [[sum(mixed[i][k] * product[k][j] for k in range(5)) for j in range(5)] for i in range(5)]
        wanted = [sum(float(start[i]) * product[i][j] for i in range(5)) for j in range(5)]
        assert torch.allclose(roll_out(weights, start)[picture], torch.tensor(wanted))
    assert torch.allclose(roll_out(weights, start).sum(1), torch.ones(2))


def method(name: str, **options: object) -> nn.Module:
    torch.manual_seed(5)
    built = build_method(name, {**small_options(name), **options}, NUM_IDS, camids=CAMIDS, size=SIZE)
    return built.eval()


def test_the_rollout_of_a_vision_transformer_is_that_of_the_weights_its_plain_attention_computes() -> None:
    network, images = method("bot", backbone="test_vit", last_stride=2, stem_relu=True), pictures(2, SIZE)
    found = ask(network, images)
    (maps,) = found.maps
    assert (maps.rule, maps.layer) == ("attention rollout", "branch.backbone.blocks.5")
    weights: list[Tensor] = []
    backbone = network.branch.backbone
    for block in backbone.blocks:
        assert block.attn.fused_attn  # put back as it was
        block.attn.fused_attn = False
        block.attn.attn_drop.register_forward_hook(lambda _m, _i, out: weights.append(out.mean(1).detach()))
    network.embed(images, *facts(2))
    start = torch.zeros(backbone.num_prefix + backbone.num_patches)
    start[backbone.num_prefix :] = 1 / backbone.num_patches  # its feature is the mean of the patches
    flow = roll_out(weights, start)[:, backbone.num_prefix :].reshape(2, 1, *backbone.grid)
    large = functional.interpolate(flow, SIZE, mode="bilinear", align_corners=False)[:, 0]
    assert torch.allclose(maps.values, large / large.amax((1, 2), keepdim=True), atol=1e-5)
    early = ask(network, images, "branch.backbone.blocks.1").maps[0]
    assert not torch.allclose(early.values, maps.values, atol=1e-3)


def test_the_parts_of_transreid_do_not_enter_its_rollout() -> None:
    for parts in (1, 2):
        (maps,) = ask(method("transreid", parts=parts, shift=2), pictures(2, SIZE)).maps
        assert (maps.rule, maps.layer) == ("attention rollout", "branch.whole.block")
        assert maps.values.shape == (2, *SIZE)


@pytest.mark.parametrize("name", [name for name in list_names("tapetum.methods") if name not in BRIGHTENERS])
@pytest.mark.parametrize("known", [True, False])
def test_every_method_that_describes_people_has_heat_maps(name: str, known: bool) -> None:
    found = ask(method(name), pictures(3, SIZE), labels=[0, 1, 2] if known else None)
    assert len(found.maps) == (2 if name == "idf" else 1)
    for each in found.maps:
        assert each.values.shape == (3, *SIZE)
        assert torch.isfinite(each.values).all()
    assert torch.isfinite(found.scores).all()


def test_pictures_of_both_modalities_are_explained_through_the_stem_of_their_own() -> None:
    network, images = method("two_stream"), pictures(4, SIZE)
    modalities, camids = torch.tensor([0, 1, 0, 1]), torch.ones(4, dtype=torch.int64)
    vectors = network.embed(images.flip(0), modalities, camids).detach()
    found = explain(network, images, modalities, camids, Targets(torch.full((4,), -1), vectors))
    for row in range(4):
        only = slice(row, row + 1)
        targets = Targets(torch.tensor([-1]), vectors[only])
        alone = explain(network, images[only], modalities[only], camids[only], targets)
        assert torch.allclose(found.maps[0].values[row], alone.maps[0].values[0], atol=1e-4)


def test_idf_shows_its_night_and_its_enhanced_stream_or_the_one_that_is_named() -> None:
    network, images = method("idf"), pictures(2, SIZE)
    both = ask(network, images)
    assert [(each.name, each.layer) for each in both.maps] == [
        ("night", "night.backbone"),
        ("enhanced", "second.backbone"),
    ]
    for name, place in (("night", 0), ("enhanced", 1), ("second", 1), ("second.backbone", 1)):
        (one,) = ask(network, images, name).maps
        assert torch.allclose(one.values, both.maps[place].values, atol=1e-6)
    shared = ask(method("idf", share_streams=True), images)
    assert [each.name for each in shared.maps] == ["shared", "shared, run 2"]
    tokens = method(
        "idf", extractor="transreid", extractor_options={"backbone": "test_vit", "drop_path": 0.0, "parts": 2}
    )
    rolled = ask(tokens, images).maps
    assert [(each.name, each.layer) for each in rolled] == [
        ("night", "night.whole.block"),
        ("enhanced", "second.whole.block"),
    ]
    assert not torch.allclose(rolled[0].values, rolled[1].values)


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (
            "branch.backbon.2",
            "layer branch.backbon.2: the network has none of this name; did you mean branch.backbone.2? ",
        ),
        (
            "elsewhere",
            "layer elsewhere: the network has none of this name; those that fit: unused, branch.backbone.0, ",
        ),
        ("hidden", "layer hidden: gives no maps of (pictures, channels, rows, columns); those that fit: "),
        ("unused", "layer unused: the class score does not depend on it; those that fit: "),
    ],
)
def test_a_layer_that_cannot_be_shown_is_refused_in_a_line_that_names_those_that_can(layer: str, message: str) -> None:
    with pytest.raises(RecipeError, match=re.escape(message)) as caught:
        ask(tiny(), pictures(2), layer, labels=[0, 1])
    assert "\n" not in str(caught.value)


def test_a_network_without_maps_says_so() -> None:
    class Flat(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.branch = Branch()
            self.branch.backbone = nn.Flatten()  # type: ignore[assignment]

        def embed(self, images: Tensor, modalities: Tensor, camids: Tensor, *, mirror: bool = False) -> Tensor:
            return functional.normalize(self.branch.backbone(images))

    with pytest.raises(RecipeError, match="branch gives no maps; no layer of it gives any"):
        ask(Flat(), pictures(2))
