"""The whole regularisation path of one kind of head."""

import io
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from time import perf_counter

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float64
from sklearn.utils import check_random_state, compute_class_weight

from vitscope.convex.block import Sizes
from vitscope.convex.gates import terms
from vitscope.convex.heads import Factors, Heads
from vitscope.convex.loss import CrossEntropy
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
    values_of,
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
from vitscope.convex.solver import Solution, solve
from vitscope.convex.tokens import Tokens, standardisation_of
from vitscope.convex.trained import Member, Trained
from vitscope.engine.measure import Progress, silent
from vitscope.measurement.errors import UserError
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
    geometrically from the largest that leaves any head to a thousandth of it. Every point is certified by itself, in
    float64. The error of an accuracy is the standard deviation over 1000 bootstrap samples of the images. Singular
    values are of all lifted variables together, the 8 largest; the effective rank is of all of them (Roy and Vetterli
    2007).""",
    (UNRAVELING, BURER_MONTEIRO),
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
        return self.data.asked("head path", {"head": head})

    def points(self, folder: RunFolder | None, resume: bool, progress: Progress = silent) -> list[Point]:
        """Every point, each kept in the folder as soon as it is there; with ``resume`` those kept are not fitted again.

        An interrupt is raised again; what is kept then are the points before it.
        """
        if self.settings.ensemble > 1:
            raise UserError("A path is of one draw of gates; leave --ensemble out.")
        relative = np.geomspace(1.0, SPAN, self.settings.betas + 1)[1:]
        kept = folder.parts(self.spec) if folder is not None and resume else {}
        found = [Point.from_bytes(kept[_part(i)]) for i in range(_leading_parts(kept))]
        progress(len(found), len(relative))
        problem, evaluate = self._problem()
        largest = found[0].beta / float(relative[0]) if found else largest_beta(problem)
        for place, share in enumerate(relative[len(found) :], start=len(found)):
            start = found[-1].heads if found else None
            point = self._point(problem.with_beta(largest * float(share)), start, evaluate)
            found.append(point)
            if folder is not None:
                folder.write_part(self.spec, _part(place), point.to_bytes())
            progress(len(found), len(relative))
        return found

    def run(self, points: Sequence[Point], seconds: float, command: str = "") -> Run:
        """The run of a finished path."""
        relative = np.geomspace(1.0, SPAN, self.settings.betas + 1)[1:]
        beta = {"beta": ("beta", relative, {"long_name": "beta, relative to the largest that matters", "scale": "log"})}
        heads = ("convex_head", [str(i + 1) for i in range(LEADING)], {"long_name": "head", "ordered": 1})
        values = np.full((len(points), LEADING), np.nan)
        for row, point in zip(values, points, strict=True):
            row[: len(point.values)] = point.values[:LEADING]

        def over(quantity: Quantity, of: Callable[[Point], float]) -> xr.Dataset:
            return exact(quantity, np.array([of(point) for point in points]), ("beta",), beta)

        parts = (
            accuracy(TOP1, [point.right for point in points], self.seed, "beta", beta["beta"]),
            accuracy(TRAINING_TOP1, [point.training_right for point in points], self.seed, "beta", beta["beta"]),
            over(HEADS, lambda point: float(len(point.values))),
            over(EFFECTIVE_RANK, lambda point: effective_rank(point.values)),
            exact(SINGULAR, values, ("beta", "convex_head"), {**beta, "convex_head": heads}),
            over(OBJECTIVE, lambda point: point.primal),
            over(LOWER_BOUND, lambda point: point.dual),
            over(GAP, lambda point: 100 * point.relative_gap),
            over(SECONDS, lambda point: point.seconds),
            number(_LARGEST, points[0].beta / float(relative[0])),
        )
        worst = max(points, key=lambda point: point.relative_gap)
        claim = certified(
            [point.relative_gap for point in points],
            [point.kind for point in points],
            self.settings.tol,
            "Every point of the path is",
            worst.advice,
            "convex-path/relative_gap",
        )
        return run_of(self.data, self.spec, {"convex-path": group(_WORDS, parts)}, (claim,), (), seconds, command)

    def _problem(self) -> tuple[Problem, Callable[[Heads], tuple[np.ndarray, np.ndarray]]]:
        """The training problem at a beta of 1, and which test and training images its heads get right."""
        data, settings = self.data, self.settings
        head = settings.estimator(self.kind, 1.0, seed=self.seed, grid=data.grid, device=self.device)
        standardisation = standardisation_of(data.training.tokens)
        classes, numbers = np.unique(data.labels, return_inverse=True)
        weight = None if settings.class_weight == "none" else settings.class_weight
        each = torch.as_tensor(compute_class_weight(weight, classes=classes, y=data.labels))[torch.as_tensor(numbers)]
        loss = CrossEntropy(torch.as_tensor(numbers), each / each.mean(), len(classes))
        tokens = Tokens(data.training.tokens, standardisation)
        sizes = Sizes(tokens.shape[1], tokens.shape[2], len(classes))
        random = check_random_state(self.seed)
        seeds = [int(random.randint(2**31 - 1)) for _ in range(2)]  # the gates of a fit by the same seed
        gates = settings.gates if settings.activation == "gated-relu" else None
        drawn = terms(head.block(), sizes, gates, torch.Generator().manual_seed(seeds[1]), torch.float32)
        relu, device = settings.activation == "relu", torch.device(self.device)
        problem = Problem(tokens, loss, head.block(), drawn, 1.0, True, relu, torch.float32, device)
        wanted = ((data.test.tokens, data.test_labels), (data.training.tokens, data.labels))

        def evaluate(heads: Heads) -> tuple[np.ndarray, np.ndarray]:
            member = Member(drawn, heads.to(torch.float32, torch.device("cpu")))
            trained = Trained(head.block(), sizes, True, relu, standardisation, torch.zeros(len(classes)), (member,))
            outputs = [trained.outputs(source, device, head.memory)[:, 0].argmax(1).numpy() for source, _ in wanted]
            first, second = (
                (classes[one] == labels).astype(np.float64) for one, (_, labels) in zip(outputs, wanted, strict=True)
            )
            return first, second

        return problem, evaluate

    def _point(
        self, problem: Problem, start: Heads | None, evaluate: Callable[[Heads], tuple[np.ndarray, np.ndarray]]
    ) -> Point:
        began = perf_counter()
        solution: Solution = solve(problem, start, tol=self.settings.tol, max_passes=self.settings.max_passes)
        if solution.stopped == "interrupted":
            raise KeyboardInterrupt
        seconds = perf_counter() - began
        right, training_right = evaluate(solution.heads)
        certificate = solution.certificate
        balanced = solution.heads if problem.relu else solution.heads.compressed()
        values = np.sort(np.concatenate([values_of(balanced, t) for t in range(len(problem.terms))]))[::-1]
        return Point(
            problem.beta,
            certificate.primal,
            certificate.dual,
            certificate.kind,
            certificate.advice,
            certificate.relative_gap,
            seconds,
            right,
            training_right,
            values.copy(),
            balanced,
        )


def _part(place: int) -> str:
    return f"point-{place:03d}"


def _leading_parts(kept: dict[str, bytes]) -> int:
    """How many points are kept without a gap."""
    count = 0
    while _part(count) in kept:
        count += 1
    return count
