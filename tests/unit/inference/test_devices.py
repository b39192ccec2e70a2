import pytest
import torch

from tapetum.core.errors import RecipeError
from tapetum.inference.devices import choose_device, computing_in
from tapetum.inference.torch_sessions import TorchSession

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


@pytest.mark.parametrize(("rank", "expected"), [(None, "cuda"), ("", "cuda"), ("0", "cuda:0"), ("3", "cuda:1")])
def test_processes_of_one_machine_take_its_gpus_in_turn(
    rank: str | None, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    if rank is not None:
        monkeypatch.setenv("LOCAL_RANK", rank)
    assert str(choose_device("auto")) == str(choose_device("gpu")) == expected
    assert choose_device("cpu") == CPU


def test_a_session_computes_on_the_gpu_that_was_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    there = []

    class Moves(torch.nn.Module):
        def to(self, device: torch.device, **_: object) -> "Moves":
            there.append(str(device))
            return self

    session = TorchSession(Moves(), "fp32", torch.device("cuda", 1), mirror=False)
    assert there == [session.device] == ["cuda:1"]
