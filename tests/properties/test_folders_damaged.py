"""Mutated configurations: each gives the model that its library makes of it, or one sentence; never a traceback."""

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parents[1] / "known"))
from small_folders import logits, timm_folder, transformers_folder

from vitscope import load
from vitscope.measurement.errors import UserError

ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from([0, -1, 1, 2, 7, 64, 10**4, 10**9, 10**30, -(10**9), 0.0, -0.5, 1e308, float("inf"), float("nan")]),
    st.sampled_from(["", "3", "../x", "http://example.org/x", "org/kernel", "é\x1b[31m", "\x00", "gelu", "token"]),
    st.lists(st.integers(-2, 40), max_size=3),
    st.dictionaries(st.sampled_from(["a", "0", "input_size", "num_heads"]), st.integers(-2, 40), max_size=2),
    st.just([[[1]]]),
)

UNTOLD = {
    "architecture",
    "architectures",
    "num_heads",
    "num_attention_heads",
    "layer_norm_eps",
    "hidden_act",
    "return_dict",
    "model_args",
    "global_pool",
}
"""What makes another model of the same weights; all else is told by their names and shapes, or changes no logit."""


def places(value, path=()):
    """Every key of the tables in a configuration."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield (*path, key)
            yield from places(inner, (*path, key))


@pytest.fixture(scope="module", params=[timm_folder, transformers_folder], ids=["timm", "transformers"])
def saved(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    module = request.param(folder)
    facts = json.loads((folder / "config.json").read_text())
    return folder, facts, sorted(places(facts)), logits(module)


@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_a_mutated_configuration_gives_the_saved_model_or_a_sentence(saved, data):
    folder, facts, keys, expected = saved
    facts, touched = json.loads(json.dumps(facts)), set()
    for _ in range(data.draw(st.integers(1, 2))):
        *outer, last = data.draw(st.sampled_from(keys))
        table = facts
        for key in outer:
            table = table.get(key, {}) if isinstance(table, dict) else {}
        if isinstance(table, dict):
            touched.add(last)
            table.pop(last, None)
            if data.draw(st.booleans()):
                table[last] = data.draw(ODD)
    (folder / "config.json").write_text(json.dumps(facts))
    subject = loaded_or_refused(folder)
    if subject is not None and not touched & UNTOLD:
        assert subject.preprocessing.shape == (3, 32, 32)
        assert torch.allclose(logits(subject.module), expected, atol=1e-5)


def loaded_or_refused(folder):
    """The subject, or None if one sentence was said."""
    try:
        return load(folder)
    except UserError as error:
        said = str(error)
    assert said
    assert "\n" not in said
    return None


@settings(max_examples=30, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(cut=st.integers(0, 2000), byte=st.binary(max_size=3))
def test_a_damaged_configuration_gives_a_model_or_a_sentence(saved, tmp_path_factory, cut, byte):
    folder, facts, _, _ = saved
    where = tmp_path_factory.mktemp("cut")
    shutil.copy(folder / "model.safetensors", where)
    text = json.dumps(facts, indent=1).encode()
    cut %= len(text)
    (where / "config.json").write_bytes(text[:cut] + byte + text[cut + len(byte) :] if byte else text[:cut])
    subject = loaded_or_refused(where)
    assert subject is None or subject.preprocessing.shape[0] == 3
