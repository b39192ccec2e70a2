import pytest
import torch

from tapetum.core.errors import RecipeError
from tapetum.inference.devices import choose_device, computing_in

CPU = torch.device("cpu")


def test_a_forward_pass_computes_in_the_precision() -> None:
    layer = torch.nn.Linear(4, 4)
    with computing_in("bf16", CPU):
        assert layer(torch.ones(1, 4)).dtype == torch.bfloat16
    with computing_in("fp32", CPU):
        assert layer(torch.ones(1, 4)).dtype == torch.float32


def test_a_gpu_that_is_asked_for_must_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert choose_device("auto") == choose_device("cpu") == CPU
    with pytest.raises(RecipeError, match=r"^training\.accelerator is 'gpu', but this machine offers none"):
        choose_device("gpu")
    with pytest.raises(RecipeError, match=r"^device is 'gpu', but this machine offers none"):
        choose_device("gpu", "device")
