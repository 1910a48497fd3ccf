"""Accuracy against the share of the patch tokens that continues, by one ranking or several."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import final

import torch

from vitscope.data import Images
from vitscope.diagnostics.accuracy import Accuracy
from vitscope.engine.grid import STUDIES, AbstractStudy, Axis, Fact, StudyGrid
from vitscope.engine.intervention import AbstractIntervention
from vitscope.engine.plan import Plan
from vitscope.engine.reading.diagnostic import AnyDiagnostic
from vitscope.engine.reading.operations import count_operations
from vitscope.interventions.token_keep import TokenKeep, kept_count
from vitscope.interventions.token_merge import TokenMerge
from vitscope.interventions.token_ranking import AbstractRanking, AtRandom, ByAttention, ByNorm, Worst
from vitscope.measurement.bounds import COUNT, bounded_field
from vitscope.measurement.errors import UserError
from vitscope.measurement.quantity import Quantity
from vitscope.measurement.ranges import parse_numbers
from vitscope.models.feed import quantised_layers, zero_image
from vitscope.models.stream import Stream
from vitscope.models.subject import Subject, Unwatched
from vitscope.models.unit import UnitKind

RANKINGS: Mapping[str, Callable[[int], AbstractRanking]] = MappingProxyType(
    {
        "attention": lambda seed: ByAttention(),
        "norm": lambda seed: ByNorm(),
        "random": AtRandom,
        "worst": lambda seed: Worst(ByAttention()),
    }
)
"""The rankings by their names in the study's field ``by``, as functions of a seed; ``merge`` is a further name."""
MERGE = "merge"

OPERATIONS = Quantity(
    "forward_operations",
    "Forward operations",
    "1e9 an image",
    "Multiplications and additions in matrix products and convolutions, in the forward pass of one image.",
    "Smaller is cheaper.",
)


@STUDIES.add("token-keep")
@final
@dataclass(frozen=True)
class TokenKeepStudy(AbstractStudy):
    """What is lost when only a share of the patch tokens continues from a unit on and the others are removed.

    ``keep`` are the shares (start:stop:count, or a list). ``by`` says which patches are kept; several comma-separated
    names make an axis of their own: ``attention`` (the most attended by the class token, or on average by all patches
    if there is none), ``norm`` (the largest), ``random`` (with ``seed``), ``worst`` (the least attended: a control),
    and ``merge`` (no patch is dropped, the most similar are merged in the first attention unit from there on).
    ``layer`` is the unit to start at (by default the first attention unit past a third of the units).

    Cost: a forward pass of each image for each share and name, with the remaining tokens; what precedes the unit runs
    once, and twice if ``random`` is among them. The results include ``forward_operations``.
    """

    name = "token-keep"
    title = "Patch tokens kept"
    question = "What can it lose?"
    references = (*TokenKeep.references, *TokenMerge.references)

    keep: str = "1.0:0.1:10"
    """Shares of the patch tokens: start:stop:count, or a list."""
    by: str = "attention"
    """attention, norm, random, worst or merge; several separated by commas."""
    layer: int | None = bounded_field(None, COUNT)
    """The unit to start at; by default the first attention unit past a third of the units."""
    seed: int = 0
    """Seed of the random ranking."""

    def grid(self, subject: Subject, images: Images, plan: Plan) -> StudyGrid:
        """A point for each share, and for each ranking if there are several."""
        del images, plan
        shares, names, layer = parse_numbers(self.keep), self._names(), self._layer(subject)
        entering, merging = _patches(subject, layer), _attention_from(subject, layer) if MERGE in names else None
        settings = tuple(
            (self._intervention(share, name, layer, entering, merging),) for share in shares for name in names
        )
        kept = {"keep_tokens": [kept_count(share, entering) for share in shares]}
        axes = (Axis("keep", shares, "Share of the patch tokens kept", "1", kept),)
        if len(names) > 1:
            axes = (*axes, Axis("ranking", names, "By what they are ranked"))
        if quantised_layers(subject.module):
            return StudyGrid(axes, settings)  # PyTorch has no formulas for their operations
        operations = tuple(_operations(setting[0](subject)) for setting in settings)
        return StudyGrid(axes, settings, (Fact(OPERATIONS, operations, _operations(subject)),))

    def _names(self) -> tuple[str, ...]:
        names = tuple(dict.fromkeys(name.strip() for name in self.by.split(",")))
        unknown = next((name for name in names if name not in RANKINGS and name != MERGE), None)
        if unknown is not None:
            raise UserError(f"Tokens cannot be ranked by {unknown!r}; name some of {', '.join((*RANKINGS, MERGE))}.")
        return names

    def _intervention(
        self, share: float, name: str, layer: int, entering: int, merging: int | None
    ) -> AbstractIntervention:
        """Keep the share of the ``entering`` patches, or merge the others in the unit ``merging``."""
        if name == MERGE and merging is not None:
            return TokenMerge(entering - kept_count(share, entering), (merging,))
        return TokenKeep(share, layer, RANKINGS[name](self.seed))

    def _layer(self, subject: Subject) -> int:
        count = len(subject.places)
        if self.layer is None:
            return _attention_from(subject, count // 3 + 1)
        if not 1 <= self.layer <= count:
            raise UserError(f"{subject.name} has layers 1 to {count}; there is no layer {self.layer}.")
        return self.layer

    def diagnostics(self) -> tuple[AnyDiagnostic, ...]:
        """Accuracy and the losses."""
        return (Accuracy(),)

    def notes(self, subject: Subject) -> tuple[str, ...]:
        """The unit it starts at, and how many of the patches are kept."""
        layer, shares = self._layer(subject), parse_numbers(self.keep)
        entering, place = _patches(subject, layer), subject.places[layer - 1].name
        fewest, most = (kept_count(share, entering) for share in (min(shares), max(shares)))
        merge = subject.places[_attention_from(subject, layer) - 1].name if MERGE in self._names() else None
        return (
            f"From {place} (layer {layer}) on, {fewest} to {most} of {entering} patch tokens are kept; "
            "class and register tokens always are.",
            *(("The operations of its quantised layers are not counted.",) if quantised_layers(subject.module) else ()),
            *(() if merge is None else (f"Merging is done in {merge}, between attention and what follows it.",)),
        )


def _attention_from(subject: Subject, layer: int) -> int:
    places = enumerate(subject.places, start=1)
    found = next((number for number, place in places if number >= layer and place.kind is UnitKind.ATTENTION), None)
    if found is None:
        raise UserError(f"{subject.name} has no attention unit from layer {layer} on, so there is nothing to rank by.")
    return found


@dataclass
class _Watch(Unwatched):
    """Counts the patches after a layer."""

    layer: int
    patches: int = 0

    def stream(self, layer: int, stream: Stream) -> None:
        """Count the patches after the layer."""
        if layer == self.layer:
            self.patches = stream.patches.shape[1]


def _patches(subject: Subject, layer: int) -> int:
    """How many patches enter the layer. Cost: a forward pass of one image."""
    watch = _Watch(layer - 1)
    with torch.no_grad():
        subject.anatomy.walk(zero_image(subject.module, subject.preprocessing.shape), watch)
    return watch.patches


def _operations(subject: Subject) -> float:
    """Operations of one image's forward pass, in 1e9."""
    image = zero_image(subject.module, subject.preprocessing.shape)
    with count_operations() as operations:
        subject.anatomy.walk(image, Unwatched())
    return operations.total / 1e9
