"""Write the files generated from the registries: ``python docs/generate.py``. A test checks that they are up to date.

These are the pages of docs/reference/, and the index that ``vitscope list`` and ``--help`` read.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import asdict
from inspect import cleandoc
from pathlib import Path

from vitscope.cli.described import registered_entries
from vitscope.cli.entry import Entry
from vitscope.cli.index import INDEX

FOLDER = Path(__file__).parent / "reference"


def files() -> dict[Path, str]:
    """The text of every generated file."""
    entries = registered_entries()
    made = {f"{kind.lower().replace(' ', '-')}.md": page(kind, named) for kind, named in entries.items()}
    links = "\n".join(f"* [{kind}]({name})" for kind, name in zip(entries, made, strict=True))
    made["README.md"] = f"# Reference\n\nGenerated from the registries by `docs/generate.py`.\n\n{links}\n"
    return {INDEX: index(entries), **{FOLDER / name: text for name, text in made.items()}}


def index(entries: Mapping[str, Mapping[str, Entry]]) -> str:
    """All entries as JSON, one per line, so that a diff shows single entries."""
    kinds: list[str] = []
    for kind, named in entries.items():
        lines = ",\n".join(json.dumps(asdict(entry), ensure_ascii=False) for entry in named.values())
        kinds.append(f"{json.dumps(kind)}: [\n{lines}\n]")
    return "{\n" + ",\n".join(kinds) + "\n}\n"


def page(kind: str, named: Mapping[str, Entry]) -> str:
    """The page of one registry: each class's docstring, fields and references."""
    return f"# {kind}\n\n" + "\n".join(section(entry) for entry in named.values())


def section(entry: Entry) -> str:
    """The section of one class."""
    parts = [f"## `{entry.name}`", markdown(entry.definition)]
    if entry.fields:
        rows = [
            f"| `{field.name}` | {f'`{field.default}`' if field.default else 'required'} | {field.meaning} |"
            for field in entry.fields
        ]
        parts.append("\n".join(["| field | default | meaning |", "|---|---|---|", *rows]))
    if any(name == "statement" for name, _ in entry.facts):
        parts += [f"*{name.capitalize()}*: {text}" for name, text in entry.facts if name != "evidence"]
    elif facts := [text for name, text in entry.facts if name == "reference"]:
        parts.append("\n".join(f"* {text}" for text in facts))
    return "\n\n".join(parts) + "\n"


def markdown(docstring: str) -> str:
    """A docstring with its mathematics, code and links as Markdown."""
    text = re.sub(r":math:`([^`]*)`", lambda found: f"${found[1].strip()}$", docstring, flags=re.DOTALL)
    block = re.compile(r"^\.\. math::(.*(?:\n[ \t]+\S.*)*)", flags=re.MULTILINE)
    text = block.sub(lambda found: f"```math\n{cleandoc(found[1].strip())}\n```", text)
    text = re.sub(r":\w+:`~?([^`]*)`", r"`\1`", text)
    return re.sub(r"(?<!`)``(?!`)", "`", text)


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for file, text in files().items():
        file.write_text(text, encoding="utf-8")
