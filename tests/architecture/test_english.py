"""Phrases that no native engineer writes, in docstrings, comments, messages and docs."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [
    *(path for folder in ("src", "examples", "benchmarks") for path in (ROOT / folder).rglob("*.py")),
    *(path for name in ("README.md", "CONTRIBUTING.md") if (path := ROOT / name)),
    *(ROOT / "docs").rglob("*.md"),
    *(ROOT / "src").rglob("*.j2"),
]
FOREIGN = {
    r"\b(is|are|was|were) asked\b": "requested, or name the question",
    r"\b(to|can|could) be had\b": "available, or can be measured",
    r"\bknown for nothing\b": "free, or already computed",
    r"\bput up with\b": "tolerate, or allow",
    r"\bno choice of its\b": "not one of its choices",
    r"\bwhat stands (beside|above|between|for|in)\b": "name the thing",
    r"\bstands in for\b": "replaces",
    r"\btells? apart\b": "distinguishes",
    r"\b(is|are) told of\b": "is reported",
    r"\bsuch as it is\b": "as it is",
    r'"""(Of |The same\.)': "a docstring that says what it is",
}


@pytest.mark.parametrize("phrase", FOREIGN)
def test_no_page_has_a_phrase_that_no_native_engineer_writes(phrase):
    found = [
        f"{path.relative_to(ROOT)}: {text[max(match.start() - 30, 0) : match.end() + 30]!r}"
        for path in PAGES
        for text in [path.read_text(encoding="utf-8")]
        for match in re.finditer(phrase, text, re.IGNORECASE)
    ]
    assert not found, f"write {FOREIGN[phrase]} instead:\n" + "\n".join(found[:20])
