"""The exact speeds of masked pretraining at Q = 0 and its least loss, derived here: the reference of the gradients."""

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


def unavoidable(setting: ClusteredPatches) -> float:
    r"""Assumes nothing of the model: the least expected reconstruction loss, of areas without a visible patch.

    .. math:: L^* = \tfrac12 E z^2 \sum_m C_m \binom{M}{C_m} / \binom{P}{C_m}

    Derived here.
    """
    hidden, patches = setting.masked, setting.patches
    lost = (count * size * _all_hidden(hidden, patches, size) for size, count in _others(setting).items())
    return setting.strength_moment(2) / 2 * sum(lost)


def _mixed(setting: ClusteredPatches) -> float:
    return setting.strength_moment(1) * setting.strength_moment(2)


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


def _others(setting: ClusteredPatches, *taken: int) -> Counter[int]:
    """How many areas there are of each size, without one of each size that is taken."""
    sizes = Counter([setting.global_size])
    sizes[setting.local_size] += setting.areas - 1
    for size in taken:
        if sizes[size] < 1:
            raise UserError(f"no such area: sizes are {setting.global_size} and {setting.local_size}, not {size}.")
        sizes[size] -= 1
    return sizes


def _drawn(setting: ClusteredPatches) -> float:
    """Probability that a query is hidden and its image of a given cluster."""
    return setting.masked / setting.patches / setting.clusters


def _all_hidden(hidden: int, patches: int, size: int) -> float:
    """Probability that ``size`` given patches are all hidden: binom(hidden, size) / binom(patches, size)."""
    return math.comb(hidden, size) / math.comb(patches, size)
