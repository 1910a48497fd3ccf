"""Files of runs, trainings, heads and features after a random mishap: as they were, done again, or named in a sentence.

A mishap flips bits, cuts, empties, overwrites or appends; in JSON it puts a value of another kind somewhere.
"""

import json
import re
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

from vitscope.convex import ConvexLinearClassifier, load, save
from vitscope.convex.features import TokenRecipe, extract
from vitscope.data.load import images
from vitscope.measurement.claim import Claim, Verdict
from vitscope.measurement.errors import UserError
from vitscope.models.load import load as load_model
from vitscope.models.own.vit import Vit, VitConfig
from vitscope.runs.run import Run
from vitscope.runs.seal import DamagedWarning
from vitscope.runs.spec import Spec
from vitscope.runs.store import RunFolder, find_runs, list_runs, read_run
from vitscope.training.recipe import Recipe
from vitscope.training.state import RECIPE, STATE, State, claim_folder, read_state, save_state

SPEC = Spec("measure", {"name": "net", "parameters": 12, "weights": "random"}, {"name": "cats"}, {"a": [1, 2]})
TRIES = 40
CPU = torch.device("cpu")
SHOWN = {"training": "ab12", "test": "cd34"}


def run() -> Run:
    root = {"spec": SPEC.text, "provenance": '{"ended": "2026"}', "skipped": '{"b": "none"}', "notes": '["one"]',
            "anatomy": '[{"unit": "u", "kind": "mlp", "stage": 0, "block": 1}]', "images": 4}  # fmt: skip
    groups = {"numbers": xr.Dataset({"one": ("n", np.arange(40.0)), "name": ("n", ["x"] * 40)})}
    tree = xr.DataTree.from_dict({"/": xr.Dataset(attrs=root), **groups})
    return Run(tree).with_claims((Claim("c", "s", Verdict.HOLDS, "f", "r", "p", "a", "e", 0.5),))


def state() -> State:
    generator = torch.Generator().manual_seed(0)
    weights = {"w": torch.randn(20, 3, generator=generator), "b": torch.zeros(3)}
    optimizer = {"state": {0: {"exp_avg": torch.ones(20, 3)}}, "param_groups": [{"lr": 1e-3, "params": [0]}]}
    return State(7, weights, None, optimizer, {}, torch.ones(4), 1.5, [{"train_loss": 0.5}])


@pytest.fixture(scope="module")
def sound(tmp_path_factory) -> Path:
    """A folder of whole files of every kind."""
    folder = tmp_path_factory.mktemp("sound")
    run().save(folder / "run")
    RunFolder(str(folder / "run")).write_part(SPEC, "piece", bytes(range(200)))
    run().tree.to_netcdf(folder / "plain.nc", engine="h5netcdf")
    (folder / "train").mkdir()
    claim_folder(folder / "train", Recipe(), SHOWN, resume=False)
    save_state(state(), folder / "train")
    tokens = np.random.default_rng(0).standard_normal((24, 3, 4)).astype(np.float32)
    save(ConvexLinearClassifier(beta=1e-2).fit(tokens, np.arange(24) % 3), folder / "head")
    return folder


def mishaps(content: bytes, generator: np.random.Generator):
    """Bytes after a mishap each."""
    for number in range(TRIES):
        spoiled = bytearray(content)
        place = int(generator.integers(len(content)))
        match number % 5:
            case 0:
                spoiled[place] ^= 1 << int(generator.integers(8))
            case 1:
                del spoiled[place:]
            case 2:
                spoiled[place : place + 64] = generator.bytes(len(spoiled[place : place + 64]))
            case 3:
                spoiled = bytearray(generator.bytes(place % 500))
            case 4:
                del spoiled[place : place + 1 + place % 9]
        yield bytes(spoiled)


STRANGE = (None, True, -1, 10**30, 0.5, "text", "\x1b[31m", [], [[]], {}, {"a": {"b": []}}, float("nan"))


def strange(value, generator: np.random.Generator):
    """The value with one of its parts, or all of it, replaced by something of another kind."""
    whole = STRANGE[int(generator.integers(len(STRANGE)))]
    inner = list(value) if isinstance(value, dict) else list(range(len(value))) if isinstance(value, list) else []
    if not inner or generator.random() < 0.2:
        return whole
    chosen = inner[int(generator.integers(len(inner)))]
    if generator.random() < 0.1 and isinstance(value, dict):
        return {name: one for name, one in value.items() if name != chosen}
    copied = dict(value) if isinstance(value, dict) else list(value)
    copied[chosen] = strange(value[chosen], generator)
    return copied


def named(read, path: Path, *others: str):
    """What is read, or None if it is refused in one sentence that names the file."""
    try:
        return read()
    except UserError as error:
        said = str(error)
        assert "\n" not in said
        assert "\x1b" not in said
        assert any(name in said for name in (path.name, *others)), said
        return None


def test_a_run(sound, tmp_path):
    whole, path = read_run(sound / "run"), tmp_path / "run.nc"
    refused = 0
    for content in mishaps((sound / "run" / "run.nc").read_bytes(), np.random.default_rng(1)):
        path.write_bytes(content)
        found = named(lambda: read_run(tmp_path), path)
        refused += found is None
        assert found is None or found.tree.identical(whole.tree), "a number was changed without a word"
        assert [name for name, _ in list_runs(tmp_path)] == [str(tmp_path)]
    assert refused > 0.9 * TRIES
    with pytest.warns(DamagedWarning, match=r"run\.nc cannot be read as a run"):
        assert list(find_runs(tmp_path)) == []


def test_a_run_of_another_program(sound, tmp_path):
    """Without a seal what HDF5 cannot read, and what is not a run's, is named."""
    path, attributes = tmp_path / "plain.nc", dict(run().tree.attrs)
    for content in mishaps((sound / "plain.nc").read_bytes(), np.random.default_rng(2)):
        path.write_bytes(content[: len(content) // 2] if len(content) > 4000 else content)
        assert named(lambda: read_run(path), path) is None
    generator = np.random.default_rng(3)
    for number in range(TRIES):
        name = [name for name in attributes if name != "images"][number % (len(attributes) - 1)]
        tree = run().tree
        tree.attrs[name] = json.dumps(strange(json.loads(attributes[name]), generator))
        tree.to_netcdf(path, engine="h5netcdf")
        found = named(lambda: read_run(path), path)
        if found is not None:
            assert repr(found).startswith("<Run: ")
            assert found._repr_html_()
    xr.DataTree(xr.Dataset({"a": 1})).to_netcdf(path, engine="h5netcdf")
    with pytest.raises(UserError, match=r"plain\.nc cannot be read as a run \(it has no spec, which every run has\)"):
        read_run(path)


def test_a_run_that_declares_more_than_it_can_hold(tmp_path):
    """Its numbers would take 8 TB; they are not asked for."""
    import h5py

    run().tree.to_netcdf(tmp_path / "run.nc", engine="h5netcdf")
    with h5py.File(tmp_path / "run.nc", "r+") as file:
        file["numbers"].create_dataset("huge", shape=(10**12,), dtype="f8", chunks=(1000,))
    with pytest.raises(UserError, match="declares more numbers than it can hold"):
        read_run(tmp_path)


def test_a_part_is_done_again(sound, tmp_path):
    shutil.copytree(sound / "run", tmp_path, dirs_exist_ok=True)
    place = RunFolder(str(tmp_path))
    (path,) = (tmp_path / "partial").rglob("piece")
    whole = path.read_bytes()
    assert place.parts(SPEC) == {"piece": bytes(range(200))}
    for content in mishaps(whole, np.random.default_rng(4)):
        path.write_bytes(content)
        with pytest.warns(DamagedWarning, match="piece is damaged, and will be done again"):
            assert place.parts(SPEC) == {}
    path.write_bytes(whole)
    path.rename(path.with_name("other"))
    with pytest.warns(DamagedWarning, match="other is damaged"):
        assert place.parts(SPEC) == {}, "a piece that was put in the place of another is none"
    path.with_name("other").rename(path)
    with pytest.warns(DamagedWarning, match="piece is damaged"):
        assert place.parts(SPEC, lambda content: json.loads(content)) == {}, "nor is one that this version cannot read"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert place.parts(SPEC) == {"piece": bytes(range(200))}


def test_a_training(sound, tmp_path):
    folder = tmp_path / "train"
    shutil.copytree(sound / "train", folder)
    whole = repr(read_state(folder, CPU))
    for content in mishaps((folder / STATE).read_bytes(), np.random.default_rng(5)):
        (folder / STATE).write_bytes(content)
        found = named(lambda: read_state(folder, CPU), folder / STATE)
        assert found is None or repr(found) == whole, "a state was changed without a word"
    shutil.copy(sound / "train" / STATE, folder / STATE)
    (folder / RECIPE).write_bytes((folder / RECIPE).read_bytes().replace(b'"seed": 0', b'"seed": 1'))
    with pytest.raises(UserError, match=f"is not the state that was saved for {re.escape(str(folder / RECIPE))}"):
        read_state(folder, CPU)
    shutil.copy(sound / "train" / RECIPE, folder / RECIPE)
    text, generator = (folder / RECIPE).read_bytes(), np.random.default_rng(6)
    stranger = (json.dumps(strange(json.loads(text), generator)).encode() for _ in range(TRIES))
    for content in (*mishaps(text, generator), *stranger):
        (folder / RECIPE).write_bytes(content)
        taken = named(lambda: claim_folder(folder, Recipe(), SHOWN, True) or True, folder / RECIPE, str(folder))
        if taken:  # what decides the weights is as it was
            found = json.loads((folder / RECIPE).read_bytes())
            assert Recipe().differences(found["recipe"]) == ()
            assert found["images"] == SHOWN


def test_a_head(sound, tmp_path):
    tokens = np.random.default_rng(0).standard_normal((24, 3, 4)).astype(np.float32)
    whole, path = load(sound / "head").predict_proba(tokens), tmp_path / "head.safetensors"
    content = (sound / "head" / "head.safetensors").read_bytes()
    for spoiled in mishaps(content, np.random.default_rng(7)):
        path.write_bytes(spoiled)
        found = named(lambda: load(path), path)
        assert found is None or np.array_equal(found.predict_proba(tokens), whole), "a head was changed without a word"
    end = 8 + int.from_bytes(content[:8], "little")
    header, generator = json.loads(content[8:end]), np.random.default_rng(8)
    for number in range(TRIES):
        facts = json.dumps(strange(json.loads(header["__metadata__"]["vitscope.convex"]), generator))
        kept = {"vitscope.convex": facts} | ({"vitscope.seal": ""} if number % 2 else {})  # as an early version's
        text = json.dumps({**header, "__metadata__": kept}).encode()
        path.write_bytes(len(text).to_bytes(8, "little") + text + content[end:])
        named(lambda: load(path), path)


def interrupt_after_8(done, total):
    if total - done <= 4:
        raise KeyboardInterrupt


def test_a_store_of_features(tmp_path):
    subject = load_model(Vit(VitConfig(image=8, channels=1, patch=4, dim=8, depth=1, heads=2)), name="small")
    shown = images("digits", split="test", limit=12)
    found = extract(subject, shown, TokenRecipe(width=3), folder=tmp_path)
    whole, folder = np.array(found.tokens), tmp_path / found.address
    for name in ("tokens.npy", "labels.npy", "projection.safetensors", "features.json"):
        content = (folder / name).read_bytes()
        generator = np.random.default_rng(9)
        stranger = () if name != "features.json" else [
            json.dumps(strange(json.loads(content), generator)).encode() for _ in range(20)
        ]  # fmt: skip
        for spoiled in (*list(mishaps(content, generator))[:10], *stranger):
            (folder / name).write_bytes(spoiled)
            again = named(lambda: extract(subject, shown, TokenRecipe(width=3), folder=tmp_path), folder)
            assert again is None or np.array_equal(again.tokens, whole), "features were changed without a word"
        (folder / name).write_bytes(content)
    for spoiled in (b"", b"{}", b"[1]", b'{"start": "x", "stop": 4, "left_out": [], "digest": ""}', b"\xff"):
        (folder / "features.json").unlink()
        with pytest.raises(KeyboardInterrupt):
            extract(subject, shown, TokenRecipe(width=3), folder=tmp_path, batch_size=4, progress=interrupt_after_8)
        (part,) = folder.glob("partial/*/images-4-8")
        part.write_bytes(spoiled)
        with pytest.warns(DamagedWarning, match="images-4-8 is damaged"):
            again = extract(subject, shown, TokenRecipe(width=3), folder=tmp_path, batch_size=4)
        assert np.allclose(again.tokens, whole, atol=1e-5)
