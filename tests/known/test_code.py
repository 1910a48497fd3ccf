"""A class of one's own is another question when its code is another, and the same one when it is not."""

import os
import subprocess
import sys

from vitscope.runs.code import versioned

SOURCE = '''
from dataclasses import dataclass
LIMIT = 3

def helper(x):
    return x + 1

@dataclass(frozen=True)
class Own:
    """A class."""
    edge: int = 2
    kinds = frozenset({"a", "b", "c"})

    def size(self):
        return helper(self.edge) in {"a", "b", "c"}

    @property
    def double(self):
        return [2 * one for one in range(self.edge)]

    @classmethod
    def made(cls):
        return cls(3)
'''


def code(source: str = SOURCE) -> str:
    space: dict[str, object] = {"__name__": "somewhere"}
    exec(compile(source, "<cell>", "exec"), space)
    return versioned(space["Own"]())["code"]


def test_the_projects_own_classes_have_no_version_beside_the_projects():
    from vitscope.diagnostics.accuracy import Accuracy

    assert versioned(Accuracy()) == {}


def test_equal_code_has_an_equal_digest_in_every_process():
    assert code() == code()
    program = (
        f"import sys; sys.path.insert(0, {os.path.dirname(__file__)!r}); from test_code import code; print(code())"
    )
    for seed in ("1", "2"):  # of the hashes by which sets are ordered
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment)
        assert done.stdout.strip() == code(), done.stderr


def test_any_change_of_what_it_does_is_another_digest():
    changes = {
        "helper(self.edge)": "helper(self.edge + 1)",
        "return x + 1": "return x + 2",
        "2 * one": "3 * one",
        "cls(3)": "cls(4)",
        'frozenset({"a", "b", "c"})': 'frozenset({"a", "b"})',
        'in {"a", "b", "c"}': 'in {"a", "b", "d"}',
        "class Own:": "class Own(Base):",
    }
    base = "class Base:\n    def more(self):\n        return 1\n"
    digests = {code(base + SOURCE.replace(one, other)) for one, other in changes.items()}
    assert len(digests) == len(changes)
    assert code() not in digests
    inherits = SOURCE.replace("class Own:", "class Own(Base):")
    assert code(base + inherits) != code(base.replace("return 1", "return 2") + inherits)
    assert code("\n\n# a comment\n" + SOURCE.replace("    def size", "\n    # another\n    def size")) == code()
