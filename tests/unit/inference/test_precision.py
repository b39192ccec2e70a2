from pathlib import Path

import pytest
import torch

from tapetum.core import processor
from tapetum.core.errors import RecipeError
from tapetum.inference import precision
from tapetum.inference.precision import has_fast_bf16, resolve_precision

CPU_FACTS = "processor\t: 0\nflags\t\t: fpu sse2 {}\nbogomips\t: 5200\n\nprocessor\t: 1\nflags\t\t: fpu\n"


@pytest.mark.parametrize(("ability", "expected"), [("amx_bf16", "bf16"), ("avx512_bf16", "bf16"), ("avx2", "fp32")])
def test_auto_takes_bf16_only_where_the_processor_computes_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, ability: str, expected: str
) -> None:
    (tmp_path / "cpuinfo").write_text(CPU_FACTS.format(ability))
    monkeypatch.setattr(processor, "CPU_FACTS", tmp_path / "cpuinfo")
    assert resolve_precision("auto", "cpu") == expected


@pytest.mark.parametrize(("ability", "expected"), [("amx_bf16", "bf16"), ("avx512_bf16", "bf16"), ("avx2", "fp32")])
def test_where_the_system_says_nothing_of_the_processor_pytorch_does(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, ability: str, expected: str
) -> None:
    monkeypatch.setattr(processor, "CPU_FACTS", tmp_path / "cpuinfo")
    monkeypatch.setattr("torch.cpu.get_capabilities", lambda: {ability: True})
    assert resolve_precision("auto", "cpu") == expected


def test_the_system_and_pytorch_agree_about_this_processor() -> None:
    told = torch.cpu.get_capabilities()
    assert has_fast_bf16("cpu") == any(bool(told.get(name)) for name in processor.FAST_BF16)


def test_a_precision_that_is_named_is_taken_or_refused() -> None:
    assert resolve_precision("fp32", "cpu") == "fp32"
    assert resolve_precision("bf16", "cpu") == "bf16"
    with pytest.raises(RecipeError, match="needs a GPU"):
        resolve_precision("fp16", "cpu")
    with pytest.raises(RecipeError, match="expected fp32, bf16, fp16 or auto"):
        resolve_precision("fp64", "cpu")


def test_auto_leaves_depthwise_convolutions_in_fp32_on_a_cpu_and_named_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(precision, "has_fast_bf16", lambda device: True)
    plain = torch.nn.Sequential(torch.nn.Conv2d(8, 8, 3), torch.nn.Conv2d(8, 8, 3, groups=2))
    depthwise = torch.nn.Sequential(plain, torch.nn.Conv2d(8, 16, 3, groups=8))
    assert resolve_precision("auto", "cpu", network=plain) == "bf16"
    assert resolve_precision("auto", "cpu", network=depthwise) == "fp32"
    assert resolve_precision("auto", "cuda", network=depthwise) == "bf16"
    assert resolve_precision("bf16", "cpu", network=depthwise) == "bf16"
