import dataclasses

import torch

from tapetum.inference.artefact import ModelSettings
from tapetum.inference.model_id import model_id

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
