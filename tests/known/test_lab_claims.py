"""What labs make of outcomes that are made up: claims where there is something to compare, and none elsewhere."""

from collections.abc import Callable

import numpy as np
import pytest

from vitscope.labs.attention_concentration import AttentionConcentration
from vitscope.labs.initial_error import InitialError
from vitscope.labs.lab import AbstractLab, Datasets
from vitscope.labs.masked_time import MaskedTime
from vitscope.labs.sample_complexity import SampleComplexity
from vitscope.measurement.claim import Claim, Verdict
from vitscope.measurement.estimate import FALSE_ALARMS
from vitscope.measurement.trials import log_spaced
from vitscope.report.measured import quantities_of

SHARES = (0.1, 0.2, 0.4)
COMPLEXITY = SampleComplexity(alpha="0.1,0.2,0.4", samples="1:1024", trials=4)


def claim(lab: AbstractLab, datasets: Datasets, name: str) -> Claim:
    """The claim of that name."""
    return next(one for one in lab.claims(datasets, FALSE_ALARMS) if one.name == name)


def outcomes(needed: tuple[dict[float, int], ...], steps: Callable[[float], float]) -> dict[str, np.ndarray]:
    """Steps of all trials, NaN with fewer images than are needed at a share, with attention and without."""
    jitter = 1 + 0.01 * np.arange(COMPLEXITY.trials)
    taken = [
        np.where(size >= kind.get(share, np.inf), steps(share) * jitter, np.nan)
        for kind in needed
        for share in SHARES
        for size in COMPLEXITY.sizes
    ]
    return {"hinge": np.concatenate(taken), "0-1": np.concatenate(taken)}


WITH, WITHOUT = {0.1: 512, 0.2: 32, 0.4: 8}, {0.2: 128, 0.4: 8}
"""Attention: power 2 from 0.2 to 0.4, steeper below; none: power 4 from 0.2 to 0.4, and never at 0.1."""


def test_slopes_are_compared_over_the_shares_that_both_have() -> None:
    datasets = COMPLEXITY.datasets_of(outcomes((WITH, WITHOUT), lambda share: 100.0))
    found = datasets["needed-samples"]
    assert float(found["exponent_attention"]) == pytest.approx(3)
    assert float(found["exponent_no_attention"]) == pytest.approx(4)
    assert float(found["exponent_gap"]) == pytest.approx(2)
    assert found["exponent_gap"].attrs["points"] == 2
    assert int(found["exponent_gap_count"]) == COMPLEXITY.trials
    assert quantities_of("needed-samples", found)[1].label == "Exponent, attention"  # the headline of its page
    figure = claim(COMPLEXITY, datasets, "samples-without-attention").figure
    # no trial differs, but at either share the number lies anywhere in a doubling, for both: 1 / sqrt(12) four times
    assert f"difference +2.00 ± {(4 / 12) ** 0.5:.2f}, over 2 shares" in figure


@pytest.mark.parametrize(("power", "verdict"), [(1, Verdict.HOLDS), (2, Verdict.FAILS)])
def test_the_steps_are_held_against_one_over_the_share(power: int, verdict: Verdict) -> None:
    datasets = COMPLEXITY.datasets_of(outcomes((WITH, WITH), lambda share: 100 * share**-power))
    steps = claim(COMPLEXITY, datasets, "steps-exponent")
    assert float(datasets["needed-steps"]["exponent_steps"]) == pytest.approx(power)
    assert steps.verdict is verdict
    assert steps.evidence == "needed-steps/needed_steps"


def test_a_share_at_which_a_trial_did_not_get_there_is_no_point_of_the_steps() -> None:
    values = outcomes((WITH, WITH), lambda share: 100 / share)
    values["hinge"][len(COMPLEXITY.sizes) * COMPLEXITY.trials - 1] = np.nan  # at 0.1, the most samples, the last trial
    found = COMPLEXITY.datasets_of(values)["needed-steps"]
    assert found["exponent_steps"].attrs["points"] == 2
    assert float(found["exponent_steps"]) == pytest.approx(1)


def test_a_single_value_is_not_compared_with_itself() -> None:
    lab = InitialError(noises="0.2", sigmas="0.1,0.3", samples="4:8", trials=3)
    datasets = lab.datasets_of({"hinge": np.full(len(lab.plan_trials()), 20.0)})
    assert [one.name for one in lab.claims(datasets, FALSE_ALARMS)] == ["more-by-sigma"]
    assert "last_gain" not in datasets["needed-noise"]
    assert datasets["needed-sigma"]["last_gain"].attrs["long_name"] == "Gain in success, sigma 0.3 against 0.1"


@pytest.mark.parametrize(("late", "advice"), [(0.0, "changes nothing"), (0.2, "Train longer")])
def test_nobody_is_told_to_train_longer_once_attention_has_stopped(late: float, advice: str) -> None:
    lab = AttentionConcentration(steps=1000, trials=8)
    steps = 10 * np.array(log_spaced(100, 24)[1:])
    rise = 0.5 + late * np.maximum(0, steps / 500 - 1) + 0.001 * np.arange(8)[:, None] * (steps < 500)
    mass = np.broadcast_to(rise[:, None, None], (8, 4, 3, len(steps)))
    datasets = lab.datasets_of({"mass": mass, "entropy": mass[:, :, 0], "hinge": mass[:, 0, 0]})
    claims = lab.claims(datasets, FALSE_ALARMS)
    assert {advice in one.advice for one in claims} == {True}
    assert {one.verdict for one in claims if one.name == "concentration-continues"} == {
        Verdict.HOLDS if late else Verdict.FAILS
    }
    assert float(datasets["queries-relevant"]["final_mass"]) == pytest.approx(0.5 + late)


def test_a_bound_is_said_in_words() -> None:
    for lab, words in ((MaskedTime(), "P / C_s"), (MaskedTime(low=0.5), "P / C_s to the power 2")):
        values = lab.datasets_of({"time": np.arange(10.0, 10 + len(lab.plan_trials()))})
        assert claim(lab, values, "time-bound").statement == f"The time grows no faster than {words}"
