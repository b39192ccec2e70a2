"""Sphinx settings. Equations become MathML at build time, so the pages need no network to be read."""

import importlib
import re
from collections.abc import Iterable, Mapping
from typing import Any

from docutils import nodes
from latex2mathml.converter import convert
from pydantic import BaseModel
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from sphinx.util.math import get_node_equation_number
from sphinx.writers.html5 import HTML5Translator

import tapetum
from tapetum.core.options import describe_options
from tapetum.runs.recipe import describe_recipes
from tapetum.runs.recipe_sections import describe_section

project = "Tapetum"
author = "The Tapetum developers"
copyright = "2026, the Tapetum developers"
version = release = tapetum.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
myst_enable_extensions = ["dollarmath", "amsmath", "colon_fence", "deflist"]
myst_heading_anchors = 3
default_role = "code"  # docstrings write `names` in single backticks
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
python_maximum_signature_line_length = 90
napoleon_use_ivar = True
autodoc_member_order = "bysource"
autodoc_class_signature = "mixed"
nitpicky = False
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = "Tapetum"
html_show_sphinx = False
html_static_path = ["_static"]
html_css_files = ["tapetum.css"]
templates_path: list[str] = []
html_math_renderer = "mathml"


def visit_inline_math(writer: HTML5Translator, node: nodes.math) -> None:
    """Write an inline equation as MathML."""
    writer.body.append(convert(node.astext(), display="inline"))
    raise nodes.SkipNode


def visit_display_math(writer: HTML5Translator, node: nodes.math_block) -> None:
    """Write a displayed equation as MathML, with its number where it has one."""
    number = get_node_equation_number(writer, node) if node.get("number") else ""
    writer.body.append(writer.starttag(node, "div", CLASS="math"))
    writer.body.append(f'<span class="eqno">({number})</span>' if number else "")
    writer.body.append(f"{convert(node.astext(), display='block')}</div>")
    raise nodes.SkipNode


class OptionTable(SphinxDirective):
    """``{option-table} tapetum.data.augmentations.erasing``: the options of that file (or class), from the code."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """A table of name, type and range, default, and text."""
        package, _, name = self.arguments[0].rpartition(".")
        module = importlib.import_module(package)
        found = getattr(module, name, None) or importlib.import_module(self.arguments[0])
        is_section = isinstance(found, type) and issubclass(found, BaseModel)
        rows = describe_section(found) if is_section else describe_options(getattr(found, "Options", found))
        if hasattr(found, "PROBABILITY"):
            rows.insert(
                0, ("probability", "float, from 0, up to 1", f"{found.PROBABILITY:g}", "that a picture is changed")
            )
        if not rows:
            return [nodes.paragraph(text="No options of its own.")]
        titles = {"key" if is_section else "option": 15, "values": 30, "default": 15, "what it does": 40}
        cells = (
            [[code(option)], [nodes.Text(values)], [code(default)], with_code(text)]
            for option, values, default, text in rows
        )
        return [build_table(titles, cells)]


class RecipeTable(SphinxDirective):
    """``{recipe-table}``: the recipes that come with the package, as `tapetum train --list` prints them."""

    def run(self) -> list[nodes.Node]:
        """A table of name, method, data set, and what it is about."""
        titles = {"recipe": 25, "method": 12, "data set": 15, "what it is": 48}
        cells = (
            [[code(line.name)], [code(line.method)], [nodes.Text(line.data)], [nodes.Text(line.about)]]
            for line in describe_recipes()
        )
        return [build_table(titles, cells)]


def build_table(titles: Mapping[str, int], rows: Iterable[Iterable[list[nodes.Node]]]) -> nodes.table:
    """A table.

    Args:
        titles: of the columns, each with its width in percent.
        rows: the content of each one's cells.
    """
    group = nodes.tgroup(cols=len(titles))
    group += [nodes.colspec(colwidth=width) for width in titles.values()]
    head, body = nodes.thead(), nodes.tbody()
    head += table_row([nodes.Text(title)] for title in titles)
    body += [table_row(cells) for cells in rows]
    group += [head, body]
    return nodes.table("", group)


def code(text: str) -> nodes.literal:
    """Text in the typewriter's letters."""
    return nodes.literal(text, text)


def with_code(text: str) -> list[nodes.Node]:
    """Text whose `names` stand in single backticks."""
    return [code(part) if number % 2 else nodes.Text(part) for number, part in enumerate(text.split("`"))]


def table_row(cells: Iterable[list[nodes.Node]]) -> nodes.row:
    """One row of a table, from the content of its cells."""
    return nodes.row("", *(nodes.entry("", nodes.paragraph("", "", *cell)) for cell in cells))


def share_descriptions(*event: Any) -> None:
    """Give each of several names described together (``a, b: text``) the text of its own."""
    lines: list[str] = event[-1]
    result: list[str] = []
    place = 0
    while place < len(lines):
        start = re.match(r"(\s+)(\w+(?:, \w+)+): (.+)", lines[place])
        place += 1
        if not start:
            result.append(lines[place - 1])
            continue
        indent, names, text = start.groups()
        rest = []
        while place < len(lines) and lines[place].startswith(indent + "    "):
            rest.append(lines[place])
            place += 1
        for each in names.split(", "):
            result += [f"{indent}{each}: {text}", *rest]
    lines[:] = result


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the equation writer and the tables of options and recipes."""
    app.add_directive("option-table", OptionTable)
    app.add_directive("recipe-table", RecipeTable)
    app.add_html_math_renderer("mathml", (visit_inline_math, None), (visit_display_math, None))
    app.connect("autodoc-process-docstring", share_descriptions, priority=400)  # before the sections are read
    return {"parallel_read_safe": True, "parallel_write_safe": True}
