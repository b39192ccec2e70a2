import dataclasses

import pytest
import torch
import torchvision

import golden_files
from tapetum.core.errors import CheckpointError, RecipeError, TrainingError
from tapetum.core.types import Batch
from tapetum.layers.backbones import build_backbone
from tapetum.layers.branch import HeadOutput
from tapetum.layers.curve_net import CurveNet
from tapetum.losses.distillation import distillation
from tapetum.methods import build_method, build_options, convert_from, convert_to
from tapetum.methods.idf import Output

EXTRACTOR = {"backbone": "test_resnet", "width": 16, "dropout": 0.0}  # timm's smallest, 96 channels
SMALL = {"extractor_options": EXTRACTOR, "curve_width": 4}
DCE = {"curve_smoothness", "exposure", "colour", "spatial"}


def make_batch(size=6):
    images = 0.2 * torch.rand(size, 3, 64, 32, generator=torch.Generator().manual_seed(3))
    labels = torch.arange(size) // 2
    return Batch(images, labels, labels, labels, torch.zeros_like(labels))


def build(**options):
    torch.manual_seed(11)
    return build_method("idf", SMALL | options, 3)


def run(method, batch):
    return method(batch.images, batch.modalities, batch.camids)


def embed(method, batch, **options):
    with torch.no_grad():
        return method.eval().embed(batch.images, batch.modalities, batch.camids, **options)


# Data flow


def test_the_second_branch_sees_the_enhanced_picture_with_or_without_the_night_picture_added():
    batch = make_batch()
    for reading in ("enhanced_plus_input", "enhanced"):
        method = build(enhancement_input=reading, input_scale=1.0).eval()
        with torch.no_grad():
            output = run(method, batch)
            seen = output.enhanced + batch.images if reading == "enhanced_plus_input" else output.enhanced
            expected = method.second(seen, batch.modalities, batch.camids)
        torch.testing.assert_close(output.features["e"], expected)


def test_the_joined_feature_has_the_enhanced_branch_first():
    output = run(build(), make_batch())
    assert torch.equal(output.joined, torch.cat((output.features["e"], output.features["v"]), 1))


def test_the_curve_network_sees_scaled_pictures_without_normalisation():
    method = build(normalisation="imagenet", input_scale=0.5).eval()
    batch = make_batch()
    with torch.no_grad():
        output = run(method, batch)
        expected, _ = method.enhancer(batch.images / 2)
    assert torch.equal(output.pictures, batch.images / 2)
    assert torch.equal(output.enhanced, expected)


def test_the_released_range_is_the_default_and_divides_by_255():
    output = run(build(), make_batch())
    torch.testing.assert_close(output.pictures, make_batch().images / 255)


def test_the_identity_loss_of_the_enhanced_branch_reaches_the_curve_network():
    method, batch = build(), make_batch()
    method.losses(run(method, batch), batch)["id_enhanced"].backward()
    assert all(weights.grad.abs().sum() > 0 for weights in method.enhancer.parameters())


def test_the_night_branch_teaches_the_curve_network_nothing():
    method, batch = build(), make_batch()
    method.losses(run(method, batch), batch)["id_night"].backward()
    assert all(weights.grad is None for weights in method.enhancer.parameters())


# Losses


def test_the_losses_are_the_weighted_ones_of_the_released_code():
    method, batch = build(), make_batch()
    output = run(method, batch)
    losses = method.losses(output, batch)
    assert losses.keys() == DCE | {"id_enhanced", "id_night", "id_fused", "reconstruction", "distillation"}
    cross_entropy = torch.nn.functional.cross_entropy
    for name, branch in (("id_enhanced", "e"), ("id_night", "v"), ("id_fused", "f")):
        torch.testing.assert_close(losses[name], cross_entropy(output.heads[branch].logits, batch.labels))
    teacher = output.heads["f"].logits
    divergence = sum(distillation(output.heads[name].logits, teacher) for name in "ev")
    torch.testing.assert_close(losses["distillation"], 0.1 * divergence)
    torch.testing.assert_close(losses["reconstruction"], 0.1 * (output.decoded - output.joined).square().mean())


def test_the_four_enhancement_terms_add_up_to_the_total_of_the_original():
    with golden_files.load("losses_enhancement") as arrays:
        case = {
            name: torch.from_numpy(arrays[f"enhancement_total/{name}"])
            for name in ("in/original", "in/enhanced", "in/curves", "out/loss")
        }
    output = Output(case["in/original"], case["in/enhanced"], case["in/curves"], None, None, {}, {})
    losses = build().losses(output, make_batch())
    assert losses.keys() == DCE
    torch.testing.assert_close(torch.stack(list(losses.values())).sum(), case["out/loss"], rtol=2e-5, atol=0)


def test_the_distilling_head_gets_no_gradient_unless_asked_to():
    batch = make_batch()
    for detach in (True, False):
        method = build(distillation_detach=detach)
        output = run(method, batch)
        method.losses(output, batch)["distillation"].backward()
        gradient = method.heads["f"].classifier.weight.grad
        assert (gradient is None) is detach
        assert method.heads["v"].classifier.weight.grad.abs().sum() > 0


def test_a_weight_of_zero_switches_a_term_off():
    weights = ("curve_smoothness", "exposure", "colour", "spatial", "reconstruction", "distillation")
    method, batch = build(**{f"{name}_weight": 0.0 for name in weights}), make_batch()
    assert method.losses(run(method, batch), batch).keys() == {"id_enhanced", "id_night", "id_fused"}


def test_the_structure_term_is_there_when_asked_for():
    method, batch = build(structure_weight=2.0), make_batch()
    assert "structure" in method.losses(run(method, batch), batch)


def test_each_reading_of_the_paper_changes_its_own_term_only():
    method, batch = build(input_scale=1.0), make_batch()
    output = run(method, batch)
    expected = method.losses(output, batch)
    options = method.options
    readings = {
        "curve_smoothness_reading": ("paper", "curve_smoothness"),
        "colour_reading": ("paper", "colour"),
        "spatial_reading": ("paper", "spatial"),
        "exposure_power": (1, "exposure"),
        "exposure_level": (0.5, "exposure"),
        "exposure_patch": (32, "exposure"),
        "reconstruction_reduction": ("sum", "reconstruction"),
        "distillation_reduction": ("sum", "distillation"),
        "distillation_temperature": (4.0, "distillation"),
    }
    for option, (value, term) in readings.items():
        method.options = dataclasses.replace(options, **{option: value})
        losses = method.losses(output, batch)
        changed = {name for name in losses if not torch.equal(losses[name], expected[name])}
        # The structure of this untrained network's pictures may leave a reading without effect, never another term.
        assert changed <= {term}, option
        if term != "spatial":
            assert changed == {term}, option


# The vector for search


def test_the_search_vector_equals_the_definition_of_the_original():
    with golden_files.load("modules_idf") as arrays:
        branches = {name: torch.from_numpy(arrays[f"test_feature/in/{name}"]) for name in "evf"}
        expected = torch.from_numpy(arrays["test_feature/out/feature"])
    method, batch = build(), make_batch(5)
    passes = iter((0, 1))  # the picture, then its mirror

    def forward(images, modalities, camids):
        number = next(passes)
        heads = {name: HeadOutput(x[number], x[number], x[number]) for name, x in branches.items()}
        return Output(images, None, None, None, None, {}, heads)

    method.forward = forward
    vectors = method.embed(batch.images, batch.modalities, batch.camids, mirror=True)
    torch.testing.assert_close(vectors, expected.float(), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "width"),
    [
        ({}, 48),
        ({"test_branches": "f"}, 16),
        ({"test_branches": "fe"}, 32),
        ({"test_feature": "backbone"}, 3 * 96),
        ({"test_feature": "backbone", "fusion_width": 100}, 2 * 96 + 100),
        ({"test_feature": "parts"}, 3 * 96),  # this extractor has none
        ({"fusion": "concat"}, 48),
        ({"fusion": "none"}, 32),
        ({"streams": "enhanced", "fusion": "none"}, 16),
        ({"streams": "night_twice", "fusion": "concat", "branch_losses": False}, 16),
        ({"fusion": "concat", "test_feature": "backbone", "test_branches": "f"}, 2 * 96),
    ],
)
def test_the_search_vector_joins_the_branches_asked_for(options, width):
    assert embed(build(**options), make_batch()).shape == (6, width)


def test_branches_are_joined_in_the_order_asked_for():
    batch = make_batch()
    whole = embed(build(test_branches="ef"), batch)
    turned = embed(build(test_branches="fe"), batch)
    torch.testing.assert_close(turned, torch.cat((whole[:, 16:], whole[:, :16]), 1))


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"test_branches": "x"}, "method.test_branches: 'x' is not made of e, f, v"),
        ({"test_branches": "ee"}, "method.test_branches: 'ee'"),
        ({"test_branches": ""}, "method.test_branches: ''"),
        ({"fusion": "none", "test_branches": "f"}, "'f' is not made of e, v"),
        ({"branch_losses": False, "test_branches": "ev"}, "'ev' is not made of f"),
        ({"branch_losses": False, "test_branches": "ev", "test_feature": "parts"}, "'ev' is not made of f"),
        ({"streams": "enhanced"}, "method.fusion: bottleneck needs two streams"),
        ({"fusion": "none", "branch_losses": False}, "method.branch_losses: false leaves nothing to train"),
        ({"enhancer_init": "zero_dce"}, "method.enhancer_weights: '' does not go with enhancer_init zero_dce"),
        ({"enhancer_weights": "a.pth"}, "does not go with enhancer_init random"),
        ({"enhancer_frozen": True}, "method.enhancer_frozen: true would keep a random DCE-Net"),
        ({"extractor": "agw_nowhere"}, "method.extractor: method 'agw_nowhere' is unknown"),
        ({"extractor": "idf", "extractor_options": {}}, "method.extractor: idf has no class Branch"),
        (
            {"extractor_options": {"bakbone": "x"}},
            r"method.extractor_options.bakbone is unknown; did you mean backbone",
        ),
        ({"extractor_options": {"input_scale": 1.0}}, "method.extractor_options.input_scale: is decided for both"),
    ],
)
def test_options_that_do_not_go_together_are_refused(options, complaint):
    with pytest.raises(RecipeError, match=complaint):
        build_options("idf", SMALL | options)


# The rows of the ablation


@pytest.mark.parametrize(
    ("options", "expected", "groups"),
    [
        (  # MB+MB, concatenation
            {"streams": "night_twice", "fusion": "concat", "branch_losses": False},
            {"id_fused"},
            {"backbone", "head"},
        ),
        ({"streams": "enhanced", "fusion": "none"}, {"id_enhanced"} | DCE, {"backbone", "head", "enhancer"}),  # IEB
        (  # MB+IEB, concatenation
            {"fusion": "concat", "distillation_weight": 0.0},
            {"id_night", "id_enhanced", "id_fused"} | DCE,
            {"backbone", "head", "enhancer"},
        ),
        (  # + IDM
            {"distillation_weight": 0.0},
            {"id_night", "id_enhanced", "id_fused", "reconstruction"} | DCE,
            {"backbone", "head", "enhancer"},
        ),
    ],
)
def test_each_row_of_the_ablation_has_its_losses_and_every_parameter_a_gradient(options, expected, groups):
    method, batch = build(**options), make_batch()
    losses = method.losses(run(method, batch), batch)
    assert losses.keys() == expected
    torch.stack(list(losses.values())).sum().backward()
    assert all(weights.grad is not None for weights in method.parameters())
    assert set(method.parameter_groups()) == groups


def test_two_night_streams_do_not_share_weights_unless_asked_to():
    options = {"streams": "night_twice", "fusion": "concat", "branch_losses": False}
    apart, shared = build(**options), build(**options, share_streams=True)
    count = sum(weights.numel() for weights in shared.second.parameters())
    difference = sum(w.numel() for w in apart.parameters()) - sum(w.numel() for w in shared.parameters())
    assert difference == count
    with torch.no_grad():
        features = run(shared.eval(), make_batch()).features
        assert torch.equal(features["e"], features["v"])
        features = run(apart.eval(), make_batch()).features
        assert not torch.allclose(features["e"], features["v"])


def test_shared_streams_still_see_two_different_pictures_with_an_enhancer():
    method = build(share_streams=True, input_scale=1.0).eval()
    with torch.no_grad():
        features = run(method, make_batch()).features
    assert not torch.allclose(features["e"], features["v"])


def test_without_an_enhancer_pictures_stay_as_they_are():
    batch = make_batch()
    method = build(streams="night_twice")
    assert torch.equal(method.enhance(batch.images), batch.images)
    assert run(method, batch).enhanced is None


def test_a_picture_is_brightened_in_the_range_that_the_curve_network_was_trained_on():
    method, images = build(input_scale=1 / 255).eval(), make_batch().images
    with torch.no_grad():
        assert torch.equal(method.enhance(images), method.enhancer(images * (1 / 255))[0].clamp(0, 1))


def test_a_frozen_enhancer_is_a_fixed_preprocessing(tmp_path):
    path = tmp_path / "snapshot.pth"
    torch.save(CurveNet(4).state_dict(), path)
    frozen = {"enhancer_frozen": True, "enhancer_init": "zero_dce", "enhancer_weights": str(path)}
    method, batch = build(**frozen, streams="enhanced", fusion="none", input_scale=1.0), make_batch()
    method.load_pretrained("none")
    output = run(method, dataclasses.replace(batch, images=10 * batch.images - 0.5))  # beyond 0..1 on either side
    assert method.losses(output, batch).keys() == {"id_enhanced"}
    assert set(method.parameter_groups()) == {"backbone", "head"}
    assert not output.enhanced.requires_grad
    assert output.enhanced.min() == 0
    assert output.enhanced.max() == 1


def test_curves_at_half_resolution_weigh_their_smoothness_as_if_they_were_at_full_resolution():
    # A linear ramp has the same slope per picture pixel at either resolution.
    ramp = torch.linspace(0, 1, 65)[:64].view(1, 1, 64, 1).expand(6, 24, 64, 32).contiguous()
    pictures = make_batch().images
    values = []
    for curves in (ramp, ramp[:, :, ::2, ::2]):
        output = Output(pictures, pictures, curves, None, None, {}, {})
        values.append(build().losses(output, make_batch())["curve_smoothness"].item())
    assert values[1] == pytest.approx(values[0], rel=0.05)


# Weights to start from


def test_both_extractors_start_from_the_same_file(tmp_path):
    torch.save(build_backbone("test_resnet")[0].state_dict(), tmp_path / "weights.pth")
    method = build()
    assert not torch.equal(method.second.backbone.conv1[0].weight, method.night.backbone.conv1[0].weight)
    method.load_pretrained(str(tmp_path / "weights.pth"))
    for name, tensor in method.second.state_dict().items():
        assert torch.equal(tensor, method.night.state_dict()[name])


def test_zero_dce_weights_are_read_by_load_pretrained_and_never_silently_random(tmp_path):
    snapshot = CurveNet(4)
    path = tmp_path / "snapshot.pth"
    torch.save(snapshot.state_dict(), path)
    method, batch = build(enhancer_init="zero_dce", enhancer_weights=str(path)), make_batch()
    with pytest.raises(TrainingError, match=r"snapshot.pth was not read; call load_pretrained"):
        run(method, batch)
    method.load_pretrained("none")
    assert torch.equal(method.enhancer.e_conv1.weight, snapshot.e_conv1.weight)
    run(method, batch)

    path.unlink()  # a checkpoint brings its own
    restored = build(enhancer_init="zero_dce", enhancer_weights=str(path))
    restored.load_state_dict(method.state_dict())
    run(restored, batch)
    with pytest.raises(CheckpointError, match=r"snapshot.pth"):
        build(enhancer_init="zero_dce", enhancer_weights=str(path)).load_pretrained("none")


# Exchangeable extractors


def test_a_second_extractor_brings_its_own_head_losses_and_width():
    batch = make_batch()
    extractor = {"backbone": "test_resnet", "last_stride": 2}
    options = {"extractor": "bnneck", "extractor_options": extractor, "curve_width": 4, "normalisation": "imagenet"}
    method = build_method("idf", options, 3)
    losses = method.losses(run(method, batch), batch)
    assert {"triplet_night", "triplet_enhanced", "triplet_fused", "id_fused"} <= losses.keys()
    assert embed(method, batch).shape == (6, 3 * 96)


STRANGER = """
from dataclasses import dataclass
import torch
from torch import nn
from tapetum.layers.backbones import build_backbone
from tapetum.layers.branch import HeadOutput

@dataclass(frozen=True)
class Options:
    width: int = 8

class PartHead(nn.Module):
    def __init__(self, width, num_ids):
        super().__init__()
        self.classifier = nn.Linear(width, num_ids)
    def forward(self, feature):
        feature = feature.flatten(1)
        return HeadOutput(feature, feature, self.classifier(feature))

class Branch(nn.Module):
    def __init__(self, options, facts):
        super().__init__()
        self.width = options.width
        self.stem = nn.Conv2d(3, options.width, 16, stride=16)
        self.cameras = nn.Embedding(10, options.width)
    def forward(self, images, modalities, camids):
        maps = self.stem(images)
        parts = torch.stack([maps.mean((2, 3)), maps[:, :, :2].mean((2, 3)), maps[:, :, 2:].mean((2, 3))], 1)
        return parts + self.cameras(camids)[:, None]
    def build_head(self, num_ids):
        return PartHead(3 * self.width, num_ids)
    def build_fused_head(self, width, num_ids):
        return PartHead(width, num_ids)
    def losses(self, output, batch, head):
        return {"id": nn.functional.cross_entropy(output.logits, batch.labels)}
    def load_pretrained(self, source):
        pass
"""


def test_a_strangers_extractor_with_parts_and_camera_input_fits_the_seam(tmp_path, monkeypatch):
    package = tmp_path / "strange_extractors"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "parts.py").write_text(STRANGER)
    monkeypatch.syspath_prepend(tmp_path)
    options = {"extractor": "strange_extractors.parts", "extractor_options": {"width": 12}, "curve_width": 4}
    method, batch = build_method("idf", options, 3), make_batch()
    output = run(method, batch)
    assert output.joined.shape == (6, 24)  # the whole pictures only
    torch.stack(list(method.losses(output, batch).values())).sum().backward()
    assert all(weights.grad is not None for weights in method.parameters())
    assert embed(method, batch).shape == (6, 3 * 12 + 3 * 12 + 12)


# Checkpoints of the released code


def official_state(num_ids):
    """A released checkpoint by the list of its tensors, made without our code."""
    torch.manual_seed(5)
    state = {}
    networks = {}
    for branch in ("model_v", "model_e"):
        networks[branch] = torchvision.models.resnet50()
        for module in networks[branch].modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                torch.nn.init.uniform_(module.running_mean, -0.1, 0.1)
                torch.nn.init.uniform_(module.running_var, 0.5, 1.5)
        state |= {f"{branch}.{name}": tensor.clone() for name, tensor in networks[branch].state_dict().items()}
    shapes = {f"bfm.fuse_in.{n}.weight": shape for n, shape in ((0, (2048, 4096)), (2, (2048, 2048)))}
    shapes |= {f"bfm.fuse_out.{n}.weight": shape for n, shape in ((0, (2048, 2048)), (2, (4096, 2048)))}
    widths = [(32, 3), (32, 32), (32, 32), (32, 32), (32, 64), (32, 64), (24, 64)]
    shapes |= {f"E_Net.e_conv{n}.weight": (*width, 3, 3) for n, width in enumerate(widths, 1)}
    for head in "vef":
        shapes[f"classifier_{head}.add_block.0.weight"] = (512, 2048)
        shapes[f"classifier_{head}.classifier.0.weight"] = (num_ids, 512)
        state[f"classifier_{head}.add_block.1.num_batches_tracked"] = torch.tensor(9)
        for name in ("weight", "bias", "running_mean", "running_var"):
            state[f"classifier_{head}.add_block.1.{name}"] = 0.5 + torch.rand(512)
    for name, shape in shapes.items():
        fan_in = torch.Size(shape[1:]).numel()
        state[name] = torch.randn(shape) / fan_in**0.5
        state[name.replace("weight", "bias")] = 0.1 * torch.randn(shape[0])
    return state, networks


def official_feature(state, networks, images):
    """The released test-time vector of one orientation, [e, v, f], recomputed from the formulas."""
    linear, conv, relu = torch.nn.functional.linear, torch.nn.functional.conv2d, torch.relu

    def layer(name, x):
        return linear(x, state[f"{name}.weight"], state[f"{name}.bias"])

    def enhance(x):
        def e_conv(n, y):
            return conv(y, state[f"E_Net.e_conv{n}.weight"], state[f"E_Net.e_conv{n}.bias"], padding=1)

        x1 = relu(e_conv(1, x))
        x2 = relu(e_conv(2, x1))
        x3 = relu(e_conv(3, x2))
        x4 = relu(e_conv(4, x3))
        x5 = relu(e_conv(5, torch.cat([x3, x4], 1)))
        x6 = relu(e_conv(6, torch.cat([x2, x5], 1)))
        curves = torch.tanh(e_conv(7, torch.cat([x1, x6], 1)))
        for n in range(8):
            x = x + curves[:, 3 * n : 3 * n + 3] * (x**2 - x)
        return x

    def head(name, x):
        x = layer(f"classifier_{name}.add_block.0", x)
        norm = {
            key: state[f"classifier_{name}.add_block.1.{key}"]
            for key in ("weight", "bias", "running_mean", "running_var")
        }
        return (x - norm["running_mean"]) / (norm["running_var"] + 1e-5).sqrt() * norm["weight"] + norm["bias"]

    for network in networks.values():
        network.fc = torch.nn.Identity()
        network.eval()
    x = images / 255
    f_v = networks["model_v"](x)
    f_e = networks["model_e"](enhance(x) + x)
    hidden = torch.tanh(layer("bfm.fuse_in.0", torch.cat([f_e, f_v], 1)))
    f_f = relu(layer("bfm.fuse_in.2", hidden))
    return torch.cat([head("e", f_e), head("v", f_v), head("f", f_f)], 1)


def test_a_released_checkpoint_gives_the_released_features_and_converts_back_exactly():
    official, networks = official_state(4)
    assert len(official) == 689
    converted = convert_from("idf-official", official)
    assert (converted.method, converted.num_ids) == ("idf", 4)
    method = build_method(converted.method, converted.options, converted.num_ids)
    method.load_state_dict(converted.state)

    batch = make_batch(3)
    with torch.no_grad():
        total = sum(official_feature(official, networks, x) for x in (batch.images, batch.images.flip(3)))
    expected = total / total.norm(dim=1, keepdim=True)
    vectors = embed(method, batch, mirror=True)
    assert vectors.shape == (3, 1536)
    torch.testing.assert_close(vectors, expected, rtol=1e-4, atol=1e-5)

    back = convert_to("idf-official", converted.options, method.state_dict())
    assert back.keys() == official.keys()
    for name, tensor in back.items():
        dead = ".fc." in name  # the ImageNet classifiers are not kept and come back as zeros
        assert torch.equal(tensor, torch.zeros_like(official[name]) if dead else official[name]), name
    again = convert_from("idf-official", back)
    assert all(torch.equal(again.state[name], tensor) for name, tensor in converted.state.items())


@pytest.fixture(scope="module")
def official_shapes():
    with torch.device("meta"):
        return official_state(300)[0]


def test_the_released_layout_has_the_published_number_of_tensors_and_parameters(official_shapes):
    running = ("running_mean", "running_var", "num_batches_tracked")
    trained = {name: tensor for name, tensor in official_shapes.items() if not name.endswith(running)}
    assert len(official_shapes) == 689
    assert sum(tensor.numel() for tensor in trained.values()) == 79_981_580


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda s: s.pop("bfm.fuse_in.2.bias"), r"1 missing tensor\(s\), first 'bfm.fuse_in.2.bias'"),
        (lambda s: s.pop("model_e.fc.weight"), r"1 missing tensor\(s\), first 'model_e.fc.weight'"),
        (lambda s: s.update(stray=s["model_v.conv1.weight"]), r"1 unknown tensor\(s\), first 'stray'"),
        (
            lambda s: s.update({"E_Net.e_conv1.weights": s.pop("E_Net.e_conv1.weight")}),
            "first 'E_Net.e_conv1.weights' .did you mean E_Net.e_conv1.weight",
        ),
        (lambda s: s.pop("classifier_f.classifier.0.weight"), "no tensor 'classifier_f.classifier.0.weight'"),
        (
            lambda s: s.update({"classifier_v.classifier.0.bias": torch.zeros(7)}),
            r"'classifier_v.classifier.0.bias' is \(7,\) where the network needs \(300,\)",
        ),
    ],
)
def test_a_checkpoint_that_is_not_quite_in_the_released_layout_is_refused_by_name(official_shapes, change, complaint):
    state = dict(official_shapes)
    change(state)
    with pytest.raises(CheckpointError, match=complaint):
        convert_from("idf-official", state)


def test_another_network_has_no_place_in_the_released_layout():
    options = SMALL | {"fusion": "none"}
    with pytest.raises(CheckpointError, match="idf-official"):
        convert_to("idf-official", options, build(fusion="none").state_dict())
    with pytest.raises(CheckpointError, match="idf-official"):
        convert_to("idf-official", SMALL, build().state_dict())


def test_an_unknown_layout_is_refused_with_the_nearest_one():
    with pytest.raises(RecipeError, match=r"'idf-oficial' is unknown; did you mean idf-official\?"):
        convert_from("idf-oficial", {})
