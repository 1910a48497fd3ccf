"""Accuracy under the common corruptions, level by level."""

from dataclasses import dataclass
from itertools import product
from typing import cast, final

from vitscope.data import Images
from vitscope.diagnostics.accuracy import Accuracy
from vitscope.engine.grid import STUDIES, AbstractStudy, Axis, StudyGrid
from vitscope.engine.plan import Plan
from vitscope.engine.reading.diagnostic import AnyDiagnostic
from vitscope.interventions.common_corruptions.severity import KINDS, Scale, scale_for
from vitscope.interventions.corruption import Corruption, Kind
from vitscope.measurement.errors import UserError
from vitscope.measurement.ranges import parse_numbers
from vitscope.models.subject import Subject

_SETS = {"cifar": "CIFAR-10-C", "tiny-imagenet": "Tiny-ImageNet-C", "imagenet": "ImageNet-C"}


@STUDIES.add("corruption")
@final
@dataclass(frozen=True)
class CorruptionStudy(AbstractStudy):
    """What is lost under each common corruption of Hendrycks and Dietterich, at each level of severity.

    ``kinds`` are comma-separated names, or ``all`` fifteen; ``severities`` are levels from 1 to 5 (start:stop:count or
    a list). The mean corruption error, not divided by a baseline model's, is one minus the mean of the top-1 accuracy
    over both axes. Cost: a forward pass of each image for each of the (75) points, and 0.1 to 50 ms for its corruption;
    five kinds at severities 1,3,5 cost a fifth of it.
    """

    name = "corruption"
    title = "Common corruptions"
    question = "What does it depend on?"
    references = (
        "Hendrycks and Dietterich, Benchmarking Neural Network Robustness to Common Corruptions and Perturbations, "
        "ICLR 2019",
    )

    kinds: str = "all"
    """Names separated by commas, or all fifteen."""
    severities: str = "1:5:5"
    """Levels from 1 to 5: start:stop:count, or a list."""
    scale: Scale = "auto"
    """The published set whose strengths are used; auto chooses by the size of the images."""
    seed: int = 0
    """Seed of what is random in a corruption."""

    def grid(self, subject: Subject, images: Images, plan: Plan) -> StudyGrid:
        """A point for each kind and level. Raises ``UserError`` naming an unknown kind or level."""
        del subject, images, plan
        kinds = KINDS if self.kinds == "all" else tuple(kind.strip() for kind in self.kinds.split(","))
        if unknown := [kind for kind in kinds if kind not in KINDS]:
            raise UserError(f"There is no common corruption named {unknown[0]!r}; there are: {', '.join(KINDS)}.")
        levels = parse_numbers(self.severities)
        if wrong := [level for level in levels if level not in range(1, 6)]:
            raise UserError(f"{self.severities!r} holds a severity of {wrong[0]:g}; there are five levels, 1 to 5.")
        severities = tuple(int(level) for level in levels)
        axes = (Axis("corruption", kinds, "Corruption"), Axis("severity", severities, "Severity"))
        settings = tuple(
            (Corruption(cast(Kind, kind), severity, self.scale, self.seed),)
            for kind, severity in product(kinds, severities)
        )
        return StudyGrid(axes, settings)

    def diagnostics(self) -> tuple[AnyDiagnostic, ...]:
        """Accuracy and the losses."""
        return (Accuracy(),)

    def notes(self, subject: Subject) -> tuple[str, ...]:
        """Whose parameters are used, and how the results differ from the published sets."""
        side = min(subject.preprocessing.shape[1:])
        chosen = scale_for(side) if self.scale == "auto" else self.scale
        return (
            f"Severities are those of {_SETS[chosen]}. Frost is drawn, not photographed, so its figures can be "
            "compared with one another only.",
            "The mean corruption error, not divided by a baseline's, is 1 - the mean top-1 accuracy over corruptions "
            "and severities.",
        )
