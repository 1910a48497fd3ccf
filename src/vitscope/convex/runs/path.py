"""The whole regularisation path of one kind of head."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float64, Int

from vitscope.convex.certificate import largest_beta
from vitscope.convex.heads import Factors, Heads
from vitscope.convex.problem import Problem
from vitscope.convex.runs.fit import (
    EFFECTIVE_RANK,
    GAP,
    HEADS,
    LOWER_BOUND,
    OBJECTIVE,
    SECONDS,
    SINGULAR,
    TOP1,
    TRAINING_TOP1,
    sizes_of,
)
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
from vitscope.convex.runs.piece import AbstractPiece, pack_arrays, unpack_arrays
from vitscope.convex.runs.question import AbstractPiecewiseQuestion, stopwatch, watch
from vitscope.convex.solver import SolverStep, solve
from vitscope.convex.tokens import TokenSource
from vitscope.convex.trained import Trained, make_trained
from vitscope.engine.plan import Plan
from vitscope.engine.question import Answer
from vitscope.measurement.quantity import Quantity
from vitscope.runs.spec import Spec

SPAN = 1e-3
"""The smallest beta of the path, relative to the largest that leaves any head: a free choice."""
LEADING = 8
"""Singular values shown of each point."""

_LARGEST = Quantity(
    "largest_penalty",
    "Largest beta that matters",
    "nats",
    "At this weight of the penalty, or above, no head is worth its price; the path's axis is in units of it.",
    "Neither.",
)
_WORDS = GroupWords(
    "Regularisation path",
    "What does the penalty cost and save?",
    r"""Heads under a falling penalty, each fit starting from the heads of the one before: :math:`\beta` falls
    geometrically from the largest that leaves any head to a thousandth of it. The error of an accuracy is the standard
    deviation over 1000 bootstrap samples of the images.""",
    (UNRAVELING, BURER_MONTEIRO),
)
_RANK_WORDS = GroupWords(
    "Rank along the path",
    "How many heads does it need?",
    """The number of heads (the rank of all lifted variables together) and the effective rank, the exponential of the
    entropy of their singular values as shares of their sum (Roy and Vetterli 2007).""",
)
_SPECTRUM_WORDS = GroupWords(
    "Singular values along the path",
    "How many heads does it need?",
    "The 8 largest singular values of all lifted variables together: each is the size of one head, and a line begins "
    "where its head does.",
)
_CERTIFICATE_WORDS = GroupWords(
    "Certificates along the path",
    "How far is it from the optimum?",
    "Objective and lower bound of every point, each certified separately, in float64.",
    (BURER_MONTEIRO,),
)


@dataclass(frozen=True, eq=False)
class PathPoint(AbstractPiece):
    """One beta's fit: its certificate, what it predicts, and its heads as singular values."""

    largest: float
    """The largest beta that leaves any head."""
    beta: float
    primal: float
    dual: float
    kind: str
    advice: str
    relative_gap: float
    seconds: float
    right: Float64[np.ndarray, " tested"]
    training_right: Float64[np.ndarray, " trained"]
    values: Float64[np.ndarray, " heads"]
    heads: Heads

    def to_bytes(self) -> bytes:
        """Every field, and both sides of the heads, as arrays."""
        plain = {name: value for name, value in vars(self).items() if name != "heads"}
        sides = {
            f"{side}{t}": getattr(one, side).cpu().numpy()
            for t, one in enumerate(self.heads.terms)
            for side in ("left", "right")
        }
        return pack_arrays({**plain, **sides})

    @classmethod
    def from_bytes(cls, content: bytes) -> "PathPoint":
        """The point whose :meth:`to_bytes` these are."""
        found = unpack_arrays(content)
        count = sum(name.startswith("left") for name in found)
        pairs = [tuple(torch.from_numpy(found.pop(f"{side}{t}")) for side in ("left", "right")) for t in range(count)]
        return cls(**found, heads=Heads(tuple(Factors(*pair) for pair in pairs)))


@dataclass(frozen=True, eq=False)
class PathQuestion(AbstractPiecewiseQuestion):
    """One kind of head under a falling penalty."""

    kind: str
    seed: int
    device: str = "cpu"
    counted: ClassVar[str] = "points"

    @property
    def title(self) -> str:
        """The kind of head."""
        return f"Fitting {self.kind} heads"

    def make_spec(self) -> Spec:
        """The kind of head, its settings and its tokens."""
        head = {"kind": self.kind, "seed": self.seed, **asdict(self.settings)}
        return self.data.make_spec("head path", {"head": head})

    @property
    def parts(self) -> tuple[str, ...]:
        """A point for each beta, the largest first."""
        return tuple(f"point-{place:03d}" for place in range(self.settings.betas))

    def kept_amount(self, plan: Plan) -> int:
        """The number of stored points before the first missing one: each starts from the heads of the one before."""
        kept = () if plan.store is None else plan.store.parts(self.spec, wanted=self.parts)
        return next((place for place, name in enumerate(self.parts) if name not in kept), self.total)

    @cached_property
    def problem(self) -> Problem:
        """The problem of the training images; its beta is 1."""
        head = self.settings.estimator(self.kind, 1.0, seed=self.seed, grid=self.data.grid, device=self.device)
        return head.problem(self.data.training.tokens, self.data.labels)

    def answer(self, plan: Plan) -> Answer:
        """The path, point by point."""
        seconds, step = stopwatch(), watch(plan, self.title)
        relative = relative_betas(self.settings.betas)

        def make(name: str, before: Mapping[str, PathPoint]) -> PathPoint:
            last = [*before.values()][-1:]
            largest = last[0].largest if last else largest_beta(self.problem)
            return self._point(largest, largest * float(relative[len(before)]), last[0].heads if last else None, step)

        points = [*self.make_pieces(plan, PathPoint.from_bytes, make).values()]
        worst = max(points, key=lambda point: point.relative_gap)
        claim = certificate_claim(
            [point.relative_gap for point in points],
            [point.kind for point in points],
            self.settings.tol,
            "Every point of the path is",
            worst.advice,
            "convex-path-certificate/relative_gap",
        )
        return Answer(self.make_run(path_groups(points, self.seed), (claim,), (), seconds(), plan))

    def _point(
        self, largest: float, beta: float, start: Heads | None, watch: Callable[[SolverStep], None]
    ) -> PathPoint:
        problem, seconds = self.problem.with_beta(beta), stopwatch()
        tol, most = self.settings.tol, self.settings.max_passes
        solution = solve(problem, start, tol=tol, max_passes=most, watch=watch)
        if solution.stopped == "interrupted":
            raise KeyboardInterrupt
        took = seconds()
        certificate = solution.certificate
        balanced = solution.heads if problem.relu else solution.heads.compress()
        values = np.sort(np.concatenate(sizes_of(balanced)))[::-1]
        data, trained = self.data, make_trained(problem, balanced)
        return PathPoint(
            largest,
            beta,
            certificate.primal,
            certificate.dual,
            certificate.kind,
            certificate.advice,
            certificate.relative_gap,
            took,
            self._right(trained, data.test.tokens, data.test_labels),
            self._right(trained, data.training.tokens, data.labels),
            values.copy(),
            balanced,
        )

    def _right(
        self, trained: Trained, tokens: TokenSource, labels: Int[np.ndarray, " images"]
    ) -> Float64[np.ndarray, " images"]:
        """1 for each image whose class is predicted, 0 for the others."""
        best = trained.outputs(tokens, torch.device(self.device), 2**30)[:, 0].argmax(1).numpy()
        return (np.unique(self.data.labels)[best] == labels).astype(np.float64)


def relative_betas(count: int) -> Float64[np.ndarray, " betas"]:
    """``count`` betas, relative to the largest that leaves any head, falling geometrically to a thousandth of it."""
    return np.geomspace(1.0, SPAN, count + 1)[1:]


def path_groups(points: Sequence[PathPoint], seed: int) -> dict[str, xr.Dataset]:
    """Accuracy, rank, singular values and certificates over beta."""
    relative = relative_betas(len(points))
    beta = {"beta": ("beta", relative, {"long_name": "beta, relative to the largest that matters", "scale": "log"})}
    heads = ("convex_head", [str(i + 1) for i in range(LEADING)], {"long_name": "head", "ordered": 1})
    values = np.full((len(points), LEADING), np.nan)
    for row, point in zip(values, points, strict=True):
        row[: len(point.values)] = point.values[:LEADING]

    def over(quantity: Quantity, of: Callable[[PathPoint], float]) -> xr.Dataset:
        return exact(quantity, np.array([of(point) for point in points]), ("beta",), beta)

    accuracies = (
        accuracy(TOP1, [point.right for point in points], seed, "beta", beta["beta"]),
        accuracy(TRAINING_TOP1, [point.training_right for point in points], seed, "beta", beta["beta"]),
        over(SECONDS, lambda point: point.seconds),
        number(_LARGEST, points[0].largest),
    )
    ranks = (
        over(HEADS, lambda point: float(len(point.values))),
        over(EFFECTIVE_RANK, lambda point: effective_rank(point.values)),
    )
    spectrum = exact(SINGULAR, values, ("beta", "convex_head"), {**beta, "convex_head": heads})
    certificates = (
        over(OBJECTIVE, lambda point: point.primal),
        over(LOWER_BOUND, lambda point: point.dual),
        over(GAP, lambda point: 100 * point.relative_gap),
    )
    return {
        "convex-path": group(_WORDS, accuracies),
        "convex-path-rank": group(_RANK_WORDS, ranks),
        "convex-path-spectrum": group(_SPECTRUM_WORDS, (spectrum,)),
        "convex-path-certificate": group(_CERTIFICATE_WORDS, certificates),
    }
