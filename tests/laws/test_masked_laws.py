"""The laws of masked pretraining: what holds for every setting, every matrix and every sample."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vitscope.labs.masked.clusters import ClusteredPatches, MaskedSamples
from vitscope.labs.masked.contrastive import Contrastive
from vitscope.labs.masked.position_attention import (
    Correlations,
    PositionAttention,
    at_zero,
    reconstruction_gradient,
    reconstruction_loss,
    slot_gradient,
    unavoidable_loss,
)
from vitscope.labs.masked.training import (
    MaskedReading,
    MaskedTraining,
    MaskedTrial,
    Reconstruction,
    first_reached,
    read,
    train,
)
from vitscope.measurement.errors import UserError
from vitscope.measurement.trials import log_spaced

SMALL = ClusteredPatches(12, 2, 4, 2, low=0.5, high=2.0, masked_share=0.6)
OBJECTIVES = [Reconstruction(), Contrastive(0.5, 0.01)]
NAMES = tuple(MaskedReading.__dataclass_fields__)


@st.composite
def cases(draw):
    """A model with a random matrix, and samples."""
    local, count = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    first, clusters = draw(st.integers(1, 8)), draw(st.integers(1, 3))
    patches = first + local * count
    hidden = draw(st.integers(1, patches - 1))
    low, width = draw(st.sampled_from([0.0, 0.5, 1.0])), draw(st.sampled_from([0.5, 2.0]))
    setting = ClusteredPatches(patches, clusters, first, local, low, low + width, hidden / patches)
    generator = torch.Generator().manual_seed(draw(st.integers(0, 99)))
    scale = draw(st.sampled_from([0.0, 1.0, 10.0]))
    feature = scale * torch.randn(1, patches, clusters, setting.areas, generator=generator, dtype=torch.float64)
    position = scale * torch.randn(1, patches, patches, generator=generator, dtype=torch.float64)
    model = PositionAttention(Correlations(feature, position), setting.partition(generator)[None])
    return setting, model, setting.draw(5, generator)


@settings(max_examples=40, deadline=None)
@given(cases())
def test_attention_is_a_distribution_and_own_features_only_grow(case):
    _, model, samples = case
    attention = model.attend(samples)
    dense = attention.dense()
    assert float(dense.min()) >= 0
    torch.testing.assert_close(dense.sum(-1), torch.ones_like(dense[..., 0]))
    torch.testing.assert_close(attention.mass, torch.einsum("tbpq,tbsq->tbsp", dense, attention.keys))
    gradient = reconstruction_gradient(attention)
    own = gradient.feature.gather(3, model.partition.mT[..., None])
    assert float(own.max()) <= 1e-12
    torch.testing.assert_close(gradient.position.sum(-1), torch.zeros_like(gradient.position[..., 0]))


@settings(max_examples=40, deadline=None)
@given(cases())
def test_no_attention_is_better_than_the_unavoidable(case):
    _, model, samples = case
    attention = model.attend(samples)
    assert float((reconstruction_loss(attention) - unavoidable_loss(attention)).min()) >= -1e-12
    assert float((attention.own * (1 - attention.own_is_visible)).max()) == 0


@settings(max_examples=30, deadline=None)
@given(cases(), st.integers(0, 99))
def test_names_of_patches_do_not_matter(case, seed):
    setting, model, samples = case
    order = torch.randperm(setting.patches, generator=torch.Generator().manual_seed(seed))
    found = model.correlations
    renamed = PositionAttention(
        Correlations(found.feature[:, order], found.position[:, order][..., order]), model.partition[..., order]
    )
    seen = MaskedSamples(samples.clusters, samples.strengths, samples.visible[..., order])
    one, other = reconstruction_gradient(model.attend(samples)), reconstruction_gradient(renamed.attend(seen))
    torch.testing.assert_close(other.feature, one.feature[:, order])
    torch.testing.assert_close(other.position, one.position[:, order][..., order])
    for name in NAMES:
        torch.testing.assert_close(
            getattr(read(renamed, seen), name), getattr(read(model, samples), name), equal_nan=True
        )


@settings(max_examples=30, deadline=None)
@given(cases())
def test_a_push_that_is_the_same_everywhere_moves_nothing(case):
    attention = case[1].attend(case[2])
    gradient = slot_gradient(attention, torch.ones_like(attention.mass), attention.hidden)
    assert float(gradient.feature.abs().max()) < 1e-12
    assert float(gradient.position.abs().max()) < 1e-12


def test_contrast_treats_all_queries_alike():
    """Its push does not know the query, so that from Q = 0 all queries attend alike for ever: the collapse."""
    setting = ClusteredPatches(12, 2, 4, 2, masked_share=0.5)
    found = train(
        [MaskedTrial(setting, 0, rate=30.0)], MaskedTraining((0, 40), batch=16, evaluated=8), Contrastive()
    ).model
    feature, position = found.correlations.feature, found.correlations.position
    torch.testing.assert_close(feature, feature[:, :1].expand_as(feature))
    torch.testing.assert_close(position, position[:, :1].expand_as(position))
    assert float(feature.abs().max()) > 0.5


@pytest.mark.parametrize("objective", OBJECTIVES, ids=["reconstruction", "contrastive"])
def test_a_trial_among_others_is_what_it_is_alone(objective):
    other = ClusteredPatches(12, 2, 8, 1, masked_share=0.5)  # as many areas, of other sizes; one patch sees no other
    trials = [MaskedTrial(SMALL, 1), MaskedTrial(other, 2, rate=2.0), MaskedTrial(SMALL, 3, rate=1.0)]
    training = MaskedTraining((0, 5, 20), batch=8, evaluated=16)
    together = train(trials, training, objective)
    for place, trial in enumerate(trials):
        alone = train([trial], training, objective)
        for name in NAMES:
            one, several = getattr(alone.reading, name)[0], getattr(together.reading, name)[place]
            torch.testing.assert_close(one, several, rtol=1e-12, atol=1e-13, equal_nan=True)


@pytest.mark.parametrize("objective", OBJECTIVES, ids=["reconstruction", "contrastive"])
def test_looking_changes_nothing_and_descent_descends(objective):
    trial = MaskedTrial(SMALL, 4, rate=0.5)
    often = train([trial], MaskedTraining((0, 1, 2, 30), batch=64, evaluated=64), objective)
    once = train([trial], MaskedTraining((30,), batch=64, evaluated=8), objective)
    torch.testing.assert_close(often.model.correlations.feature, once.model.correlations.feature, rtol=0, atol=0)
    generator = torch.Generator().manual_seed(9)
    samples = SMALL.draw(512, generator)
    views = [samples, SMALL.mask_again(samples, generator)]
    losses = [_loss(objective, model, views) for model in (at_zero(often.model.partition, SMALL.areas), often.model)]
    assert losses[1] < losses[0]


def _loss(objective, model, views):
    if isinstance(objective, Contrastive):
        return float(objective.loss(model, views))
    return float(reconstruction_loss(model.attend(views[0])).mean())


def test_readings_at_zero_are_those_of_uniform_attention():
    setting = ClusteredPatches(12, 2, 4, 2, masked_share=0.5)
    reading = train([MaskedTrial(setting, 0)], MaskedTraining((0,), evaluated=4096)).reading
    for name in ("own_global", "own_local", "local_to_global", "others", "position"):
        assert float(getattr(reading, name)) == 0
    # 6 visible of the other 11 patches, 3 of them of the global area; 4.5 standard errors are below 0.01
    assert float(reading.global_attention_always) == pytest.approx(3 * 6 / 11 / 12, abs=0.01)
    assert float(reading.stray_attention) == pytest.approx(4 * 6 / 11 / 12, abs=0.01)
    assert float(reading.local_attention) == pytest.approx(1 / 12)
    assert float(reading.local_attention_always) == pytest.approx(6 / 11 / 12, abs=0.01)


def test_when_a_curve_reaches_a_level():
    steps = torch.tensor([0, 2, 6])
    curves = torch.tensor([[0.0, 0.4, 0.6], [0.5, 0.1, 0.2], [0.0, 0.1, 0.2], [0.0, 0.5, 0.1]])
    found = first_reached(steps, curves, 0.5)
    torch.testing.assert_close(found, torch.tensor([4.0, 0.0, torch.nan, 2.0]), equal_nan=True)


def test_recorded_steps():
    assert log_spaced(100, 3) == (0, 1, 10, 100)
    assert log_spaced(4, 30) == (0, 1, 2, 3, 4)


@pytest.mark.parametrize("fields", [{"recorded": ()}, {"recorded": (3, 1)}, {"recorded": (1,), "batch": 0}])
def test_trainings_that_are_none_are_refused(fields):
    with pytest.raises(UserError, match="ascending"):
        MaskedTraining(**fields)


def test_trials_of_different_shapes_are_refused():
    with pytest.raises(UserError, match="train each group separately"):
        train([MaskedTrial(SMALL, 0), MaskedTrial(ClusteredPatches(), 0)], MaskedTraining((1,)))
