"""Whether the last stage is low-pass or high-pass."""

from dataclasses import dataclass
from typing import final

from typing_extensions import override

from vitscope.findings.finding import FINDINGS, AbstractFinding, Judgement, Outcome, Outcomes, undecided_outcome
from vitscope.findings.reading import judge_below, read_entries
from vitscope.measurement.claim import ClaimKind
from vitscope.measurement.estimate import difference, z_text
from vitscope.runs.run import Run


@FINDINGS.add("low-pass-in-depth")
@final
@dataclass(frozen=True)
class LowPassInDepth(AbstractFinding):
    """High spatial frequencies fade from the first to the last unit of the last stage.

    If the network has one stage, that is all of it. It then ends as a low-pass filter, as vision transformers do in
    the paper and convolutional networks do not. No claim is made about a model that is read at its blocks, whose
    stages are unknown.

    Rule: holds if the relative log amplitude at the highest frequency after the stage's last unit, minus that after
    its first, is significantly below 0; fails (high-pass) if it is above 0. Park and Kim 2022, figures 2a and 8.
    """

    name = "low-pass-in-depth"
    statement = (
        "From the first to the last unit of its last stage the network removes high spatial frequencies (low-pass)."
    )
    reference = (
        "Park and Kim, How Do Vision Transformers Work?, ICLR 2022, figures 2a and 8: ViTs are low-pass, CNNs high-pass"
    )
    evidence = "fourier-spectrum/at_highest_frequency"
    outcomes = Outcomes(
        holds=Outcome(
            ClaimKind.THEORY,
            0.5,
            "High spatial frequencies fade over the last stage: the network ends as a low-pass filter.",
            "As Park and Kim (2022) find for ViTs. They suggest convolutions before attention within a stage "
            "(AlterNet) to use both filters; only training can tell whether that helps this model.",
        ),
        fails=Outcome(
            ClaimKind.THEORY,
            0.5,
            "High spatial frequencies grow over the last stage: the network ends as a high-pass filter.",
            "As Park and Kim (2022) find for CNNs, for which they suggest an attention unit at the end of a stage "
            "(AlterNet); only training can tell whether that helps this model.",
        ),
        undecided=undecided_outcome(
            "whether high spatial frequencies fade or grow over the last stage", ClaimKind.THEORY, 0.15
        ),
    )

    @property
    @override
    def rule(self) -> str:
        return (
            "Change of the relative log amplitude at the highest frequency from after the first to after the last "
            "unit of the last stage, t-test over images with the sum of both standard errors: holds below 0, fails "
            "above 0."
        )

    def judge(self, run: Run, rate: float) -> Judgement | None:
        """Judge the sign of the change; None if the last stage has fewer than two spectra, or is a guess."""
        entries = [entry for entry in read_entries(run, self.evidence) if entry.layer > 0]
        units = [entry for entry in entries if entry.stage == entries[-1].stage]
        if len(units) < 2 or any(unit.kind == "block" for unit in units):
            return None
        change = difference(units[-1].estimate, units[0].estimate)
        places = f"from layer {units[0].layer} ({units[0].unit}) to layer {units[-1].layer} ({units[-1].unit})"
        return judge_below(change, 0.0, rate, f"{change.text} {places} ({z_text(change)})")
