"""Sphinx settings. Equations become MathML at build time, so the pages need no network to be read."""

import re
from typing import Any

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.application import Sphinx
from sphinx.util.math import get_node_equation_number
from sphinx.writers.html5 import HTML5Translator

import tapetum

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
    """Register the equation writer."""
    app.add_html_math_renderer("mathml", (visit_inline_math, None), (visit_display_math, None))
    app.connect("autodoc-process-docstring", share_descriptions, priority=400)  # before the sections are read
    return {"parallel_read_safe": True, "parallel_write_safe": True}
