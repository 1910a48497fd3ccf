"""What theory predicts of masked pretraining: each a pure function that begins with what it assumes.

Huang, Wen, Chi, Liang, arXiv 2403.02233, where a docstring does not say that the formula is derived here.
"""

import itertools
import math
from collections import Counter
from collections.abc import Sequence

from vitscope.labs.masked.clusters import ClusteredPatches
from vitscope.measurement.errors import UserError


def own_rate(setting: ClusteredPatches, size: int) -> float:
    r"""Assumes Q = 0 and gradient flow: the exact speed of Phi of a query with its own area, of ``size`` patches.

    .. math:: \dot\Phi = \frac{M}{KP} E[z_a A_a (z_a^2 (1 - A_a)^2 + \sum_{m \ne a} z_m^2 A_m^2)], \qquad A_m = n_m / P

    The visible patches :math:`n_m` of each area, given that the query is hidden, are multivariate hypergeometric:
    P - M drawn from P - 1. Derived here from their factorial moments. Above 0.
    """
    patches, cubic, mixed = setting.patches, setting.strength_moment(3), _mixed(setting)
    alone = sum(
        weight * _moment(setting, (size - 1,), (power,)) / patches**power for weight, power in ((1, 1), (-2, 2), (1, 3))
    )
    others = sum(count * _moment(setting, (size - 1, other), (1, 2)) for other, count in _others(setting, size).items())
    others /= patches**3
    return _drawn(setting) * (cubic * alone + mixed * others)


def cross_rate(setting: ClusteredPatches, size: int, target: int) -> float:
    r"""Assumes Q = 0 and gradient flow: the exact speed of Phi of a query with another area, of ``target`` patches.

    ``size`` is that of the query's own area a; with m the target,

    .. math:: \dot\Phi = \frac{M}{KP} E[z_m A_m (\sum_{m' \ne m, a} z_{m'}^2 A_{m'}^2 - z_m^2 A_m (1 - A_m)
       - z_a^2 (1 - A_a) A_a)]

    Derived here as :func:`own_rate` is. Below 0 for a local query and the global area.
    """
    patches, own = setting.patches, size - 1
    rest = sum(
        count * _moment(setting, (target, other), (1, 2)) for other, count in _others(setting, size, target).items()
    )
    rest /= patches**3
    pull = _moment(setting, (target, own), (1, 1)) / patches**2 - _moment(setting, (target, own), (1, 2)) / patches**3
    self_pull = _moment(setting, (target,), (2,)) / patches**2 - _moment(setting, (target,), (3,)) / patches**3
    return _drawn(setting) * (_mixed(setting) * (rest - pull) - setting.strength_moment(3) * self_pull)


def leading_own_rate(setting: ClusteredPatches) -> float:
    r"""Assumes Q = 0, many patches, and a local area that is small and has many: the leading term of :func:`own_rate`.

    .. math:: \frac{\gamma (1 - \gamma)}{K} E z^3 \, P^{\kappa_s - 1}

    The power is the paper's, the constant is derived here.
    """
    share = setting.masked_share
    return share * (1 - share) / setting.clusters * setting.strength_moment(3) * setting.local_size / setting.patches


def leading_local_to_global_rate(setting: ClusteredPatches) -> float:
    r"""Assumes Q = 0, many patches, and :math:`\kappa_s < \kappa_c < 1`: leading term of :func:`cross_rate`.

    .. math:: -\frac{\gamma (1 - \gamma)^2}{K} E z^3 \, P^{2 (\kappa_c - 1)}

    The power is the paper's, the constant is derived here. It is the larger of the two if and only if the information
    gap is above 0: this is where the two phases come from.
    """
    share = setting.masked_share
    squared = (setting.global_size / setting.patches) ** 2
    return -share * (1 - share) ** 2 / setting.clusters * setting.strength_moment(3) * squared


def plateau(masked_share: float, size: int) -> float:
    r"""Assumes patches hidden independently, or P to infinity: :math:`1 - \gamma^{C - 1}`.

    The probability that another patch of a hidden patch's area, of ``size`` C, is visible: what attention to the own
    area converges to where the reading is not conditional on such a patch. 0 to 1.
    """
    return 1 - masked_share ** (size - 1)


def subset_plateau(setting: ClusteredPatches, size: int) -> float:
    r"""Assumes that exactly M of P patches are hidden, uniformly: :math:`1 - \binom{M-1}{C-1} / \binom{P-1}{C-1}`.

    The same probability as :func:`plateau`, for finite P; the larger of the two. Derived here.
    """
    return 1 - _all_hidden(setting.masked - 1, setting.patches - 1, size - 1)


def unavoidable(setting: ClusteredPatches) -> float:
    r"""Assumes nothing of the model: the least expected reconstruction loss, of areas without a visible patch.

    .. math:: L^* = \tfrac12 E z^2 \sum_m C_m \binom{M}{C_m} / \binom{P}{C_m}

    Derived here.
    """
    hidden, patches = setting.masked, setting.patches
    lost = (count * size * _all_hidden(hidden, patches, size) for size, count in _others(setting).items())
    return setting.strength_moment(2) / 2 * sum(lost)


def phase_one_level(information_gap: float, low: float, patches: int) -> float:
    r"""Assumes strengths of at least ``low`` > 0 and many patches: where local-to-global Phi stands after phase I.

    .. math:: -\frac{\max(\Delta, 0)}{2} \frac{1}{Lo} \log P

    There the own feature takes over; without a positive gap there is no such phase. As recalled from the paper; lower
    orders of P are not in it.
    """
    if low <= 0:
        raise UserError(f"the level of phase I has no bound for strengths from {low}; take low above 0.")
    return -max(information_gap, 0.0) / 2 * math.log(patches) / low


def time_exponent(low: float, high: float) -> float:
    r"""Assumes the theorem as recalled: :math:`\max\{2 (U / Lo - 1), 1\}`, the power of P^(1 - kappa_s) in the time."""
    if not 0 < low <= high:
        raise UserError(f"the exponent needs 0 < low <= high, not {low} and {high}.")
    return max(2 * (high / low - 1), 1.0)


def attending_time(setting: ClusteredPatches, rate: float, accuracy: float, exponent: float | None = None) -> float:
    r"""Assumes the theorem as recalled, and is up to constants: steps until local queries attend their own area.

    .. math:: \frac1\eta \Bigl[\log P \; P^{\nu (1 - \kappa_s)} + \frac1\epsilon \log \frac{P}{\epsilon}\Bigr]

    for attention of 1 - O(``accuracy``). ``exponent`` is nu, :func:`time_exponent` where it is not given.
    """
    power = time_exponent(setting.low, setting.high) if exponent is None else exponent
    patches = setting.patches
    found = math.log(patches) * patches ** (power * (1 - setting.local_exponent))
    return (found + math.log(patches / accuracy) / accuracy) / rate


def mean_field_time(setting: ClusteredPatches, rate: float, level: float = 0.5) -> float:
    r"""Assumes one strength z, the mean number of visible patches, and no other feature or position that learns.

    Attention A of a local query to its own area then follows, from Q = 0,

    .. math:: \dot\Phi = \eta \frac{M}{KP} z^3 A (1 - A)^2, \qquad x = \frac{A}{1 - A} = \frac{n}{P - n} e^{z \Phi},

    which is solved in closed form: the steps until A is ``level`` are

    .. math:: \frac{KP}{\eta M z^4} \bigl[F(x)\bigr]_{x_0}^{x_1}, \qquad F(x) = -\frac1x + 3 \log x + 3x + \frac{x^2}{2}

    The first term is the time's :math:`P^{1 - \kappa_s}`, with its constant :math:`K / (\eta \gamma (1 - \gamma) z^4)`.
    Derived here. NaN where the area has but one patch.
    """
    if setting.low != setting.high:
        raise UserError(f"the mean-field time needs one strength, not strengths from {setting.low} to {setting.high}.")
    seen = (setting.patches - setting.masked) * (setting.local_size - 1) / (setting.patches - 1)
    if seen == 0:
        return math.nan
    start, stop = seen / (setting.patches - seen), level / (1 - level)
    return (_travelled(stop) - _travelled(start)) / (_drawn(setting) * rate * setting.high**4)


def _travelled(odds: float) -> float:
    return -1 / odds + 3 * math.log(odds) + 3 * odds + odds**2 / 2


def _drawn(setting: ClusteredPatches) -> float:
    """Probability that a query is hidden and its image of a given cluster."""
    return setting.masked / setting.patches / setting.clusters


def _mixed(setting: ClusteredPatches) -> float:
    return setting.strength_moment(1) * setting.strength_moment(2)


def _others(setting: ClusteredPatches, *taken: int) -> Counter[int]:
    """How many areas there are of each size, without one of each size that is taken."""
    sizes = Counter([setting.global_size])
    sizes[setting.local_size] += setting.areas - 1
    for size in taken:
        if sizes[size] < 1:
            raise UserError(f"no such area: sizes are {setting.global_size} and {setting.local_size}, not {size}.")
        sizes[size] -= 1
    return sizes


def _all_hidden(hidden: int, patches: int, size: int) -> float:
    """Probability that ``size`` given patches are all hidden: binom(hidden, size) / binom(patches, size)."""
    return math.prod(((hidden - place) / (patches - place) for place in range(min(size, hidden + 1))), start=1.0)


def _moment(setting: ClusteredPatches, sizes: Sequence[int], powers: Sequence[int]) -> float:
    """E prod n_i^powers_i of visible patches among ``sizes``, by E prod (n_i)_j = (V)_J / (P - 1)_J prod (size_i)_j."""
    visible, population = setting.patches - setting.masked, setting.patches - 1
    total = 0.0
    for orders in itertools.product(*(range(1, power + 1) for power in powers)):
        ways = math.prod(_STIRLING[power][order] for power, order in zip(powers, orders, strict=True))
        falling = math.prod(math.perm(size, order) for size, order in zip(sizes, orders, strict=True))
        total += ways * falling * math.perm(visible, sum(orders)) / math.perm(population, sum(orders))
    return total


_STIRLING = {1: (0, 1), 2: (0, 1, 1), 3: (0, 1, 3, 1)}
"""Stirling numbers of the second kind: n^power = sum over orders of these times (n)_order."""
