import pytest
import torch

from tapetum.core.errors import RecipeError
from tapetum.inference.precision import choose_device, computing_in, resolve_precision

CPU = torch.device("cpu")


def test_auto_takes_bf16_only_where_the_processor_computes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for able, expected in (({"amx_bf16": True}, "bf16"), ({"avx512_bf16": True}, "bf16"), ({"avx2": True}, "fp32")):
        monkeypatch.setattr("torch.cpu.get_capabilities", lambda able=able: able)
        assert resolve_precision("auto", CPU) == expected


def test_a_precision_that_is_named_is_taken_or_refused() -> None:
    assert resolve_precision("fp32", CPU) == "fp32"
    assert resolve_precision("bf16", CPU) == "bf16"
    with pytest.raises(RecipeError, match="needs a GPU"):
        resolve_precision("fp16", CPU)
    with pytest.raises(RecipeError, match="expected fp32, bf16, fp16 or auto"):
        resolve_precision("fp64", CPU)


def test_a_forward_pass_computes_in_the_precision() -> None:
    layer = torch.nn.Linear(4, 4)
    with computing_in("bf16", CPU):
        assert layer(torch.ones(1, 4)).dtype == torch.bfloat16
    with computing_in("fp32", CPU):
        assert layer(torch.ones(1, 4)).dtype == torch.float32


def test_a_gpu_that_is_asked_for_must_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert choose_device("auto") == choose_device("cpu") == CPU
    with pytest.raises(RecipeError, match="this machine offers none"):
        choose_device("gpu")
