"""The help of a dataclass's fields: the strings that stand below them in its source."""

import ast
import inspect
from itertools import pairwise
from textwrap import dedent


def field_documentation(cls: type) -> dict[str, str]:
    """Each field's docstring, in one line."""
    tree = ast.parse(dedent(inspect.getsource(cls)))
    body = next(node for node in tree.body if isinstance(node, ast.ClassDef)).body
    found: dict[str, str] = {}
    for field, text in pairwise(body):
        if (
            isinstance(field, ast.AnnAssign)
            and isinstance(field.target, ast.Name)
            and isinstance(text, ast.Expr)
            and isinstance(text.value, ast.Constant)
            and isinstance(text.value.value, str)
        ):
            found[field.target.id] = " ".join(text.value.value.split())
    return found
