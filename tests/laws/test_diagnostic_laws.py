"""The laws of diagnostics, over every registered class: split, order and place of the work do not matter."""

import copy
import multiprocessing

import numpy as np
import pytest
import torch
import xarray as xr

from vitscope import Plan, images, load, measure
from vitscope.diagnostics import default_diagnostics
from vitscope.diagnostics.attention_distance import AttentionDistance
from vitscope.diagnostics.attention_sinks import AttentionSinks
from vitscope.engine.reading.shard import Pass, Shard
from vitscope.engine.work.executor import Processes
from vitscope.measurement.axes import AXES
from vitscope.measurement.errors import UserError
from vitscope.models.own.vit import Vit, VitConfig

COUNT, BATCH = 40, 4
DIAGNOSTICS = default_diagnostics()


@pytest.fixture(scope="module")
def subject():
    torch.manual_seed(0)
    return load(Vit(VitConfig(image=8, channels=1, patch=2, dim=16, depth=2, heads=2, registers=1)), name="small")


@pytest.fixture(scope="module")
def pictures():
    return images("digits", split="test", limit=COUNT)


@pytest.fixture(scope="module")
def whole(subject, pictures):
    return measure(subject, pictures, DIAGNOSTICS, Plan(batch_size=BATCH))


def assert_same(one: xr.DataTree, other: xr.DataTree) -> None:
    assert list(one.children) == list(other.children)
    for name, node in one.children.items():
        xr.testing.assert_allclose(node.to_dataset(), other[name].to_dataset(), rtol=1e-12, atol=1e-12)


def folded(subject, pictures, shards):
    work = Pass(subject, pictures, DIAGNOSTICS, BATCH)
    return [work.fold(shard, lambda _: None) for shard in shards]


def states(result):
    return [state.moments.observed_mean for state in result.states]


def test_two_halves_merged_equal_one_pass(subject, pictures):
    (one,) = folded(subject, pictures, [Shard(0, 10)])
    first, second = folded(subject, pictures, [Shard(0, 5), Shard(5, 10)])
    for left, right in zip(states(first.merge(second)), states(one), strict=True):
        torch.testing.assert_close(left, right, rtol=1e-12, atol=1e-12, equal_nan=True)


def test_merge_is_associative_and_commutative(subject, pictures):
    a, b, c = folded(subject, pictures, [Shard(0, 2), Shard(2, 5), Shard(5, 10)])
    for left, right in zip(states(a.merge(b).merge(c)), states(c.merge(a.merge(b))), strict=True):
        torch.testing.assert_close(left, right, rtol=1e-12, atol=1e-12, equal_nan=True)


def test_a_shard_survives_being_written_and_read(subject, pictures):
    (result,) = folded(subject, pictures, [Shard(0, 2)])
    again = type(result).from_bytes(result.to_bytes())
    assert again.images == result.images
    for one, other in zip(result.states, again.states, strict=True):
        assert one.slots == other.slots
        assert torch.equal(one.moments.squares, other.moments.squares)


def test_batch_size_changes_results_by_float32_rounding_at_most(subject, pictures, whole):
    other = measure(subject, pictures, DIAGNOSTICS, Plan(batch_size=16))
    for name, node in whole.tree.children.items():
        xr.testing.assert_allclose(node.to_dataset(), other.tree[name].to_dataset(), rtol=2e-4, atol=2e-5)


def test_how_many_images_are_read_at_a_time_does_not_matter(subject, pictures, monkeypatch):
    diagnostics = [AttentionSinks(factor=1.02), AttentionDistance()]
    whole = measure(subject, pictures, diagnostics, Plan(batch_size=BATCH))
    assert whole["attention-sinks/high_norm_mass"].max() > 0.1
    monkeypatch.setattr("vitscope.engine.reading.shard.CHUNK", 1)
    single = measure(subject, pictures, diagnostics, Plan(batch_size=BATCH))
    for name, node in whole.tree.children.items():
        xr.testing.assert_allclose(node.to_dataset(), single.tree[name].to_dataset(), rtol=1e-4, atol=1e-5)


def test_two_worker_processes_equal_one_pass(subject, pictures, whole):
    run = measure(subject, pictures, DIAGNOSTICS, Plan(batch_size=BATCH, executor=Processes(2)))
    assert_same(run.tree, whole.tree)


def test_the_subject_is_left_untouched(subject, pictures):
    before = copy.deepcopy(subject.module.state_dict())
    measure(subject, pictures, DIAGNOSTICS, Plan(batch_size=BATCH))
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in subject.module.modules())
    assert not subject.module.training
    for name, value in subject.module.state_dict().items():
        assert torch.equal(value, before[name])


def test_measuring_twice_gives_the_same(subject, pictures, whole):
    assert_same(measure(subject, pictures, DIAGNOSTICS, Plan(batch_size=BATCH)).tree, whole.tree)


@pytest.mark.parametrize("diagnostic", DIAGNOSTICS, ids=lambda d: d.name)
def test_every_result_knows_its_axes_units_errors_and_source(whole, diagnostic):
    dataset = whole.tree[diagnostic.name].to_dataset()
    assert set(dataset.dims) <= set(AXES)
    assert dataset.attrs["title"]
    assert dataset.attrs["references"]
    assert dataset.attrs["definition"].startswith(diagnostic.__doc__[:20])
    plain = [name for name in dataset.data_vars if not name.endswith(("_error", "_count"))]
    for name in plain:
        assert dataset[name].attrs["units"]
        assert dataset[name].attrs["meaning"]
        assert dataset[f"{name}_error"].dims == dataset[name].dims
        seen = dataset[f"{name}_count"].values
        assert 0 < seen.max() <= COUNT
        assert np.isfinite(dataset[name].values[seen > 0]).all()


def test_a_subject_with_dropout_on_is_refused(subject, pictures):
    module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Dropout(0.5), torch.nn.Linear(64, 10))
    random = load(module, input=Vit(VitConfig(image=8, channels=1, patch=2)).config.input, units=())
    random.module.train()
    with pytest.raises(UserError, match=r"in training mode \(itself\)"):
        measure(random, pictures, DIAGNOSTICS)


class Noisy(torch.nn.Module):
    """A model that adds noise of its own, training mode or not."""

    def __init__(self):
        super().__init__()
        self.head = torch.nn.Linear(64, 10)

    def forward(self, images):
        return self.head(images.flatten(1) + torch.rand(images.shape[0], 64))


def test_a_subject_with_noise_of_its_own_is_refused(pictures):
    noisy = load(Noisy(), input=Vit(VitConfig(image=8, channels=1, patch=2)).config.input, units=())
    with pytest.raises(UserError, match="different logits for the same images twice"):
        measure(noisy, pictures, DIAGNOSTICS)


def test_a_script_that_starts_workers_as_it_is_imported_is_told_so(subject, pictures, monkeypatch):
    """A worker imports the script that started it; it would start workers of its own and wait for ever."""
    monkeypatch.setattr(multiprocessing.current_process(), "_inheriting", True, raising=False)
    with pytest.raises(UserError, match="if __name__ == '__main__'"):
        measure(subject, pictures, DIAGNOSTICS, Plan(batch_size=BATCH, executor=Processes(2)))
