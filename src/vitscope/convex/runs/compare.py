"""Kinds of head side by side, each at its own validated beta."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import ClassVar

import numpy as np
import xarray as xr
from jaxtyping import Float64

from vitscope.convex.block import BLOCKS
from vitscope.convex.runs.fit import BETA, GAP, HEADS, SECONDS, TOP1, Fitted, fit_head, right
from vitscope.convex.runs.group import (
    BURER_MONTEIRO,
    UNRAVELING,
    GroupWords,
    accuracy,
    certificate_claim,
    exact,
    group,
)
from vitscope.convex.runs.piece import AbstractPiece, pack_arrays, unpack_arrays
from vitscope.convex.runs.question import AbstractPiecewiseQuestion, stopwatch, watch
from vitscope.convex.solver import SolverStep
from vitscope.engine.plan import Plan
from vitscope.engine.question import Answer
from vitscope.measurement.claim import Claim, ClaimKind, Verdict
from vitscope.measurement.estimate import Estimate, above, rate_of, samples_needed
from vitscope.measurement.exact import change_of, contrast
from vitscope.measurement.quantity import Quantity, label_quantity
from vitscope.runs.run import Run
from vitscope.runs.spec import Spec

Right = Float64[np.ndarray, " images"]
"""1 for each test image whose class is predicted, 0 for the others."""
Rights = Sequence[Right]
"""One :data:`Right` for each of several seeds."""

_OVER_SEEDS = Quantity(
    "top1_over_seeds",
    "Test top-1 accuracy over seeds",
    "share",
    "The mean over seeds of gates and validation images; its error says how much they matter.",
    "Larger is better.",
)
_VALIDATION = Quantity(
    "validation_top1",
    "Validation top-1 accuracy",
    "1",
    "Share of the images held out for the choice of beta whose class is predicted, at the chosen beta.",
    "Larger is better; it is the best of several, so somewhat too large.",
)
_WEIGHTS = Quantity(
    "weights", "Weights", "weights", "Numbers in the trained head: both sides of every head.", "Fewer are cheaper."
)
_WORDS = GroupWords(
    "Kinds of head",
    "Which head is best here?",
    """Every kind of head on the same tokens, at its own beta: chosen by accuracy on a share of the training images held
    out, along a path of falling betas, and then fitted to all of them from there. The error of the test accuracy is the
    standard deviation over 1000 bootstrap samples of the test images, of the mean over seeds if there are several.
    Beta, rank, weights and time are means over seeds with their standard error; the gap is the largest. The time
    includes the choice of beta.""",
    (UNRAVELING, BURER_MONTEIRO),
)


@dataclass(frozen=True, eq=False)
class Tried(AbstractPiece):
    """One kind of head under one seed."""

    right: Float64[np.ndarray, " tested"]
    beta: float
    validation: float
    heads: float
    weights: float
    relative_gap: float
    kind: str
    advice: str
    seconds: float

    def to_bytes(self) -> bytes:
        """Every field, as arrays."""
        return pack_arrays(vars(self))

    @classmethod
    def from_bytes(cls, content: bytes) -> "Tried":
        """The fit whose :meth:`to_bytes` these are."""
        return cls(**unpack_arrays(content))


@dataclass(frozen=True, eq=False)
class CompareQuestion(AbstractPiecewiseQuestion):
    """Kinds of head side by side, under several seeds each."""

    kinds: tuple[str, ...]
    seeds: int
    seed: int
    device: str = "cpu"
    counted: ClassVar[str] = "fits"

    @property
    def title(self) -> str:
        """The number of kinds."""
        return f"Fitting {len(self.kinds)} kinds of head"

    def make_spec(self) -> Spec:
        """The kinds of head, their settings and their tokens."""
        head = {"kinds": list(self.kinds), "seeds": self.seeds, "seed": self.seed, **asdict(self.settings)}
        return self.data.make_spec("head compare", {"head": head})

    @property
    def fits(self) -> Mapping[str, tuple[str, int]]:
        """Kind and seed of every fit, in order, by name."""
        return {f"{kind}-{self.seed + i}": (kind, self.seed + i) for kind in self.kinds for i in range(self.seeds)}

    @property
    def parts(self) -> tuple[str, ...]:
        """The fits' names."""
        return tuple(self.fits)

    def answer(self, plan: Plan) -> Answer:
        """The comparison, fit by fit."""
        seconds, fits = stopwatch(), self.fits

        def make(name: str, before: Mapping[str, Tried]) -> Tried:
            kind, seed = fits[name]
            return self._try(kind, seed, watch(plan, f"Fitting the {kind} head"))

        made = self.make_pieces(plan, Tried.from_bytes, make)
        return Answer(self.run({fits[name]: one for name, one in made.items()}, seconds(), plan))

    def run(self, tried: Mapping[tuple[str, int], Tried], seconds: float, plan: Plan) -> Run:
        """The run of a finished comparison."""
        each = {kind: [tried[kind, self.seed + i] for i in range(self.seeds)] for kind in self.kinds}
        rights = {kind: np.mean([one.right for one in several], axis=0) for kind, several in each.items()}
        names = ("head_kind", list(self.kinds), {"long_name": "kind of head"})
        coords = {"head_kind": names}

        def over(quantity: Quantity, of: Callable[[Tried], float]) -> xr.Dataset:
            values = np.array([[of(one) for one in several] for several in each.values()], dtype=np.float64)
            several = self.seeds > 1
            errors = values.std(1, ddof=1) / np.sqrt(self.seeds) if several else np.zeros(len(values))
            counts = np.full(len(values), self.seeds if several else 0)
            return label_quantity(quantity, ("head_kind",), values.mean(1), errors, counts, coords)

        gaps = np.array([max(one.relative_gap for one in several) for several in each.values()])
        parts = [
            accuracy(TOP1, list(rights.values()), self.seed, *names[:1], names),
            *((over(_OVER_SEEDS, lambda one: float(one.right.mean())),) if self.seeds > 1 else ()),
            over(_VALIDATION, lambda one: one.validation),
            over(HEADS, lambda one: one.heads),
            over(_WEIGHTS, lambda one: one.weights),
            over(BETA, lambda one: one.beta),
            exact(GAP, 100 * gaps, ("head_kind",), coords),
            over(SECONDS, lambda one: one.seconds),
        ]
        everyone = [one for several in each.values() for one in several]
        worst = max(everyone, key=lambda one: one.relative_gap)
        claims = (
            *attention_claim(
                {kind: ([one.right for one in each[kind]], _mean_validation(each[kind])) for kind in self.kinds}
            ),
            certificate_claim(
                [one.relative_gap for one in everyone],
                [one.kind for one in everyone],
                self.settings.tol,
                "Every head is",
                worst.advice,
                "convex-comparison/relative_gap",
            ),
        )
        groups = {"convex-comparison": group(_WORDS, parts)}
        return self.make_run(groups, claims, (), seconds, plan)

    def _try(self, kind: str, seed: int, watch: Callable[[SolverStep], None]) -> Tried:
        head = self.settings.estimator(kind, "auto", seed=seed, grid=self.data.grid, device=self.device)
        made = fit_head(head.set_params(callback=watch), self.data)
        if head.interrupted_:
            raise KeyboardInterrupt
        trials = head.validation_ or ()
        return Tried(
            right(head, self.data),
            head.beta_,
            max((trial.score for trial in trials), default=float("nan")),
            float(made.count),
            float(_weights(made)),
            made.gap,
            head.certificate_.kind,
            head.certificate_.advice,
            made.seconds,
        )


def attention_claim(heads: Mapping[str, tuple[Rights, float]]) -> Sequence[Claim]:
    """Whether attention-like heads beat linear and MLP heads; no claim unless there are some of both.

    ``heads`` has for each kind which test images are right, under each seed, and the validation accuracy. The latter
    chooses the best of each side, so the test images have no part in the choice.
    """
    sides = [[kind for kind in heads if BLOCKS[kind].mixes is mixes] for mixes in (True, False)]
    if not all(sides):
        return ()
    best, rival = (max(side, key=lambda kind: heads[kind][1]) for side in sides)
    change = contrast([_paired_change(one, other) for one, other in zip(heads[best][0], heads[rival][0], strict=True)])
    rate = rate_of(1)
    verdict, (low, high) = above(change, 0.0, rate), change.interval(rate)
    headline, advice = _words(verdict, best, rival)
    if verdict is Verdict.UNDECIDED and (
        more := samples_needed(lambda n: above(change.at(n), 0.0, rate), change.count)
    ):
        advice += f" About {more:,} test images would decide it, if they are like these (--test-limit {more})."
    claim = Claim(
        name="attention-like-heads-win",
        statement="Attention-like heads (attention, mixer, FNO, B-FNO) beat linear and MLP heads",
        verdict=verdict,
        figure=f"{best} less {rival}: {100 * change.mean:+.2f} points of test accuracy, "
        f"{1 - rate:.0%} interval {100 * low:+.2f} to {100 * high:+.2f}",
        rule="The best attention-like head less the best of linear and MLP, each side's best by validation accuracy: "
        "holds if the exact interval of the test images gained and lost (Clopper and Pearson; the mean over seeds) is "
        "above 0, fails if it is below.",
        reference=UNRAVELING,
        advice=advice,
        evidence="convex-comparison/top1",
        weight=0.9,
        headline=headline,
        kind=ClaimKind.LOOK,
        rate=rate,
    )
    return (claim,)


def _words(verdict: Verdict, best: str, rival: str) -> tuple[str, str]:
    """What was found, and which head to take."""
    return {
        Verdict.HOLDS: (
            f"The best attention-like head, {best}, beats the best plain one, {rival}.",
            f"Take the {best} head where accuracy counts.",
        ),
        Verdict.FAILS: (
            f"The best plain head, {rival}, beats the best attention-like one, {best}.",
            f"Take the {rival} head: it is better and cheaper.",
        ),
        Verdict.UNDECIDED: (
            f"These test images leave open whether the {best} head or the {rival} head is better.",
            f"Take the {rival} head, which is cheaper, or test on more images.",
        ),
    }[verdict]


def _paired_change(after: Right, before: Right) -> Estimate:
    """The change of the accuracy, paired by image."""
    apart = after - before
    return change_of(Estimate(float(apart.mean()), float(apart.std(ddof=1) / np.sqrt(len(apart))), len(apart)))


def _mean_validation(several: Sequence[Tried]) -> float:
    return float(np.mean([one.validation for one in several]))


def _weights(made: Fitted) -> int:
    """Numbers in all heads of all members."""
    members = made.head.trained_.members
    return sum(one.left.numel() + one.right.numel() for member in members for one in member.heads.terms)
