"""Docstrings as HTML: paragraphs, lists, code and formulas, and nothing else."""

import inspect
import re
from html import escape

from markupsafe import Markup

from vitscope.report.formula import mathml

_MATH_BLOCK = re.compile(r"\.\. math::\s*(.*)", re.DOTALL)
_INLINE = re.compile(r"``(?P<code>.+?)``|:math:`(?P<math>.+?)`|:\w+:`~?(?P<role>.+?)`|`(?P<word>.+?)`", re.DOTALL)


def definition(docstring: str) -> Markup:
    """A docstring as HTML, every character of it escaped."""
    blocks = re.split(r"\n\s*\n", inspect.cleandoc(docstring))
    return Markup("".join(_block(block) for block in blocks if block.strip()))


def sentence(text: str) -> Markup:
    """One sentence as HTML, with the same markup for code and formulas."""
    return Markup(_inline(text))


def breakable(name: str) -> Markup:
    """A name that may be broken after a slash, a dash or an underscore, but is copied unchanged."""
    return Markup(re.sub(r"([/_-])(?=\w)", r"\1<wbr>", escape(name)))


def _block(block: str) -> str:
    formula = _MATH_BLOCK.fullmatch(block.strip())
    if formula:
        return f'<div class="formula">{mathml(formula[1], "block")}</div>'
    lines = block.strip().split("\n")
    if lines[0].lstrip().startswith(("* ", "- ")):
        items = re.split(r"(?:^|\n)\s*[*-] ", block.strip())[1:]
        return "<ul>" + "".join(f"<li>{_inline(item)}</li>" for item in items) + "</ul>"
    return f"<p>{_inline(block.strip())}</p>"


def _inline(text: str) -> str:
    parts: list[str] = []
    end = 0
    for found in _INLINE.finditer(text):
        parts.append(escape(text[end : found.start()]))
        end = found.end()
        if found["math"] is not None:
            parts.append(mathml(found["math"], "inline"))
        else:
            parts.append(f"<code>{escape(found['code'] or found['role'] or found['word'])}</code>")
    return "".join(parts) + escape(text[end:])
