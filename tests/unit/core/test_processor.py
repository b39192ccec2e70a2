"""A machine's figures name the CPU so that its generations are told apart."""

import platform
from pathlib import Path

import pytest

from tapetum.core import processor

FLAGS = "flags\t\t: fpu avx512_bf16\n\nprocessor\t: 1\n"
ZEN_4 = f"processor\t: 0\ncpu family\t: 25\nmodel\t\t: 17\nmodel name\t: AMD EPYC\n{FLAGS}"


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        (ZEN_4, "AMD EPYC (family 25, model 17, avx512_bf16)"),
        (ZEN_4.replace("avx512_bf16", "avx2"), "AMD EPYC (family 25, model 17, no fast bf16)"),
        ("model name\t: Some ARM\nFeatures\t: fp asimd\n", "Some ARM"),
    ],
)
def test_a_processor_is_named_with_what_tells_generations_apart(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, told: str, expected: str
) -> None:
    (tmp_path / "cpuinfo").write_text(told)
    monkeypatch.setattr(processor, "CPU_FACTS", tmp_path / "cpuinfo")
    assert processor.describe_processor() == expected


def test_where_the_system_says_nothing_python_does(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(processor, "CPU_FACTS", tmp_path / "cpuinfo")
    assert processor.read_cpu_facts() == {}
    assert processor.describe_processor() == (platform.processor() or platform.machine())
