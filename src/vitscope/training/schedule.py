"""The learning rate and the averaging of weights, as functions of the step."""

import math


def learning_rate(step: int, steps: int, warmup: int, highest: float, final: float) -> float:
    r"""Linear warm-up, then a cosine (Loshchilov and Hutter 2017), for the steps 0 to ``steps - 1``.

    .. math:: \eta_t = \eta \frac{t + 1}{w} \; (t < w), \qquad
              \eta_t = \eta_f + (\eta - \eta_f) \tfrac12 \Bigl(1 + \cos \pi \frac{t - w}{n - 1 - w}\Bigr) \; (t \ge w)

    The last step has the rate ``final``; a warm-up as long as the whole never comes down.
    """
    if step < warmup:
        return highest * (step + 1) / warmup
    progress = (step - warmup) / max(1, steps - 1 - warmup)
    return final + (highest - final) * 0.5 * (1 + math.cos(math.pi * progress))


def averaging_decay(step: int, highest: float) -> float:
    """Decay of the moving average after step 0, 1, ...: ``min(highest, (1 + step) / (10 + step))``.

    The first steps, whose weights are still random, are forgotten faster.
    """
    return min(highest, (1 + step) / (10 + step))
