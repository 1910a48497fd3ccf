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
from vitscope.convex.solvers.parts.growth import fresh, sized
from vitscope.convex.solvers.parts.polish import Polished, polish
from vitscope.convex.solvers.parts.restricted import Restricted, feature_bytes, restricted, whole
from vitscope.convex.solvers.parts.scaling import scaling
from vitscope.convex.solvers.parts.search import Search, decomposed, followed

LATE = 1e-3
"""The relative gap from which on the space keeps what the heads of the round before spanned."""
REST = 1e-3
"""Times the tolerance: heads that some steps lower by less than such a part of the objective are at rest."""
STEPS = 5
"""How many steps that is."""
NOTED = 10
"""After how many steps in a whole space a point is taken note of."""
DEAD = 1e-5
"""Times a term's largest singular value: heads up to this are dropped."""


@SOLVERS.add("greedy")
@dataclass(frozen=True)
class Greedy(AbstractSolver):
    r"""Heads by the top singular vectors of the gradient, and all of them trained together, round after round.

    Each round trains the heads in a left space by L-BFGS, in coordinates in which the curvature is about the same
    everywhere. There a pass costs little, and the gradient ``T*(R)`` is known for nothing. Where it is cheap the
    space is the whole from the beginning. Otherwise the first round decomposes the gradient itself; later ones pull
    its largest singular vectors in the space through the data, and widen the space by what they become, as subspace
    iteration would. Directions that no head uses are dropped where the space is not small; late, the heads of the round
    before are kept too, which makes rounds conjugate (Knyazev 2001). Where the gap that this estimates has become small
    the gradient is decomposed again, and heads that pass are certified. Where what the space keeps of the images would
    take more than the problem's ``memory``, Burer-Monteiro training goes on. Source: the greedy rule is that of
    conditional gradients (Jaggi 2013), the factors are Burer and Monteiro's (2003), the coordinates Martens and
    Grosse's (2015).

    A pass in these spaces is counted as one too, though it costs less: ``basis inner outputs`` multiply-adds a row.
    """

    added: int = 40
    """Heads added in a round at most, over all terms."""
    rarer: float = 100.0
    """The gap has to fall to such a part from one decomposition of the gradient to the next."""
    whole: int = 2**22
    """Bytes of what it keeps of the images up to which the space is all of it from the beginning."""
    small: int = 512
    """Numbers that it keeps of a row of an image, for one term, up to which a space is not narrowed."""
    polishing: int = 20
    """Passes of the first training; it grows by a fifth every round."""

    def improve(self, problem: Problem, progress: Progress) -> Stopped:
        """Search, certify, narrow, widen, train."""
        here, passes = progress.heads.compressed(), float(self.polishing)
        lefts = [problem.shape(term)[0] for term in problem.terms]
        if feature_bytes(problem, lefts) <= min(self.whole, problem.memory):
            space = whole(problem)
        elif too_large(problem, list(map(len, here.terms))):
            return BurerMonteiro().improve(problem, progress)
        else:
            space = restricted(problem, [factors.left for factors in here.terms])
        here, look = space.coordinates(here), inf
        before = here
        while True:
            search = followed(space, here)
            if not search.certain and search.gap <= max(look, progress.tol):
                search = decomposed(space, here, self.added)
                look = search.gap / self.rarer
            progress.passes += 1
            progress.reached(space.heads(here), search.primal, search.dual, search.certain)
            if (ended := progress.ended()) is not None:
                return ended
            space, here = space.narrowed(here, kept(search, before), self.small)
            new = [each.directions for each in search.terms]
            if too_large(problem, [len(b) + len(n) for b, n in zip(space.bases, new, strict=True)]):
                return BurerMonteiro().improve(problem, progress)
            space = space.widened(new)
            before = padded(here, space)
            begin = before.joined(begun(space, search))
            polished = trained(space, begin, search, min(int(passes), progress.left), progress)
            here = polished.heads.compressed(DEAD)
            if polished.interrupted:
                progress.reached(space.heads(here), polished.value)
                raise KeyboardInterrupt
            if progress.certified():
                return "certified"
            passes *= 1.2


def trained(space: Restricted, begin: Heads, search: Search, passes: int, progress: Progress) -> Polished:
    """Heads polished in a space; where it is the whole, for longer, but only until they are good, or at rest."""
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
            here = point.compressed()
            alive = here.coordinates.compressed(DEAD) if good else here.coordinates
            progress.reached(space.heads(alive), here.value, bound, certain=False)
        rest = len(values) > STEPS and values[-1 - STEPS] - value <= REST * progress.tol * value
        return rest or (good and progress.certified())

    return polish(objective, begin, 3 * passes, scaling=scales, until=enough)


def kept(search: Search, before: Heads) -> list[Float[Tensor, "_ _"]]:
    """What a space is to keep beside the heads: what the search says and, late, the heads of the round before."""
    if search.gap > LATE:
        return [each.kept for each in search.terms]
    return [torch.cat((each.kept, old.left)) for each, old in zip(search.terms, before.terms, strict=True)]


def too_large(problem: Problem, counts: Sequence[int]) -> bool:
    """Whether what spaces of so many dimensions keep of the images is more than the problem's memory."""
    return feature_bytes(problem, counts) > problem.memory


def padded(heads: Heads, space: Restricted) -> Heads:
    """Coordinates in a space that was widened since."""
    return Heads(
        tuple(
            Factors(pad(factors.left, (0, len(basis) - factors.left.shape[1])), factors.right)
            for factors, basis in zip(heads.terms, space.bases, strict=True)
        )
    )


def begun(space: Restricted, search: Search) -> tuple[Factors, ...]:
    """New heads at their best size, by their coordinates in a space that was widened for them."""
    new = space.coordinates(fresh(space.problem, [each.top for each in search.terms]))
    return (sized(space.problem, new, space.outputs(new), search.outputs) if new.count else new).terms
