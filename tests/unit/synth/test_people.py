"""People: drawn from the identity stream, varied, with infrared reflectances that do not follow the colours."""

import json
from collections import Counter
from dataclasses import asdict

import numpy as np
import pytest

from tapetum.synth.people import Dye, draw_person, liken

CROWD = [draw_person(0, pid) for pid in range(400)]


def test_a_person_depends_on_seed_and_pid_alone() -> None:
    assert draw_person(3, 17) == draw_person(3, 17)
    assert draw_person(3, 17) != draw_person(4, 17)
    assert draw_person(3, 17) != draw_person(3, 18)


def test_near_infrared_reflectance_does_not_follow_the_visible_colour() -> None:
    dyes = [dye for p in CROWD for dye in (p.upper.first, p.upper.second, p.lower.first, p.shoes, p.bag_dye)]
    visible = np.array([np.mean(dye.albedo) for dye in dyes])
    infrared = np.array([dye.infrared for dye in dyes])
    assert abs(np.corrcoef(visible, infrared)[0, 1]) < 0.08
    black = infrared[np.array([dye.name == "black" for dye in dyes])]
    assert black.min() < 0.2
    assert black.max() > 0.7


def test_a_crowd_shows_every_kind_of_clothing_and_baggage() -> None:
    seen = Counter()
    for p in CROWD:
        seen.update((p.hair, p.hat, p.upper.kind, p.upper.pattern, p.lower.kind, p.bag))
        seen[f"sleeves {p.long_sleeves}"] += 1
    for word in ("long", "short", "bald", "cap", "beanie", "coat", "jacket", "shirt", "t_shirt", "plain", "stripes",
                 "checks", "blocks", "logo", "trousers", "shorts", "skirt", "backpack", "shoulder_bag", "handbag",
                 "sleeves True", "sleeves False"):  # fmt: skip
        assert seen[word] >= 5, word


def test_bodies_and_colours_stay_in_what_is_possible() -> None:
    for p in CROWD:
        assert 1.4 <= p.height_m <= 2.05
        assert 0.7 <= p.build <= 1.5
        for dye in (p.skin, p.hair_dye, p.upper.first, p.upper.second, p.lower.first):
            assert all(0 < value < 1 for value in (*dye.albedo, dye.infrared))


def test_attributes_are_plain_values_for_a_ground_truth_file() -> None:
    attributes = json.loads(json.dumps(asdict(CROWD[0])))
    assert attributes["upper"]["first"]["name"] == CROWD[0].upper.first.name


def test_patterns_can_be_told_from_their_ground() -> None:
    for p in CROWD:
        if p.upper.pattern != "plain":
            contrast = np.abs(np.sqrt(p.upper.first.albedo) - np.sqrt(p.upper.second.albedo)).max()
            assert contrast > 0.03


def test_near_infrared_follows_visible_lightness_as_far_as_it_is_asked_to() -> None:
    def lightness(dye: Dye) -> float:
        return float(np.sqrt(np.dot((0.2126, 0.7152, 0.0722), dye.albedo)))

    people = [draw_person(5, pid) for pid in range(1, 200)]
    pairs = {
        share: [(lightness(p.upper.first), p.upper.first.infrared) for p in (liken(p, share) for p in people)]
        for share in (0.0, 0.6, 1.0)
    }
    correlations = {share: float(np.corrcoef(np.array(values).T)[0, 1]) for share, values in pairs.items()}
    assert abs(correlations[0.0]) < 0.2
    assert 0.6 < correlations[0.6] < 0.95
    assert correlations[1.0] == pytest.approx(1.0)
    assert liken(people[0], 0.0) == people[0]
    assert all(0.05 < infrared < 0.9 for values in pairs.values() for _, infrared in values)
