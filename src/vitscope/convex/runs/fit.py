"""One head: fitted, tested, and its run."""

import warnings
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from time import perf_counter

import numpy as np
import torch
import xarray as xr

from vitscope.convex.estimator import AbstractConvexClassifier
from vitscope.convex.heads import Heads
from vitscope.convex.runs.data import HeadData
from vitscope.convex.runs.group import (
    BURER_MONTEIRO,
    UNRAVELING,
    Words,
    accuracy,
    certified,
    effective_rank,
    exact,
    group,
    number,
    run_of,
)
from vitscope.convex.runs.settings import Beta, HeadSettings
from vitscope.convex.runs.tokens import gram_group, token_group
from vitscope.convex.trained import Member
from vitscope.measurement.quantity import Quantity
from vitscope.runs.run import Run
from vitscope.runs.spec import Spec

TOP1 = Quantity(
    "top1", "Test top-1 accuracy", "1", "Share of the test images whose class is predicted.", "Larger is better."
)
TRAINING_TOP1 = Quantity(
    "training_top1",
    "Training top-1 accuracy",
    "1",
    "Share of the training images whose class is predicted.",
    "Larger is better only where test accuracy follows.",
)
OBJECTIVE = Quantity(
    "objective", "Objective", "nats", "Mean cross-entropy plus beta times the nuclear norms.", "Smaller is better."
)
LOWER_BOUND = Quantity(
    "lower_bound",
    "Certified lower bound",
    "nats",
    "No head of this kind, under these gates, has a smaller objective.",
    "Larger is better: it closes in on the objective.",
)
GAP = Quantity(
    "relative_gap",
    "Certified relative gap",
    "%",
    "The objective is above the global optimum by at most this share of the lower bound.",
    "Smaller is better; 0 is the optimum.",
)
SLACK = Quantity(
    "slack",
    "Slack",
    "times beta",
    "The largest spectral norm of the loss's gradient in the lifted variables, over beta.",
    "1 at the optimum; above it a further head would lower the objective.",
)
HEADS = Quantity(
    "heads",
    "Heads",
    "heads",
    "Rank of the lifted variables: as many heads has the smallest network that is the optimum.",
    "Neither; fewer are cheaper.",
)
BETA = Quantity(
    "penalty", "Beta", "nats", "Weight of the penalty, half the sum of all squared weights.", "Neither by itself."
)
SECONDS = Quantity("fit_seconds", "Time of the fit", "s", "Wall time of the fit, features not counted.", "Smaller.")
_GAP_SO_FAR = Quantity(
    "gap_so_far",
    "Relative gap so far",
    "%",
    "Best objective over best lower bound so far, less 1, in the working precision.",
    "Smaller is better; 0 is the optimum.",
)
_HEADS_SO_FAR = Quantity("heads_so_far", "Heads so far", "heads", "Heads of the best point so far.", "Neither.")
EFFECTIVE_RANK = Quantity(
    "effective_rank",
    "Effective rank",
    "heads",
    "The exponential of the entropy of the singular values: how many heads do the work.",
    "Neither.",
)
SINGULAR = Quantity(
    "singular_value",
    "Singular value",
    "1",
    "Of the lifted variable: the squared weights of one head in the optimal network, half of them on either side.",
    "Neither.",
)

HEAD_WORDS = Words(
    "Convex head",
    "How good is the head?",
    r"""A head trained to certified global optimality on tokens of the frozen model.

    .. math:: \min_Z \frac1n \sum_i w_i\, \ell(f_Z(X_i), y_i) + \beta \sum_t \lVert Z_t \rVert_*

    with the cross-entropy :math:`\ell` in nats and outputs that are means over tokens. The certificate is in float64:
    the loss's gradient, scaled until it is feasible, gives a lower bound of the optimum. The error of an accuracy is
    the standard deviation over 1000 bootstrap samples of the images. Of an ensemble the objective is the first
    member's and the gap the largest; heads are added up.""",
    (UNRAVELING, BURER_MONTEIRO),
)
TRAINING_WORDS = Words(
    "Way to the optimum",
    "How far is it from the optimum?",
    """Objective and best certified lower bound so far, over the time since the fit began, in the working precision. Of
    an ensemble the first member's; where beta was chosen, of the last fit, which starts from the chosen one.""",
    (BURER_MONTEIRO,),
)
SPECTRUM_WORDS = Words(
    "Singular values",
    "How many heads does it need?",
    """Singular values of each lifted variable, one for each gate (and group of a block FNO), largest first. Each is one
    head; the others are zero, so their number is the rank. Of an ensemble the first member's. The effective rank is
    the exponential of the entropy of all of them as shares of their sum (Roy and Vetterli 2007).""",
)


@dataclass(frozen=True, eq=False)
class Fitted:
    """A fitted head, how long that took, and what it warned of."""

    head: AbstractConvexClassifier
    seconds: float
    warned: tuple[str, ...]

    @property
    def interrupted(self) -> bool:
        """Whether the user ended the fit."""
        return any(solution.stopped == "interrupted" for solution in self.head.solutions_) or (
            len(self.head.solutions_) < self.head.ensemble
        )

    @property
    def gap(self) -> float:
        """The largest certified relative gap of its members."""
        return max(one.relative_gap for one in self.head.certificates_)

    @property
    def count(self) -> int:
        """Heads of all members."""
        return sum(one.heads for one in self.head.certificates_)


def fitted(head: AbstractConvexClassifier, data: HeadData) -> Fitted:
    """The estimator, fitted to the training images; an interrupt ends the fit with its best point."""
    began = perf_counter()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        head.fit(data.training.tokens, data.labels)
    return Fitted(head, perf_counter() - began, tuple(dict.fromkeys(str(one.message) for one in caught)))


def right(head: AbstractConvexClassifier, data: HeadData) -> np.ndarray:
    """1 for each test image whose class is predicted, 0 for the others."""
    return (head.predict(data.test.tokens) == data.test_labels).astype(np.float64)


@dataclass(frozen=True, eq=False)
class FitQuestion:
    """One head that is asked for."""

    data: HeadData
    settings: HeadSettings
    kind: str
    beta: Beta
    seed: int
    device: str = "cpu"

    @cached_property
    def spec(self) -> Spec:
        """The question."""
        head = {"kind": self.kind, "beta": self.beta, "seed": self.seed, **asdict(self.settings)}
        return self.data.asked("head fit", {"head": head})

    def fit(self) -> Fitted:
        """The head."""
        grid = self.data.grid
        head = self.settings.estimator(self.kind, self.beta, seed=self.seed, grid=grid, device=self.device)
        return fitted(head, self.data)

    def run(self, made: Fitted, command: str = "") -> Run:
        """The run of a fitted head."""
        head, data = made.head, self.data
        balanced = compressed(head)
        groups = {
            "convex-head": self._head(made),
            "convex-training": training_group(made),
            "convex-spectrum": spectrum_group(made, balanced),
            **token_group(head.trained_, balanced, data, self.seed),
            **gram_group(head.trained_, balanced, data, self.seed),
        }
        kinds = [one.kind for one in head.certificates_]
        worst = max(head.certificates_, key=lambda one: one.relative_gap)
        gaps = [one.relative_gap for one in head.certificates_]
        claim = certified(gaps, kinds, self.settings.tol, "The head is", worst.advice, "convex-training/objective")
        notes = ("The fit was interrupted: this is its best point.",) if made.interrupted else ()
        return run_of(data, self.spec, groups, (claim,), notes, made.seconds, command)

    def _head(self, made: Fitted) -> xr.Dataset:
        head, data = made.head, self.data
        certificate = head.certificate_
        on_training = (head.predict(data.training.tokens) == data.labels).astype(np.float64)
        return group(
            HEAD_WORDS,
            (
                accuracy(TOP1, [right(head, data)], self.seed),
                accuracy(TRAINING_TOP1, [on_training], self.seed),
                number(OBJECTIVE, certificate.primal),
                number(LOWER_BOUND, certificate.dual),
                number(GAP, 100 * made.gap),
                number(SLACK, max(one.slack for one in head.certificates_)),
                number(HEADS, float(made.count)),
                number(BETA, head.beta_),
                number(SECONDS, made.seconds),
            ),
        )


def compressed(head: AbstractConvexClassifier) -> Member:
    """The first member, its heads orthogonal and balanced, largest first in every term; ReLU heads as they are."""
    member = head.trained_.members[0]
    return member if head.trained_.relu else replace(member, heads=member.heads.compressed())


def term_names(head: AbstractConvexClassifier) -> list[str]:
    """What the terms are called: the gate's number, and the group's where there are several."""
    groups = head.trained_.block.groups()
    numbers = range(len(head.trained_.members[0].terms))
    return [f"gate {t // groups + 1}" + (f", group {t % groups + 1}" if groups > 1 else "") for t in numbers]


def training_group(made: Fitted) -> xr.Dataset:
    """Objective, bound and gap over time, and the certificate's gap at the end."""
    steps = made.head.history_
    seconds = {"seconds": ("seconds", np.array([step.seconds for step in steps]), {"long_name": "time", "units": "s"})}
    primal, dual = (np.array([getattr(step, name) for step in steps]) for name in ("primal", "dual"))
    with np.errstate(invalid="ignore", divide="ignore"):
        gap = np.where(dual > 0, 100 * (primal - dual) / dual, np.nan)
    heads = np.array([float(step.heads) for step in steps])
    parts = ((OBJECTIVE, primal), (LOWER_BOUND, dual), (_GAP_SO_FAR, gap.clip(min=0)), (_HEADS_SO_FAR, heads))
    over_time = [exact(quantity, values, ("seconds",), seconds) for quantity, values in parts]
    return group(TRAINING_WORDS, [*over_time, number(GAP, 100 * made.gap)])


def spectrum_group(made: Fitted, member: Member) -> xr.Dataset:
    """Singular values of each term, their number, and the effective rank of all."""
    found = [values_of(member.heads, t) for t in range(len(member.terms))]
    longest = max(1, *(len(values) for values in found))
    padded = np.full((len(found), longest), np.nan)
    for row, values in zip(padded, found, strict=True):
        row[: len(values)] = values
    place = {"convex_head": ("convex_head", np.arange(1, longest + 1), {"long_name": "head"})}
    ranks = (number(HEADS, float(made.count)), number(EFFECTIVE_RANK, effective_rank(np.concatenate(found))))
    if len(found) == 1:
        return group(SPECTRUM_WORDS, (exact(SINGULAR, padded[0], ("convex_head",), place), *ranks))
    coords = {"gate": ("gate", term_names(made.head), {"long_name": "gate"}), **place}
    return group(SPECTRUM_WORDS, (exact(SINGULAR, padded, ("gate", "convex_head"), coords), *ranks))


def values_of(heads: Heads, term: int) -> np.ndarray:
    """The sizes of a term's heads, largest first: for balanced heads the singular values of its lifted variable."""
    factors = heads.terms[term]
    sizes = factors.left.double().norm(dim=1) * factors.right.double().flatten(1).norm(dim=1)
    return torch.sort(sizes, descending=True).values.cpu().numpy()
