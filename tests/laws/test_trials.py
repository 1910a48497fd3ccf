"""Trials: the trainings that they are made of, in pairs, whoever carries them out and whenever they are interrupted."""

from dataclasses import replace

import numpy as np
import pytest
import xarray as xr

import vitscope
from vitscope import Grid, Plan, UserError
from vitscope.engine.work.executor import Processes
from vitscope.training.recipe import Recipe
from vitscope.training.train import train
from vitscope.training.trials import TrialsQuestion, parse_grid

RECIPE = Recipe("vit-micro", image=8, patch=4, channels=1, depth=1, epochs=2, batch=16, validation=0.25)


@pytest.fixture(scope="module")
def digits():
    return tuple(vitscope.images("digits", split=split, limit=64) for split in ("train", "test"))


@pytest.fixture(scope="module")
def grid(digits):
    return Grid(RECIPE, digits[0], {"learning_rate": (1e-3, 2e-3)}, digits[1])


@pytest.fixture(scope="module")
def run(grid):
    return vitscope.trials(grid, seeds=2)


def same(one, other):
    return all(
        xr.Dataset.identical(node.to_dataset(), other.tree[name].to_dataset())
        for name, node in one.tree.children.items()
    )


def test_a_trial_is_the_training_by_itself(run, digits, tmp_path):
    alone = train(Recipe(**{**vars(RECIPE), "learning_rate": 2e-3, "seed": 1}), digits[0], tmp_path, digits[1])
    right = alone.run.tree["predictions"].to_dataset()
    share = float((right["predicted"] == right["label"]).mean())
    assert float(run["trials"].sel(learning_rate=2e-3, seed="1")) == pytest.approx(share)


def test_the_tree_has_the_axes_of_the_grid_and_the_seed(run):
    assert run["trials"].dims == ("learning_rate", "seed")
    assert run["learning-curves/validation_accuracy"].dims == ("point", "epoch")
    assert [claim.name for claim in run.claims] == ["best-point"]


def test_workers_give_the_same(run, grid):
    assert same(run, vitscope.trials(grid, seeds=2, plan=Plan(executor=Processes(2))))


def test_an_interrupt_keeps_finished_trainings_and_the_state_of_the_one_under_way(run, grid, tmp_path):
    class Stop:
        def __call__(self, done, total):
            if done > 1.5 * total / 4:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        vitscope.trials(grid, seeds=2, plan=Plan(folder=tmp_path, progress=Stop()))
    question = TrialsQuestion(grid, 2)
    assert question.kept_amount(Plan(folder=tmp_path)) == question.total / 4
    with pytest.raises(UserError, match="already holds trainings of a grid; resume them"):
        vitscope.trials(grid, seeds=2, plan=Plan(folder=tmp_path))
    seen = []
    again = vitscope.trials(
        grid, seeds=2, plan=Plan(folder=tmp_path, resume=True, progress=lambda done, total: seen.append(done / total))
    )
    assert same(run, again)
    assert seen[0] == 0.25
    assert np.all(np.diff(seen) >= 0)
    assert seen[-1] == pytest.approx(1)
    assert len(list((tmp_path / "trials").glob("*/model.safetensors"))) == 4


def test_a_training_that_diverges_ends_neither_the_grid_nor_the_others(digits, tmp_path):
    rates = (1e-3, 2e-3, 1e30)
    grid = Grid(replace(RECIPE, clip=0.0), digits[0], {"learning_rate": rates}, digits[1])
    run = vitscope.trials(grid, seeds=2, plan=Plan(folder=tmp_path))
    accuracy = run["trials"]
    assert np.isfinite(accuracy.sel(learning_rate=[1e-3, 2e-3])).all()
    assert np.isnan(accuracy.sel(learning_rate=1e30)).all()
    assert list(run["trial-differences"].point.values) == ["learning rate 0.002"]
    assert [note for note in run.notes if "diverged" in note] == [
        f"learning rate 1e+30, seed {seed}: The training diverged before step {step} (the loss is not finite); "
        "lower learning_rate (1e+30), or the gradient's largest norm with clip (0; 0 is no limit)."
        for seed, step in ((0, 3), (1, 3))
    ]
    assert run.claims[0].figure.startswith("learning rate 0.00")
    again = vitscope.trials(grid, seeds=2, plan=Plan(folder=tmp_path, resume=True))
    assert all(node.to_dataset().equals(again.tree[name].to_dataset()) for name, node in run.tree.children.items())


def test_a_grid_of_which_every_training_diverges_is_refused(digits):
    grid = Grid(replace(RECIPE, clip=0.0), digits[0], {"learning_rate": (1e30, 1e31)}, digits[1])
    with pytest.raises(UserError, match=r"^Every training of the grid diverged\. The first: The training diverged"):
        vitscope.trials(grid)


def test_what_a_grid_cannot_vary_is_named(digits):
    with pytest.raises(UserError, match=r"A grid cannot vary seed; .*seeds=3 gives several seeds"):
        Grid(RECIPE, digits[0], {"seed": (0, 1)})
    with pytest.raises(UserError, match="learning_rate has no values"):
        Grid(RECIPE, digits[0], {"learning_rate": ()})
    with pytest.raises(UserError, match="learning_rate is -1"):
        Grid(RECIPE, digits[0], {"learning_rate": (-1.0,)})
    with pytest.raises(UserError, match=r"no setting 'learning_rat'.*learning_rate"):
        parse_grid(["learning_rat=1"])


def test_a_grid_is_read_from_text():
    assert parse_grid(["learning-rate=1e-3,2e-3", "mixup=0,0.8"]) == {
        "learning_rate": (1e-3, 2e-3),
        "mixup": (0.0, 0.8),
    }
