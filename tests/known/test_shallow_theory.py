"""The theory of shallow ViTs from another direction: limits, powers by finite differences, and the model itself."""

import math

import pytest
import torch

from vitscope.labs.shallow import theory
from vitscope.labs.shallow.attention import profile
from vitscope.labs.shallow.shallow_vit import ShallowVit
from vitscope.labs.shallow.token_model import TokenModel

GRID = [0.15, 0.3, 0.6]


def power(function, at):
    """d log f / d log x, by central differences."""
    step = 1e-5
    return (math.log(function(at * (1 + step))) - math.log(function(at * (1 - step)))) / (2 * step)


@pytest.mark.parametrize("relevant", GRID)
@pytest.mark.parametrize(
    ("prediction", "expected"),
    [
        (theory.samples_with_attention, -2),
        (theory.samples_without_attention, -4),
        (theory.iterations_with_attention, -1),
        (theory.iterations_without_attention, -2),
    ],
)
def test_without_errors_the_bounds_are_powers_of_the_relevant_share(prediction, expected, relevant):
    assert power(prediction, relevant) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("relevant", GRID)
@pytest.mark.parametrize(
    "prediction",
    [
        theory.samples_with_attention,
        theory.samples_without_attention,
        lambda share, sigma, noise: theory.iterations_with_attention(share, 1.0, sigma, noise),
    ],
)
def test_the_bounds_grow_with_either_error(prediction, relevant):
    exact, both = prediction(relevant, 0.0, 0.0), prediction(relevant, 0.04, 0.04)
    assert exact < prediction(relevant, 0.04, 0.0) < both
    assert exact < prediction(relevant, 0.0, 0.04) < both


@pytest.mark.parametrize("relevant", GRID)
def test_sigma_and_noise_count_alike_and_zeta_against_the_share(relevant):
    bound = theory.samples_with_attention
    assert bound(relevant, 0.03, 0.01) == pytest.approx(bound(relevant, 0.0, 0.04))
    assert bound(relevant, zeta=0.95) == pytest.approx(bound(relevant - 0.05))
    assert bound(relevant, zeta=0.95, doubt=2.0) == pytest.approx(bound(relevant - 0.1))
    assert bound(relevant, 0.01, error=3.0, constant=7.0) == pytest.approx(7 * bound(relevant - 0.03))


def test_bounds_say_nothing_where_the_errors_outweigh_the_signal():
    assert theory.samples_with_attention(0.3, 0.2, 0.1 + 1e-9) == math.inf
    assert theory.samples_without_attention(0.3, 0.4) == math.inf
    assert theory.iterations_with_attention(0.3, sigma=0.2, noise=0.2, patterns=10) == math.inf
    near = theory.samples_with_attention(0.3, 0.3 - 1e-4)
    assert math.isfinite(near)
    assert near > 1e7


def test_without_attention_the_bound_is_the_larger_one():
    for relevant in GRID:
        for error in (0.0, 0.1 * relevant):
            ratio = theory.samples_without_attention(relevant, error) / theory.samples_with_attention(relevant, error)
            assert ratio == pytest.approx(relevant**-2)


@pytest.mark.parametrize("steepness", [0.6, 1.0])
def test_iterations_fall_with_the_rate(steepness):
    found = power(lambda rate: theory.iterations_with_attention(0.3, rate, power=steepness), 0.5)
    assert found == pytest.approx(-steepness, abs=1e-6)


def test_neurons_grow_as_the_square_of_patterns_and_slack_and_slowly_with_samples():
    assert power(lambda slack: theory.neurons(100, slack=slack), 0.1) == pytest.approx(-2, abs=1e-6)
    assert theory.neurons(100, patterns=20) == pytest.approx(4 * theory.neurons(100, patterns=10))
    assert theory.neurons(10_000) == pytest.approx(2 * theory.neurons(100))


def test_the_gap_in_attention_solves_its_equation_and_falls_as_one_over_time():
    for step in (0.0, 3.0, 500.0):
        near = [theory.attention_gap(step + off, 0.46, 0.3) for off in (-1e-4, 0.0, 1e-4)]
        assert (near[2] - near[0]) / 2e-4 == pytest.approx(-0.3 * near[1] ** 2, rel=1e-6)
    assert theory.attention_gap(0.0, 0.46) == 0.46
    assert theory.attention_gap(1e9, 0.46, 0.3) * 1e9 == pytest.approx(1 / 0.3, rel=1e-6)


def test_initial_attention_is_that_of_the_exact_model():
    data, model = TokenModel(noise=0.0), ShallowVit(delta=0.0, scale=1.7)
    generator = torch.Generator().manual_seed(0)
    weights, sample = model.initial(40, data.vectors, generator), data.draw(3, generator)
    found = profile(model, weights, sample.tokens[None], sample.roles[None])
    assert float(found.mass[0, 0, 0]) == pytest.approx(theory.initial_attention(0.3, 1.7), rel=1e-5)
    assert theory.initial_attention(0.3, 0.0) == pytest.approx(0.3)
    assert theory.initial_attention(0.3, 50.0) == pytest.approx(1.0)
