"""Sweeps: every trial once, kept chunk by chunk, the same numbers whoever carries them out and whoever dies."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import final

import numpy as np
import pytest
from deadly_lab import SQUARE, Deadly, same, travelling

from vitscope.engine.plan import Plan
from vitscope.engine.question import carry_out
from vitscope.engine.work.executor import InProcess, Processes
from vitscope.labs.experiment import Experiment
from vitscope.labs.lab import AbstractLab, Datasets, Values, all_labs
from vitscope.labs.sweep import Sweep
from vitscope.measurement.claim import Claim
from vitscope.measurement.trials import Along, over_trials
from vitscope.runs.store import RunFolder

LABS = all_labs()


@pytest.mark.parametrize("name", [*LABS, "deadly"])
def test_chunks_hold_every_trial_once_and_are_of_one_form(name):
    lab = LABS[name].smoke() if name in LABS else Deadly()
    trials = lab.plan_trials()
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

    def plan_trials(self) -> tuple[int, ...]:
        """The costs."""
        return self.costs

    def cost(self, trial: int) -> float:
        """The trial itself."""
        return float(trial)

    def run_trials(self, trials: Sequence[int]) -> Values:
        """The trials themselves."""
        return {"square": np.array(trials, dtype=np.float64)}

    def datasets_of(self, values: Values) -> Datasets:
        """In their order."""
        axis = Along("step", list(range(len(self.costs))), "Trial")
        return {"squares": self.group("squares", "squares", over_trials(SQUARE, [axis], values["square"][:, None]))}

    def claims(self, datasets: Datasets, rate: float) -> tuple[Claim, ...]:
        """None."""
        return ()


def test_the_dearest_chunks_are_begun_first_and_answers_stay_in_order():
    shards = Sweep((Uneven(), Uneven((20,)))).shards()
    assert [(shard.block, shard.start) for shard in shards] == [(1, 0), (0, 4), (0, 2), (0, 0), (0, 6)]
    run = carry_out(Experiment(Uneven()), Plan())
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
    run = carry_out(experiment, Plan(progress=lambda done, total: seen.append((done, total))))
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
        carry_out(experiment, Plan(folder=folder, progress=Stopped(4)))
    kept = experiment.kept_amount(Plan(folder=folder))
    assert 0 < kept < experiment.total
    trained: list[int] = []
    whole = type(lab).run_trials
    monkeypatch.setattr(
        type(lab), "run_trials", lambda self, trials: trained.append(len(trials)) or whole(self, trials)
    )
    resumed = carry_out(experiment, Plan(folder=folder, resume=True))
    assert sum(trained) == experiment.total - kept
    assert same(resumed.tree.children, carry_out(Experiment(lab), Plan()).tree.children)
    assert folder.parts(experiment.spec) == {}


def test_a_worker_that_is_killed_costs_its_chunk_only(tmp_path):
    mark = tmp_path / "mark"
    with travelling():
        run = carry_out(Experiment(Deadly(str(mark))), Plan(executor=Processes(1)))
    assert mark.exists()
    alone = carry_out(Experiment(Deadly()), Plan(executor=InProcess()))
    assert same(run.tree.children, alone.tree.children)
