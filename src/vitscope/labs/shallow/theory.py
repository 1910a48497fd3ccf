"""What the theorems on shallow vision transformers predict, in closed form, up to unknown constants.

Source throughout: Li, Wang, Liu, Chen, *A Theoretical Understanding of Shallow Vision Transformers: Learning,
Generalization, and Sample Complexity*, ICLR 2023. The theorems are upper bounds: what suffices, not what is needed.
That one bound grows faster than another does not say that the needed numbers do.
"""

import math


def samples_with_attention(
    relevant: float,
    sigma: float = 0.0,
    noise: float = 0.0,
    zeta: float = 1.0,
    doubt: float = 1.0,
    error: float = 1.0,
    constant: float = 1.0,
) -> float:
    r"""Assumes the token model, enough neurons and relevant tokens, the initial model, and SGD of all its weights.

    .. math:: N = C\,\bigl(\alpha_* - c'(1 - \zeta) - c''(\sigma + \tau)\bigr)^{-2}, \qquad \zeta \ge 1 - \eta^{10}

    Images that suffice for zero generalization error by hinge loss; infinite if the bracket is not positive.
    ``doubt`` is :math:`c'`, ``error`` is :math:`c''`, ``constant`` is :math:`C`; none of them is known.
    """
    return _inverse_power(relevant - doubt * (1 - zeta) - error * (sigma + noise), 2, constant)


def samples_without_attention(relevant: float, sigma: float = 0.0, noise: float = 0.0, constant: float = 1.0) -> float:
    r"""Assumes the same as `samples_with_attention`, and that queries and keys are zero, so that all tokens mix alike.

    .. math:: N = C\,\bigl(\alpha_* (\alpha_* - \sigma - \tau)\bigr)^{-2}

    About :math:`\alpha_*^{-4}`. Infinite if the bracket is not positive.
    """
    return _inverse_power(relevant * max(relevant - sigma - noise, 0.0), 2, constant)


def iterations_with_attention(
    relevant: float,
    rate: float = 1.0,
    sigma: float = 0.0,
    noise: float = 0.0,
    patterns: int = 10,
    slack: float = 0.0,
    power: float = 0.6,
    constant: float = 1.0,
) -> float:
    r"""Assumes the same as `samples_with_attention`, a constant rate and at least that many images.

    .. math:: T = C\, \eta^{-p} \alpha_*^{-1} \bigl(1 - \epsilon - (\sigma + \tau) M / \pi\bigr)^{-1}

    Infinite if the bracket is not positive. The power :math:`p` of the rate is 3/5 or 1: the statement could not be
    confirmed; ``slack`` is :math:`\epsilon`.
    """
    left = 1 - slack - (sigma + noise) * patterns / math.pi
    return _inverse_power(relevant * max(left, 0.0), 1, constant * rate**-power)


def iterations_without_attention(
    relevant: float, rate: float = 1.0, power: float = 0.6, constant: float = 1.0
) -> float:
    r"""Assumes the same as `samples_without_attention`: :math:`T = C\,\eta^{-p} \alpha_*^{-2}`."""
    return _inverse_power(relevant, 2, constant * rate**-power)


def neurons(samples: int, patterns: int = 10, slack: float = 0.1, constant: float = 1.0) -> float:
    r"""Assumes the same as `samples_with_attention`: neurons that suffice, :math:`m = C\,\epsilon^{-2} M^2 \log N`."""
    return constant * slack**-2 * patterns**2 * math.log(samples)


def attention_gap(step: float, start: float, speed: float = 1.0) -> float:
    r"""Assumes that the attention missing from relevant keys falls at the theorem's sublinear rate from the start.

    .. math:: g(t) = \frac{g_0}{1 + c\, g_0 t}, \qquad g' = -c\,g^2

    About :math:`1 / (c t)` late. A hinge loss stops it for good once all margins reach 1: no further gradient.
    """
    return start / (1 + speed * start * step)


def initial_attention(share: float, scale: float = 1.0) -> float:
    r"""Assumes exact features, no noise (delta = noise = 0) and no training: attention on keys of the own pattern.

    .. math:: \frac{\alpha\, e^s}{\alpha\, e^s + 1 - \alpha}

    for a query whose pattern is that of a share :math:`\alpha` of the keys, the relevant share for relevant queries.
    """
    own = share * math.exp(scale)
    return own / (own + 1 - share)


def _inverse_power(base: float, power: int, constant: float) -> float:
    return constant * base**-power if base > 0 else math.inf
