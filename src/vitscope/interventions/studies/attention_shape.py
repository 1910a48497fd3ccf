"""The attention shape study: whether it matters where attention looks."""

from dataclasses import dataclass
from itertools import product
from typing import Literal, final

from vitscope.data import Images
from vitscope.diagnostics.accuracy import Accuracy
from vitscope.engine.grid import STUDIES, AbstractStudy, Axis, StudyGrid, unit_axis
from vitscope.engine.plan import Plan
from vitscope.engine.reading.diagnostic import AnyDiagnostic
from vitscope.interventions.attention_shape import AttentionShape, Shape
from vitscope.interventions.head_lesion import head_counts
from vitscope.measurement.errors import UserError
from vitscope.measurement.ranges import parse_numbers
from vitscope.models.subject import Subject


@STUDIES.add("attention-shape")
@final
@dataclass(frozen=True)
class AttentionShapeStudy(AbstractStudy):
    """What is lost when attention becomes a mean, the identity, or keeps to a neighbourhood of its query.

    ``shapes`` are ``uniform``, ``diagonal``, or both, separated by a comma; ``sizes`` the sides of square
    neighbourhoods, odd numbers, a list or start:stop:count; either may be empty. ``at`` says whether this is done to
    ``all`` attention units at once, or to ``each`` separately. Cost: a forward pass for each shape; with ``each``, the
    rest of the model after the unit, for each shape and unit.
    """

    name = "attention-shape"
    title = "Attention of another shape"
    question = "What does it depend on?"
    references = (
        "Park and Kim, How Do Vision Transformers Work?, ICLR 2022",
        "Ramachandran et al., Stand-Alone Self-Attention in Vision Models, NeurIPS 2019",
    )

    shapes: str = "uniform,diagonal"
    """uniform, diagonal, or both, separated by a comma; may be empty."""
    sizes: str = "3,5,7"
    """Sides of square neighbourhoods, odd: a list or start:stop:count; may be empty."""
    at: Literal["all", "each"] = "all"
    """Whether all attention units are changed at once, or each separately."""

    def grid(self, subject: Subject, images: Images, plan: Plan) -> StudyGrid:
        """A setting for each shape, or for each shape and attention unit."""
        del images, plan
        layers = tuple(head_counts(subject))
        if not layers:
            raise UserError(f"{subject.name} has no attention that can be read, so its shape cannot change.")
        found = self._shapes()
        axis = Axis("shape", tuple(found), "Attention replaced by")
        if self.at == "all":
            return StudyGrid((axis,), tuple((AttentionShape(shape, size),) for shape, size in found.values()))
        units = unit_axis("lesion", layers, subject.places, "Attention unit replaced")
        pairs = product(found.values(), layers)
        return StudyGrid(
            (axis, units), tuple((AttentionShape(shape, size, (layer,)),) for (shape, size), layer in pairs)
        )

    def _shapes(self) -> dict[str, tuple[Shape, int]]:
        """Shape and size by label."""
        found: dict[str, tuple[Shape, int]] = {}
        for name in filter(None, (part.strip() for part in self.shapes.split(","))):
            if name not in ("uniform", "diagonal"):
                raise UserError(f"{name!r} is not a shape; give uniform or diagonal, and neighbourhoods as sizes.")
            found[name] = (name, 1)
        for size in parse_numbers(self.sizes) if self.sizes.strip() else ():
            if size != int(size) or size < 1 or size % 2 == 0:
                raise UserError(f"A neighbourhood of {size:g} x {size:g} cells has no middle: give odd sizes.")
            found[f"{size:g} x {size:g}"] = ("neighbourhood", int(size))
        if not found:
            raise UserError("Neither shapes nor sizes were given: name at least one.")
        return found

    def diagnostics(self) -> tuple[AnyDiagnostic, ...]:
        """Accuracy and the losses."""
        return (Accuracy(),)
