"""What every registered lab must keep: its words, its labels, its independence of how trials are cut, its page."""

import ast
import dataclasses
import inspect
import json
import re

import numpy as np
import pytest
import xarray as xr

from vitscope.cli.documentation import fields_of
from vitscope.engine.plan import Plan
from vitscope.engine.question import carry_out
from vitscope.labs.experiment import Experiment, grid_of
from vitscope.labs.lab import AbstractLab, all_labs
from vitscope.measurement.axes import AXES
from vitscope.measurement.claim import ClaimKind, Verdict
from vitscope.measurement.errors import UserError
from vitscope.measurement.estimate import rate_of
from vitscope.report.measured import as_texts
from vitscope.report.page import page
from vitscope.report.view import RunView
from vitscope.runs.run import Run
from vitscope.runs.store import RunFolder, read_run

LABS = all_labs()
every_lab = pytest.mark.parametrize("name", LABS)
RUNS: dict[str, Run] = {}


def smoke_run(name: str) -> Run:
    """The run of a lab's smoke size, made once."""
    if name not in RUNS:
        RUNS[name] = carry_out(Experiment(LABS[name].smoke()), Plan())
    return RUNS[name]


def quantities(dataset: xr.Dataset) -> list[str]:
    """Without the errors and counts beside them."""
    return [str(one) for one in dataset.data_vars if not str(one).endswith(("_error", "_count"))]


def test_there_are_labs():
    assert {"masked-phases", "masked-time", "contrastive-collapse"} <= set(LABS)


@every_lab
def test_every_field_is_a_flag_with_help_and_an_axis_of_the_vocabulary(name):
    lab = LABS[name]
    flags = {one.name: one.type for one in dataclasses.fields(lab) if one.name in lab().settings}
    assert {one.name for one in dataclasses.fields(lab)} == {field.name for field in fields_of(lab) if field.meaning}
    assert {one.name for one in dataclasses.fields(lab)} - set(flags) <= {"planted"}
    assert [name for name, kind in flags.items() if kind is not str and name not in AXES] == []
    assert all(one.default is not dataclasses.MISSING for one in dataclasses.fields(lab))
    assert lab.name == name
    assert lab.references
    assert lab.__dataclass_params__.frozen


@every_lab
def test_the_docstring_says_what_to_conclude_and_what_not(name):
    text = LABS[name].__doc__
    assert ".. math::" in text
    assert "Conclude" in text
    assert "not conclude" in text or "does not contradict" in text


@every_lab
def test_every_quantity_is_labelled_with_errors_and_counts(name):
    for group, node in smoke_run(name).tree.children.items():
        dataset = node.to_dataset()
        assert {"title", "question", "definition", "references"} <= set(dataset.attrs), group
        assert set(map(str, dataset.dims)) <= set(AXES)
        for dim in dataset.dims:
            assert dataset[dim].attrs["long_name"]
        for one in quantities(dataset):
            words = dataset[one].attrs
            assert all(words[key] for key in ("long_name", "units", "meaning", "better")), (group, one)
            error, count = dataset[f"{one}_error"].values, dataset[f"{one}_count"].values
            assert (error[np.isfinite(error)] >= 0).all()
            assert np.issubdtype(count.dtype, np.integer)
            assert (count >= 0).all()
            assert np.isnan(error[count < 2]).all(), (group, one)
            assert dataset[f"{one}_count"].attrs["long_name"] in ("trials", "points"), (group, one)


@every_lab
def test_theory_stands_beside_what_is_measured(name):
    groups = [node.to_dataset() for node in smoke_run(name).tree.children.values()]
    beside = [one for dataset in groups for one in quantities(dataset) if one.startswith("predicted")]
    entries = [str(one) for dataset in groups if "curve" in dataset for one in dataset["curve"].values]
    lines = [one for one in entries if "predicted" in one]
    assert beside or lines or name == "contrastive-collapse"
    marked = {one for dataset in groups for array in dataset.values() for one in as_texts(array.attrs.get("predicted"))}
    assert set(lines) <= marked
    assert {dataset[one].attrs["long_name"] for dataset in groups for one in beside if one in dataset} <= marked


@every_lab
def test_claims_have_a_rule_with_its_threshold_and_evidence_in_the_run(name):
    run = smoke_run(name)
    assert run.claims
    for claim in run.claims:
        assert isinstance(claim.verdict, Verdict)
        assert any(character.isdigit() for character in claim.rule)
        assert claim.reference
        assert 0 < claim.weight <= 1
        assert run[claim.evidence].name == claim.evidence.partition("/")[2]
    assert [claim.weight for claim in run.claims] == sorted((claim.weight for claim in run.claims), reverse=True)


@every_lab
def test_trials_come_to_the_same_however_they_are_cut(name):
    lab = LABS[name].smoke()
    trials = lab.plan_trials()
    first = [place for place, one in enumerate(trials) if lab.form(one) == lab.form(trials[0])][: lab.at_once]
    together = lab.run_trials([trials[place] for place in first])
    alone = [lab.run_trials([trials[place]]) for place in first]
    for one, values in together.items():
        single = np.concatenate([found[one] for found in alone])
        np.testing.assert_allclose(values, single, rtol=2e-4, atol=2e-5, equal_nan=True, err_msg=one)


@every_lab
def test_seeds_and_settings_decide_the_address_and_the_numbers(name):
    lab = LABS[name].smoke()
    other = dataclasses.replace(lab, seed=lab.seed + 100)
    assert Experiment(lab).spec.address != Experiment(other).spec.address
    values = [one.run_trials(one.plan_trials()[-2:]) for one in (lab, other)]
    assert any(not np.array_equal(values[0][key], values[1][key], equal_nan=True) for key in values[0])


@every_lab
def test_the_smoke_run_has_a_page_and_can_be_read_again(name, tmp_path):
    run = smoke_run(name)
    RunFolder(str(tmp_path)).write(run)
    again = read_run(str(tmp_path))
    assert again.claims == run.claims
    for group, node in run.tree.children.items():
        xr.testing.assert_equal(node.to_dataset(), again.tree[group].to_dataset())
    html = page((again,))
    assert LABS[name].title in html
    assert RunView(again, "run").headlines or name == "sample-complexity"  # exponents need two shares within the grid
    assert not re.search(
        r"<code class=.formula|\\[a-z]+\{|\^[\d{-]", html[html.index("<body>") : html.index("</main>")]
    )
    assert f"Examined on {Experiment(LABS[name].smoke()).total} trials" in html
    assert "images of" not in html


@every_lab
def test_a_grid_over_a_setting_is_an_axis_before_the_others(name):
    experiment = grid_of(LABS[name].smoke(), {"rate": "0.5,2"})
    run = carry_out(experiment, Plan())
    for group in run.tree.children:
        single = smoke_run(name).tree[group].to_dataset()
        for one in quantities(single):
            assert run.tree[group][one].dims == ("rate", *single[one].dims)
    assert json.loads(run.tree.attrs["spec"])["settings"]["grid"] == {"rate": [0.5, 2.0]}
    assert {claim.statement.partition(":")[0] for claim in run.claims} == {"At rate 0.5", "At rate 2"}
    rates = [claim.rate for claim in run.claims if claim.rate is not None]
    assert set(rates) <= {rate_of(len(rates))}  # all points share the rate of a run
    assert {claim.kind for claim in run.claims} == {ClaimKind.THEORY}


@every_lab
def test_no_lab_draws_from_the_global_generator(name):
    source = ast.parse(inspect.getsource(inspect.getmodule(LABS[name])))
    names = {ast.unparse(node.func) for node in ast.walk(source) if isinstance(node, ast.Call)}
    assert not any(one.startswith(("torch.rand", "torch.manual_seed", "np.random.seed", "random.")) for one in names)


def test_a_grid_is_refused_in_the_users_words():
    lab: AbstractLab = LABS["masked-phases"].smoke()
    with pytest.raises(UserError, match="no setting 'tau'"):
        grid_of(lab, {"tau": "1"})
    with pytest.raises(UserError, match="'x' is no value of rate"):
        grid_of(lab, {"rate": "1,x"})
    assert grid_of(lab, {"areas": "10/2"}).lab.areas == "10/2"
    assert grid_of(lab, {"areas": "10/2"}).grid == {}
    with pytest.raises(UserError, match=r"steps must be: 10, 12\.5, 15"):
        grid_of(lab, {"steps": "10:15:3"})
    with pytest.raises(UserError, match="law is not a number"):
        grid_of(LABS["sample-complexity"].smoke(), {"law": "ball:gaussian"})
    with pytest.raises(UserError, match="tau is noise, which the grid has already"):
        grid_of(LABS["sample-complexity"].smoke(), {"noise": "0.1", "tau": "0.2"})
    with pytest.raises(UserError, match="no setting 'planted'"):
        grid_of(LABS["sample-complexity"].smoke(), {"planted": "1"})


def test_a_grid_takes_ranges_and_symbols():
    lab = LABS["sample-complexity"].smoke()
    experiment = grid_of(lab, {"alpha": "0.1:0.5:5", "tau": "0.1:0.3:3", "steps": "20:60:3", "law": "ball,gaussian"})
    assert experiment.lab.settings["alpha"] == "0.1:0.5:5"
    assert experiment.grid == {"noise": (0.1, 0.2, 0.3), "steps": (20, 40, 60), "law": ("ball", "gaussian")}
    assert all(isinstance(one, int) for one in experiment.grid["steps"])
