"""One head: fitted, tested, and its run."""

import warnings
from dataclasses import asdict, dataclass, replace
from math import isfinite
from pathlib import Path
from time import perf_counter
from typing import ClassVar, cast

import numpy as np
import xarray as xr

from vitscope.convex.estimator import AbstractConvexClassifier
from vitscope.convex.heads import Heads
from vitscope.convex.runs.data import HeadData
from vitscope.convex.runs.group import (
    BURER_MONTEIRO,
    UNRAVELING,
    GroupWords,
    accuracy,
    certificate_claim,
    effective_rank,
    exact,
    group,
    number,
)
from vitscope.convex.runs.question import AbstractHeadQuestion, watch
from vitscope.convex.runs.settings import Beta
from vitscope.convex.runs.tokens import further_groups, token_group
from vitscope.convex.saved import HEAD_FILE, from_bytes, to_bytes
from vitscope.convex.selection import no_heads
from vitscope.convex.trained import Member, Trained
from vitscope.engine.plan import Plan
from vitscope.engine.question import Answer
from vitscope.measurement.errors import UserError
from vitscope.measurement.quantity import Quantity
from vitscope.runs.run import Run
from vitscope.runs.spec import Spec

_NEGLIGIBLE = 1e-6
"""Heads up to this share of the largest are remains of dead ones, as the solvers drop them."""

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
    "Rank of the lifted variables: the number of heads of the smallest optimal network.",
    "Neither; fewer are cheaper.",
)
BETA = Quantity(
    "penalty", "Beta", "nats", "Weight of the penalty, half the sum of all squared weights.", "Neither on its own."
)
SECONDS = Quantity("fit_seconds", "Time of the fit", "s", "Wall time of the fit, without the features.", "Smaller.")
_GAP_SO_FAR = Quantity(
    "gap_so_far",
    "Relative gap so far",
    "%",
    "Best objective so far over the lower bound or the estimate of one, minus 1, in the working precision.",
    "Smaller is better; 0 is the optimum. Only the last one is certified.",
)
_BOUND_SO_FAR = Quantity(
    "bound_so_far",
    "Lower bound so far",
    "nats",
    "The best lower bound, or what one would probably be if computing it costs more than a step.",
    "Larger is better. Estimates are too large rather than too small.",
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
    "Singular value of the lifted variable: half the squared weights of one head in the optimal network.",
    "Neither.",
)

HEAD_WORDS = GroupWords(
    "Convex head",
    "How good is the head?",
    r"""A head trained to certified global optimality on tokens of the frozen model.

    .. math:: \min_Z \frac1n \sum_i w_i\, \ell(f_Z(X_i), y_i) + \beta \sum_t \lVert Z_t \rVert_*

    with the cross-entropy :math:`\ell` in nats and outputs that are means over tokens. The certificate is in float64:
    the loss's gradient, scaled until it is feasible, gives a lower bound of the optimum. The error of an accuracy is
    the standard deviation over 1000 bootstrap samples of the images. For an ensemble the objective is the first
    member's, the gap the largest, and the heads are summed.""",
    (UNRAVELING, BURER_MONTEIRO),
)
TRAINING_WORDS = GroupWords(
    "Way to the optimum",
    "How far is it from the optimum?",
    """Relative gap, objective and lower bound so far, over the time since the fit began, in working precision. On the
    way the bound is often an estimate: what has not been searched may lower it, and then the gap rises. For an ensemble
    this is the first member; if beta was chosen, it is the last fit, which starts from the chosen one.""",
    (BURER_MONTEIRO,),
)
SPECTRUM_WORDS = GroupWords(
    "Singular values",
    "How many heads does it need?",
    """Singular values of each lifted variable, one for each gate (and group of a block FNO), largest first. Each is one
    head; the others are zero, or below a millionth of the largest, so their number is the rank. For an ensemble they
    are the first member's. The effective rank is the exponential of the entropy of all of them as shares of their sum
    (Roy and Vetterli 2007).""",
)


@dataclass(frozen=True, eq=False)
class Fitted:
    """A fitted head, and how long that took; ``resumed``: the fit continued one that was interrupted."""

    head: AbstractConvexClassifier
    seconds: float
    resumed: bool = False

    @property
    def gap(self) -> float:
        """The largest certified relative gap of its members."""
        return max(one.relative_gap for one in self.head.certificates_)

    @property
    def count(self) -> int:
        """Heads of all members, as :func:`sizes_of` counts them."""
        trained = self.head.trained_
        return sum(len(sizes) for member in trained.members for sizes in sizes_of(balance_heads(trained, member).heads))

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader must know about the fit."""
        certificate, notes = self.head.certificate_, list[str]()
        if self.head.interrupted_:
            notes.append("The fit was interrupted: this is its best point.")
        if self.resumed:
            notes.append("The fit was interrupted and continued from its best point; its time is that since then.")
        if certificate.heads == 0:
            notes.append(no_heads(certificate.slack * self.head.beta_, self.head.beta_))
        return tuple(notes)


def fit_head(head: AbstractConvexClassifier, data: HeadData) -> Fitted:
    """The estimator, fitted to the training images; an interrupt ends the fit with its best point."""
    began = perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # what they say is in the certificate and the notes
        head.fit(data.training.tokens, data.labels)
    return Fitted(head, perf_counter() - began)


def right(head: AbstractConvexClassifier, data: HeadData) -> np.ndarray:
    """1 for each test image whose class is predicted, 0 for the others."""
    return (head.predict(data.test.tokens) == data.test_labels).astype(np.float64)


@dataclass(frozen=True, eq=False)
class FitQuestion(AbstractHeadQuestion):
    """One head of a kind, fitted and tested; the head itself is stored beside its run."""

    kind: str
    beta: Beta
    seed: int
    device: str = "cpu"
    counted: ClassVar[str] = "fits"

    @property
    def title(self) -> str:
        """The kind of head."""
        return f"Fitting the {self.kind} head"

    @property
    def total(self) -> int:
        """One fit."""
        return 1

    def make_spec(self) -> Spec:
        """The kind of head, its settings and its tokens."""
        head = {"kind": self.kind, "beta": self.beta, "seed": self.seed, **asdict(self.settings)}
        return self.data.make_spec("head fit", {"head": head})

    def kept_amount(self, plan: Plan) -> int:
        """1 if a fit was finished but its run was not, else 0."""
        head = self._read_head(plan)
        return int(head is not None and not head.interrupted_)

    def describe_kept(self, plan: Plan) -> str:
        """What an interrupted fit left, and at most how far from the optimum it is."""
        head = self._read_head(plan)
        if head is None or plan.store is None:
            return "nothing of the fit is saved"
        if not head.interrupted_:
            return "the fitted head is saved"
        gap = Fitted(head, 0.0).gap
        far = f"at most {100 * gap:.2g} %" if isfinite(gap) else "by an unknown share"
        return f"{Path(plan.store.url) / HEAD_FILE} holds its best point, {far} above the optimum"

    def make_unfinished(self, plan: Plan) -> Run | None:
        """The run of an interrupted fit's best point, which is not stored as a run."""
        head = self._read_head(plan)
        if head is None or not head.interrupted_:
            return None
        return self.run(Fitted(head, head.history_[-1].seconds), plan)

    def answer(self, plan: Plan) -> Answer:
        """The head and its run.

        An interrupt is raised again once the best point so far is stored: as a part, from which a plan that resumes
        continues, and as the folder's ``head.safetensors``. A finished head is stored as a part until its run is.
        """
        if plan.store is not None and not plan.store.is_local:
            where = plan.store.url
            raise UserError(f"A head is saved into a local folder, but {where} is not one; give another --out.")
        fit = self.fit(self._read_head(plan) if plan.resume else None, plan)
        content = to_bytes(fit.head)
        if plan.store is not None:
            plan.store.write_part(self.spec, HEAD_FILE, content)
            if fit.head.interrupted_:
                plan.store.write_beside(HEAD_FILE, content)
        if fit.head.interrupted_:
            raise KeyboardInterrupt
        return Answer(self.run(fit, plan), {HEAD_FILE: content})

    def fit(self, before: AbstractConvexClassifier | None, plan: Plan) -> Fitted:
        """The fitted head: ``before`` if it was finished, else a fit that continues from it or starts anew."""
        if before is not None and not before.interrupted_:
            return Fitted(before, before.history_[-1].seconds)
        grid = self.data.grid
        head = before or self.settings.estimator(self.kind, self.beta, seed=self.seed, grid=grid, device=self.device)
        head.set_params(warm_start=True, callback=watch(plan, self.title), device=self.device)
        made = fit_head(head, self.data)
        head.set_params(warm_start=False, callback=None)
        return replace(made, resumed=before is not None)

    def run(self, made: Fitted, plan: Plan) -> Run:
        """The run of a fitted head."""
        head, data = made.head, self.data
        first = balance_heads(head.trained_, head.trained_.members[0])
        groups = {
            "convex-head": self._head(made),
            "convex-training": training_group(made),
            "convex-spectrum": spectrum_group(made, first),
            **token_group(head.trained_, first, data, self.seed),
            **further_groups(head.trained_, first, data, self.seed),
        }
        kinds = [one.kind for one in head.certificates_]
        worst = max(head.certificates_, key=lambda one: one.relative_gap)
        gaps = [one.relative_gap for one in head.certificates_]
        claim = certificate_claim(
            gaps, kinds, self.settings.tol, "The head is", worst.advice, "convex-training/objective"
        )
        return self.make_run(groups, (claim,), made.notes, made.seconds, plan)

    def _read_head(self, plan: Plan) -> AbstractConvexClassifier | None:
        """The head that an earlier attempt left in the plan's folder, finished or interrupted."""
        if plan.store is None:
            return None
        heads = plan.store.parts(self.spec, lambda content: from_bytes(content, HEAD_FILE), (HEAD_FILE,))
        return cast("AbstractConvexClassifier | None", heads.get(HEAD_FILE))

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


def balance_heads(trained: Trained, member: Member) -> Member:
    """A member with heads that are orthogonal and balanced, largest first in every term; ReLU heads as they are."""
    return member if trained.relu else replace(member, heads=member.heads.compress())


def term_names(head: AbstractConvexClassifier) -> list[str]:
    """The terms' names: the gate's number, and the group's if there are several."""
    groups = head.trained_.block.groups()
    numbers = range(len(head.trained_.members[0].terms))
    return [f"gate {t // groups + 1}" + (f", group {t % groups + 1}" if groups > 1 else "") for t in numbers]


def training_group(made: Fitted) -> xr.Dataset:
    """Objective, bound and gap over time, and the certificate's gap at the end."""
    steps = made.head.history_
    seconds = {"seconds": ("seconds", np.array([step.seconds for step in steps]), {"long_name": "time", "units": "s"})}
    gap, primal, bound = (np.array([getattr(step, name) for step in steps]) for name in ("gap", "primal", "estimate"))
    heads = np.array([float(step.heads) for step in steps])
    gap = np.where(np.isfinite(gap), 100 * gap, np.nan)
    parts = ((_GAP_SO_FAR, gap), (OBJECTIVE, primal), (_BOUND_SO_FAR, bound), (_HEADS_SO_FAR, heads))
    over_time = [exact(quantity, values, ("seconds",), seconds) for quantity, values in parts]
    return group(TRAINING_WORDS, [*over_time, number(GAP, 100 * made.gap)])


def spectrum_group(made: Fitted, member: Member) -> xr.Dataset:
    """Singular values of each term, their number, and the effective rank of all."""
    found = sizes_of(member.heads)
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


def sizes_of(heads: Heads) -> list[np.ndarray]:
    """The sizes of each term's heads, largest first: for balanced heads the singular values of its lifted variable.

    Heads up to a millionth of the largest of all terms are remains of dead ones and are not counted.
    """
    sizes = [
        np.sort((factors.left.double().norm(dim=1) * factors.right.double().flatten(1).norm(dim=1)).cpu().numpy())[::-1]
        for factors in heads.terms
    ]
    largest = max((float(one[0]) for one in sizes if len(one)), default=0.0)
    return [one[one > _NEGLIGIBLE * largest] for one in sizes]
