"""A run in Python: what it lists, tables, keeps and says of itself, on numbers known by hand."""

import json
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import vitscope
from vitscope.measurement.claim import Claim, Verdict
from vitscope.measurement.errors import UserError
from vitscope.measurement.quantity import Quantity, label_quantity
from vitscope.runs.run import Run
from vitscope.runs.spec import Spec

UNITS = {"layer": np.array([1, 3]), "unit": ("layer", ["a", "b"])}


def quantity(name: str, dims: tuple[str, ...], numbers: tuple[object, ...], unit: str = "1") -> xr.Dataset:
    return label_quantity(Quantity(name, name, unit, "."), dims, *map(np.asarray, numbers), UNITS if dims else {})


@pytest.fixture
def run() -> Run:
    """Accuracy 3/4 of 4 images, and an entropy over two units, of which nothing was seen at the second."""
    accuracy = quantity("top1", (), (0.75, 0.25, 4)).assign(quantity("nll", (), (1.5, 0.5, 4), "nats"))
    entropy = quantity("entropy", ("layer",), ([2.0, np.nan], [0.1, np.nan], [4, 0]), "nats")
    spec = Spec("measure", {"name": "timm/<net>", "parameters": 1234, "weights": "random"}, {"name": "cats"}, {})
    attributes = {
        "spec": spec.text,
        "provenance": "{}",
        "skipped": json.dumps({"token-rank": "there is no grid"}),
        "notes": json.dumps(["The mean was guessed."]),
        "images": 4,
    }
    groups = {"accuracy": accuracy, "attention-entropy": entropy}
    tree = xr.DataTree.from_dict({"/": xr.Dataset(attrs=attributes), **groups})
    claims = [Claim(str(i), "s", verdict, "f", "r", "p", "a", "e", 0.5) for i, verdict in enumerate(Verdict)]
    return Run(tree).with_claims(tuple(claims))


def test_a_run_is_a_mapping_from_names_to_arrays(run):
    assert (list(run), len(run), list(run.keys())) == (["accuracy", "attention-entropy"], 2, list(run))
    assert [float(array.max()) for array in dict(run).values()] == [0.75, 2.0]
    assert "accuracy" in run
    assert "token-rank" not in run
    assert bool(empty(run)), "a run that holds nothing is a run"


def empty(run: Run) -> Run:
    return Run(xr.DataTree(xr.Dataset(attrs=run.tree.attrs)))


def test_what_a_run_does_not_hold_is_told_with_what_it_holds(run):
    refused = {
        "acuracy": r"no 'acuracy' in this run \(is it accuracy\?\): it holds accuracy, attention-entropy\.",
        "accuracy/nl": r"accuracy has no 'nl' \(is it nll\?\): it has top1, nll\.",
        "token-rank": r"no 'token-rank' in this run.*: there is no grid\.",
    }
    for name, said in refused.items():
        for look in (run.__getitem__, run.to_dataframe):
            with pytest.raises(UserError, match=said):
                look(name)


def test_the_table_has_a_line_for_each_number_with_error_count_and_unit(run):
    table = run.to_dataframe()
    assert list(table.columns) == ["diagnostic", "quantity", "layer", "unit", "value", "error", "count", "units"]
    assert table[["diagnostic", "quantity", "value", "error", "count", "units"]].values.tolist() == [
        ["accuracy", "top1", 0.75, 0.25, 4, "1"],
        ["accuracy", "nll", 1.5, 0.5, 4, "nats"],
        ["attention-entropy", "entropy", 2.0, 0.1, 4, "nats"],
    ]
    assert table["layer"].isna().tolist() == [True, True, False]
    assert table["layer"].dtype == "Int64"
    assert table["layer"][2] == 1
    own = run.to_dataframe("attention-entropy")
    assert (own["layer"].dtype, own["unit"].tolist(), own["count"].dtype) == (np.int64, ["a"], np.int64)
    assert run.to_dataframe("accuracy/nll")[["quantity", "value", "count"]].values.tolist() == [["nll", 1.5, 4]]
    assert "layer" not in run.to_dataframe("accuracy")
    assert empty(run).to_dataframe().shape == (0, 6)


def test_a_run_says_in_a_line_what_it_is_of(run):
    said = (
        "timm/<net> on 4 images of cats",
        "accuracy 75.0 ± 25.0 %",
        "findings 1 holds, 1 does not hold, 1 undecided",
    )
    assert repr(run) == f"<Run: {'; '.join(said)}; 2 groups>"
    assert repr(empty(run)).endswith("; 0 groups>")


def test_a_notebook_shows_a_table_without_the_html_of_names(run):
    html = run._repr_html_()
    assert "<net>" not in html
    for text in ("timm/&lt;net&gt;, 1,234 parameters, random", "75.0 ± 25.0 %", "accuracy, attention-entropy",
                 "token-rank: there is no grid", "The mean was guessed."):  # fmt: skip
        assert text in html


def test_what_is_saved_is_read_again_by_string_and_path(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for place, file in {"a": "a/run.nc", "b/run.nc": "b/run.nc", "c.nc": "c.nc", "d/e.nc": "d/e.nc"}.items():
        for path in (place, Path("paths", place)):
            assert Path(run.save(path)) == Path("paths" if isinstance(path, Path) else "", file)
            assert vitscope.read_run(path).tree.equals(run.tree)
            assert vitscope.read_run(path).claims == run.claims
            xr.open_datatree(file, engine="h5netcdf").close()
    with pytest.raises(UserError, match=r"no finished run at 'nowhere\.nc'"):
        vitscope.read_run("nowhere.nc")


def test_another_run_is_never_written_over(run, tmp_path):
    run.save(tmp_path)
    other = Run(run.tree.copy())
    other.tree.attrs["spec"] = Spec("measure", {"name": "other"}, {}, {}).text
    with pytest.raises(UserError, match="already holds a run"):
        other.save(tmp_path)
    assert vitscope.read_run(tmp_path).spec == run.spec


def test_the_package_shows_its_public_names():
    assert dir(vitscope) == sorted(vitscope.__all__)
    assert {"checkup", "compare", "figures", "images", "load", "measure", "report", "study"} < set(dir(vitscope))
    assert all(getattr(vitscope, name) is not None for name in dir(vitscope))
    assert vitscope.__version__.count(".") == 2
    with pytest.raises(AttributeError, match=r"no attribute 'mesure' \(is it measure\?\)"):
        vitscope.mesure  # noqa: B018
