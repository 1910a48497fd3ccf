"""A class of one's own is another question when its code is another, and the same one when it is not."""

import importlib
import os
import subprocess
import sys

from vitscope.runs.code import code_version

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
    return code_version(space["Own"]())["code"]


def test_the_projects_own_classes_have_no_version_beside_the_projects():
    from vitscope.diagnostics.accuracy import Accuracy

    assert code_version(Accuracy()) == {}


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


FAR = '''
import functools
import numpy as np
from dataclasses import dataclass

POWER = 1
TABLE = {"a": [1, 2]}
WEIGHTS = np.array([0.5, 0.25])
INNER = 4

def kept(function):
    @functools.wraps(function)
    def call(*arguments):
        return function(*arguments)
    return call

def times(factor):
    def scale(x):
        return x * factor
    return scale

def helper(x, shift=5, *, more=6):
    return x + shift + more

@functools.lru_cache
def remembered(x):
    return x + 7

class Base:
    START = 8

class Helper(Base):
    STEP = 9

    def go(self, x):
        return x + self.STEP + self.START

HELD = Helper()
scaled = times(10)
halved = functools.partial(helper, 11)

@dataclass(frozen=True)
class Own:
    """A class."""

    @kept
    def wrapped(self, x):
        return x + 12

    @functools.cached_property
    def once(self):
        return 13

    def use(self, x):
        x = helper(x) ** POWER + TABLE["a"][0] + WEIGHTS.sum() + remembered(x) + halved() + scaled(x)
        return Helper().go(x) + HELD.go(x) + sum(INNER for _ in range(3))
'''


def test_what_it_reaches_in_its_module_counts_too():
    changes = {
        "POWER = 1": "POWER = 2",
        "[1, 2]": "[1, 3]",
        "0.5, 0.25": "0.5, 0.75",
        "INNER = 4": "INNER = 5",
        "shift=5": "shift=6",
        "more=6": "more=7",
        "x + 7": "x + 8",
        "START = 8": "START = 9",
        "STEP = 9": "STEP = 10",
        "times(10)": "times(11)",
        "helper, 11": "helper, 12",
        "x + 12": "x + 13",
        "return 13": "return 14",
    }
    assert code(FAR) == code(FAR + "\nUNUSED = 1\n")
    digests = {code(FAR.replace(one, other)) for one, other in changes.items()}
    assert len(digests) == len(changes)
    assert code(FAR) not in digests


def test_another_module_of_its_package_counts_and_a_library_does_not(tmp_path, monkeypatch):
    package = tmp_path / "someones"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "own.py").write_text(
        "from someones import near\nfrom someones.near import also\n"
        "class Own:\n    def use(self, x):\n        return near.helper(also(x))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)

    def digest(helper: int, other: int, unused: int) -> str:
        (package / "near.py").write_text(
            f"def helper(x):\n    return x + {helper}\ndef also(x):\n    return x + {other}\n"
            f"def unused(x):\n    return x + {unused}\n"
        )
        for name in [name for name in sys.modules if name.partition(".")[0] == "someones"]:
            del sys.modules[name]
        sys.dont_write_bytecode, before = True, sys.dont_write_bytecode
        try:
            return code_version(importlib.import_module("someones.own").Own())["code"]
        finally:
            sys.dont_write_bytecode = before

    assert len({digest(1, 1, 1), digest(2, 1, 1), digest(1, 2, 1)}) == 3
    assert digest(1, 1, 1) == digest(1, 1, 2)


def test_what_holds_itself_ends():
    looped = "LOOP = []\nLOOP.append(LOOP)\nclass Own:\n    def use(self):\n        return LOOP, Own, self.use()\n"
    assert code(looped) == code(looped)
