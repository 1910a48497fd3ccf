"""The learning rate and the averaging of weights, as functions of the step."""

import math
from collections.abc import Sequence


def warmup_rate(step: int, warmup: int, highest: float) -> float | None:
    """The rate of a linear warm-up over ``warmup`` steps; None after it."""
    return highest * (step + 1) / warmup if step < warmup else None


def step_rate(step: int, steps_per_epoch: int, milestones: Sequence[float], factor: float, highest: float) -> float:
    r"""The rate of the step schedule: ``highest`` times ``factor`` for each milestone (in epochs) that is passed.

    .. math:: \eta_t = \eta\,f^{|\{m : t \ge m s\}|}

    with s steps per epoch, as in torch's ``MultiStepLR``.
    """
    return highest * factor ** sum(step >= round(one * steps_per_epoch) for one in milestones)


def learning_rate(step: int, steps: int, warmup: int, highest: float, final: float) -> float:
    r"""Linear warm-up, then a cosine (Loshchilov and Hutter 2017), for the steps 0 to ``steps - 1``.

    .. math:: \eta_t = \eta \frac{t + 1}{w} \; (t < w), \qquad
              \eta_t = \eta_f + (\eta - \eta_f) \tfrac12 \Bigl(1 + \cos \pi \frac{t - w}{n - 1 - w}\Bigr) \; (t \ge w)

    The last step has the rate ``final``; if the warm-up is as long as the training, the rate never falls.
    """
    if (rate := warmup_rate(step, warmup, highest)) is not None:
        return rate
    progress = (step - warmup) / max(1, steps - 1 - warmup)
    return final + (highest - final) * 0.5 * (1 + math.cos(math.pi * progress))


def averaging_decay(step: int, highest: float) -> float:
    """Decay of the moving average after step 0, 1, ...: ``min(highest, (1 + step) / (10 + step))``.

    The first steps, whose weights are still random, are forgotten faster.
    """
    return min(highest, (1 + step) / (10 + step))
