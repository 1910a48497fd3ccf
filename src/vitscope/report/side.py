"""The runs of a comparison: their labels, and whether they are moments of one training."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from string import ascii_lowercase

import numpy as np

from vitscope.measurement.errors import UserError
from vitscope.report.drawing.series import Style, styles
from vitscope.runs.run import Run

MOMENTS = ("epoch", "step")
"""Names of a checkpoint's place in its training, in the run's attributes, its spec or the model's name."""
_WRITTEN = re.compile(rf"({'|'.join(MOMENTS)})[-_ =]?(\d+)", re.IGNORECASE)
_LONGEST = 28


@dataclass(frozen=True)
class Side:
    """One of the runs that are compared. ``label`` names it in figures and tables, and is unique on a page."""

    run: Run
    label: str
    style: Style
    moment: float | None

    @property
    def model(self) -> str:
        """The model's name."""
        return str(self.run.spec.model.get("name", self.run.spec.verb))

    @property
    def units(self) -> int:
        """How many units it has; 0 if its anatomy is unknown."""
        return len(self.run.anatomy)


def sides(runs: Sequence[Run], labels: Sequence[str] | None = None) -> tuple[Side, ...]:
    """The runs in the order given, with their ``labels`` or labels that distinguish them.

    These are their moments in training if all have one, else a letter and the model, with what differs between runs of
    models of one name. Raises ``UserError`` if there is not one label for each run.
    """
    if labels is not None and (len(labels) != len(runs) or len(set(labels)) != len(runs)):
        raise UserError(f"{len(runs)} runs were given the labels {', '.join(labels)}; give each run its own label.")
    moments = [_moment(run) for run in runs]
    told = [moment for moment in moments if moment is not None]
    is_training = len(told) == len(runs) and len({name for name, _ in told}) == 1 and len(set(told)) == len(runs)
    looks = styles(len(runs), is_training)
    if is_training and labels is None:
        return tuple(
            Side(run, f"{name} {value:g}", look, value)
            for run, (name, value), look in zip(runs, told, looks, strict=True)
        )
    told_apart = labels or [f"{letter}: {name}" for letter, name in zip(ascii_lowercase, _names(runs), strict=False)]
    return tuple(Side(run, label, look, None) for run, label, look in zip(runs, told_apart, looks, strict=True))


def is_training(compared: Sequence[Side]) -> bool:
    """Whether the runs are moments of one training."""
    return all(side.moment is not None for side in compared)


def alike(runs: Iterable[Run]) -> bool:
    """Whether the models have the same kinds of unit in the same order, so that layers correspond."""
    plans = {tuple((unit["kind"], unit["stage"], unit["block"]) for unit in run.anatomy) for run in runs}
    return len(plans) == 1 and plans != {()}


def same_images(runs: Iterable[Run]) -> bool:
    """Whether all runs saw the same images, by their fingerprints."""
    seen = {str(run.spec.images.get("fingerprint", "")) for run in runs}
    return len(seen) == 1 and seen != {""}


def timeless(model: str) -> str:
    """A model's name without its moment in training."""
    return _WRITTEN.sub("", model).strip("-_ ,.") or model


def _names(runs: Sequence[Run]) -> list[str]:
    """The models' names, each with the first fact in which runs of that name differ."""
    facts = [(_short(run), *_facts(run)) for run in runs]
    named: list[str] = []
    for name, *own in facts:
        namesakes = [others for other, *others in facts if other == name]
        differing = (fact for place, fact in enumerate(own) if len({others[place] for others in namesakes}) > 1)
        named.append(", ".join(filter(None, (name, _cut(next(differing, ""))))))
    return named


def _facts(run: Run) -> tuple[str, ...]:
    """Facts that may distinguish two runs of one model, the most telling first."""
    model, images = run.spec.model, run.spec.images
    edits = model.get("edits", ())
    weights = str(model.get("weights", "")).rstrip("/").rpartition("/")[2]
    edited = " ".join(map(str, edits)) if isinstance(edits, list | tuple) else ""
    return weights, edited or "intact", str(images.get("name", "")), str(run.spec.settings.get("study", run.spec.verb))


def _short(run: Run) -> str:
    return _cut(str(run.spec.model.get("name", run.spec.verb)).rpartition("/")[2])


def _cut(name: str) -> str:
    return name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}…"


def _moment(run: Run) -> tuple[str, float] | None:
    attributes = {str(name): value for name, value in run.tree.attrs.items()}
    for source in (attributes, run.spec.settings, run.spec.model, run.provenance):
        found = _read_moment(source)
        if found:
            return found
    names = (str(run.spec.model.get(key, "")) for key in ("name", "weights"))
    written = (_WRITTEN.search(name) for name in names)
    return next(((match[1].lower(), float(match[2])) for match in written if match), None)


def _read_moment(source: Mapping[str, object]) -> tuple[str, float] | None:
    values = ((name, source.get(name)) for name in MOMENTS)
    found = ((name, value) for name, value in values if isinstance(value, int | float | np.integer))
    return next(((name, float(value)) for name, value in found), None)
