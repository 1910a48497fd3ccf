"""The search: greedy over prescriptions, each step measured again on validation images."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from vitscope.improvement.figures import Figures
from vitscope.improvement.goal import AbstractGoal
from vitscope.improvement.prescription import AbstractMove, AbstractPrescription
from vitscope.improvement.splits import Splits
from vitscope.measurement.errors import UserError
from vitscope.models.subject import Subject

PATIENCE = 4
"""The search ends when so many moves, one after the other, were judged and not allowed."""

Path = tuple[AbstractMove, ...]
Judge = Callable[[Path, Subject, bool], Figures]
"""Gives the figures of the subject that a path leads to: on the screen (True) or on all validation images."""


@dataclass(frozen=True, eq=False)
class Candidate:
    """The subject that a path of moves leads to, and its figures on the validation images."""

    path: Path
    subject: Subject
    figures: Figures


@dataclass(frozen=True, eq=False)
class TriedMove:
    """A move that was tried: after how many steps, its figures on the screen or why it is impossible, and its fate."""

    step: int
    move: AbstractMove
    before: Figures
    after: Figures | None
    said: str
    """``taken``, ``not allowed``, or the reason why it is impossible; empty if another move was better."""


@dataclass(eq=False)
class GreedySearch:
    """A greedy search under way. ``run`` yields every candidate that is taken, the original first.

    In each round the moves are tried on the screen, the most promising of the last round first, and the best by
    :meth:`AbstractGoal.worth` is judged on all validation images; it is taken if the goal allows it. Worths of earlier
    rounds order the trials, and a move is tried again only if it might still be the best (lazy greedy, Minoux 1978;
    exact if a move is never worth more after another than before it). No test image is in its reach.
    """

    goal: AbstractGoal
    prescriptions: Sequence[AbstractPrescription]
    splits: Splits
    judge: Judge
    give_up: float
    budget: int
    """Largest number of trials."""
    tried: list[TriedMove] = field(default_factory=list[TriedMove])
    _worth: dict[AbstractMove, float] = field(default_factory=dict[AbstractMove, float])
    _refused: set[AbstractMove] = field(default_factory=set[AbstractMove])

    def run(self, subject: Subject) -> Iterator[Candidate]:
        """Every candidate that is taken, one step after the other."""
        original = current = Candidate((), subject, self.judge((), subject, False))
        yield original
        refused = 0
        while refused < PATIENCE and len(self.tried) < self.budget:
            found = self._best(current)
            if found is None:
                return
            move, after = found
            judged = Candidate((*current.path, move), after, self.judge((*current.path, move), after, False))
            better = self.goal.cost(judged.figures) < self.goal.cost(current.figures)
            if better and self.goal.allows(original.figures, judged.figures, self.give_up, len(self.splits.test)):
                self._say(move, "taken")
                current, refused = judged, 0
                yield current
            else:
                self._say(move, "not allowed")
                self._refused.add(move)
                refused += 1

    def _best(self, current: Candidate) -> tuple[AbstractMove, Subject] | None:
        """The move that is worth most from here, with where it leads; None if none lowers the cost."""
        fresh, possible = dict[AbstractMove, Subject](), tuple(self._moves(current.subject))
        while len(self.tried) < self.budget:
            open_moves = [move for move in possible if move not in self._refused]
            if not open_moves:
                return None
            best = max(open_moves, key=lambda move: self._worth.get(move, float("inf")))
            if best in fresh:
                return (best, fresh[best]) if self._worth[best] > 0 else None
            self._try(best, current, fresh)
        return None

    def _moves(self, subject: Subject) -> Iterator[AbstractMove]:
        for prescription in self.prescriptions:
            yield from prescription.moves(subject)

    def _try(self, move: AbstractMove, current: Candidate, fresh: dict[AbstractMove, Subject]) -> None:
        before = self.judge(current.path, current.subject, True)
        try:
            subject = move.apply(current.subject, self.splits)
            after = self.judge((*current.path, move), subject, True)
        except UserError as error:
            self.tried.append(TriedMove(len(current.path), move, before, None, str(error)))
            self._refused.add(move)
            return
        self._worth[move], fresh[move] = self.goal.worth(before, after), subject
        self.tried.append(TriedMove(len(current.path), move, before, after, ""))

    def _say(self, move: AbstractMove, said: str) -> None:
        place = max(number for number, one in enumerate(self.tried) if one.move == move)
        one = self.tried[place]
        self.tried[place] = TriedMove(one.step, one.move, one.before, one.after, said)
