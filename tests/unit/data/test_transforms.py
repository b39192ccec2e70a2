import colorsys
import math

import numpy as np
import pytest
import torch
from PIL import Image

from tapetum.data.transforms import (
    BOT_FILL,
    CAJ_FILL,
    IMAGENET_MEAN,
    AugmentOptions,
    ErasingOptions,
    augment_batch,
    draw_boxes,
    erase,
    jitter_colours,
    mirror_and_crop,
    take_colours,
    to_float,
    to_tensor,
)

RNG = np.random.default_rng(0)
PICTURES = RNG.integers(1, 256, (24, 32, 16, 3), dtype=np.uint8)
EVERYTHING = AugmentOptions(
    pad=4,
    flip=0.5,
    erasing=ErasingOptions(0.7, fill="noise"),
    colour_jitter=(0.2, 0.2, 0.2, 0.1),
    grayscale=0.5,
)


def run(options: AugmentOptions, positions: np.ndarray | None = None, **where: int) -> torch.Tensor:
    place = {"seed": 1, "epoch": 2, "number": 3} | where
    chosen = np.arange(24) if positions is None else positions
    return augment_batch(PICTURES[chosen], options, batch=24, positions=chosen, **place)


def slow_mirror_and_crop(picture: np.ndarray, pad: int, mirrored: bool, top: int, left: int) -> np.ndarray:
    height, width, _ = picture.shape
    result = np.zeros_like(picture)
    for y in range(height):
        for x in range(width):
            source_y, source_x = y + top - pad, x + left - pad
            if 0 <= source_y < height and 0 <= source_x < width:
                result[y, width - 1 - x if mirrored else x] = picture[source_y, source_x]
    return result


def test_mirror_and_crop_equal_a_slow_loop() -> None:
    mirrored, offsets = RNG.random(24) < 0.5, RNG.random((24, 2))
    fast = mirror_and_crop(PICTURES, 4, mirrored, offsets)
    for i in range(24):
        top, left = (int(value * 9) for value in offsets[i])
        assert np.array_equal(fast[i], slow_mirror_and_crop(PICTURES[i], 4, mirrored[i], top, left))


def test_pictures_given_are_not_changed() -> None:
    before = PICTURES.copy()
    run(EVERYTHING)
    mirror_and_crop(PICTURES, 0, np.ones(24, bool), np.zeros((24, 2)))
    assert np.array_equal(PICTURES, before)


def test_every_place_of_the_crop_is_equally_likely() -> None:
    marker = np.zeros((1, 9, 9, 3), np.uint8)
    marker[0, 4, 4] = 255
    count = 4000
    cut = mirror_and_crop(np.repeat(marker, count, 0), 2, np.zeros(count, bool), RNG.random((count, 2)))
    found = np.argwhere(cut[..., 0])[:, 1:]
    assert len(found) == count
    counts = np.bincount((found[:, 0] - 2) * 5 + found[:, 1] - 2, minlength=25)
    assert np.abs(counts - count / 25).max() < 5 * math.sqrt(count / 25)


def test_nothing_asked_for_changes_nothing() -> None:
    assert torch.equal(run(AugmentOptions(pad=0, flip=0.0)), to_tensor(to_float(PICTURES)))


def test_float_pictures_are_rgb_in_unit_range_in_channels_last_memory() -> None:
    images = to_tensor(to_float(PICTURES))
    assert images.shape == (24, 3, 32, 16)
    assert images.dtype == torch.float32
    assert images.is_contiguous(memory_format=torch.channels_last)
    assert torch.allclose(images[5, 1, 2, 3], torch.tensor(PICTURES[5, 2, 3, 1] / 255.0, dtype=torch.float32))


def test_same_place_gives_the_same_pictures_and_another_place_others() -> None:
    assert torch.equal(run(EVERYTHING), run(EVERYTHING))
    for other in ({"seed": 2}, {"epoch": 1}, {"number": 0}):
        assert not torch.equal(run(EVERYTHING), run(EVERYTHING, **other))


@pytest.mark.parametrize("fill", ["black", "mean", "noise", BOT_FILL])
@pytest.mark.parametrize("world", [2, 3, 24])
def test_processes_together_make_the_pictures_that_one_process_makes(fill: object, world: int) -> None:
    options = AugmentOptions(4, 0.5, ErasingOptions(0.7, fill=fill), (0.2, 0.2, 0.2, 0.1), 0.5)  # type: ignore[arg-type]
    whole = run(options)
    for rank in range(world):
        positions = np.arange(rank, 24, world)
        assert torch.equal(run(options, positions), whole[positions])


def slow_boxes(options: ErasingOptions, size: tuple[int, int], rng: np.random.Generator) -> list[tuple[int, ...]]:
    """The original's loop: up to 100 tries of area and aspect, the first that fits."""
    boxes = []
    for _ in range(20000):
        if rng.random() >= options.probability:
            continue
        for _ in range(options.tries):
            area = rng.uniform(*options.area) * size[0] * size[1]
            aspect = rng.uniform(*options.aspect)
            height, width = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if height < size[0] and width < size[1]:
                boxes.append(
                    (
                        int(rng.integers(0, size[0] - height, endpoint=True)),
                        int(rng.integers(0, size[1] - width, endpoint=True)),
                        height,
                        width,
                    )
                )
                break
    return boxes


@pytest.mark.parametrize("size", [(256, 128), (32, 32)])
def test_erased_boxes_have_the_statistics_of_the_slow_loop(size: tuple[int, int]) -> None:
    options = ErasingOptions(probability=0.5)
    fast = draw_boxes(options, 20000, size, np.random.default_rng(1))
    erased = fast[fast[:, 2] > 0]
    slow = np.array(slow_boxes(options, size, np.random.default_rng(2)))
    assert abs(len(erased) - len(slow)) < 5 * math.sqrt(2 * 20000 * 0.25)
    difference = np.abs(erased.mean(0) - slow.mean(0))
    assert (difference < 5 * slow.std(0) * math.sqrt(2 / len(slow))).all()
    assert ((erased[:, :2] >= 0) & (erased[:, :2] + erased[:, 2:] <= size)).all()
    share = erased[:, 2] * erased[:, 3] / (size[0] * size[1])
    assert share.min() > 0.015
    assert share.max() < 0.42


def test_log_aspect_makes_tall_and_wide_boxes_equally_likely() -> None:
    uniform = draw_boxes(ErasingOptions(1.0), 4000, (400, 400), np.random.default_rng(1))
    log = draw_boxes(ErasingOptions(1.0, aspect_scale="log"), 4000, (400, 400), np.random.default_rng(1))
    assert abs((log[:, 2] > log[:, 3]).mean() - 0.5) < 0.05
    assert (uniform[:, 2] > uniform[:, 3]).mean() > 0.7


def test_box_that_never_fits_leaves_the_picture_whole() -> None:
    boxes = draw_boxes(
        ErasingOptions(1.0, area=(0.99, 0.999), aspect=(5.0, 6.0)), 10, (32, 16), np.random.default_rng(0)
    )
    assert not boxes.any()


@pytest.mark.parametrize(
    ("fill", "colour"), [("black", (0, 0, 0)), ("mean", IMAGENET_MEAN), ((0.1, 0.2, 0.3), (0.1, 0.2, 0.3))]
)
def test_erasing_fills_exactly_its_box(fill: object, colour: tuple[float, ...]) -> None:
    images = to_float(PICTURES[:3])
    boxes = np.array([[2, 3, 10, 5], [0, 0, 0, 0], [31, 15, 1, 1]])
    erase(images, boxes, ErasingOptions(fill=fill), positions=np.arange(3), generator=RNG)  # type: ignore[arg-type]
    expected = to_float(PICTURES[:3])
    expected[0, 2:12, 3:8] = colour
    expected[2, 31, 15] = colour
    assert np.array_equal(images, expected)


def test_noise_differs_between_pixels_channels_and_pictures_and_stays_in_range() -> None:
    images = np.full((2, 64, 64, 3), -1.0, np.float32)
    boxes = np.array([[0, 0, 64, 64], [0, 0, 64, 64]])
    options = ErasingOptions(fill="noise", noise_mean=0.5, noise_deviation=0.1)
    erase(images, boxes, options, positions=np.arange(2), generator=np.random.default_rng(0))
    assert images.min() >= 0
    assert images.max() <= 1
    assert abs(images.mean() - 0.5) < 0.01
    assert abs(images.std() - 0.1) < 0.01
    assert not np.array_equal(images[0], images[1])
    assert np.abs(np.corrcoef(images[0].reshape(-1, 3).T) - np.eye(3)).max() < 0.1


def test_erasing_happens_with_its_probability_and_flip_with_its_own() -> None:
    pictures = np.full((2000, 8, 8, 3), 200, np.uint8)
    pictures[:, :, 0] = 100
    place = {"seed": 0, "epoch": 0, "number": 0, "batch": 2000, "positions": np.arange(2000)}
    mirrored = augment_batch(pictures, AugmentOptions(flip=0.3), **place)
    assert abs((mirrored[:, 0, 0, 0] * 255 > 150).float().mean() - 0.3) < 0.05
    erased = augment_batch(pictures, AugmentOptions(flip=0, erasing=ErasingOptions(0.4)), **place)
    assert abs((erased.amin((1, 2, 3)) == 0).float().mean() - 0.4) < 0.05


def amounts(brightness: float = 1, contrast: float = 1, saturation: float = 1, hue: float = 0) -> tuple:
    """Strengths of 1 (hue 0.5) and draws that give just these factors."""
    draws = [brightness / 2, contrast / 2, saturation / 2, hue + 0.5, 0.1, 0.2, 0.3, 0.4]
    return (1.0, 1.0, 1.0, 0.5), np.array([draws])


def test_brightness_contrast_and_saturation_are_those_of_the_definition() -> None:
    picture = PICTURES[:1]
    floats = picture / 255.0
    grey = floats @ np.array([0.299, 0.587, 0.114])
    expected = {
        "brightness": floats * 0.6,
        "contrast": grey.mean() + (floats - grey.mean()) * 0.6,
        "saturation": grey[..., None] + (floats - grey[..., None]) * 0.6,
    }
    for name, values in expected.items():
        changed = jitter_colours(picture, *amounts(**{name: 0.6}))
        assert np.abs(changed - np.rint(values.clip(0, 1) * 255)).max() <= 1, name


def test_hue_turns_as_colorsys_does() -> None:
    changed = jitter_colours(PICTURES[:1], *amounts(hue=0.2))[0]
    for y in range(0, 32, 5):
        for x in range(0, 16, 5):
            hue, saturation, value = colorsys.rgb_to_hsv(*(PICTURES[0, y, x] / 255.0))
            expected = np.array(colorsys.hsv_to_rgb((hue + 0.2) % 1, saturation, value)) * 255
            assert np.abs(changed[y, x] - expected).max() <= 1


def test_grey_picture_has_no_hue_to_turn() -> None:
    grey = np.repeat(PICTURES[:1, :, :, :1], 3, axis=3)
    assert np.array_equal(jitter_colours(grey, *amounts(hue=0.3)), grey)


def test_jitter_of_strength_zero_changes_nothing() -> None:
    assert np.array_equal(jitter_colours(PICTURES, (0, 0, 0, 0), RNG.random((24, 8))), PICTURES)


def test_grey_pictures_are_pillow_s_to_the_last_bit_and_the_others_stay() -> None:
    corners = np.array([[0, 0, 0], [255, 255, 255], [255, 0, 0], [0, 255, 0], [0, 0, 255]], np.uint8)
    pictures = np.concatenate([PICTURES, np.broadcast_to(corners[:, None, None], (5, 32, 16, 3))])
    chosen = np.arange(29) % 3 > 0
    found = take_colours(pictures, chosen)
    for picture, result, grey in zip(pictures, found, chosen, strict=True):
        expected = np.asarray(Image.fromarray(picture).convert("L").convert("RGB")) if grey else picture
        assert np.array_equal(result, expected)


def test_pictures_lose_their_colours_with_the_given_probability() -> None:
    options = AugmentOptions(flip=0.0, grayscale=0.25)
    grey = 0
    for number in range(60):
        images = run(options, number=number)
        grey += int((images == images[:, :1]).all(dim=(1, 2, 3)).sum())
    count = 60 * 24
    assert abs(grey - count / 4) < 5 * math.sqrt(count * 0.25 * 0.75)


def test_padding_and_erasing_come_after_grey() -> None:
    red = ErasingOptions(1.0, area=(0.2, 0.3), fill=(1.0, 0.0, 0.0))
    images = run(AugmentOptions(pad=4, flip=0.5, erasing=red, grayscale=1.0))
    coloured = (images != images[:, :1]).any(dim=1)
    assert coloured.any()
    assert torch.equal(images.permute(0, 2, 3, 1)[coloured], torch.tensor([1.0, 0.0, 0.0]).expand(coloured.sum(), 3))


@pytest.mark.parametrize(
    ("fill", "constant"),
    [(BOT_FILL, (0.485, 0.456, 0.406)), (CAJ_FILL, (0.4914, 0.4822, 0.4465)), (IMAGENET_MEAN, (0, 0, 0))],
)
def test_fills_become_the_releases_constants_after_normalisation(
    fill: tuple[float, ...], constant: tuple[float, ...]
) -> None:
    normalised = (np.array(fill) - IMAGENET_MEAN) / (0.229, 0.224, 0.225)
    np.testing.assert_allclose(normalised, constant, atol=1e-12)
