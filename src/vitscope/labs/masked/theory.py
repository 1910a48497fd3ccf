"""What theory predicts for masked pretraining: pure functions whose docstrings begin with their assumptions.

Formulas are from Huang, Wen, Chi, Liang, arXiv 2403.02233, unless a docstring says that they are derived here.
"""

import math

from vitscope.labs.masked.clusters import ClusteredPatches
from vitscope.measurement.errors import UserError


def plateau(masked_share: float, size: int) -> float:
    r"""Assumes patches hidden independently, or P to infinity: :math:`1 - \gamma^{C - 1}`.

    The probability that another patch of a hidden patch's area, of ``size`` C, is visible: what attention to the own
    area converges to if it is not conditional on such a patch. 0 to 1.
    """
    return 1 - masked_share ** (size - 1)


def subset_plateau(setting: ClusteredPatches, size: int) -> float:
    r"""Assumes that exactly M of P patches are hidden, uniformly: :math:`1 - \binom{M-1}{C-1} / \binom{P-1}{C-1}`.

    The same probability as :func:`plateau`, for finite P; the larger of the two. Derived here.
    """
    return 1 - _all_hidden(setting.masked - 1, setting.patches - 1, size - 1)


def phase_one_level(information_gap: float, low: float, patches: int) -> float:
    r"""Assumes strengths of at least ``low`` > 0 and many patches: local-to-global Phi after phase I.

    .. math:: -\frac{\max(\Delta, 0)}{2} \frac{1}{Lo} \log P

    There the own feature takes over; without a positive gap there is no such phase. As recalled from the paper; lower
    orders of P are left out.
    """
    if low <= 0:
        raise UserError(f"the level of phase I has no bound for strengths from {low}; take low above 0.")
    return -max(information_gap, 0.0) / 2 * math.log(patches) / low


def mean_field_time(setting: ClusteredPatches, rate: float, level: float = 0.5) -> float:
    r"""Assumes one strength z, the mean number of visible patches, and no other feature or position that learns.

    Attention A of a local query to its own area then follows, from Q = 0,

    .. math:: \dot\Phi = \eta \frac{M}{KP} z^3 A (1 - A)^2, \qquad x = \frac{A}{1 - A} = \frac{n}{P - n} e^{z \Phi},

    which is solved in closed form: the steps until A is ``level`` are

    .. math:: \frac{KP}{\eta M z^4} \bigl[F(x)\bigr]_{x_0}^{x_1}, \qquad F(x) = -\frac1x + 3 \log x + 3x + \frac{x^2}{2}

    The first term is the time's :math:`P^{1 - \kappa_s}`, with its constant :math:`K / (\eta \gamma (1 - \gamma) z^4)`.
    Derived here. NaN if the area has only one patch.
    """
    if setting.low != setting.high:
        raise UserError(f"the mean-field time needs one strength, not strengths from {setting.low} to {setting.high}.")
    seen = (setting.patches - setting.masked) * (setting.local_size - 1) / (setting.patches - 1)
    if seen == 0:
        return math.nan
    start, stop = seen / (setting.patches - seen), level / (1 - level)
    return (_odds_integral(stop) - _odds_integral(start)) / (_query_probability(setting) * rate * setting.high**4)


def _odds_integral(odds: float) -> float:
    return -1 / odds + 3 * math.log(odds) + 3 * odds + odds**2 / 2


def _query_probability(setting: ClusteredPatches) -> float:
    """Probability that a query is hidden and its image of a given cluster."""
    return setting.masked / setting.patches / setting.clusters


def _all_hidden(hidden: int, patches: int, size: int) -> float:
    """Probability that ``size`` given patches are all hidden: binom(hidden, size) / binom(patches, size)."""
    return math.prod(((hidden - place) / (patches - place) for place in range(min(size, hidden + 1))), start=1.0)
