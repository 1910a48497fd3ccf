"""The groups of a head's run: labelled quantities, accuracy with its bootstrap error, and the run around them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr
from jaxtyping import Float, Float64
from numpy.typing import NDArray

from vitscope.measurement.claim import Claim, ClaimKind, Verdict
from vitscope.measurement.quantity import Quantity, label_quantity

RESAMPLES = 1000
"""Bootstrap samples of the test images."""

BURER_MONTEIRO = (
    "Sahiner, Ergen, Ozturkler, Pauly, Mardani and Pilanci, Scaling Convex Neural Networks with Burer-Monteiro "
    "Factorization, ICLR 2024"
)
UNRAVELING = (
    "Sahiner, Ergen, Ozturkler, Pauly, Mardani and Pilanci, Unraveling Attention via Convex Duality: Analysis and "
    "Interpretations of Vision Transformers, ICML 2022"
)


@dataclass(frozen=True)
class GroupWords:
    """The heading of a group on the page, and its definition."""

    title: str
    question: str
    definition: str
    references: tuple[str, ...] = (UNRAVELING,)


def group(words: GroupWords, parts: Sequence[xr.Dataset]) -> xr.Dataset:
    """Quantities as one group, the first of them its headline."""
    merged = xr.merge(parts, combine_attrs="override", join="outer", compat="no_conflicts")
    ordered = [str(name) for part in parts for name in part.data_vars]
    return merged[ordered].assign_attrs(
        title=words.title, question=words.question, definition=words.definition, references=list(words.references)
    )


def exact(
    quantity: Quantity, values: Float[np.ndarray, "..."] | float, dims: tuple[str, ...], coords: Mapping[str, object]
) -> xr.Dataset:
    """A quantity that is computed, not estimated: its error is 0, and so is its number of samples."""
    mean = np.where(np.isfinite(values), np.asarray(values, dtype=np.float64), np.nan)
    return label_quantity(quantity, dims, mean, np.zeros(mean.shape), np.zeros(mean.shape, np.int64), coords)


def number(quantity: Quantity, value: float) -> xr.Dataset:
    """A computed quantity without an axis."""
    return exact(quantity, value, (), {})


def resample_means(values: Float64[np.ndarray, " images"], seed: int) -> Float64[np.ndarray, " resamples"]:
    """The means of 1000 samples of the images, drawn with replacement by ``seed``."""
    random = np.random.default_rng(seed)
    count = len(values)
    return np.array([values[random.integers(count, size=count)].mean() for _ in range(RESAMPLES)])


def accuracy(
    quantity: Quantity, right: Sequence[Float64[np.ndarray, " images"]], seed: int, *axis: object
) -> xr.Dataset:
    """The share of images that are right, with its bootstrap error over images: a number, or over an axis.

    ``right`` has, for each entry of the axis, how right each image is (0 or 1, or a mean over seeds). ``axis`` is
    empty, or the axis' name and its entries.
    """
    means = np.array([one.mean() for one in right])
    errors = np.array([resample_means(one, seed).std(ddof=1) for one in right])
    counts = np.array([len(one) for one in right])
    if not axis:
        return label_quantity(quantity, (), means.squeeze(), errors.squeeze(), counts.squeeze(), {})
    name, entries = axis
    return label_quantity(quantity, (str(name),), means, errors, counts, {str(name): entries})


def effective_rank(values: NDArray[np.float64]) -> float:
    r"""The exponential of the entropy of :math:`s_i / \sum_j s_j` (Roy and Vetterli 2007); 0 if there are none."""
    shares = values[values > 0]
    if not shares.size:
        return 0.0
    shares = shares / shares.sum()
    return float(np.exp(-(shares * np.log(shares)).sum()))


def certificate_claim(
    gaps: Sequence[float], kinds: Sequence[str], tol: float, what: str, said: str, evidence: str
) -> Claim:
    """The claim that fits are certified: every relative gap is at most ``tol``; heuristic certificates decide nothing.

    ``said`` is the advice of the certificate with the largest gap; if that is small enough, only its first sentence.
    """
    worst = max(gaps)
    said = said if worst > tol else f"{said.split('. ')[0].rstrip('.')}."
    reached = Verdict.UNDECIDED if "heuristic" in kinds else Verdict.HOLDS
    verdict = reached if worst <= tol else Verdict.FAILS
    kind, headline = {
        Verdict.HOLDS: (ClaimKind.GOOD, f"{what} within {100 * tol:g} % of the global optimum."),
        Verdict.FAILS: (ClaimKind.PROBLEM, f"The certificate does not reach {100 * tol:g} %: a better head may exist."),
        Verdict.UNDECIDED: (
            ClaimKind.LOOK,
            "The bound on the optimum was only searched for, so it certifies nothing.",
        ),
    }[verdict]
    return Claim(
        name="certified",
        statement=f"{what} within {100 * tol:g} % of the global optimum",
        verdict=verdict,
        figure=said if len(gaps) == 1 else f"The largest of {len(gaps)} gaps: {said}",
        rule=f"Every relative gap between objective and lower bound is at most {tol:g}; undecided where the bound was "
        "only searched for.",
        reference=BURER_MONTEIRO,
        advice="" if worst <= tol else "More passes (--max-passes), a larger beta, or a larger --tol.",
        evidence=evidence,
        weight=0.4,
        headline=headline,
        kind=kind,
    )
