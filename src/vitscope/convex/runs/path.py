"""The whole regularisation path of one kind of head."""

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from time import perf_counter

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float64, Int

from vitscope.convex.heads import Factors, Heads
from vitscope.convex.path import largest_beta
from vitscope.convex.problem import Problem
from vitscope.convex.runs.data import HeadData
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
    Words,
    accuracy,
    certified,
    effective_rank,
    exact,
    group,
    number,
    packed,
    run_of,
)
from vitscope.convex.runs.settings import HeadSettings
from vitscope.convex.solver import Step, solve
from vitscope.convex.tokens import TokenSource
from vitscope.convex.trained import Trained, trained_of
from vitscope.engine.plan import Progress, silent
from vitscope.measurement.quantity import Quantity
from vitscope.runs.run import Run
from vitscope.runs.spec import Spec
from vitscope.runs.store import RunFolder

SPAN = 1e-3
LEADING = 8
"""Singular values that are kept of each point."""

_LARGEST = Quantity(
    "largest_penalty",
    "Largest beta that matters",
    "nats",
    "From this weight of the penalty on no head is worth its price; the path's axis is in units of it.",
    "Neither.",
)
_WORDS = Words(
    "Regularisation path",
    "What does the penalty cost and save?",
    r"""Heads under a falling penalty, each fit begun with the heads of the one before: :math:`\beta` falls
    geometrically from the largest that leaves any head to a thousandth of it. The error of an accuracy is the standard
    deviation over 1000 bootstrap samples of the images.""",
    (UNRAVELING, BURER_MONTEIRO),
)
_RANK_WORDS = Words(
    "Rank along the path",
    "How many heads does it need?",
    """The number of heads (the rank of all lifted variables together) and the effective rank, the exponential of the
    entropy of their singular values as shares of their sum (Roy and Vetterli 2007).""",
)
_SPECTRUM_WORDS = Words(
    "Singular values along the path",
    "How many heads does it need?",
    "The 8 largest singular values of all lifted variables together: each is the size of one head, and a line begins "
    "where its head does.",
)
_CERTIFICATE_WORDS = Words(
    "Certificates along the path",
    "How far is it from the optimum?",
    "Objective and lower bound of every point, each certified by itself, in float64.",
    (BURER_MONTEIRO,),
)


@dataclass(frozen=True, eq=False)
class Point:
    """One beta's fit: its certificate, what it predicts, and its heads as singular values."""

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
        """For :meth:`from_bytes`; nothing in it can run code."""
        plain = {name: np.array(value) for name, value in vars(self).items() if name != "heads"}
        factors = {
            f"{side}{t}": getattr(one, side).cpu().numpy()
            for t, one in enumerate(self.heads.terms)
            for side in ("left", "right")
        }
        return packed({**plain, **factors})

    @classmethod
    def from_bytes(cls, content: bytes) -> "Point":
        """The point that was kept."""
        with np.load(io.BytesIO(content), allow_pickle=False) as kept:
            found = dict(kept)
        count = sum(name.startswith("left") for name in found)
        pairs = [
            (torch.from_numpy(found.pop(f"left{t}")), torch.from_numpy(found.pop(f"right{t}"))) for t in range(count)
        ]
        plain = {name: value.item() if value.ndim == 0 else value for name, value in found.items()}
        return cls(**plain, heads=Heads(tuple(Factors(*pair) for pair in pairs)))


@dataclass(frozen=True, eq=False)
class PathQuestion:
    """A path that is asked for."""

    data: HeadData
    settings: HeadSettings
    kind: str
    seed: int
    device: str = "cpu"

    @cached_property
    def spec(self) -> Spec:
        """The question."""
        head = {"kind": self.kind, "seed": self.seed, **asdict(self.settings)}
        return self.data.make_spec("head path", {"head": head})

    def points(
        self,
        folder: RunFolder | None,
        resume: bool,
        progress: Progress = silent,
        watch: Callable[[Step], None] | None = None,
    ) -> list[Point]:
        """Every point, each kept in the folder as soon as it is there; with ``resume`` those kept are not fitted again.

        An interrupt is raised again; what is kept then are the points before it. ``watch`` is told of every step.
        """
        relative = np.geomspace(1.0, SPAN, self.settings.betas + 1)[1:]
        kept = folder.parts(self.spec, Point.from_bytes) if folder is not None and resume else {}
        found = [kept[_part(i)] for i in range(_leading_parts(kept))]
        progress(len(found), len(relative))
        if len(found) == len(relative):
            return found
        head = self.settings.estimator(self.kind, 1.0, seed=self.seed, grid=self.data.grid, device=self.device)
        problem = head.problem(self.data.training.tokens, self.data.labels)
        largest = found[0].beta / float(relative[0]) if found else largest_beta(problem)
        for place, share in enumerate(relative[len(found) :], start=len(found)):
            start = found[-1].heads if found else None
            found.append(self._point(problem.with_beta(largest * float(share)), start, watch))
            if folder is not None:
                folder.write_part(self.spec, _part(place), found[-1].to_bytes())
            progress(len(found), len(relative))
        return found

    def run(self, points: Sequence[Point], seconds: float, command: str = "") -> Run:
        """The run of a finished path."""
        worst = max(points, key=lambda point: point.relative_gap)
        claim = certified(
            [point.relative_gap for point in points],
            [point.kind for point in points],
            self.settings.tol,
            "Every point of the path is",
            worst.advice,
            "convex-path-certificate/relative_gap",
        )
        return run_of(self.data, self.spec, path_groups(points, self.seed), (claim,), (), seconds, command)

    def _point(self, problem: Problem, start: Heads | None, watch: Callable[[Step], None] | None) -> Point:
        began = perf_counter()
        tol, most = self.settings.tol, self.settings.max_passes
        solution = solve(problem, start, tol=tol, max_passes=most, watch=watch)
        if solution.stopped == "interrupted":
            raise KeyboardInterrupt
        seconds = perf_counter() - began
        certificate = solution.certificate
        balanced = solution.heads if problem.relu else solution.heads.compressed()
        values = np.sort(np.concatenate(sizes_of(balanced)))[::-1]
        data, trained = self.data, trained_of(problem, balanced)
        return Point(
            problem.beta,
            certificate.primal,
            certificate.dual,
            certificate.kind,
            certificate.advice,
            certificate.relative_gap,
            seconds,
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


def path_groups(points: Sequence[Point], seed: int) -> dict[str, xr.Dataset]:
    """Accuracy, rank, singular values and certificates over beta."""
    relative = np.geomspace(1.0, SPAN, len(points) + 1)[1:]
    beta = {"beta": ("beta", relative, {"long_name": "beta, relative to the largest that matters", "scale": "log"})}
    heads = ("convex_head", [str(i + 1) for i in range(LEADING)], {"long_name": "head", "ordered": 1})
    values = np.full((len(points), LEADING), np.nan)
    for row, point in zip(values, points, strict=True):
        row[: len(point.values)] = point.values[:LEADING]

    def over(quantity: Quantity, of: Callable[[Point], float]) -> xr.Dataset:
        return exact(quantity, np.array([of(point) for point in points]), ("beta",), beta)

    accuracies = (
        accuracy(TOP1, [point.right for point in points], seed, "beta", beta["beta"]),
        accuracy(TRAINING_TOP1, [point.training_right for point in points], seed, "beta", beta["beta"]),
        over(SECONDS, lambda point: point.seconds),
        number(_LARGEST, points[0].beta / float(relative[0])),
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


def _part(place: int) -> str:
    return f"point-{place:03d}"


def _leading_parts(kept: Mapping[str, Point]) -> int:
    """How many points are kept without a gap."""
    count = 0
    while _part(count) in kept:
        count += 1
    return count
