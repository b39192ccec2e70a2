from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tapetum.core.errors import CheckpointError, RecipeError, TrainingError
from tapetum.core.types import Batch
from tapetum.enhancers import build_enhancer
from tapetum.layers.attention_unet import AttentionUNet
from tapetum.layers.vgg import CONVOLUTIONS
from tapetum.losses.least_squares import least_squares, relativistic_least_squares
from tapetum.methods import build_method
from tapetum.methods.enlighten_gan import SMALL, compare_features
from tapetum.runs.recipe import load_recipe, scene_options
from tapetum.synth.scene import Scene
from tapetum.training.train import train


def make_batch(size: int = 5) -> Batch:
    """Picture number i is brighter than number i - 2, and cameras 0 and 1 take turns."""
    generator = torch.Generator().manual_seed(1)
    numbers = torch.arange(size)
    levels = torch.tensor([0.1, 0.8, 0.3, 0.9, 0.5])[:size, None, None, None]
    images = levels * (0.8 + 0.2 * torch.rand(size, 3, 48, 32, generator=generator))
    return Batch(images, numbers, numbers, numbers % 2, torch.zeros_like(numbers))


def build(seed: int = 0, **options) -> nn.Module:
    torch.manual_seed(seed)
    return build_method("enlighten_gan", SMALL | options, 5, size=(48, 32))


def run(method: nn.Module, batch: Batch):
    return method(batch.images, batch.modalities, batch.camids)


class Small(nn.Module):
    """What stands for VGG-16 where ten million weights would say no more."""

    def forward(self, images: Tensor) -> Tensor:
        return torch.stack((images.sum(1), images[:, 0] * images[:, 1]), 1)


@pytest.fixture(scope="module")
def vgg_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("vgg") / "vgg16.pth"
    torch.manual_seed(0)
    state = {}
    for number, before, after in CONVOLUTIONS.values():
        state[f"features.{number}.weight"] = torch.randn(after, before, 3, 3) * (2 / (9 * before)) ** 0.5
        state[f"features.{number}.bias"] = torch.zeros(after)
    torch.save(state, path)
    return path


def test_the_brighter_half_of_a_batch_is_day_and_the_darker_half_rounded_up_is_brightened() -> None:
    batch = make_batch()
    output = run(build(), batch)
    torch.testing.assert_close(output.night, 2 * batch.images[[0, 2, 4]] - 1)
    torch.testing.assert_close(output.day, 2 * batch.images[[1, 3]] - 1)
    assert output.brightened.shape == output.night.shape


def test_named_cameras_see_by_day_whatever_the_light() -> None:
    batch = make_batch()
    output = run(build(day_cameras=[0]), batch)
    torch.testing.assert_close(output.day, 2 * batch.images[[0, 2, 4]] - 1)
    with pytest.raises(TrainingError, match=r"a batch of 5 pictures has 0 of the day; .*method.day_cameras \[7\]"):
        run(build(day_cameras=[7]), batch)
    with pytest.raises(TrainingError, match="has 5 of the day"):
        run(build(day_cameras=[0, 1]), batch)
    assert len(run(build(day_cameras=[0, 1]).eval(), batch).night) == 0, "outside a training nothing is missing"


def test_generator_and_discriminators_have_the_terms_of_the_release_each_in_its_turn() -> None:
    batch, method = make_batch(), build()
    output = run(method, batch)
    whole, patch = method.global_discriminator, method.patch_discriminator
    made, real = whole(output.brightened), whole(output.day)
    made_patches, real_patches = patch(output.brightened_patches), patch(output.day_patches)
    expected = {
        "global": relativistic_least_squares(made, real),
        "patch": least_squares(made_patches, 1),
        "global_discriminator": relativistic_least_squares(real, made),
        "patch_discriminator": (least_squares(real_patches, 1) + least_squares(made_patches, 0)) / 2,
    }
    losses = method.losses(output, batch)
    assert losses.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(losses[name], value, msg=name)
    turns = {turn.name: turn for turn in method.turns()}
    assert list(turns["generator"].losses(output, batch)) == ["global", "patch"]
    assert list(turns["discriminators"].losses(output, batch)) == ["global_discriminator", "patch_discriminator"]
    sum(method.discriminator_losses(output, batch).values()).backward()
    assert all(weights.grad is None for weights in method.generator.parameters()), "a discriminator moves no generator"


def test_patches_are_cut_at_the_same_random_places_of_night_result_and_day() -> None:
    batch = make_batch()
    method = build(patch_size=16, patches=3)
    torch.manual_seed(4)
    output = run(method, batch)
    assert output.night_patches.shape == (9, 3, 16, 16)
    assert output.day_patches.shape == (6, 3, 16, 16)
    places = set()
    for number in range(3):
        corners = [
            (top, left)
            for top in range(33)
            for left in range(17)
            if torch.equal(output.night[0, :, top : top + 16, left : left + 16], output.night_patches[3 * number])
        ]
        ((top, left),) = corners
        places.add((top, left))
        for pictures, patches in ((output.brightened, output.brightened_patches), (output.day, output.day_patches)):
            count = len(pictures)
            cut = pictures[:, :, top : top + 16, left : left + 16]
            assert torch.equal(patches[count * number : count * (number + 1)], cut)
    assert len(places) > 1
    assert build(patch_size=40)(batch.images, batch.modalities, batch.camids).day_patches.shape == (12, 3, 40, 32)


def test_the_generator_sees_some_night_pictures_darker_and_the_comparison_does_not() -> None:
    batch, seen = make_batch(), []
    for probability in (0.0, 1.0):
        method = build(darken_probability=probability, darken_factors=[3.0, 3.0])
        method.generator.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
        output = run(method, batch)
        torch.testing.assert_close(output.night, 2 * batch.images[[0, 2, 4]] - 1)
        run(method.eval(), batch)
    as_given, in_evaluation, darkened, again = seen
    torch.testing.assert_close((darkened + 1) / 2, (as_given + 1) / 2 / 3)
    assert torch.equal(in_evaluation, as_given)
    assert torch.equal(again, as_given), "outside a training nothing is darkened"
    method = build(darken_probability=0.5)
    torch.manual_seed(0)
    factors = 2 / (method._darken(torch.ones(400, 1, 1, 1)) + 1)
    assert ((factors == 1) | ((factors >= 2) & (factors <= 4))).all()
    assert 150 < int((factors > 1).sum()) < 250


def test_the_features_are_compared_normalised_picture_by_picture_and_map_by_map(rng: torch.Generator) -> None:
    ours, theirs = torch.rand(2, 2, 3, 4, 4, generator=rng)
    total = 0.0
    for one, other in zip(Small()(ours).flatten(0, 1), Small()(theirs).flatten(0, 1), strict=True):
        first, second = ((maps - maps.mean()) / (maps.var(correction=0) + 1e-5).sqrt() for maps in (one, other))
        total += float(((first - second) ** 2).sum())
    assert compare_features(Small(), ours, theirs).item() == pytest.approx(total / (2 * 2 * 16), rel=1e-4)


def test_with_weights_of_vgg_both_preserving_terms_are_there_and_reach_the_generator(vgg_file: Path) -> None:
    batch = make_batch()
    method = build(preserving_weight=0.5, vgg_weights=str(vgg_file), patch_size=16)
    method.load_pretrained("none")
    output = run(method, batch)
    losses = method.generator_losses(output, batch)
    assert list(losses) == ["global", "patch", "preserving", "preserving_patch"]
    expected = 0.5 * compare_features(method.vgg, output.brightened, output.night)
    torch.testing.assert_close(losses["preserving"], expected)
    expected = 0.5 * compare_features(method.vgg, output.brightened_patches, output.night_patches)
    torch.testing.assert_close(losses["preserving_patch"], expected)
    (losses["preserving"] + losses["preserving_patch"]).backward()
    assert method.generator.conv10.weight.grad.abs().max() > 0
    assert not any("vgg" in name for name in method.state_dict())
    groups = method.parameter_groups()
    assert sum(map(len, groups.values())) == len(list(method.parameters()))


def test_without_weights_of_vgg_a_training_is_refused_and_told_what_to_write() -> None:
    method = build(preserving_weight=1.0)
    for fill in (lambda: method.load_pretrained("none"), lambda: method.begin_epoch(None)):
        with pytest.raises(
            CheckpointError, match=r"needs VGG-16; set method.vgg_weights .*method.preserving_weight to 0"
        ):
            fill()
    with pytest.raises(CheckpointError, match=r"gone.pth: there is no such weights file"):
        build(preserving_weight=1.0, vgg_weights="gone.pth").load_pretrained("none")
    with pytest.raises(CheckpointError, match="VGG-16 has no weights yet"):
        method.losses(run(method, make_batch()), make_batch())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"darken_factors": [4.0, 2.0]}, "darken_factors: 4.0 is above 2.0; write the lowest first"),
        ({"darken_factors": [0.5, 2.0]}, "method.darken_factors"),
        ({"patch_size": 8}, "method.patch_size"),
    ],
)
def test_options_that_make_no_sense_are_refused(options, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        build(**options)


def test_pictures_too_small_for_vgg_are_refused() -> None:
    with pytest.raises(RecipeError, match=r"data.size \(32, 8\): method.preserving_weight needs pictures of 16 x 16"):
        build_method("enlighten_gan", SMALL | {"preserving_weight": 1.0}, 5, size=(32, 8))


def test_weights_start_with_the_releases_deviations() -> None:
    method = build(width=32, discriminator_width=16)
    assert method.generator.conv5_2.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert method.patch_discriminator.model[6].weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert method.generator.bn5_2.weight.mean().item() == pytest.approx(1, abs=0.01)
    assert method.generator.bn5_2.weight.std().item() == pytest.approx(0.02, rel=0.2)


def test_the_releases_generator_is_read_and_imagenet_weights_do_not_exist(tmp_path: Path) -> None:
    torch.manual_seed(3)
    network = AttentionUNet(2)
    torch.save({f"module.{name}": value for name, value in network.state_dict().items()}, tmp_path / "200_net_G_A.pth")
    method = build()
    method.load_pretrained(str(tmp_path / "200_net_G_A.pth"))
    assert torch.equal(method.generator.conv9_2.weight, network.conv9_2.weight)
    with pytest.raises(CheckpointError, match="enlighten_gan has no ImageNet weights"):
        method.load_pretrained("imagenet")


def test_a_run_that_begins_with_another_ones_weights_finds_vgg_and_brightens_as_an_enhancer(
    tiny_recipe, people: Path, one_thread: None, vgg_file: Path, tmp_path: Path
) -> None:
    options = {"name": "enlighten_gan"} | SMALL | {"preserving_weight": 1.0, "vgg_weights": str(vgg_file)}
    changes = [f"method={options}", "optimiser.group_lr={}", "schedule.epochs=1"]
    changes.append("sampler={name: uniform, batch: 4, steps: 1}")
    first = train(tiny_recipe(overrides=changes), tmp_path / "first")
    assert first.history[0]["loss"] > 0
    changes.append(f"init.weights={tmp_path / 'first'}")
    second = train(tiny_recipe(overrides=changes), tmp_path / "second")
    assert np.isfinite(second.history[0]["loss"])
    picture = np.random.default_rng(0).integers(0, 60, (30, 21, 3), dtype=np.uint8)
    enhance, facts = build_enhancer(str(tmp_path / "second"))
    assert enhance(picture).shape == picture.shape
    assert facts["enhancer"] == "enlighten_gan"


def test_a_pictures_result_does_not_depend_on_the_others_of_its_batch() -> None:
    batch, method = make_batch(), build().eval()
    with torch.no_grad():
        together = method.enhance(batch.images)
        alone = method.enhance(batch.images[2:3])
    torch.testing.assert_close(together[2:3], alone)


@pytest.mark.parametrize("twin", ["night600", "synth"])
def test_the_recipes_flip_and_lower_the_rate_as_the_release_does(twin: str) -> None:
    recipe = load_recipe(f"enlighten_gan_{twin}")
    assert [entry["name"] for entry in recipe.augment] == ["flip", "flip_vertical"]
    assert {entry["probability"] for entry in recipe.augment} == {0.5}
    schedule = recipe.schedule
    assert (schedule.name, schedule.milestones, schedule.final) == ("linear", (schedule.epochs // 2,), 0.0)


def test_the_recipe_for_the_generated_scene_names_the_cameras_that_see_by_day_there() -> None:
    recipe = load_recipe("enlighten_gan_synth")
    options, _ = scene_options(recipe.data.scene)
    scene = Scene(options)
    by_day = [camid for camid in options.camids if scene.camera(camid).lighting.by_day]
    assert list(recipe.method.options["day_cameras"]) == by_day
    assert len(by_day) == len(options.camids) / 2
