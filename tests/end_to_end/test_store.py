"""Runs are written whole, never over another, readable by xarray alone, and survive an interrupt."""

import io
from dataclasses import dataclass, replace

import fsspec
import pytest
import xarray as xr

from vitscope import Plan, images, load, measure
from vitscope.diagnostics.accuracy import Accuracy
from vitscope.diagnostics.feature_variance import FeatureVariance
from vitscope.diagnostics.fourier_spectrum import FourierSpectrum
from vitscope.measurement.errors import UserError
from vitscope.models.own.vit import Vit, VitConfig
from vitscope.runs.store import RunFolder, find_runs, read_run

DIAGNOSTICS = (Accuracy(), FeatureVariance())


@pytest.fixture(scope="module")
def subject():
    return load(Vit(VitConfig(image=8, channels=1, patch=4, dim=8, depth=1, heads=2)), name="small")


@pytest.fixture(scope="module")
def pictures():
    return images("digits", split="test", limit=64)


@dataclass
class Interrupt:
    """Progress that presses Ctrl-C once so many images are done."""

    after: int

    def __call__(self, done: int, total: int) -> None:
        if done >= self.after:
            raise KeyboardInterrupt


def test_a_run_is_readable_by_xarray_alone(subject, pictures, tmp_path):
    plan = Plan(folder=RunFolder(str(tmp_path / "run")))
    measure(subject, pictures, DIAGNOSTICS, plan)
    with xr.open_datatree(tmp_path / "run" / "run.nc", engine="h5netcdf") as tree:
        assert tree["accuracy"]["top1"].attrs["long_name"] == "Top-1 accuracy"
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["run.nc"]


def test_any_fsspec_url_will_do(subject, pictures):
    plan = Plan(folder=RunFolder("memory://store/one"))
    run = measure(subject, pictures, DIAGNOSTICS, plan)
    assert read_run("memory://store/one")["accuracy"].item() == run["accuracy"].item()
    with fsspec.open("memory://store/one/run.nc", "rb") as file:
        assert xr.open_datatree(io.BytesIO(file.read()), engine="h5netcdf").attrs["spec"] == run.spec.text


def test_a_run_is_never_overwritten(subject, pictures, tmp_path):
    folder = RunFolder(str(tmp_path))
    plan = Plan(folder=folder)
    run = measure(subject, pictures, DIAGNOSTICS, plan)
    before = (tmp_path / "run.nc").read_bytes()
    with pytest.raises(UserError, match="never overwritten"):
        folder.write(run)
    with pytest.raises(UserError, match="never overwritten"):
        measure(subject, pictures, DIAGNOSTICS[:1], plan)
    assert measure(subject, pictures, DIAGNOSTICS, plan).provenance == run.provenance  # it is there already
    assert (tmp_path / "run.nc").read_bytes() == before


def test_an_interrupted_pass_goes_on_where_it_was(subject, pictures, tmp_path):
    whole = measure(subject, pictures, DIAGNOSTICS, Plan(batch_size=4))
    folder = RunFolder(str(tmp_path))
    with pytest.raises(KeyboardInterrupt):
        measure(subject, pictures, DIAGNOSTICS, Plan(batch_size=4, folder=folder, progress=Interrupt(40)))
    assert folder.read() is None
    assert len(folder.parts(whole.spec)) == 2
    seen: list[int] = []
    plan = Plan(batch_size=4, folder=folder, resume=True, progress=lambda done, total: seen.append(done))
    resumed = measure(subject, pictures, DIAGNOSTICS, plan)
    assert (seen[0], seen[-1]) == (32, 64)
    for name, node in whole.tree.children.items():
        xr.testing.assert_identical(node.to_dataset(), resumed.tree[name].to_dataset())
    assert [path.name for path in tmp_path.iterdir()] == ["run.nc"]


def test_a_full_disk_leaves_no_half_file(tmp_path, monkeypatch):
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    folder = RunFolder(str(tmp_path))
    spec = measure(load("digits"), images("digits", split="test", limit=2), (Accuracy(),)).spec
    with pytest.raises(OSError, match="No space left"):
        folder.write_part(spec, "shard", b"content")
    assert folder.parts(spec) == {}
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_runs_are_found_below_a_folder(subject, pictures, tmp_path):
    for name in ("b", "a"):
        plan = Plan(folder=RunFolder(str(tmp_path / name)))
        measure(subject, pictures, DIAGNOSTICS, plan)
    assert [path.rsplit("/", 1)[1] for path, _ in find_runs(str(tmp_path))] == ["a", "b"]


def test_the_same_question_has_the_same_address(subject, pictures):
    one, other = (measure(subject, pictures, DIAGNOSTICS, Plan(batch_size=size)).spec for size in (4, 16))
    assert one.address == other.address
    assert measure(subject, pictures, DIAGNOSTICS[:1]).spec.address != one.address
    fewer = images("digits", split="test", limit=63)
    assert measure(subject, fewer, DIAGNOSTICS).spec.address != one.address


def test_the_address_is_of_the_content_and_not_of_where_it_was_found(subject, pictures):
    moved = replace(subject, weights="/other/path.safetensors")
    renamed = replace(pictures, name="copy")
    other = measure(moved, renamed, DIAGNOSTICS).spec
    assert other.address == measure(subject, pictures, DIAGNOSTICS).spec.address
    assert other.model["weights"] == "/other/path.safetensors"


def test_the_units_that_are_read_are_part_of_the_question(subject, pictures):
    block, attention = (load(subject.module, units=[unit], name="small") for unit in ("blocks.0", "blocks.0.attn"))
    addresses = {measure(one, pictures, DIAGNOSTICS).spec.address for one in (block, attention)}
    assert len(addresses) == 2


def test_a_diagnostic_that_is_not_in_the_run_is_named(subject, pictures):
    run = measure(subject, pictures, DIAGNOSTICS)
    with pytest.raises(UserError, match="There is no 'fourier-spectrum' in this run: it holds accuracy"):
        run["fourier-spectrum"]
    unlabelled = images([pictures.read(i) for i in range(4)])
    with pytest.raises(UserError, match="the images have no labels"):
        measure(subject, unlabelled, DIAGNOSTICS)["accuracy"]


def test_a_result_draws_itself(subject, pictures):
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    run = measure(subject, pictures, (FeatureVariance(), FourierSpectrum()))
    assert run["feature-variance"].plot()
    assert run["fourier-spectrum"].plot() is not None
