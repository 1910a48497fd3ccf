"""What units of a kind do to a feature map on average: the change of a quantity across them."""

from collections.abc import Callable, Collection, Sequence

from vitscope.findings.finding import Judgement
from vitscope.findings.reading import Entry, read_entries
from vitscope.measurement.claim import Verdict
from vitscope.measurement.estimate import FALSE_ALARMS, Estimate, above, average, below, z_text
from vitscope.runs.run import Run

MIXING = frozenset({"attention"})
"""Units that the paper calls MSA."""
TRANSFORMING = frozenset({"mlp", "convolution"})
"""Units that the paper calls Conv and MLP."""


def changes(run: Run, name: str, kinds: Collection[str]) -> tuple[Entry, ...]:
    """A quantity's change across every unit of these kinds, each with the error of the change itself.

    Downsampling, which changes the grid, is never among them.
    """
    return tuple(entry for entry in read_entries(run, name) if entry.kind in kinds)


def judged_fall(found: Sequence[Entry], noun: str) -> Judgement | None:
    """Holds where the mean change is below 0 and more than half of the units fall; fails the other way round."""
    return _judged(found, below, -1, f"{noun} lower it")


def judged_rise(found: Sequence[Entry], noun: str) -> Judgement | None:
    """Holds where the mean change is above 0 and more than half of the units rise; fails the other way round."""
    return _judged(found, above, 1, f"{noun} raise it")


def _judged(
    found: Sequence[Entry], test: Callable[[Estimate, float, float], Verdict], sign: int, text: str
) -> Judgement | None:
    if not found:
        return None
    mean = average([change.estimate for change in found])
    with_it = sum(change.estimate.mean * sign > 0 for change in found)
    against = sum(change.estimate.mean * sign < 0 for change in found)
    verdict = test(mean, 0.0, FALSE_ALARMS)
    agreeing = {Verdict.HOLDS: with_it, Verdict.FAILS: against, Verdict.UNDECIDED: 0}[verdict]
    if 2 * agreeing <= len(found):
        verdict = Verdict.UNDECIDED
    figure = f"mean change {mean.text} ({z_text(mean)}), {with_it} of {len(found)} {text}"
    return Judgement(verdict, figure, max(with_it, against) / len(found))
