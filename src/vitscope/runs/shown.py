"""A value in a few words, as a table for a notebook."""

from collections.abc import Sequence
from html import escape

Facts = Sequence[tuple[str, str]]
"""Names and their texts."""


def html_table(title: str, facts: Facts) -> str:
    """The facts as a small HTML table in the notebook's own style; all text is escaped."""
    cell = "text-align:left;vertical-align:top"
    rows = "".join(
        f'<tr><th style="{cell}">{escape(name)}</th><td style="{cell}">{escape(text)}</td></tr>' for name, text in facts
    )
    return f"<table><caption>{escape(title)}</caption>{rows}</table>"
