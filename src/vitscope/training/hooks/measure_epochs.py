"""Diagnostics every few epochs, each a run beside the training's."""

from dataclasses import dataclass
from typing import final

from vitscope.data.image import Images
from vitscope.engine.measure import AsMeasurable, Measurement, measure
from vitscope.engine.plan import Plan
from vitscope.measurement.bounds import COUNT, bounded_field, check_bounds
from vitscope.training.hook import HOOKS, AbstractHook, Epoch


@HOOKS.add("measure-epochs")
@final
@dataclass(frozen=True)
class MeasureEpochs(AbstractHook):
    """Measures the diagnostics after every ``every`` epochs, into ``epoch-NNN`` of the training's folder.

    Cost: that of :func:`~vitscope.engine.measure.measure` each time.
    """

    images: Images
    """The images to measure on; not the test images, unless they may be seen more than once."""
    diagnostics: tuple[AsMeasurable, ...]
    """As ``measure`` takes them: names or values."""
    every: int = bounded_field(1, COUNT)
    """Epochs from one measurement to the next."""

    name = "measure-epochs"

    def __post_init__(self) -> None:
        check_bounds(self)

    def facts(self) -> dict[str, object]:
        """The images by their fingerprint, the diagnostics by names and settings."""
        named = [one if isinstance(one, str) else repr(one) for one in self.diagnostics]
        return {"name": self.name, "images": self.images.fingerprint, "diagnostics": named, "every": self.every}

    def finish_epoch(self, epoch: Epoch) -> None:
        """Measure if it is due; a run that exists already stays as it is."""
        if epoch.number % self.every == 0:
            asked = Measurement.of(epoch.subject(), self.images, self.diagnostics)
            folder = epoch.folder / f"epoch-{epoch.number:03d}"
            measure(asked.subject, self.images, asked.diagnostics, Plan(folder=folder, resume=True))
