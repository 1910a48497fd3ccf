"""Accuracy as ever more of the smallest weights are set to zero."""

from dataclasses import dataclass
from typing import Literal, final

from vitscope.data import Images
from vitscope.diagnostics.accuracy import Accuracy
from vitscope.engine.grid import STUDIES, AbstractStudy, Axis, StudyGrid
from vitscope.engine.plan import Plan
from vitscope.engine.reading.diagnostic import AnyDiagnostic
from vitscope.interventions.weight_prune import WeightPrune
from vitscope.measurement.ranges import parse_numbers
from vitscope.models.rewritten import kernels_of, refuse_computed_kernels
from vitscope.models.subject import Subject


@STUDIES.add("weight-prune")
@final
@dataclass(frozen=True)
class WeightPruneStudy(AbstractStudy):
    """What is lost when the weights of least magnitude are set to zero, without training again.

    ``sparsity`` is the share of the entries of all matrices and kernels that is zero (start:stop:count, or a list);
    they are chosen among all of them together (``scope`` global) or in each separately (``layer``). Cost: a forward
    pass of each image for each sparsity.
    """

    name = "weight-prune"
    title = "Pruned weights"
    question = "What can it lose?"
    references = ("Han et al., Learning both Weights and Connections for Efficient Neural Networks, NeurIPS 2015",)

    sparsity: str = "0:0.9:10"
    """Shares of the weights: start:stop:count, or a list."""
    scope: Literal["global", "layer"] = "global"
    """Whether the smallest of all weights go, or the smallest of each matrix and kernel."""

    def grid(self, subject: Subject, images: Images, plan: Plan) -> StudyGrid:
        """A subject with fewer weights for each sparsity."""
        del images, plan
        refuse_computed_kernels(subject)
        shares = parse_numbers(self.sparsity)
        return StudyGrid(
            (Axis("sparsity", shares, "Share of the weights that is zero"),),
            tuple((WeightPrune(share, self.scope),) for share in shares),
        )

    def diagnostics(self) -> tuple[AnyDiagnostic, ...]:
        """Accuracy and the losses."""
        return (Accuracy(),)

    def notes(self, subject: Subject) -> tuple[str, ...]:
        """How many weights there are to prune, and what is left alone."""
        kernels = kernels_of(subject)
        entries, everything = sum(kernel.numel() for kernel in kernels.values()), subject.parameter_count
        return (
            f"The share is of the {entries} entries of {len(kernels)} matrices and kernels, "
            f"{entries / max(everything, 1):.1%} of all weights, the stem's and the classifier's among them; "
            "biases, norms, tokens and position embeddings are not pruned.",
        )
