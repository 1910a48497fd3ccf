"""Damaged and malformed checkpoints: each ends in a sentence that names the file, and none in a traceback."""

import argparse
import copy
import json
import pathlib

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save

from vitscope import load
from vitscope.measurement.errors import UserError
from vitscope.models.build import build_model

ARGUMENTS = {"image": 8, "patch": 4, "channels": 1, "dim": 8, "depth": 1, "heads": 2, "classes": 2}
WEIGHTS = build_model("vit-micro", ARGUMENTS, None).state_dict()
PIXELS = {"image": 8, "channels": 1, "mean": [0.5], "std": [0.5]}
FACTS = {"model": "vit-micro", "arguments": ARGUMENTS, "classes": ["a", "b"], "preprocessing": PIXELS, "training": {}}
MANY = settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], database=None
)

JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**20), 10**20),
    st.floats(),
    st.text(max_size=5),
    st.lists(st.one_of(st.none(), st.integers(), st.text(max_size=3)), max_size=3),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)


def paths(value, path=()):
    """The way to every value of a nested one."""
    yield path
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in inner:
        yield from paths(one, (*path, key))


def replaced(value, path, junk):
    if not path:
        return junk
    found = copy.deepcopy(value)
    at = found
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = junk
    return found


def fails_by_name_or_loads(path):
    """Load it; a ``UserError`` that names the file or what is wrong in one line is as good."""
    said = path.name
    try:
        load(path)
    except UserError as error:
        said = str(error)
    assert path.name in said
    assert said.isprintable()


@MANY
@given(path=st.sampled_from(list(paths(FACTS))), junk=JUNK)
def test_facts_of_any_other_kind_are_refused(tmp_path, path, junk):
    file = tmp_path / "model.safetensors"
    file.write_bytes(save(WEIGHTS, {"vitscope": json.dumps(replaced(FACTS, path, junk))}))
    fails_by_name_or_loads(file)


@pytest.mark.parametrize("path", [path for path in paths(FACTS) if path and path[0] != "training"])
@pytest.mark.parametrize("junk", [{}, -1])
def test_a_fact_of_the_wrong_kind_is_never_believed(tmp_path, path, junk):
    file = tmp_path / "model.safetensors"
    file.write_bytes(save(WEIGHTS, {"vitscope": json.dumps(replaced(FACTS, path, junk))}))
    if path in (("arguments",), ("preprocessing", "mean", 0), ("preprocessing", "std", 0)) and junk == -1:
        return  # a mean of -1 is a mean
    with pytest.raises(UserError, match=r"model\.safetensors"):
        load(file)


@pytest.mark.parametrize("name", list(FACTS))
def test_a_fact_that_is_missing_is_named(tmp_path, name):
    facts = {key: value for key, value in FACTS.items() if key != name}
    (tmp_path / "m.safetensors").write_bytes(save(WEIGHTS, {"vitscope": json.dumps(facts)}))
    with pytest.raises(UserError, match=rf"m\.safetensors .*{name}"):
        load(tmp_path / "m.safetensors")


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "[" * 100_000, '"model"', '{"model": 1e999}'])
def test_facts_that_are_no_object_are_refused(tmp_path, text):
    (tmp_path / "m.safetensors").write_bytes(save(WEIGHTS, {"vitscope": text}))
    with pytest.raises(UserError, match=r"m\.safetensors"):
        load(tmp_path / "m.safetensors")


@pytest.mark.parametrize("arguments", [{"depth": 10**6}, {"dim": 4 * 10**8}, {"classes": 10**12}, {"image": 2**20}])
def test_no_memory_is_asked_for_before_the_weights_are_seen_to_be_of_that_size(tmp_path, arguments):
    facts = FACTS | {"arguments": ARGUMENTS | arguments}
    (tmp_path / "m.safetensors").write_bytes(save(WEIGHTS, {"vitscope": json.dumps(facts)}))
    with pytest.raises(UserError, match=r"m\.safetensors"):
        load(tmp_path / "m.safetensors")


def files(folder):
    """One good file of each format."""
    state = {"state_dict": WEIGHTS, "arch": "vit-micro", "args": argparse.Namespace(lr=1.0, out=pathlib.Path("x"))}
    torch.save(state, folder / "new.pt")
    torch.save(state, folder / "old.pt", _use_new_zipfile_serialization=False)
    (folder / "good.safetensors").write_bytes(save(WEIGHTS, {"vitscope": json.dumps(FACTS)}))
    return {name: (folder / name).read_bytes() for name in ("new.pt", "old.pt", "good.safetensors")}


@pytest.fixture(scope="session")
def good(tmp_path_factory):
    return files(tmp_path_factory.mktemp("good"))


@MANY
@given(name=st.sampled_from(["new.pt", "old.pt", "good.safetensors"]), data=st.data())
def test_cut_or_changed_bytes_end_in_a_sentence(tmp_path, good, name, data):
    content = bytearray(good[name])
    if data.draw(st.booleans(), "cut"):
        content = content[: data.draw(st.integers(0, len(content) - 1))]
    for _ in range(data.draw(st.integers(0, 4))):
        if content:
            end = min(len(content), 600) if data.draw(st.booleans(), "header") else len(content)
            content[data.draw(st.integers(0, end - 1))] = data.draw(st.integers(0, 255))
    (tmp_path / name).write_bytes(bytes(content))
    fails_by_name_or_loads(tmp_path / name)


@pytest.mark.parametrize(
    "header",
    [
        {"w": {"dtype": "F32", "shape": [10**12], "data_offsets": [0, 4 * 10**12]}},
        {"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 8]}},
        {"w": {"dtype": "F99", "shape": [1], "data_offsets": [0, 4]}},
        {"w": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}},
        {"w": [1, 2]},
        {"__metadata__": {"vitscope": 3}, "w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}},
    ],
)
def test_a_header_that_lies_is_refused(tmp_path, header):
    text = json.dumps(header).encode()
    (tmp_path / "m.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + bytes(4))
    with pytest.raises(UserError, match=r"m\.safetensors cannot be read as safetensors"):
        load(tmp_path / "m.safetensors")


@pytest.mark.parametrize("length", [2**63, 2**31, 10**8, 3])
def test_a_header_of_any_length_is_refused(tmp_path, length):
    (tmp_path / "m.safetensors").write_bytes(length.to_bytes(8, "little") + b'{"w": 1}')
    with pytest.raises(UserError, match=r"m\.safetensors"):
        load(tmp_path / "m.safetensors")


class Runs:
    ran = False

    def __reduce__(self):
        return (setattr, (Runs, "ran", True))


@pytest.mark.parametrize("new", [True, False])
@pytest.mark.parametrize("where", ["args", "state_dict", "w"])
def test_nothing_in_a_file_is_run(tmp_path, new, where):
    content = {"state_dict": WEIGHTS, where: Runs()}
    torch.save(content, tmp_path / "m.pt", _use_new_zipfile_serialization=new)
    with pytest.raises(UserError, match=r"m\.pt cannot be read as weights alone: it holds a .*setattr"):
        load(tmp_path / "m.pt")
    assert not Runs.ran
