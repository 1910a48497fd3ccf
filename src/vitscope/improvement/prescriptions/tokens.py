"""Fewer patch tokens from some unit on."""

from dataclasses import dataclass, replace
from typing import final

from typing_extensions import override

from vitscope.improvement.prescription import PRESCRIPTIONS, AbstractMove, AbstractPrescription
from vitscope.improvement.splits import Splits
from vitscope.interventions.token_keep import TokenKeep
from vitscope.interventions.token_ranking import AbstractRanking, AtRandom, ByAttention
from vitscope.measurement.errors import UserError
from vitscope.models.subject import Subject
from vitscope.models.unit import UnitKind


@final
@dataclass(frozen=True)
class KeepFewer(AbstractMove):
    """Keep a share of the patch tokens from one layer on."""

    layer: int
    share: float
    by: AbstractRanking

    @property
    @override
    def label(self) -> str:
        return f"keep {self.share:.0%} of the patch tokens from unit {self.layer} on, by {self.by.label}"

    @override
    def apply(self, subject: Subject, splits: Splits) -> Subject:
        return TokenKeep(self.share, self.layer, self.by)(subject)

    @override
    def at_random(self, subject: Subject, seed: int) -> AbstractMove:
        return replace(self, by=AtRandom(seed))


@PRESCRIPTIONS.add("tokens")
@final
@dataclass(frozen=True)
class FewerTokens(AbstractPrescription):
    """Drop the patch tokens that are attended least, at an attention unit of every third block.

    Tokens are kept in shares, one after the other, so the schedule over depth is chosen step by step. No unit of the
    first sixth of the model is tried: there attention does not say yet what matters.
    """

    shares: tuple[float, ...] = (0.9, 0.75)
    name = "tokens"
    title = "Fewer tokens"
    goals = frozenset({"faster"})
    findings = frozenset({"tokens-to-spare"})
    references = (
        "Liang et al., Not All Patches Are What You Need, ICLR 2022",
        "Rao et al., DynamicViT, NeurIPS 2021",
    )

    @override
    def moves(self, subject: Subject) -> tuple[AbstractMove, ...]:
        attending = [n for n, place in enumerate(subject.places, start=1) if place.kind is UnitKind.ATTENTION]
        late = [layer for layer in attending if layer > len(subject.places) / 6]
        tried = [KeepFewer(layer, share, ByAttention()) for layer in late[::2] for share in self.shares]
        return tuple(move for move in tried if _possible(move, subject))


def _possible(move: KeepFewer, subject: Subject) -> bool:
    try:
        TokenKeep(move.share, move.layer, move.by)(subject)
    except UserError:
        return False
    return True
