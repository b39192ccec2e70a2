"""The scene: independent streams, reproducible pictures, the promised mixture of light and size."""

from dataclasses import replace

import numpy as np
import pytest

import golden_files
from tapetum.core.errors import RecipeError
from tapetum.core.types import Modality
from tapetum.data.lighting import estimate_noise
from tapetum.synth.background import build_street
from tapetum.synth.scene import Scene, SceneOptions, contact_sheet
from tapetum.synth.sensor import mean_lightness

VISIBLE, INFRARED = Modality.VISIBLE, Modality.INFRARED
SMALL = SceneOptions(num_train_people=3, num_test_people=2, cameras=3, size=(96, 48))


@pytest.fixture(scope="module")
def small() -> Scene:
    return Scene(SMALL)


@pytest.fixture(scope="module")
def default_shots() -> list[tuple[int, float, int]]:
    """Camera, lightness and height of one picture of each of twelve people under each default camera."""
    scene = Scene(SceneOptions())
    shots = [(camid, scene.picture(pid, camid, 0)) for camid in range(1, 9) for pid in range(1, 13)]
    return [(camid, mean_lightness(picture), len(picture)) for camid, picture in shots]


def test_a_picture_does_not_depend_on_what_was_asked_before(small: Scene) -> None:
    wanted = [(1, 1, 0), (4, 3, 2), (2, 2, 1)]
    forward = {key: small.picture(*key).tobytes() for key in wanted}
    backward = Scene(SMALL)
    assert {key: backward.picture(*key).tobytes() for key in reversed(wanted)} == forward


def test_the_same_people_under_other_cameras(small: Scene) -> None:
    other = Scene(replace(SMALL, camera_seed=1))
    assert [other.person(pid) for pid in range(1, 6)] == [small.person(pid) for pid in range(1, 6)]
    assert other.camera(1) != small.camera(1)
    assert not np.array_equal(other.picture(1, 1, 0), small.picture(1, 1, 0))


def test_another_time_changes_neither_people_nor_cameras(small: Scene) -> None:
    later = Scene(replace(SMALL, time_seed=1))
    assert later.person(2) == small.person(2)
    assert later.camera(2) == small.camera(2)
    assert np.array_equal(build_street(later.camera(2)).light, build_street(small.camera(2)).light)
    assert later.moment(2, 2, 0) != small.moment(2, 2, 0)


def test_other_people_walk_the_same_ways(small: Scene) -> None:
    others = Scene(replace(SMALL, identity_seed=1))
    assert others.person(2) != small.person(2)
    assert others.moment(2, 2, 0) == small.moment(2, 2, 0)
    assert others.camera(2) == small.camera(2)


def test_training_and_testing_people_are_different() -> None:
    assert not set(SMALL.train_pids) & set(SMALL.test_pids)
    assert len(SMALL.train_pids) == 3
    assert len(SMALL.test_pids) == 2


def test_most_default_pictures_are_low_and_every_light_level_is_there(
    default_shots: list[tuple[int, float, int]],
) -> None:
    lightness = np.array([shot[1] for shot in default_shots])
    low, high = (lightness < 25.5).mean(), (lightness > 51).mean()
    assert 0.6 <= low <= 0.8
    assert 0.02 <= high <= 0.15
    assert 1 - low - high > 0.1


def test_the_dark_cameras_are_two_five_and_eight(default_shots: list[tuple[int, float, int]]) -> None:
    mean = {camid: np.mean([s[1] for s in default_shots if s[0] == camid]) for camid in range(1, 9)}
    assert set(sorted(mean, key=lambda camid: mean[camid])[:3]) == {2, 5, 8}


def test_every_size_level_is_there(default_shots: list[tuple[int, float, int]]) -> None:
    heights = np.array([shot[2] for shot in default_shots])
    assert (heights < 100).mean() > 0.05
    assert (heights > 200).mean() > 0.05
    assert ((heights >= 100) & (heights <= 200)).mean() > 0.3


def test_fixed_sizes_are_exact_and_varying_ones_vary(small: Scene) -> None:
    fixed = Scene(replace(SMALL, sizes="fixed"))
    assert {fixed.picture(pid, camid, 0).shape for pid in (1, 2) for camid in (1, 2)} == {(96, 48, 3)}
    assert len({small.picture(pid, camid, 0).shape for pid in (1, 2) for camid in (1, 2)}) > 2


def test_more_light_makes_brighter_pictures_and_less_noise(small: Scene) -> None:
    noise = {}
    for name, options in (("night", SMALL), ("dusk", replace(SMALL, light_scale=4.0))):
        picture = Scene(replace(options, sizes="fixed")).picture(1, 2, 0).astype(float)
        noise[name] = (picture.mean(), np.abs(np.diff(picture[:12, :12], axis=1)).mean() / picture[:12, :12].mean())
    assert noise["dusk"][0] > 2 * noise["night"][0]
    assert noise["dusk"][1] < noise["night"][1]


def test_without_difficulty_nothing_is_hidden_or_badly_cut() -> None:
    easy = Scene(replace(SMALL, difficulty=0.0, occluded_share=1.0, badly_cut_share=1.0, headlight_share=1.0))
    facts = easy.shot(1, 1, 0).facts
    assert not any(facts[name] for name in ("occluded", "badly_cut", "headlight"))


def test_shares_of_occlusion_bad_boxes_and_headlights_are_as_asked() -> None:
    options = replace(SMALL, size=(32, 16), occluded_share=0.3, badly_cut_share=0.2, headlight_share=0.4)
    scene = Scene(options)
    facts = [scene.shot(1 + i % 5, 1 + i % 3, i).facts for i in range(240)]
    for name, share in (("occluded", 0.3), ("badly_cut", 0.2), ("headlight", 0.4)):
        assert np.mean([f[name] for f in facts]) == pytest.approx(share, abs=0.1)


def test_infrared_pictures_are_grey_and_show_the_same_moment() -> None:
    scene = Scene(replace(SMALL, infrared_cameras=(2,)))
    grey = scene.shot(1, 2, 0)
    assert grey.modality is Modality.INFRARED
    assert np.ptp(grey.picture.astype(int), axis=2).max() == 0
    colour = scene.shot(1, 2, 0, Modality.VISIBLE)
    assert np.ptp(colour.picture.astype(int), axis=2).max() > 0
    assert colour.picture.shape == grey.picture.shape
    assert colour.facts["heading_deg"] == grey.facts["heading_deg"]


def test_a_thermal_camera_sees_skin_brighter_than_the_street() -> None:
    options = replace(SMALL, infrared_cameras=(1,), infrared_band="thermal", sizes="fixed", difficulty=0.3)
    picture = Scene(options).picture(1, 1, 0)
    assert picture[:24, 16:32].max() > picture[:, :4].mean() + 40


def test_a_person_may_visit_some_cameras_only() -> None:
    scene = Scene(replace(SMALL, cameras=3, cameras_per_person=2))
    visits = [scene.cameras_of(pid) for pid in range(1, 30)]
    assert {len(cameras) for cameras in visits} == {2}
    assert {camid for cameras in visits for camid in cameras} == {1, 2, 3}


def test_a_contact_sheet_has_a_row_a_person_and_a_column_a_camera() -> None:
    sheet = contact_sheet(SMALL, [1, 2], size=(48, 24))
    assert sheet.shape == (96, 72, 3)
    assert sheet.dtype == np.uint8


@pytest.mark.parametrize(
    "change",
    [
        {"cameras": 0}, {"size": (8, 8)}, {"sizes": "huge"}, {"light_scale": 0}, {"occluded_share": 2},
        {"infrared_cameras": (9,)}, {"infrared_band": "far"}, {"light": "dusk"}, {"lookalikes": 0},
        {"cameras_per_person": 4}, {"num_test_people": -1},
    ],
)  # fmt: skip
def test_an_impossible_setting_is_named(change: dict[str, object]) -> None:
    with pytest.raises(RecipeError, match=f"scene: {next(iter(change))} is .*must be"):
        replace(SMALL, **change)


def test_an_unknown_camera_is_named(small: Scene) -> None:
    with pytest.raises(RecipeError, match="camera 4 is unknown"):
        small.camera(4)


def test_a_pair_of_cameras_shows_a_person_twice_and_never_at_the_same_moment() -> None:
    scene = Scene(replace(SMALL, paired_cameras=(1, 3), pictures_per_camera=2))
    assert scene.views() == [(1, VISIBLE), (1, INFRARED), (2, VISIBLE), (3, VISIBLE), (3, INFRARED)]
    pictures = scene.pictures_of(1)
    assert len(pictures) == 5 * 2
    assert len({(camid, index) for camid, _, index in pictures}) == 5 * 2
    assert {index for camid, modality, index in pictures if modality is VISIBLE} == {0, 1}
    assert scene.moment(1, 1, 0) != scene.moment(1, 1, 2)
    assert scene.shot(1, 1, 2, INFRARED).modality is INFRARED
    assert Scene(SMALL).pictures_of(2) == [(camid, VISIBLE, index) for camid in (1, 2, 3) for index in range(3)]


def test_pairs_change_no_picture_of_the_visible_cameras(small: Scene) -> None:
    paired = Scene(replace(SMALL, paired_cameras=(1, 2, 3)))
    assert np.array_equal(paired.picture(2, 1, 1), small.picture(2, 1, 1))


def test_a_camera_that_sees_infrared_alone_is_not_half_of_a_pair() -> None:
    with pytest.raises(RecipeError, match=r"paired_cameras is \(2,\); it must be visible cameras"):
        replace(SMALL, infrared_cameras=(2,), paired_cameras=(2,))
    with pytest.raises(RecipeError, match=r"paired_cameras is \(4,\); it must be camera numbers in 1..3"):
        replace(SMALL, paired_cameras=(4,))


def test_scenes_of_before_show_the_same_pictures() -> None:
    options = replace(SMALL, size=(48, 24), occluded_share=0.5, headlight_share=0.5, paired_cameras=(2,))
    scenes = {
        "visible": Scene(options),
        "near": Scene(replace(options, infrared_likeness=0.3)),
        "thermal": Scene(replace(options, infrared_band="thermal")),
    }
    with golden_files.load("scene_before") as pictures:
        assert len(pictures.files) == 6
        for name in pictures.files:
            kind, *numbers = name.split("_")
            pid, camid, index = map(int, numbers)
            made = scenes[kind].picture(pid, camid, index, VISIBLE if kind == "visible" else INFRARED)
            difference = np.abs(made.astype(int) - pictures[name])
            assert difference.max() <= 1, name
            assert (difference > 0).mean() < 0.01, name


def test_by_day_the_same_people_walk_the_same_ways_before_the_same_cameras(small: Scene) -> None:
    day = Scene(replace(SMALL, light="day"))
    assert [day.person(pid) for pid in range(1, 6)] == [small.person(pid) for pid in range(1, 6)]
    assert day.views() == small.views()
    assert day.pictures_of(2) == small.pictures_of(2)
    for pid, camid, index in ((1, 1, 0), (2, 2, 1), (5, 3, 2)):
        assert day.moment(pid, camid, index) == small.moment(pid, camid, index)
        ours, theirs = day.shot(pid, camid, index), small.shot(pid, camid, index)
        assert ours.picture.shape == theirs.picture.shape
        same = ("heading_deg", "distance_m", "occluded", "badly_cut")
        assert [ours.facts[name] for name in same] == [theirs.facts[name] for name in same]
        assert not ours.facts["headlight"]
        assert ours.facts["electrons"] > 20 * theirs.facts["electrons"]


def test_what_is_in_front_of_somebody_by_day_is_there_at_night_even_if_a_car_passed() -> None:
    night = Scene(replace(SMALL, occluded_share=0.5, headlight_share=1.0, difficulty=1.0))
    day = Scene(replace(night.options, light="day"))
    keys = [(pid, camid, index) for pid in range(1, 6) for camid in (1, 2, 3) for index in (0, 1)]
    occluded = [night.shot(*key).facts["occluded"] for key in keys]
    assert 5 < sum(occluded) < 25
    assert [day.shot(*key).facts["occluded"] for key in keys] == occluded


def test_pictures_by_day_are_bright_hardly_noisy_and_of_no_tint() -> None:
    options = replace(SMALL, sizes="fixed", cameras=8, occluded_share=0.0)
    scenes = {light: Scene(replace(options, light=light)) for light in ("night", "day")}
    keys = [(pid, camid) for pid in (1, 2, 3, 4) for camid in range(1, 9)]
    pictures = {light: [scene.picture(pid, camid, 0) for pid, camid in keys] for light, scene in scenes.items()}
    lightness = {light: np.array([mean_lightness(each) for each in found]) for light, found in pictures.items()}
    assert 80 < lightness["day"].mean() < 150
    assert lightness["day"].min() > 51, "the bound of high light"
    assert lightness["day"].mean() > 3 * lightness["night"].mean()
    noise = {light: np.mean([estimate_noise(each) / each.mean() for each in pictures[light]]) for light in pictures}
    assert noise["day"] < 0.5 * noise["night"]
    for camid in range(1, 9):
        grey = scenes["day"].camera(camid).lighting.on_surface(np.array([[0.0, 8.0, 1.0]]), np.array((0, 0, 1.0)), 1)
        assert np.ptp(grey[0, :3]) < 0.12 * grey[0, :3].mean()


def test_infrared_cameras_see_by_day_too(small: Scene) -> None:
    scene = Scene(replace(SMALL, light="day", infrared_cameras=(2,)))
    grey = scene.shot(1, 2, 0)
    assert grey.modality is INFRARED
    assert np.ptp(grey.picture.astype(int), axis=2).max() == 0
    assert 60 < mean_lightness(grey.picture) < 200


def test_a_scene_of_both_lights_has_each_camera_again_by_day_at_other_moments(small: Scene) -> None:
    both = Scene(replace(SMALL, light="both", paired_cameras=(2,)))
    assert both.views() == [
        (1, VISIBLE), (2, VISIBLE), (2, INFRARED), (3, VISIBLE), (4, VISIBLE), (5, VISIBLE), (5, INFRARED), (6, VISIBLE)
    ]  # fmt: skip
    night, day = both.camera(2), both.camera(5)
    assert (night.camid, day.camid) == (2, 5)
    assert (night.street_seed, night.height_m, night.path) == (day.street_seed, day.height_m, day.path)
    assert not night.lighting.by_day
    assert day.lighting.by_day
    assert day.lighting == Scene(replace(SMALL, light="day")).camera(2).lighting
    assert np.array_equal(both.picture(1, 1, 0), small.picture(1, 1, 0)), "the night is that of a scene of its own"
    assert both.moment(1, 4, 0) != both.moment(1, 1, 0)
    assert len(both.pictures_of(1)) == 8 * 3
    assert {index for camid, modality, index in both.pictures_of(1) if (camid, modality) == (5, INFRARED)} == {3, 4, 5}
    some = Scene(replace(SMALL, light="both", cameras_per_person=1))
    assert all(first + 3 == second for first, second in (some.cameras_of(pid) for pid in range(1, 9)))
    with pytest.raises(RecipeError, match="camera 7 is unknown; this scene has cameras 1 to 6"):
        both.camera(7)


def test_lookalikes_wear_the_same_and_are_different_people() -> None:
    plain = Scene(replace(SMALL, num_train_people=5, num_test_people=4))
    scene = Scene(replace(plain.options, lookalikes=2))
    assert [scene.outfit(pid) for pid in range(1, 10)] == [1, 1, 3, 3, 5, 6, 6, 8, 8]
    for pid in range(1, 10):
        person, model, self_ = scene.person(pid), scene.person(scene.outfit(pid)), plain.person(pid)
        assert (person.upper, person.lower, person.shoes) == (model.upper, model.lower, model.shoes)
        own = ("pid", "height_m", "build", "skin", "hair", "hair_dye", "hat", "bag", "bag_dye", "stride", "cadence_hz")
        assert [getattr(person, name) for name in own] == [getattr(self_, name) for name in own]
    assert len({scene.person(pid).height_m for pid in (1, 2)}) == 2
    assert len({scene.person(pid).upper.first for pid in (1, 3, 5, 6, 8)}) == 5
    assert scene.moment(2, 1, 0) == plain.moment(2, 1, 0)
    assert np.array_equal(scene.picture(3, 1, 0), plain.picture(3, 1, 0)), "who lends the clothes looks as before"
    assert not np.array_equal(scene.picture(4, 1, 0), plain.picture(4, 1, 0))
    third = Scene(replace(plain.options, lookalikes=3))
    assert [third.outfit(pid) for pid in range(1, 10)] == [1, 1, 1, 4, 4, 6, 6, 6, 9]


def test_clothes_of_lookalikes_are_the_same_in_infrared_too() -> None:
    scene = Scene(replace(SMALL, lookalikes=2, infrared_likeness=0.5))
    assert scene.person(1).upper == scene.person(2).upper
    assert scene.person(1).upper != Scene(replace(SMALL, lookalikes=2)).person(1).upper
