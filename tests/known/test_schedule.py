"""Learning rate and averaging, step by step, worked out by hand."""

import pytest

from vitscope.training.schedule import averaging_decay, learning_rate


@pytest.mark.parametrize(
    ("step", "expected"),
    [(0, 0.25), (1, 0.5), (3, 1.0), (4, 1.0), (7, 0.55), (6, 0.775), (9, 0.1 + 0.45 * (1 - 0.75**0.5))],
)
def test_warm_up_and_cosine(step, expected):
    assert learning_rate(step, 11, 4, 1.0, 0.1) == pytest.approx(expected)


def test_the_last_step_has_the_final_rate():
    assert learning_rate(10, 11, 4, 1.0, 0.1) == pytest.approx(0.1)


def test_without_warm_up_it_begins_at_the_top():
    assert learning_rate(0, 2, 0, 1.0, 0.0) == 1.0


def test_a_single_step():
    assert learning_rate(0, 1, 0, 1.0, 0.0) == 1.0


@pytest.mark.parametrize(("step", "expected"), [(0, 0.1), (8, 0.5), (10_000, 0.99)])
def test_the_average_forgets_the_beginning(step, expected):
    assert averaging_decay(step, 0.99) == pytest.approx(expected)
