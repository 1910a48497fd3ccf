"""On a Ray cluster everything comes to the numbers of one process, whoever dies."""

import pytest
import torch
import xarray as xr
from deadly_lab import Deadly, same, travelling
from typer.testing import CliRunner

from vitscope import Plan, images, load, measure
from vitscope.cli import app
from vitscope.diagnostics import default_diagnostics
from vitscope.engine.question import carry_out
from vitscope.engine.work.ray_cluster import RayCluster
from vitscope.labs.experiment import Experiment
from vitscope.models.own.vit import Vit, VitConfig
from vitscope.runs.store import read_run


@pytest.fixture(scope="module")
def cluster():
    """A Ray cluster of two workers on this machine."""
    ray = pytest.importorskip("ray", reason="ray is not installed")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error")
    yield
    ray.shutdown()


def test_a_sweep_of_a_real_lab_on_a_cluster_is_that_of_one_process(cluster, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    small = ("--areas", "10/2", "--patches", "16", "--clusters", "2", "--masked-share", "0.5", "--steps", "10")
    asked = ["sweep", "masked-phases", "--grid", "high=1:1.5:2", *small, "--batch-size", "8", "--trials", "2"]
    for place in ("ray", "local"):
        answer = CliRunner().invoke(app, [*asked, "--on", place, "--resume", "--out", place])
        assert answer.exit_code == 0, answer.stderr
    assert same(read_run("ray").tree.children, read_run("local").tree.children)


def test_a_ray_worker_that_is_killed_costs_its_chunk_only(cluster, tmp_path):
    mark = tmp_path / "mark"
    with travelling():
        run = carry_out(Experiment(Deadly(str(mark))), Plan(executor=RayCluster("local")))
    assert mark.exists()
    assert same(run.tree.children, carry_out(Experiment(Deadly()), Plan()).tree.children)


def test_a_measurement_is_that_of_one_process(cluster):
    torch.manual_seed(0)
    subject = load(Vit(VitConfig(image=8, channels=1, patch=2, dim=16, depth=2, heads=2, registers=1)), name="small")
    pictures, diagnostics = images("digits", split="test", limit=40), default_diagnostics()
    run = measure(subject, pictures, diagnostics, Plan(batch_size=4, executor=RayCluster("local")))
    whole = measure(subject, pictures, diagnostics, Plan(batch_size=4))
    assert list(run.tree.children) == list(whole.tree.children)
    for name, node in run.tree.children.items():
        xr.testing.assert_allclose(node.to_dataset(), whole.tree[name].to_dataset(), rtol=1e-12, atol=1e-12)
