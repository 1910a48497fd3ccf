"""The lesion study: what every unit, block or head is needed for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Literal, final

from vitscope.data import Images
from vitscope.diagnostics.accuracy import Accuracy
from vitscope.engine.grid import STUDIES, AbstractStudy, Axis, StudyGrid, unit_axis
from vitscope.engine.plan import Plan
from vitscope.engine.reading.diagnostic import AnyDiagnostic
from vitscope.interventions.bypass import irremovable_layers, refuse_unknown
from vitscope.interventions.head_lesion import HeadLesion, head_counts, mean_contexts
from vitscope.interventions.lesion import Lesion, blocks_of, mean_branches
from vitscope.measurement.errors import UserError
from vitscope.measurement.ranges import parse_layers
from vitscope.models.subject import Composition, Subject


@STUDIES.add("lesion")
@final
@dataclass(frozen=True)
class LesionStudy(AbstractStudy):
    """What is lost when a residual unit is replaced by the identity, or by its branch's mean over the images.

    ``of`` says what is left out at a time: every ``unit``, every whole ``block``, or every ``head``. ``layers``
    (comma-separated numbers) are left out together, as one setting; with heads, those of these layers are left out one
    at a time. Downsampling and units whose shortcut is not the identity stay. ``mode="mean"`` takes the mean over the
    study's own images, in one more pass. Cost: for ``d`` units left out one at a time, about ``d (d + 1) / 2`` units
    instead of ``d (d - 1)``, since what precedes a lesion runs once.
    """

    name = "lesion"
    title = "Lesion study"
    question = "What does it depend on?"
    references = (
        "Park and Kim, How Do Vision Transformers Work?, ICLR 2022",
        "Veit, Wilber and Belongie, Residual Networks Behave Like Ensembles of Relatively Shallow Networks, "
        "NeurIPS 2016",
        "Bhojanapalli et al., Understanding Robustness of Transformers for Image Classification, ICCV 2021",
    )

    of: Literal["unit", "block", "head"] = "unit"
    """What is left out at a time: a unit, a whole block, or a head."""
    mode: Literal["identity", "mean"] = "identity"
    """What replaces it: the identity, or the mean of what it adds over the images."""
    layers: str | None = None
    """Layers to leave out together (comma-separated numbers); with heads, the layers whose heads are left out."""

    def grid(self, subject: Subject, images: Images, plan: Plan) -> StudyGrid:
        """A setting for each unit, block or head, or one for all ``layers``."""
        if self.of == "head":
            return self._heads(subject, images, plan)
        whole = {
            layer: (layer,) for layer in range(1, len(subject.places) + 1) if layer not in irremovable_layers(subject)
        }
        if self.layers is not None:
            chosen = parse_layers(self.layers)
            Lesion(chosen)(subject)  # says which of them cannot be left out, and why
            groups: Mapping[int, tuple[int, ...]] = {chosen[0]: chosen}
        else:
            groups = blocks_of(subject) if self.of == "block" else whole
        if not groups:
            reasons = "; ".join(dict.fromkeys(irremovable_layers(subject).values()))
            raise UserError(f"{subject.name} has no residual unit that can be left out{reasons and ': '}{reasons}.")
        every = tuple(sorted({layer for layers in groups.values() for layer in layers}))
        lesion = mean_branches(subject, images, every, plan.batch_size) if self.mode == "mean" else Lesion(every)
        return StudyGrid(
            (_axis(subject, tuple(groups.values())),), tuple((lesion.only(one),) for one in groups.values())
        )

    def _heads(self, subject: Subject, images: Images, plan: Plan) -> StudyGrid:
        counts = head_counts(subject)
        if self.layers is not None:
            refuse_unknown(parse_layers(self.layers), subject)
            counts = {layer: count for layer, count in counts.items() if layer in parse_layers(self.layers)}
        if not counts:
            raise UserError(f"{subject.name} has no attention that can be read there, so no head can be left out.")
        heads = tuple((layer, tuple(range(count))) for layer, count in counts.items())
        lesion = mean_contexts(subject, images, heads, plan.batch_size) if self.mode == "mean" else HeadLesion(heads)
        places = tuple(product(counts, range(max(counts.values()))))
        settings = tuple((lesion.only(layer, head),) if head < counts[layer] else None for layer, head in places)
        axis = Axis("lesion_head", tuple(range(max(counts.values()))), "Head left out")
        return StudyGrid(
            (unit_axis("lesion", tuple(counts), subject.places, "Unit whose head is left out"), axis), settings
        )

    def diagnostics(self) -> tuple[AnyDiagnostic, ...]:
        """Accuracy and the losses."""
        return (Accuracy(),)

    def notes(self, subject: Subject) -> tuple[str, ...]:
        """Which units stay, and why."""
        if self.of == "head":
            return ()
        reasons: dict[str, list[str]] = {}
        for layer, reason in irremovable_layers(subject).items():
            reasons.setdefault(reason, []).append(f"{subject.places[layer - 1].name} ({layer})")
        stay = tuple(f"Never left out, because {reason}: {', '.join(names)}." for reason, names in reasons.items())
        if isinstance(subject.anatomy, Composition):
            return stay
        return (*stay, "The other blocks returned their input when their weights were set to zero: they are residual.")


def _axis(subject: Subject, groups: Sequence[tuple[int, ...]]) -> Axis:
    """The axis over what is left out at a time, by its first layer."""
    first = unit_axis("lesion", [layers[0] for layers in groups], subject.places, "Unit left out")
    if all(len(layers) == 1 for layers in groups):
        return first
    places = subject.places
    names = [", ".join(places[layer - 1].name for layer in layers) for layers in groups]
    own = zip(groups, first.coordinates["lesion_kind"], strict=True)
    kinds = ["block" if len(layers) > 1 else kind for layers, kind in own]
    labels = {"lesion_unit": names, "lesion_kind": kinds}
    return Axis(first.name, first.values, "First of the units left out", "1", {**first.coordinates, **labels})
