"""Greedy training: add the heads that lower the objective fastest, then train all heads in the space they span."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad

from vitscope.convex.certificate import dual_value, relative_gap
from vitscope.convex.heads import Factors, Heads
from vitscope.convex.problem import Problem
from vitscope.convex.solver import SOLVERS, AbstractSolver, Progress, Stopped
from vitscope.convex.solvers.burer_monteiro import BurerMonteiro
from vitscope.convex.solvers.parts.growth import fresh, scale_heads
from vitscope.convex.solvers.parts.polish import Polished, polish
from vitscope.convex.solvers.parts.restricted import Restricted, feature_bytes, restrict, whole
from vitscope.convex.solvers.parts.scaling import scaling
from vitscope.convex.solvers.parts.search import Search, decompose_gradient, follow_gradient

LATE = 1e-3
"""Up to this relative gap the space also keeps what the heads of the previous round spanned.

A free choice that only affects speed, as wider spaces cost more a pass and fewer rounds: the certificate decides.
"""
REST = 1e-3
"""Times the tolerance: heads are at rest if ``STEPS`` steps lower the objective by less than this share of it.

At that rate the objective takes 5,000 more steps to fall by the tolerance; a round with new heads is shorter. A free
choice that only affects speed: heads at rest go into the next round, and the certificate decides.
"""
STEPS = 5
"""The number of those steps: more than one, since a single step may gain little by chance. It only affects speed."""
NOTED = 10
"""Every so many steps in a whole space a point is recorded and its bound computed, whatever it is.

A free choice: it trades a singular value decomposition of the heads against a finer history.
"""
DEAD = 1e-5
"""Times a term's largest singular value: heads up to this are dropped.

At rest a head's penalty and its share of the loss cancel to first order, so dropping it changes the objective by its
square. What that costs is seen: the next round and the certificate evaluate the heads that are left.
"""
GROWTH = 1.2
"""Factor of the passes of a training from round to round. It trades rounds (a search each) against passes in a space
that lacks a direction: a free choice that only affects speed, because the certificate decides."""
LONGER = 3
"""Times the passes of a training, if the space is the whole: no search can widen it, and a certificate or rest ends it
sooner. A free choice that only affects speed."""


@SOLVERS.add("greedy")
@dataclass(frozen=True)
class Greedy(AbstractSolver):
    r"""Adds heads along the top singular vectors of the gradient and trains all heads together, round after round.

    Each round trains the heads in a left space by L-BFGS, in coordinates in which the curvature is about the same
    everywhere. In the space a pass costs little and gives the gradient ``T*(R)`` as well. If the features of all left
    weights are small, the space is the whole from the beginning. Otherwise the first round decomposes the gradient
    itself; later rounds pull its largest singular vectors in the space through the data and widen the space by the
    result, as subspace iteration would. Directions that no head uses are dropped unless the space is small; late, the
    heads of the previous round are kept too, which makes rounds conjugate (Knyazev 2001). When the gap estimated in
    this way is small, the gradient is decomposed again, and heads that pass are certified. If the features would take
    more than the problem's ``memory``, Burer-Monteiro training takes over. Source: the greedy rule is that of
    conditional gradients (Jaggi 2013), the factors are Burer and Monteiro's (2003), the coordinates Martens and
    Grosse's (2015).

    A pass in these spaces counts as one too, though it costs less: ``basis inner outputs`` multiply-adds a row.
    """

    added: int = 40
    """The most heads added in a round, over all terms. Only affects speed."""
    rarer: float = 100.0
    """Factor by which the gap must fall from one decomposition of the gradient to the next. At 10, gated attention
    decomposed in every round (docs/adr/0009). Only affects speed."""
    whole: int = 2**22
    """If the features of all left weights take at most this many bytes, the space is the whole from the beginning.
    Beyond it, narrow spaces trained attention and mixers about 8 times as fast (docs/adr/0009). Only affects speed."""
    small: int = 512
    """A term's space is not narrowed while its features are at most this many numbers a row of an image. Narrower, a
    Fourier head had a gap of 5 % after 2,000 passes, not 0.02 % after 209 (docs/adr/0009). Only affects speed."""
    polishing: int = 20
    """Passes of the first training; they grow by a fifth every round. Only affects speed."""

    def improve(self, problem: Problem, progress: Progress) -> Stopped:
        """Search, certify, narrow, widen, train."""
        here, passes = progress.heads.compress(), float(self.polishing)
        lefts = [problem.shape(term)[0] for term in problem.terms]
        if feature_bytes(problem, lefts) <= min(self.whole, problem.memory):
            space = whole(problem)
        elif too_large(problem, list(map(len, here.terms))):
            return BurerMonteiro().improve(problem, progress)
        else:
            space = restrict(problem, [factors.left for factors in here.terms])
        here, look = space.coordinates(here), inf
        before = here
        while True:
            search = follow_gradient(space, here)
            if not search.certain and search.gap <= max(look, progress.tol):
                search = decompose_gradient(space, here, self.added)
                look = search.gap / self.rarer
            progress.passes += 1
            progress.record(space.heads(here), search.primal, search.dual, search.certain)
            if (ended := progress.stop_reason()) is not None:
                return ended
            space, here = space.narrow(here, directions_to_keep(search, before), self.small)
            new = [each.directions for each in search.terms]
            if too_large(problem, [len(b) + len(n) for b, n in zip(space.bases, new, strict=True)]):
                return BurerMonteiro().improve(problem, progress)
            space = space.widen(new)
            before = pad_coordinates(here, space)
            begin = before.join(size_new_heads(space, search))
            polished = train_heads(space, begin, search, min(int(passes), progress.passes_left), progress)
            here = polished.heads.compress(DEAD)
            if polished.interrupted:
                progress.record(space.heads(here), polished.value)
                raise KeyboardInterrupt
            if progress.certified():
                return "certified"
            passes *= GROWTH


def train_heads(space: Restricted, begin: Heads, search: Search, passes: int, progress: Progress) -> Polished:
    """Train heads in a space; if it is the whole, for longer, but only until they are good enough or at rest."""
    scales = scaling(space, begin, search.outputs)
    if not space.whole:
        polished = polish(space.value_and_gradient, begin, passes, scaling=scales)
        progress.passes += polished.passes
        return polished
    point, values = None, list[float]()

    def objective(heads: Heads) -> tuple[float, Heads]:
        nonlocal point
        point = space.at(heads)
        progress.passes += 1
        return point.value, point.gradient

    def enough() -> bool:
        assert point is not None
        values.append(value := point.value)
        if values[-2:][0] - value > progress.tol * value and len(values) % NOTED > 0:
            return False  # the optimum is further away than the tolerance
        bound = point.bound
        if relative_gap(value, bound) <= progress.tol:
            bound = dual_value(space.problem, point.outputs, point.norm)
        good = relative_gap(value, bound) <= progress.tol
        if good or len(values) % NOTED == 0:
            here = point.compress()
            alive = here.coordinates.compress(DEAD) if good else here.coordinates
            progress.record(space.heads(alive), here.value, bound, certain=False)
        rest = len(values) > STEPS and values[-1 - STEPS] - value <= REST * progress.tol * value
        return rest or (good and progress.certified())

    return polish(objective, begin, LONGER * passes, scaling=scales, until=enough)


def directions_to_keep(search: Search, before: Heads) -> list[Float[Tensor, "_ _"]]:
    """What a space keeps besides the heads: what the search asks for and, late, the heads of the previous round."""
    if search.gap > LATE:
        return [each.kept for each in search.terms]
    return [torch.cat((each.kept, old.left)) for each, old in zip(search.terms, before.terms, strict=True)]


def too_large(problem: Problem, counts: Sequence[int]) -> bool:
    """Whether the features of spaces of these dimensions exceed the problem's memory."""
    return feature_bytes(problem, counts) > problem.memory


def pad_coordinates(heads: Heads, space: Restricted) -> Heads:
    """Heads' coordinates, padded with zeros to a space that was widened since."""
    return Heads(
        tuple(
            Factors(pad(factors.left, (0, len(basis) - factors.left.shape[1])), factors.right)
            for factors, basis in zip(heads.terms, space.bases, strict=True)
        )
    )


def size_new_heads(space: Restricted, search: Search) -> tuple[Factors, ...]:
    """New heads at their best size, as coordinates in a space that was widened for them."""
    new = space.coordinates(fresh(space.problem, [each.top for each in search.terms]))
    return (scale_heads(space.problem, new, space.outputs(new), search.outputs) if new.count else new).terms
