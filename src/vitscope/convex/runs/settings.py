"""The settings of a convex head's fit, and the estimator that they make."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, cast

from vitscope.measurement.errors import UserError

if TYPE_CHECKING:
    from vitscope.convex.estimator import AbstractConvexClassifier

Beta = float | Literal["auto"]
"""Weight of the penalty, or its choice on images held out."""


@dataclass(frozen=True)
class HeadSettings:
    """What all convex heads share; each field is a flag of ``vitscope head``."""

    activation: Literal["linear", "gated-relu", "relu"] = "gated-relu"
    """The activation between a head's two maps: none, a ReLU whose gates are drawn by --seed, or the ReLU itself, whose
    certificate is heuristic."""
    gates: int = 4
    """Number of gates of the gated ReLU. Time and memory grow with them: an attention head on 2,000 images of 49 tokens
    of width 64 takes about 12 seconds a gate on one core (6 in all with the linear activation)."""
    tol: float = 1e-2
    """Certified relative gap at which a fit ends: 1e-2 is too small to show in the accuracy."""
    betas: int = 20
    """Values of beta on a path, from the largest that leaves any head down to a thousandth of it; each takes a fit, the
    small ones longest."""
    ensemble: int = 1
    """Draws of gates, fitted one after another, whose outputs are averaged: each takes the time of a fit."""
    class_weight: Literal["balanced", "none"] = "none"
    """Whether every class gets the same share of the loss, however many images it has."""
    validation: float = 0.2
    """Share of the training images held out to choose beta."""
    max_passes: int = 2000
    """Passes over the images after which a fit ends, certified or not."""

    def check(self, kinds: Sequence[str], beta: Beta = "auto") -> None:
        """Raise ``UserError`` for settings that are wrong whatever the tokens, before any are extracted."""
        for kind in kinds:
            self.estimator(kind, beta, seed=0, grid=None, device="cpu").check()

    def estimator(
        self, kind: str, beta: Beta, *, seed: int, grid: tuple[int, int] | None, device: str
    ) -> "AbstractConvexClassifier":
        """The classifier of that kind, not yet fitted; ``grid`` is that of the tokens, for the kinds that take one."""
        from vitscope.convex.block import BLOCKS

        block = BLOCKS[kind]
        values = asdict(self)
        weight = values.pop("class_weight")
        values |= {"beta": beta, "random_state": seed, "device": device}
        values["class_weight"] = None if weight == "none" else weight
        if "grid" in block.options():
            values["grid"] = grid
        return cast("AbstractConvexClassifier", cast(Any, block.estimators()[0])(**values))


def all_kinds() -> tuple[str, ...]:
    """The names of all kinds of head, those that do not mix tokens first."""
    from vitscope.convex.block import BLOCKS

    return tuple(sorted(BLOCKS, key=lambda name: BLOCKS[name].mixes))


def parse_beta(text: str) -> Beta:
    """A number above 0, or ``auto``."""
    if text == "auto":
        return "auto"
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise UserError(f"--beta takes a number above 0 or auto, not {text!r}.")
    return value
