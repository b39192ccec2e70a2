"""The house rules that a machine can read: direction of imports, homes of heavy libraries, docstring arguments."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "tapetum"
LAYERS = {
    "core": 0,
    "synth": 1,
    "layers": 1,
    "losses": 1,
    "evaluation": 1,
    "gallery": 1,
    "data": 2,
    "methods": 2,
    "plots": 2,
    "runs": 3,
    "footage": 3,
    "enhancers": 4,
    "inference": 4,
    "training": 5,
    "report": 5,
    "searching": 5,
    "experiments": 6,
    "indexing": 6,
    "service": 7,
    "cli": 8,
}
HOMES = {  # library -> packages (or files) that may import it
    "timm": ("layers/backbones.py",),
    "lightning": ("training/",),
    "matplotlib": ("plots/",),
    "jinja2": ("core/templates.py", "service/page_render.py"),
    "typer": ("cli/",),
    "av": ("data/", "synth/", "footage/"),
    "cv2": ("core/pixels.py", "data/", "synth/", "footage/", "enhancers/clahe.py"),
    "pydantic": ("runs/", "searching/question.py", "service/"),
    "lancedb": ("gallery/lance.py", "gallery/indices.py"),
    "pyarrow": ("gallery/arrow.py", "searching/exports.py"),
    "pymilvus": ("gallery/milvus.py",),
    "scipy": ("evaluation/", "footage/track.py", "data/datasets/sysu_mm01.py"),  # the last for MATLAB's file format
    "sklearn": ("evaluation/projection.py", "evaluation/fitting.py"),
    "threadpoolctl": ("evaluation/projection.py",),
    "onnx": ("inference/", "footage/tfjs.py"),
    "onnxruntime": ("inference/", "footage/onnx.py"),
    "openvino": ("core/openvino_core.py", "inference/"),
    "ray": ("indexing/ray_cluster.py",),
    "fastapi": ("service/",),
    "starlette": ("service/",),
    "uvicorn": ("service/",),
    "prometheus_client": ("service/",),
    "argon2": ("service/",),
    "huggingface_hub": ("layers/backbones.py", "inference/hub.py"),
}
FILES = sorted(SOURCE.rglob("*.py"))
ROOMS = sorted({path.relative_to(SOURCE).parts[0] for path in FILES})  # packages, and files beside them


def files_of(room: str) -> list[Path]:
    return [path for path in FILES if path.relative_to(SOURCE).parts[0] == room]


@cache
def nodes_of(path: Path) -> list[ast.AST]:
    """Imports, functions and classes of a file, which is parsed once; of a body only its docstring is kept."""
    kinds = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    nodes = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, kinds)]
    for node in nodes:
        if not isinstance(node, ast.Import | ast.ImportFrom):
            del node.body[1:]
    return nodes


def imports_of(path: Path) -> list[tuple[int, str]]:
    found = []
    for node in nodes_of(path):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import; write the full name"
            found += [(node.lineno, f"{node.module}.{alias.name}") for alias in node.names]
    return found


@pytest.mark.parametrize("room", ROOMS)
def test_imports_point_to_lower_layers_and_heavy_libraries_have_one_home(room: str) -> None:
    found = [(path.relative_to(SOURCE), *each) for path in files_of(room) for each in imports_of(path)]
    for relative, line, name in found:
        library = name.split(".")[0]
        homes = HOMES.get(library)
        if homes:
            assert any(str(relative).startswith(home) for home in homes), (
                f"{relative}:{line}: {library} lives in {homes} only"
            )
        if library != "tapetum" or len(relative.parts) == 1:
            continue
        target = name.partition(".")[2].partition(".")[0]
        if target in (room, "__version__", ""):
            continue
        assert target in LAYERS, f"{relative}:{line}: tapetum.{target} has no layer"
        assert LAYERS[target] < LAYERS[room], (
            f"{relative}:{line}: {room} (layer {LAYERS[room]}) imports {target} (layer {LAYERS[target]})"
        )


@pytest.mark.parametrize("room", ROOMS)
def test_documented_arguments_are_of_the_signature_and_in_its_order(room: str) -> None:
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    found = [(path, node) for path in files_of(room) for node in nodes_of(path) if isinstance(node, functions)]
    for file, node in found:
        text = ast.get_docstring(node) or ""
        if "Args:" not in text:
            continue
        block = re.split(r"\n(?=\S)", text.split("Args:\n", 1)[1])[0]
        indent = len(block) - len(block.lstrip())
        documented = [
            part.strip().lstrip("*")
            for names in re.findall(rf"^ {{{indent}}}(\S[^:\n]*):", block, flags=re.MULTILINE)
            for part in names.split(",")
        ]
        arguments = node.args
        signature = [a.arg for a in arguments.posonlyargs + arguments.args + arguments.kwonlyargs]
        signature += [a.arg for a in (arguments.vararg, arguments.kwarg) if a]
        signature = [argument for argument in signature if argument not in ("self", "cls")]
        assert documented == [argument for argument in signature if argument in documented], (
            f"{file.relative_to(SOURCE)}::{node.name}: Args documents {documented}, the signature has {signature}"
        )


def test_no_module_is_called_utils() -> None:
    assert not [path for path in FILES if path.stem in ("utils", "helpers", "misc", "common")]


CONTRACT = {"Options", "Method", "Branch", "Output", "Sampler"}  # what every file of a kind defines by that name


def test_a_class_name_has_one_meaning() -> None:
    places: dict[str, list[str]] = {}
    for path in FILES:
        for node in nodes_of(path):
            if isinstance(node, ast.ClassDef):
                places.setdefault(node.name, []).append(str(path.relative_to(SOURCE)))
    assert {name: where for name, where in places.items() if len(where) > 1 and name not in CONTRACT} == {}


def module_name(path: Path) -> str:
    parts = [*path.relative_to(SOURCE).parent.parts, *([] if path.stem == "__init__" else [path.stem])]
    return ".".join(["tapetum", *parts])


def test_no_two_files_need_each_other() -> None:
    modules = {module_name(path): path for path in FILES}
    front_door = modules.pop("tapetum")  # hands on what `tapetum.public_api` defines
    assert "tapetum.public_api" in front_door.read_text()
    left = {
        module: {target for _, name in imports_of(path) for target in (name, name.rpartition(".")[0])} - {module}
        for module, path in modules.items()
    }
    while left:
        ends = [
            {module for module, targets in left.items() if not targets & left.keys()},  # they need none of the rest
            left.keys() - set().union(*left.values()),  # none of the rest needs them
        ]
        assert any(ends), f"these need each other: {sorted(left)}"
        for module in set().union(*ends):
            del left[module]


def test_what_contributing_says_travels_is_what_travels() -> None:
    text = (SOURCE.parents[1] / "CONTRIBUTING.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| `tapetum\.([\w.]+)` \| ([^|]+) \| ([^|]+) \|", text, flags=re.MULTILINE)
    assert len(rows) >= 8
    for name, module, makers, takers in rows:
        home = SOURCE / Path(*module.split(".")).with_suffix(".py")
        assert re.search(rf"^(class {name}\b|{name} = )", home.read_text(), flags=re.MULTILINE), (
            f"{name}: not in {home}"
        )
        for room in re.findall(r"\w+", f"{makers} {takers}"):
            texts = [path.read_text() for path in files_of(room)]
            assert any(re.search(rf"\b{name}\b", each) for each in texts), f"{name} does not reach {room}"
