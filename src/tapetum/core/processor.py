"""What the system says of this machine's CPU."""

import platform
from pathlib import Path

FAST_BF16 = ("amx_bf16", "avx512_bf16")  # abilities by which a CPU computes bfloat16 itself
CPU_FACTS = Path("/proc/cpuinfo")


def read_cpu_facts() -> dict[str, str]:
    """What Linux says of the first core, by its own words: "model name", "cpu family", "flags"; nothing elsewhere."""
    try:
        first = CPU_FACTS.read_text(encoding="utf-8", errors="replace").partition("\n\n")[0]
    except OSError:
        return {}
    return {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in first.splitlines())}


def tells_generation(machine: str) -> bool:
    """Whether a text of `describe_processor` tells generations of one name apart."""
    return "(family " in machine


def describe_processor() -> str:
    """The CPU's name, which makers give to several generations, and what tells them apart: family, model, bfloat16."""
    facts = read_cpu_facts()
    name = facts.get("model name") or platform.processor() or platform.machine()
    if "flags" not in facts:
        return name
    numbers = [f"{key.removeprefix('cpu ')} {facts[key]}" for key in ("cpu family", "model") if key in facts]
    fast = [ability for ability in FAST_BF16 if ability in facts["flags"].split()] or ["no fast bf16"]
    return f"{name} ({', '.join([*numbers, *fast])})"
