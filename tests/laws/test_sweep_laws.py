"""Sweeps: every trial once, kept chunk by chunk, the same numbers whoever carries them out and whoever dies."""

import os
import signal
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import final

import cloudpickle
import numpy as np
import pytest
import xarray as xr
from typer.testing import CliRunner

from vitscope.cli import app
from vitscope.engine.executor import InProcess, Processes
from vitscope.engine.measure import Plan
from vitscope.engine.ray_cluster import RayCluster
from vitscope.labs.dataset import Along, over_trials
from vitscope.labs.experiment import Experiment
from vitscope.labs.lab import AbstractLab, Datasets, Values, all_labs
from vitscope.labs.sweep import Sweep
from vitscope.measurement.claim import Claim
from vitscope.measurement.quantity import Quantity
from vitscope.runs.store import RunFolder, read_run

LABS = all_labs()
SQUARE = Quantity("square", "Square", "1", "The seed squared.")


@final
@dataclass(frozen=True)
class Deadly(AbstractLab[int]):
    """Squares of seeds; whoever is first to come to the seed 3 is killed."""

    name = "deadly"
    title = "Deadly"
    question = "Who survives?"
    references = ("none",)
    at_once = 2

    mark: str = ""
    trials: int = 7
    seed: int = 0

    @classmethod
    def smoke(cls) -> "Deadly":
        """It is small."""
        return cls()

    def planned(self) -> tuple[int, ...]:
        """The seeds."""
        return tuple(range(self.trials))

    def form(self, trial: int) -> Hashable:
        """Seeds up to 4, and the others."""
        return trial > 4

    def carried_out(self, trials: Sequence[int]) -> Values:
        """The squares."""
        if self.mark and 3 in trials and not Path(self.mark).exists():
            Path(self.mark).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return {"square": np.array([one**2.0 for one in trials]), "wide": np.ones((len(trials), 2, 3))}

    def measured(self, values: Values) -> Datasets:
        """One number, and one for each trial."""
        axis = Along("step", list(range(self.trials)), "Seed")
        parts = over_trials(SQUARE, [axis], values["square"][:, None])
        return {"squares": self.group("squares", "squares", parts)}

    def claims(self, datasets: Datasets, rate: float) -> tuple[Claim, ...]:
        """None."""
        return ()


@pytest.fixture
def by_value():
    """Workers cannot import this file, so that its classes travel whole."""
    import sys

    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    yield
    cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


@pytest.mark.parametrize("name", [*LABS, "deadly"])
def test_chunks_hold_every_trial_once_and_are_of_one_form(name):
    lab = LABS[name].smoke() if name in LABS else Deadly()
    trials = lab.planned()
    shards = Sweep(variants=(lab, lab)).shards()
    for block in (0, 1):
        own = sorted((shard for shard in shards if shard.block == block), key=lambda shard: shard.start)
        assert [place for shard in own for place in range(shard.start, shard.stop)] == list(range(len(trials)))
        assert all(1 <= shard.stop - shard.start <= lab.at_once for shard in own)
        assert all(len({lab.form(one) for one in trials[shard.start : shard.stop]}) == 1 for shard in own)
    assert len({shard.name for shard in shards}) == len(shards)


@final
@dataclass(frozen=True)
class Uneven(AbstractLab[int]):
    """Trials that cost what their numbers are."""

    name = "uneven"
    title = "Uneven"
    question = "Who ends last?"
    references = ("none",)
    at_once = 2

    costs: tuple[int, ...] = (1, 1, 5, 2, 9, 9, 1)

    @classmethod
    def smoke(cls) -> "Uneven":
        """It is small."""
        return cls()

    def planned(self) -> tuple[int, ...]:
        """The costs."""
        return self.costs

    def cost(self, trial: int) -> float:
        """The trial itself."""
        return float(trial)

    def carried_out(self, trials: Sequence[int]) -> Values:
        """The trials themselves."""
        return {"square": np.array(trials, dtype=np.float64)}

    def measured(self, values: Values) -> Datasets:
        """In their order."""
        axis = Along("step", list(range(len(self.costs))), "Trial")
        return {"squares": self.group("squares", "squares", over_trials(SQUARE, [axis], values["square"][:, None]))}

    def claims(self, datasets: Datasets, rate: float) -> tuple[Claim, ...]:
        """None."""
        return ()


def test_the_dearest_chunks_are_begun_first_and_answers_stay_in_order():
    shards = Sweep((Uneven(), Uneven((20,)))).shards()
    assert [(shard.block, shard.start) for shard in shards] == [(1, 0), (0, 4), (0, 2), (0, 0), (0, 6)]
    run = Experiment(Uneven()).answer(Plan())
    assert run["squares/square"].values.tolist() == list(Uneven().costs)


def test_a_chunk_is_read_as_it_was_written():
    work = Sweep(variants=(Deadly(),))
    shard = work.shards()[1]
    chunk = work.fold(shard, lambda _: None)
    again = work.read(chunk.to_bytes())
    assert again.done == chunk.done == 2
    assert again.values["square"].tolist() == [4.0, 9.0]
    assert again.values["wide"].shape == (2, 2, 3)


def test_progress_counts_every_trial():
    seen: list[tuple[int, int]] = []
    experiment = Experiment(Deadly(), {"seed": (0, 1)})
    run = experiment.answer(Plan(progress=lambda done, total: seen.append((done, total))))
    assert seen[0] == (0, 14)
    assert seen[-1] == (14, 14)
    assert run.tree.attrs["images"] == 14


@dataclass
class Stopped:
    """Progress that raises Ctrl-C after so many trials."""

    after: int
    done: list[int] = field(default_factory=list)

    def __call__(self, done: int, total: int) -> None:
        del total
        self.done.append(done)
        if done >= self.after:
            raise KeyboardInterrupt


def test_an_interrupted_sweep_goes_on_at_its_chunks(tmp_path, monkeypatch):
    lab = LABS["masked-phases"].smoke()
    experiment = Experiment(lab)
    folder = RunFolder(str(tmp_path / "run"))
    with pytest.raises(KeyboardInterrupt):
        experiment.answer(Plan(folder=folder, progress=Stopped(4)))
    kept = experiment.kept(Plan(folder=folder))
    assert 0 < kept < experiment.trials
    trained: list[int] = []
    whole = type(lab).carried_out
    monkeypatch.setattr(
        type(lab), "carried_out", lambda self, trials: trained.append(len(trials)) or whole(self, trials)
    )
    resumed = experiment.answer(Plan(folder=folder, resume=True))
    assert sum(trained) == experiment.trials - kept
    assert same(resumed.tree.children, Experiment(lab).answer(Plan()).tree.children)
    assert folder.parts(experiment.spec) == {}


def test_a_worker_that_is_killed_costs_its_chunk_only(tmp_path, by_value):
    mark = tmp_path / "mark"
    run = Experiment(Deadly(str(mark))).answer(Plan(executor=Processes(1)))  # each worker imports torch, for seconds
    assert mark.exists()
    alone = Experiment(Deadly()).answer(Plan(executor=InProcess()))
    assert same(run.tree.children, alone.tree.children)


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


def test_a_ray_worker_that_is_killed_costs_its_chunk_only(cluster, tmp_path, by_value):
    mark = tmp_path / "mark"
    run = Experiment(Deadly(str(mark))).answer(Plan(executor=RayCluster("local")))
    assert mark.exists()
    assert same(run.tree.children, Experiment(Deadly()).answer(Plan()).tree.children)


def same(one: Mapping[str, xr.DataTree], other: Mapping[str, xr.DataTree]) -> bool:
    """Whether two runs have the same numbers to the last bit."""
    return list(one) == list(other) and all(one[name].to_dataset().equals(other[name].to_dataset()) for name in one)
