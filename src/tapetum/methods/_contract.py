"""What a method's file must have, checked when the method is built: a stranger's file is told which part is wrong."""

import dataclasses
import inspect
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from torch import nn

from tapetum.core.errors import MethodError

GUIDE = "see docs/add_method.md"
CALLS = {  # part of Method -> arguments by place, and by name
    "forward": (("images", "modalities", "camids"), ()),
    "losses": (("output", "batch"), ()),
    "embed": (("images", "modalities", "camids"), ("mirror",)),
    "parameter_groups": ((), ()),
    "load_pretrained": (("source",), ()),
}


def check_file(module: ModuleType, name: str) -> None:
    """Complain about a method's file that lacks a class; `name` is as a recipe says it, likewise below.

    Raises:
        MethodError: there is no ``Method``, or no dataclass ``Options``.
    """
    for part, needed in (("Options", "a frozen dataclass, empty if need be"), ("Method", "an nn.Module")):
        if not isinstance(getattr(module, part, None), type):
            raise MethodError(f"method {name!r}: its file has no class {part}; add {needed}, {GUIDE}")
    if not dataclasses.is_dataclass(module.Options):
        raise MethodError(f"method {name!r}: its Options is no dataclass; write @dataclass(frozen=True) above it")


def check_kind(kind: type[Any], name: str) -> None:
    """Complain about a ``Method`` that is built otherwise than methods are.

    Raises:
        MethodError: it is no ``nn.Module``, or takes something else than options and facts.
    """
    if not issubclass(kind, nn.Module):
        raise MethodError(f"method {name!r}: its Method is no network; derive it from torch.nn.Module")
    parameters = list(inspect.signature(kind).parameters)
    if parameters[:2] != ["options", "facts"]:
        raise MethodError(
            f"method {name!r}: Method takes ({', '.join(parameters)}); write Method(options, facts), facts being "
            "tapetum.core.method.TrainingFacts, whose num_ids is the number of identities"
        )


def check_method(method: nn.Module, name: str) -> None:
    """Complain about a method without a part, or one whose parts are called otherwise.

    Raises:
        MethodError: ``num_ids`` or a method of the contract is missing, takes other arguments, or the groups of
            parameters are no lists by name.
    """
    if type(getattr(method, "num_ids", None)) is not int:
        raise MethodError(f"method {name!r}: its Method has no num_ids; set self.num_ids = facts.num_ids")
    for part, (by_place, by_name) in CALLS.items():
        call = getattr(method, part, None)
        wanted = ", ".join((*by_place, *(("*",) if by_name else ()), *(f"{each}=False" for each in by_name)))
        if not callable(call) or (part == "forward" and type(method).forward is nn.Module.forward):
            raise MethodError(f"method {name!r}: its Method has no {part}; add {part}({wanted}), {GUIDE}")
        signature = inspect.signature(call)
        try:
            signature.bind(*by_place, **dict.fromkeys(by_name))
        except TypeError:
            raise MethodError(
                f"method {name!r}: its {part} takes {signature}; write {part}({wanted}), {GUIDE}"
            ) from None
    groups = method.parameter_groups()  # type: ignore[operator]
    if not isinstance(groups, Mapping) or not all(isinstance(members, list) for members in groups.values()):
        raise MethodError(
            f"method {name!r}: its parameter_groups() gives {_describe(groups)}; give a list of parameters for each "
            "name, e.g. {'backbone': list(self.backbone.parameters())}"
        )


def _describe(groups: Any) -> str:
    if not isinstance(groups, Mapping):
        return f"a {type(groups).__name__}"
    key, wrong = next((key, members) for key, members in groups.items() if not isinstance(members, list))
    return f"a {type(wrong).__name__} for {key!r}"
