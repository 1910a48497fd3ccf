"""Write docs/reference/ from the registries: ``python docs/generate.py``. A test checks that it is up to date."""

import dataclasses
import re
from inspect import cleandoc
from pathlib import Path

from vitscope.cli.documentation import field_documentation, fields_in_order
from vitscope.cli.entry import entries

FOLDER = Path(__file__).parent / "reference"


def pages() -> dict[str, str]:
    """The text of every reference page, by file name."""
    registered = entries()
    made = {f"{kind.lower().replace(' ', '-')}.md": page(kind, classes) for kind, classes in registered.items()}
    index = "\n".join(f"* [{kind}]({name})" for kind, name in zip(registered, made, strict=True))
    return {"README.md": f"# Reference\n\nGenerated from the registries by `docs/generate.py`.\n\n{index}\n", **made}


def page(kind: str, classes: dict[str, type]) -> str:
    """One registry: each class's docstring, its fields and what it rests on."""
    return f"# {kind}\n\n" + "\n".join(entry(name, cls) for name, cls in classes.items())


def entry(name: str, cls: type) -> str:
    """One class."""
    parts = [f"## `{name}`", markdown(cleandoc(cls.__doc__ or ""))]
    if dataclasses.is_dataclass(cls) and dataclasses.fields(cls):
        documentation = field_documentation(cls)
        rows = [f"| `{f.name}` | {default(f)} | {documentation.get(f.name, '')} |" for f in fields_in_order(cls)]
        parts.append("\n".join(["| field | default | meaning |", "|---|---|---|", *rows]))
    for attribute in ("statement", "rule", "reference"):
        if isinstance(text := getattr(cls, attribute, None), str):
            parts.append(f"*{attribute.capitalize()}*: {text}")
    if references := getattr(cls, "references", ()):
        parts.append("\n".join(f"* {reference}" for reference in references))
    return "\n\n".join(parts) + "\n"


def default(field: dataclasses.Field) -> str:
    """A field's default as it is written in code; a field without one must be given."""
    return "required" if field.default is dataclasses.MISSING else f"`{field.default!r}`"


def markdown(docstring: str) -> str:
    """A docstring's mathematics, code and links in the form that Markdown knows."""
    text = re.sub(r":math:`([^`]*)`", lambda found: f"${found[1].strip()}$", docstring, flags=re.DOTALL)
    block = re.compile(r"^\.\. math::(.*(?:\n[ \t]+\S.*)*)", flags=re.MULTILINE)
    text = block.sub(lambda found: f"```math\n{cleandoc(found[1].strip())}\n```", text)
    text = re.sub(r":\w+:`~?([^`]*)`", r"`\1`", text)
    return re.sub(r"(?<!`)``(?!`)", "`", text)


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for file, text in pages().items():
        (FOLDER / file).write_text(text)
