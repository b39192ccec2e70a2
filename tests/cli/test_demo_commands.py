"""What the demos' commands make of their options and print; the demos themselves are replaced."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tapetum.experiments import demo, demo_infrared

Call = Callable[[str], tuple[int, str, str]]
NUMBERS = {"rank1": 0.5, "rank5": 0.625, "rank10": 0.75, "rank20": 0.875, "mean_ap": 0.25, "mean_inp": 0.0625}
CHANCE = {"rank1": 0.015, "mean_ap": 0.0175}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The options with which a demo was called; its numbers are all alike."""
    calls: list[Any] = []

    def run_demo(options: demo.DemoOptions, *, quiet: bool) -> dict[str, Any]:
        calls.append(options)
        one = {**NUMBERS, "protocol": "night600", "ap": "trapezoid"}
        return {"methods": dict.fromkeys(options.recipes, one), "chance": CHANCE}

    def run_infrared(options: demo_infrared.InfraredDemoOptions, *, quiet: bool) -> dict[str, Any]:
        calls.append(options)
        one = {**NUMBERS, "trials": 10, "ap": "step"}
        ways = demo_infrared.DIRECTIONS
        return {
            "methods": {label: dict.fromkeys(ways, one) for label in options.recipes},
            "chance": dict.fromkeys(ways, CHANCE),
            "protocols": ways,
        }

    monkeypatch.setattr(demo, "run_demo", run_demo)
    monkeypatch.setattr(demo_infrared, "run_infrared_demo", run_infrared)
    return calls


@pytest.mark.parametrize("command", ["demo", "demo-ir"])
def test_without_the_option_the_usual_methods_are_trained(
    call: Call, asked: list[Any], command: str, tmp_path: Path
) -> None:
    assert call(f"tapetum {command} --out {tmp_path / 'out'}")[0] == 0
    (options,) = asked
    assert options.methods == {"demo": demo.METHODS, "demo-ir": demo_infrared.METHODS}[command]
    assert "--methods" not in options.command


def test_the_methods_are_those_named_and_a_long_label_widens_the_table(
    call: Call, asked: list[Any], tmp_path: Path
) -> None:
    status, out, _ = call(f"tapetum demo --out {tmp_path / 'out'} --methods 'bot, mb_ieb_idm,ide' --from-scratch")
    assert status == 0
    assert asked[0].methods == ("bot", "mb_ieb_idm", "ide")
    lines = out.splitlines()
    assert lines[0].startswith("networks start from resnet18, from scratch")
    assert lines[2:7] == [
        "               rank-1   rank-5  rank-10      mAP     mINP",
        "BoT             50.00    62.50    75.00    25.00     6.25",
        "MB+IEB+IDM      50.00    62.50    75.00    25.00     6.25",
        "IDE+            50.00    62.50    75.00    25.00     6.25",
        "chance           1.50                       1.75",
    ]


def test_enhanced_adds_its_method_to_those_named_unless_it_is_among_them(
    call: Call, asked: list[Any], tmp_path: Path
) -> None:
    for methods in ("caj,deen", "caj,deen,idf_deen"):
        status, out, _ = call(f"tapetum demo-ir --out {tmp_path / 'out'} --methods {methods} --enhanced")
        assert status == 0
        assert list(asked[-1].recipes) == ["CAJ", "DEEN", "IDF + DEEN"]
        assert out.count("IDF + DEEN") >= 2, "a row in both directions"


@pytest.mark.parametrize(
    ("command", "line"),
    [
        (
            "demo --methods ide,bott",
            "tapetum: --methods: 'bott' has no recipe for this scene; did you mean bot? (all: ",
        ),
        ("demo --methods ide,caj", "tapetum: --methods: caj is a method of `tapetum demo-ir`; this scene's are "),
        ("demo-ir --methods deen,deen", "tapetum: --methods deen,deen: deen stands there twice; write it once"),
        ("demo-ir --methods ,", "tapetum: --methods names none; write some of agw, "),
    ],
)
def test_methods_that_cannot_be_trained_are_one_line_and_no_folder(
    call: Call, asked: list[Any], tmp_path: Path, command: str, line: str
) -> None:
    status, out, err = call(f"tapetum {command} --out {tmp_path / 'out'}")
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert err.startswith(line)
    assert not asked
    assert not (tmp_path / "out").exists()
