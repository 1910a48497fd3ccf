"""Runs over the same images compared image by image, from the scores that they store."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import cast

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float, Int

from vitscope.engine.reading.scores import SCORES, UNKNOWN
from vitscope.measurement.estimate import Estimate
from vitscope.measurement.exact import SHOWN, PairedShare
from vitscope.measurement.paired import change_of_means, change_of_shares
from vitscope.report.number import error_places, format_signed, plain
from vitscope.report.side import Side
from vitscope.runs.run import Run

NAMED = 12
"""Most images that are named of those gained, and of those lost."""
_TOP = 5


@dataclass(frozen=True, eq=False)
class Pairing:
    """Two runs' scores of the same images, in the same order; ``after`` is compared with ``before``."""

    before: str
    after: str
    first: xr.Dataset
    second: xr.Dataset

    @property
    def count(self) -> int:
        """How many images both have scores for."""
        return self.first.sizes["image"]

    @cached_property
    def right(self) -> PairedShare:
        """The change of top-1 accuracy."""
        return change_of_shares(_right(self.first), _right(self.second))

    @cached_property
    def loss(self) -> Estimate:
        """The change of the mean negative log-likelihood in nats, over images for which both are finite."""
        return change_of_means(self.first["loss"].values, self.second["loss"].values)

    @cached_property
    def confidence(self) -> Estimate:
        """The change of the mean confidence."""
        return change_of_means(self.first["confidence"].values, self.second["confidence"].values)

    @cached_property
    def changes(self) -> Mapping[str, Estimate]:
        """The changes by the addresses of their quantities."""
        sure = [one["confidence"].values for one in (self.first, self.second)]
        over = [one - _right(of).astype(one.dtype) for one, of in zip(sure, (self.first, self.second), strict=True)]
        within = [_within(one, _TOP) for one in (self.first, self.second)]
        found: dict[str, Estimate] = {
            "accuracy/top1": self.right,
            "accuracy/nll": self.loss,
            "calibration/overconfidence": change_of_means(*over),
        }
        if within[0] is not None and within[1] is not None:
            found["accuracy/top5"] = change_of_shares(within[0], within[1])
        return found

    @property
    def sentences(self) -> tuple[str, ...]:
        """The differences in accuracy, loss and confidence, in words."""
        return (self._of_accuracy, self._of("negative log-likelihood", self.loss, " nats"), self._of_confidence)

    @property
    def _of_accuracy(self) -> str:
        right, (low, high) = self.right, self.right.interval(SHOWN)
        told = f" is right on the same images as {self.before}"
        if right.gained + right.lost:
            gained, lost = (f"{_images(one)} that {self.before} gets" for one in (right.gained, right.lost))
            told = f" is right on {gained} wrong, and wrong on {lost} right"
        points = [format_signed(100 * one, 2) for one in (right.mean, low, high)]
        chance = f"p = {right.p_value:.2g} (McNemar's exact test)"
        return (
            f"{self.after}{told}: {points[0]} points of accuracy over {self.count:,} images, "
            f"95 % interval {points[1]} to {points[2]}; {chance}."
        )

    @property
    def _of_confidence(self) -> str:
        return self._of("confidence", self.confidence, "")

    def _of(self, name: str, change: Estimate, unit: str) -> str:
        low, high = change.interval(SHOWN)
        if not np.isfinite(change.mean):
            return f"Its mean {name} cannot be compared: no image has a finite value in both."
        if not np.isfinite(low):
            return f"Its mean {name} differs by {plain(change.mean)}{unit}, the same on every image."
        numbers = (change.mean, change.error, low, high)
        mean, error, *ends = (format_signed(one, error_places(change.error)) for one in numbers)
        return f"Its mean {name} differs by {mean} ± {error.lstrip('+')}{unit}, 95 % interval {ends[0]} to {ends[1]}."

    @property
    def gained(self) -> tuple[str, ...]:
        """The first of the images on which only ``after`` is right, by name."""
        return self._name_images(~_right(self.first) & _right(self.second))

    @property
    def lost(self) -> tuple[str, ...]:
        """The first of the images on which only ``before`` is right, by name."""
        return self._name_images(_right(self.first) & ~_right(self.second))

    def _name_images(self, which: Bool[np.ndarray, " images"]) -> tuple[str, ...]:
        return tuple(map(str, self.first["picture"].values[which][:NAMED]))


@dataclass(frozen=True)
class Pairings:
    """The first run paired with each of the others, None for those that cannot be paired, and why not."""

    each: tuple[Pairing | None, ...]
    refusals: tuple[str, ...]

    @property
    def found(self) -> tuple[Pairing, ...]:
        """The pairings that could be made."""
        return tuple(one for one in self.each if one is not None)

    def errors(self, address: str) -> tuple[float | None, ...]:
        """The paired standard error of each other run's difference in a quantity; None if unknown."""
        changes = [None if one is None else one.changes.get(address) for one in self.each]
        return tuple(None if one is None or not np.isfinite(one.error) else one.error for one in changes)

    @property
    def paired_addresses(self) -> tuple[str, ...]:
        """The addresses of the quantities whose differences have paired errors."""
        return tuple(dict.fromkeys(address for one in self.found for address in one.changes))


def pair(compared: Sequence[Side]) -> Pairings:
    """The first run paired with each of the others, image by image."""
    first, *others = compared
    names = _spoken(compared)
    each: list[Pairing | None] = []
    refusals: list[str] = []
    for other, name in zip(others, names[1:], strict=True):
        reason = _why_not((first, names[0]), (other, name))
        if reason:
            refusals.append(reason)
            each.append(None)
        else:
            each.append(Pairing(names[0], name, *_align(_scores(first.run), _scores(other.run))))
    return Pairings(tuple(each), tuple(dict.fromkeys(refusals)))


def pair_models(run: Run) -> tuple[Pairing, ...]:
    """The first model of a run of several paired with each of the others; empty without scores of several models."""
    if SCORES not in run or "subject" not in _scores(run).dims:
        return ()
    scores = _scores(run)
    first, *others = map(str, scores["subject"].values)
    of = {name: scores.sel(subject=name) for name in (first, *others)}
    return tuple(Pairing(first, other, of[first], of[other]) for other in others)


def subjects_of(run: Run) -> dict[str, str]:
    """A description of each model of a run of several, by its label; empty for a run of one."""
    models = run.spec.model.get("subjects")
    if not isinstance(models, Mapping):
        return {}
    found: dict[str, str] = {}
    for label, model in cast(Mapping[str, Mapping[str, object]], models).items():
        edits = model.get("edits", ())
        parts = (model.get("family"), f"{model.get('parameters', 0):,} parameters", model.get("input"), edits)
        found[label] = ", ".join(str(part) for part in parts if part)
    return found


def _spoken(compared: Sequence[Side]) -> list[str]:
    """The runs' names in sentences: their labels, without the letters if they still differ."""
    bare = [side.label.partition(": ")[2] or side.label for side in compared]
    return bare if len(set(bare)) == len(bare) else [side.label for side in compared]


def _why_not(*pair: tuple[Side, str]) -> str:
    """Why two runs, of these names, cannot be compared image by image, in a sentence; empty if they can."""
    first, other = (side for side, _ in pair)
    begin = f"{pair[0][1]} and {pair[1][1]} cannot be compared image by image: "
    for side, name in pair:
        if SCORES not in side.run:
            return f"{begin}the run of {name} holds no scores of single images; measure its accuracy again."
        if _scores(side.run)["label"].dims != ("image",):
            return f"{begin}the run of {name} is of several models itself."
    seen = [_fingerprint(side.run) for side in (first, other)]
    if seen[0] != seen[1]:
        names = [str(side.run.spec.images.get("name", "unnamed images")) for side in (first, other)]
        counts = [f"{_scores(side.run).sizes['image']:,}" for side in (first, other)]
        what = f"{counts[0]} images of {names[0]} and {counts[1]} of {names[1]}, whose fingerprints differ"
        return f"{begin}they saw different images, or the same images with other labels ({what})."
    one, two = _align(_scores(first.run), _scores(other.run))
    if not one.sizes["image"]:
        return f"{begin}no image could be read in both."
    if any((one[name].values != two[name].values).any() for name in ("picture", "label")):
        return f"{begin}their images have different names or labels."
    return ""


def _fingerprint(run: Run) -> str:
    """The fingerprint of the images of the scores; one that matches nothing if it is unknown."""
    own = _scores(run).attrs.get("fingerprint", run.spec.images.get("fingerprint"))
    return str(own) if own else f"unknown, {id(run)}"


def _scores(run: Run) -> xr.Dataset:
    return run.tree[SCORES].to_dataset()


def _align(first: xr.Dataset, second: xr.Dataset) -> tuple[xr.Dataset, xr.Dataset]:
    """The scores of the images that could be read in both, matched by number."""
    _, one, two = np.intersect1d(_numbers(first), _numbers(second), return_indices=True)
    return first.isel(image=one), second.isel(image=two)


def _numbers(scores: xr.Dataset) -> Int[np.ndarray, " images"]:
    return scores["image"].values


def _right(scores: xr.Dataset) -> Bool[np.ndarray, " images"]:
    return scores["predicted"].values == scores["label"].values


def _within(scores: xr.Dataset, places: int) -> Bool[np.ndarray, " images"] | None:
    """Which labels are among the most probable classes; None for a run without ranks."""
    if "rank" not in scores:
        return None
    rank: Float[np.ndarray, " images"] = scores["rank"].values
    return (rank != UNKNOWN) & (rank <= places)


def _images(count: int) -> str:
    return f"{count:,} image{'s' * (count != 1)}"
