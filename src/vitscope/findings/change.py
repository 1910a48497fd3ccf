"""How units of a kind change a feature map on average: the change of a quantity across them."""

from collections.abc import Collection, Sequence

from vitscope.findings.finding import Judgement
from vitscope.findings.reading import ReadEntry, judge_above, judge_below, read_entries
from vitscope.measurement.claim import Verdict
from vitscope.measurement.estimate import above, average, z_text
from vitscope.runs.run import Run

MIXING = frozenset({"attention"})
"""Units that the paper calls MSA."""
TRANSFORMING = frozenset({"mlp", "convolution"})
"""Units that the paper calls Conv and MLP."""


def changes(run: Run, name: str, kinds: Collection[str]) -> tuple[ReadEntry, ...]:
    """A quantity's change across every unit of these kinds, each with the error of the change itself.

    Downsampling, which changes the grid, is never among them.
    """
    return tuple(entry for entry in read_entries(run, name) if entry.kind in kinds)


def judge_fall(found: Sequence[ReadEntry], rate: float, noun: str) -> Judgement | None:
    """Holds if the mean change is below 0 and more than half of the units fall; fails in the reverse case."""
    return _judge(found, rate, -1, f"{noun} lower it")


def judge_rise(found: Sequence[ReadEntry], rate: float, noun: str) -> Judgement | None:
    """Holds if the mean change is above 0 and more than half of the units rise; fails in the reverse case."""
    return _judge(found, rate, 1, f"{noun} raise it")


def _judge(found: Sequence[ReadEntry], rate: float, sign: int, text: str) -> Judgement | None:
    if not found:
        return None
    mean = average([change.estimate for change in found])
    with_it = sum(change.estimate.mean * sign > 0 for change in found)
    against = sum(change.estimate.mean * sign < 0 for change in found)
    figure = f"mean change {mean.text} ({z_text(mean)}), {with_it} of {len(found)} {text}"
    judged = judge_above if sign > 0 else judge_below
    judgement = judged(mean, 0.0, rate, figure, max(with_it, against) / len(found))
    if 2 * (with_it if mean.mean * sign > 0 else against) > len(found):
        return judgement
    within = sum(above(change.estimate, 0.0, rate) is Verdict.UNDECIDED for change in found)
    obstacle = (
        f"More images {'are unlikely to' if within else 'cannot'} decide it: {with_it} of {len(found)} {text}, and "
        "the rule needs a majority that agrees with the mean. Read the figure unit by unit instead."
    )
    return Judgement(Verdict.UNDECIDED, figure, judgement.strength, obstacle=obstacle)
