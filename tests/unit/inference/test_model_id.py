import dataclasses
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tapetum.core.errors import CheckpointError
from tapetum.inference.artefact import ModelSettings
from tapetum.inference.identity import identify, settings_of
from tapetum.inference.model_id import KINDS, model_id, model_id_of_file
from tapetum.runs.header import Header
from tapetum.runs.recipe import load_recipe

SETTINGS = ModelSettings("ide", {"width": 16}, (64, 32), "bicubic", "cv2", mirror=True, normalisation="imagenet")


def test_the_id_of_a_model_changes_with_every_weight_and_every_setting() -> None:
    state = {"a": torch.zeros(2, 2), "b": torch.tensor(3)}
    identity = model_id(state, SETTINGS)
    assert len(identity) == 16
    assert identity == model_id(dict(reversed(state.items())), SETTINGS)
    others = [
        model_id(state | {"a": torch.zeros(4)}, SETTINGS),
        model_id(state | {"a": torch.zeros(2, 2).double()}, SETTINGS),
        model_id(state | {"a": torch.tensor([[0, 0], [0, 1e-30]])}, SETTINGS),
        model_id(state | {"b": torch.tensor(4)}, SETTINGS),
        model_id({"a": state["a"], "c": state["b"]}, SETTINGS),
        *(
            model_id(state, dataclasses.replace(SETTINGS, **change))
            for change in (
                {"mirror": False},
                {"size": (64, 33)},
                {"backend": "pil"},
                {"interpolation": "bilinear"},
                {"options": {"width": 17}},
                {"normalisation": "half"},
            )
        ),
    ]
    assert len({identity, *others}) == 1 + len(others)


def test_a_file_of_weights_has_the_id_of_the_weights_in_it(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    state = {
        kind: (10 * torch.rand(3, 2, generator=generator)).to(getattr(torch, kind)) for kind in sorted(KINDS.values())
    }
    state |= {"b.number": torch.tensor(3), "a.nothing": torch.zeros(0, 4)}
    path = tmp_path / "weights.safetensors"
    save_file(state, path, metadata={"tapetum": "{}"})
    state["float16"] = state["float16"].float()  # as a network holds what a file keeps short
    assert model_id_of_file(path, SETTINGS) == model_id(state, SETTINGS)


def test_a_damaged_file_of_weights_is_named(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    for content in (b"", b"no weights at all", (1 << 40).to_bytes(8, "little") + b"{}"):
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=r"weights.safetensors: damaged"):
            model_id_of_file(path, SETTINGS)


def test_a_checkpoint_s_settings_are_the_same_whether_its_recipe_is_checked_or_only_read(tmp_path: Path) -> None:
    recipe = load_recipe("ide_synth", ["data.size=[64, 32]", "evaluation.mirror=false"]).model_dump(mode="json")
    path = tmp_path / "weights.safetensors"
    header = Header("ide", {"width": 16}, 2, recipe=recipe, normalisation="imagenet")
    content = json.dumps(dataclasses.asdict(header))
    save_file({"a": torch.arange(4.0)}, path, metadata={"tapetum": content})
    settings = settings_of(header, path)
    assert settings == dataclasses.replace(SETTINGS, mirror=False)
    assert settings_of(header, path, mirror=True) == dataclasses.replace(settings, mirror=True)
    assert identify(path).id == model_id_of_file(path, settings) == "42bb08d8df79739d"
