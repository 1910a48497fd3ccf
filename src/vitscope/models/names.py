"""Names of models that can be known without importing their libraries, which takes seconds."""

import importlib.util
import os
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from vitscope.measurement.errors import UserError
from vitscope.measurement.nearest import nearest

OWN = ("digits", "vit-micro", "vit-tiny", "vit-small", "vit-base")
"""The project's own models; a test compares them with its library."""
_LISTED = ("timm", "torchvision")
"""Libraries whose source lists their models."""
_REGISTERED = re.compile(r"^@register_model(?:\(\))?\n(?:[@ \t)].*\n)*def (\w+)", re.MULTILINE)
"""A function that makes a model, below its decorators."""


def refuse_unknown(model: str) -> None:
    """Raise ``UserError`` for a model that is not on disk and that no library can have, and suggest similar names.

    Names that only a library can check, such as those of a hub, are allowed.
    """
    if os.path.exists(model) or ":" in model:
        return
    library, slash, name = model.partition("/")
    if library in _LISTED:
        _refuse_unlisted(library, name)
    elif library != "transformers" and (name if library == "vitscope" else model) not in OWN:
        raise UserError(
            f"{model!r} is no file, saved folder or model name{'' if slash else _candidates(model)}; "
            "a name is digits, vit-micro, timm/NAME, torchvision/NAME or transformers/NAME."
        )


@cache
def registered_names(library: str) -> tuple[str, ...]:
    """The names of timm's models, or of torchvision's classifiers, from the library's source."""
    return tuple(name for source in _sources(library) for name in _REGISTERED.findall(source))


def _refuse_unlisted(library: str, name: str) -> None:
    bare = name.partition(".")[0]  # timm's source does not list its tags of weights
    sources = list(_sources(library))
    if sources and re.fullmatch(r"\w+", bare) and not any(re.search(rf"\b{bare}\b", source) for source in sources):
        near = nearest(bare, registered_names(library)) or f"; see {library}'s list_models()"
        raise UserError(f"{library} has no model named {name!r}{near}.")


def _candidates(bare: str) -> str:
    """A suggestion of the models, of all libraries, that a name without its library may mean."""
    named = [f"{library}/{name}" for library in _LISTED for name in registered_names(library)]
    exact = [name for name in named if name.endswith(f"/{bare}")]
    return f" (is it {' or '.join(exact)}?)" if exact else nearest(bare, (*OWN, *named))


def _sources(library: str) -> Iterator[str]:
    """The source that defines the library's models: its own files, and those of this package that add names."""
    spec = importlib.util.find_spec(library)
    if spec is not None and spec.origin is not None:
        for folder in (Path(spec.origin).parent / "models", Path(__file__).parent / library):
            for file in sorted(folder.glob("*.py")):
                yield file.read_text(encoding="utf-8")
