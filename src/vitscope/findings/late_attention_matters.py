"""Where in the network attention matters most."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from typing_extensions import override

from vitscope.findings.finding import FINDINGS, AbstractFinding, Judgement, Outcome, Outcomes, undecided_outcome
from vitscope.findings.reading import ReadEntry, judge_below, read_lesions
from vitscope.measurement.claim import ClaimKind
from vitscope.measurement.exact import contrast
from vitscope.runs.run import Run


@FINDINGS.add("late-attention-matters")
@final
@dataclass(frozen=True)
class LateAttentionMatters(AbstractFinding):
    """Attention matters most at the end of a stage, or in the middle of a ViT that has no stages.

    Rule: leaving out an attention unit that ends a stage (the last of two or more of the stage) costs more accuracy
    than leaving out one of the others, on average and by the exact intervals. In a model without stages, the units of
    the middle third are compared with the others. Park and Kim 2022; for plain ViTs, an answer of their author in 2022.
    """

    name = "late-attention-matters"
    statement = "Attention matters most at the end of a stage, or in the middle of a ViT without stages."
    reference = "Park and Kim, How Do Vision Transformers Work?, ICLR 2022: lesion study"
    evidence = "lesion-accuracy/top1_change"
    again = "vitscope study lesion {examined} --limit {needed}"
    outcomes = Outcomes(
        holds=Outcome(
            ClaimKind.THEORY,
            0.4,
            statement,
            "As Park and Kim (2022) find. To make this model cheaper, remove or thin the other attention units first.",
        ),
        fails=Outcome(
            ClaimKind.THEORY,
            0.4,
            "Attention matters less at the end of a stage, or in the middle of a ViT without stages, than elsewhere.",
            "Park and Kim (2022) find the opposite: in this model the other attention units matter more.",
        ),
        undecided=undecided_outcome(
            "whether attention matters most at the end of a stage, or in the middle of a ViT without stages",
            ClaimKind.THEORY,
        ),
    )

    @property
    @override
    def rule(self) -> str:
        return (
            "Mean change of top-1 accuracy without one of those units, minus that without one of the other attention "
            "units, by the exact intervals of the images gained and lost, each at its share of the rate: holds below "
            "0, fails above."
        )

    def judge(self, run: Run, rate: float) -> Judgement | None:
        """Compare those units with the others; None below three attention units, or if none is singled out."""
        units = [entry for entry in read_lesions(run) if entry.kind == "attention"]
        chosen = _ends(units) if len({unit.stage for unit in units}) > 1 else units[len(units) // 3 : -len(units) // 3]
        others = [unit for unit in units if unit not in chosen]
        if len(units) < 3 or not chosen or not others:
            return None
        here, elsewhere = ([unit.estimate for unit in group] for group in (chosen, others))
        figure = (
            f"without layers {', '.join(str(unit.layer) for unit in chosen)}: {contrast(here).text} on average; "
            f"without one of the other {len(others)}: {contrast(elsewhere).text}"
        )
        return judge_below(contrast(here, elsewhere), 0.0, rate, figure)


def _ends(units: Sequence[ReadEntry]) -> list[ReadEntry]:
    """The last unit of every stage that has several."""
    stages = {unit.stage: [other for other in units if other.stage == unit.stage] for unit in units}
    return [members[-1] for members in stages.values() if len(members) > 1]
