"""The sample size for a given standard error, fixed before any sample is looked at."""

import math

from scipy.stats import chi2


def sample_size(deviation: float, error: float, population: int) -> int:
    r"""The least size at which the mean of a sample without replacement has a standard error of at most ``error``.

    .. math:: n = \frac{s^2}{e^2 + s^2 / N}, \qquad e^2 = \frac{s^2}{n} \Bigl(1 - \frac{n}{N}\Bigr)

    The error is relative to the mean of the ``population`` of :math:`N` itself (Cochran, *Sampling Techniques*, 1977).
    At least two and at most the population, which is also the answer if ``deviation`` is not finite.
    """
    if not math.isfinite(deviation):
        return population
    variance = deviation**2
    wanted = variance / (error**2 + variance / population)
    return min(population, max(2, math.ceil(wanted * (1 - 1e-12))))


def upper_deviation(deviation: float, samples: int, level: float = 0.95) -> float:
    r"""The upper limit of a standard deviation estimated from ``samples`` samples: :math:`s \sqrt{(m-1)/\chi^2}`.

    Exact for normal samples; a heavier tail makes it too low now and then.
    """
    return deviation * math.sqrt((samples - 1) / float(chi2.ppf(1 - level, samples - 1)))
