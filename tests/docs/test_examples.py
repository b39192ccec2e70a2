"""What the pages promise is there: commands, options, keys, files and numbers."""

import dataclasses
import importlib
import re
import shlex
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from pydantic import BaseModel

from tapetum.cli.main import app
from tapetum.core.discovery import list_names
from tapetum.core.options import describe_options
from tapetum.data.catalog import PACKAGE, load_dataset_module
from tapetum.methods import method_options
from tapetum.runs.recipe import Recipe, known_keys, list_recipes
from tapetum.runs.recipe_sections import describe_section
from tapetum.synth.scene import SceneOptions
from unit.inference.conftest import make_run  # noqa: F401  (a fixture)

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted(DOCS.glob("*.md"))]
FENCE = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
SKETCH = "# sketch"
SHELLS = ("console", "sh", "bash", "shell")
OPEN_SECTIONS = (
    "data.options.",
    "data.scene.",
    "optimiser.group_lr.",
    "optimiser.own.",
    "optimiser.frozen.",
)  # whose keys others define
SECTIONS = ("init", "data", "augment", "sampler", "optimiser", "schedule", "training", "selection", "evaluation")


@dataclass(frozen=True)
class Block:
    """One fenced block of a page."""

    page: Path
    language: str
    text: str


@cache
def read_blocks(page: Path) -> list[Block]:
    return [Block(page, match[1].strip(), match[2]) for match in FENCE.finditer(page.read_text(encoding="utf-8"))]


@cache
def read_inline(page: Path) -> list[str]:
    return INLINE.findall(FENCE.sub("", page.read_text(encoding="utf-8")))


@cache
def shell_lines(page: Path) -> list[str]:
    """Commands of the shell blocks, continued lines joined, comments and prompts off."""
    texts = [block.text.replace("\\\n", " ") for block in read_blocks(page) if block.language in SHELLS]
    return [line.strip().removeprefix("$ ") for text in texts for line in text.splitlines()]


@cache
def program() -> Any:
    """The real command tree."""
    return typer.main.get_command(app)


def tapetum_commands() -> list[Any]:
    """Every ``tapetum ...`` of every page, in blocks and in the running text."""
    found = {}
    for page in PAGES:
        inline = [text for text in read_inline(page) if text.startswith("tapetum ")]
        for line in [*shell_lines(page), *inline]:
            if line.startswith("tapetum "):
                found[page.name, line] = pytest.param(line, id=f"{page.name}: {line}"[:110])
    return list(found.values())


def check_command(line: str, *, whole: bool) -> None:
    """Walk the real command tree without running anything.

    Args:
        line: as typed.
        whole: also complain about arguments that are missing.
    """
    words = shlex.split(line.split(" | ")[0], comments=True)[1:]
    command: Any = program()
    context: Any = None
    name = "tapetum"
    while hasattr(command, "commands") and words and not words[0].startswith("-"):
        context = command.context_class(command, info_name=name, parent=context)
        name, words = words[0], words[1:]
        assert name in command.commands, f"{line!r}: {name} is none of {', '.join(sorted(command.commands))}"
        command = command.commands[name]
    context = command.context_class(command, info_name=name, parent=context)
    given, left, _ = command.make_parser(context).parse_args(list(words))
    assert not left or hasattr(command, "commands"), f"{line!r}: {left} is too much"
    for parameter in command.params:
        value = given.get(parameter.name)
        present = not (value is None or value == () or "sentinel" in type(value).__name__.lower())
        if whole and parameter.required and not {"-h", "--help", "--list"} & set(words):
            assert present, f"{line!r}: {parameter.name} is missing"


@pytest.mark.parametrize("line", tapetum_commands())
def test_a_command_in_the_documentation_is_one_the_program_knows(line: str) -> None:
    in_a_block = any(line in shell_lines(page) for page in PAGES)
    check_command(line, whole=in_a_block)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_rows_of_a_table_of_flags_are_flags_of_the_commands_on_the_page(page: Path) -> None:
    rows = re.findall(r"^\| `(--[a-z-]+)[^`]*` \|(?: ([^|]*) \|)?", page.read_text(encoding="utf-8"), re.MULTILINE)
    known: dict[str, Any] = {}
    for line in [*shell_lines(page), *read_inline(page)]:
        if line.startswith("tapetum "):
            known |= {flag: each.default for each in find_command(line).params for flag in each.opts}
    for flag, cell in rows:
        assert flag in known, f"{page.name}: {flag} is no option of the commands on this page"
        if re.fullmatch(r"[\d.]+", cell):
            assert float(cell) == known[flag], f"{page.name}: {flag} is {known[flag]} by default"


def find_command(line: str) -> Any:
    """The command that a line calls."""
    command: Any = program()
    for word in line.split()[1:]:
        if not hasattr(command, "commands") or word not in command.commands:
            break
        command = command.commands[word]
    return command


def test_a_command_that_does_not_exist_would_be_found() -> None:
    with pytest.raises(AssertionError, match="none of"):
        check_command("tapetum brew --strong", whole=True)
    with pytest.raises(Exception, match="--strong"):
        check_command("tapetum train --strong", whole=False)


def pages_with_python() -> list[Any]:
    pages = [page for page in PAGES if runnable(page)]
    return [pytest.param(page, id=page.name) for page in pages]


def runnable(page: Path) -> list[Block]:
    if page.parent != DOCS and page.name != "README.md":
        return []
    return [b for b in read_blocks(page) if b.language == "python" and not b.text.lstrip().startswith(SKETCH)]


def furnish(folder: Path, train: Callable[[str], Path], people: Path) -> None:
    """What README's Python finds: the demo's run, some crops, two pictures."""
    pictures = sorted(path for path in people.rglob("*") if path.is_file())
    (folder / "runs" / "demo").mkdir(parents=True)
    shutil.copy(train("idf"), folder / "runs" / "demo" / "idf")
    (folder / "footage").mkdir()
    for name, picture in zip(("one.jpg", "other.jpg", *(f"footage/{n}.png" for n in range(4))), pictures, strict=False):
        shutil.copy(picture, folder / name)


@pytest.mark.parametrize("page", pages_with_python())
def test_the_python_blocks_of_a_page_run_one_after_the_other(
    page: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    one_thread: None,
    request: pytest.FixtureRequest,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    if page.name == "README.md":
        furnish(tmp_path, request.getfixturevalue("make_run"), request.getfixturevalue("people"))
    names: dict[str, Any] = {"__name__": f"docs_{page.stem}"}
    for number, block in enumerate(runnable(page), start=1):
        exec(compile(block.text, f"{page.name}, block {number}", "exec"), names)


def test_the_option_table_of_the_night_scene_holds_every_option_with_its_default() -> None:
    rows = option_rows(DOCS / "night_scene.md")
    assert {name: yaml.safe_load(text) for name, text in rows.items()} == {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in dataclasses.asdict(SceneOptions()).items()
    }


def test_the_table_of_protocols_holds_every_protocol_as_it_is() -> None:
    rows = {}
    for line in (DOCS / "protocols.md").read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 6 and cells[1].startswith("`"):
            rows[cells[1].split("`")[1]] = [*cells[2:], "default" in cells[1]]
    modules = [load_dataset_module(name) for name in list_names(PACKAGE)]
    assert rows == {
        rules.name: [
            rules.ap,
            rules.unmatched,
            rules.ties.replace("_", " "),
            rules.cmc,
            name == module.DEFAULT_PROTOCOL,
        ]
        for module in modules
        for name, rules in module.PROTOCOLS.items()
    }


def option_rows(page: Path) -> dict[str, str]:
    """Option -> default, from the rows of the table whose first two columns say so."""
    rows: dict[str, str] = {}
    inside = False
    for line in page.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if cells[:2] == ["option", "default"]:
            inside = True
        elif not line.startswith("|"):
            inside = False
        elif inside and cells[0].startswith("`") and not cells[0].startswith("`--"):
            rows[cells[0].strip("`")] = cells[1].strip("`")
    return rows


@pytest.mark.parametrize("method", list_names("tapetum.methods"))
def test_a_method_has_a_table_of_its_options_out_of_the_code_with_a_text_for_each(method: str) -> None:
    tables = [page for page in PAGES if f"```{{option-table}} tapetum.methods.{method}\n" in page.read_text("utf-8")]
    assert len(tables) == 1
    without = [name for name, _, _, text in describe_options(method_options(method)) if not text]
    assert not without, f"options of {method} without a text: {without}"


def sections_of(section: type[BaseModel]) -> set[type[BaseModel]]:
    """A section and those within."""
    hints = [field.annotation for field in section.model_fields.values()]
    inner = {part for hint in hints for part in (hint, *getattr(hint, "__args__", ())) if isinstance(part, type)}
    return {section}.union(*(sections_of(part) for part in inner if issubclass(part, BaseModel)))


@pytest.mark.parametrize("section", sorted(sections_of(Recipe), key=lambda each: each.__name__))
def test_a_section_of_a_recipe_has_a_table_of_its_keys_out_of_the_code_with_a_text_for_each(
    section: type[BaseModel],
) -> None:
    page = (DOCS / "recipes.md").read_text("utf-8")
    assert page.count(f"```{{option-table}} {section.__module__}.{section.__name__}\n") == 1
    rows = describe_section(section)
    assert [name for name, *_ in rows] == list(section.model_fields)
    without = [name for name, _, _, text in rows if not text]
    assert not without, f"keys of {section.__name__} without a text: {without}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_an_option_named_as_method_dot_option_exists(page: Path) -> None:
    methods = [method_options(name) for name in list_names("tapetum.methods")]
    known = {"method.name"} | {f"method.{field.name}" for options in methods for field in dataclasses.fields(options)}
    named = {re.split(r"[ :=]", text)[0] for text in read_inline(page) if text.startswith("method.")}
    assert named <= known | {"method.extractor_options." + name.rpartition(".")[2] for name in known}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_recipe_key_named_in_the_text_exists(page: Path) -> None:
    known = set(known_keys())
    pattern = re.compile(rf"(?:{'|'.join(SECTIONS)})\.[a-z0-9_.]+(?=$|[ :=])")
    named = {match[0] for text in read_inline(page) if (match := pattern.match(text))}
    named = {name for name in named if not name.endswith((".md", ".py", ".json", ".yaml"))}
    assert {name for name in named if not name.startswith(OPEN_SECTIONS)} <= known


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_recipe_named_in_a_command_exists(page: Path) -> None:
    lines = [line for line in shell_lines(page) if line.startswith("tapetum train ")]
    named = {line.split()[2] for line in lines} - {"--help", "--list"}
    assert {name for name in named if not name.endswith(".yaml")} <= set(list_recipes())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_relative_link_leads_somewhere(page: Path) -> None:
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    targets = {link.split("#")[0] for link in LINK.findall(text) if not re.match(r"[a-z]+:", link)}
    missing = sorted(target for target in targets if target and not (page.parent / target).exists())
    assert missing == []


def test_the_first_page_leads_to_every_page_in_its_lists_and_in_its_table_of_contents() -> None:
    text = (DOCS / "index.md").read_text(encoding="utf-8")
    others = {page.stem for page in DOCS.glob("*.md")} - {"index"}
    assert others <= {link.removesuffix(".md") for link in LINK.findall(FENCE.sub("", text))}
    assert others <= {line for block in read_blocks(DOCS / "index.md") for line in block.text.splitlines()}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_make_target_named_in_a_page_exists(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    lines = [*shell_lines(page), *read_inline(page)]
    named = {line.split()[1] for line in lines if line.startswith("make ") and len(line.split()) > 1}
    assert {name for name in named if "=" not in name} <= targets


def test_the_table_of_benchmarks_names_each_of_them() -> None:
    named = set(re.findall(r"^\| `(\w+)` \|", (DOCS / "benchmarks.md").read_text(encoding="utf-8"), re.MULTILINE))
    assert named == {path.stem.removeprefix("bench_") for path in (ROOT / "benchmarks").glob("bench_*.py")}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_dotted_name_or_file_of_the_package_exists(page: Path) -> None:
    for text in read_inline(page):
        if re.fullmatch(r"tapetum(\.\w+)+", text):
            assert resolves(text), f"{page.name}: {text} does not exist"
        if re.fullmatch(r"(src|tests|docs|benchmarks)/[\w./-]+", text):
            assert (ROOT / text).exists(), f"{page.name}: {text} does not exist"


def resolves(dotted: str) -> bool:
    """Whether a dotted name is a module, or something in one."""
    parts = dotted.split(".")
    for cut in range(len(parts), 0, -1):
        try:
            found: Any = importlib.import_module(".".join(parts[:cut]))
        except ModuleNotFoundError:
            continue
        for part in parts[cut:]:
            if not hasattr(found, part):
                return False
            found = getattr(found, part)
        return True
    return False


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_names_no_path_of_one_machine(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert not re.search(r"(?<![\w.])/(work|tmp|root|home)/", text)
