"""A run: the question, the answer and its provenance, as one xarray tree."""

import importlib
import json
import os
from collections import Counter
from collections.abc import Iterator, KeysView, Mapping, Sequence
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, cast

import xarray as xr

from vitscope.measurement.claim import Claim
from vitscope.measurement.errors import UserError
from vitscope.measurement.nearest import nearest
from vitscope.measurement.quantity import BESIDE, headline
from vitscope.runs.frame import quantities, tidy, wide
from vitscope.runs.schema import parse
from vitscope.runs.shown import html_table
from vitscope.runs.spec import Spec

if TYPE_CHECKING:
    from pandas import DataFrame

APART = "apart"
"""Attribute of a group that is not a diagnostic's: predictions image by image, and what follows from them."""
_WORDS = ("verdict", "kind")
"""The fields of a claim that are enumerations, stored by their words."""


@dataclass(frozen=True)
class Run:
    """A tree with one group per diagnostic; its root's attributes hold spec, provenance, anatomy and claims as JSON."""

    tree: xr.DataTree

    def __getitem__(self, name: str) -> xr.DataArray:
        """A diagnostic's headline, as in ``run["fourier-spectrum"]``, or a quantity, as in ``run["accuracy/nll"]``.

        ``UserError`` if the run does not hold it, with the reason or the names that it holds.
        """
        dataset, quantity = self._find(name)
        return dataset[quantity] if quantity else headline(dataset)

    def __contains__(self, name: object) -> bool:
        return name in self.tree.children

    @property
    def measured(self) -> Mapping[str, xr.Dataset]:
        """The diagnostics' groups by name, in order."""
        groups = {name: node.to_dataset() for name, node in self.tree.children.items()}
        return {name: group for name, group in groups.items() if APART not in group.attrs}

    def __iter__(self) -> Iterator[str]:
        return iter(self.measured)

    def __len__(self) -> int:
        return len(self.measured)

    def __bool__(self) -> bool:
        return True  # a run whose diagnostics were all skipped is a run

    def keys(self) -> KeysView[str]:
        """The names of the diagnostics' groups."""
        return self.measured.keys()

    def to_dataframe(self, name: str | None = None) -> "DataFrame":
        """The numbers as a tidy pandas table, of all groups or of a ``name`` that ``run[name]`` takes.

        A row for each number: ``diagnostic``, ``quantity``, its coordinates, ``value``, ``error`` (the standard error),
        ``count`` and ``units``, and for changes between models the ends of their intervals. ``"predictions"`` has a row
        for each image.
        """
        if name is None:
            return tidy(self.measured)
        dataset, quantity = self._find(name)
        if APART in dataset.attrs and not quantity:
            return wide(name, dataset)
        own = [f"{quantity}{end}" for end in ("", *BESIDE) if f"{quantity}{end}" in dataset]
        return tidy({name.partition("/")[0]: dataset[own] if quantity else dataset})

    def save(self, path: str | os.PathLike[str]) -> str:
        """Save the run in a folder (as ``run.nc``), a file that ends in ``.nc``, or at a URL; return the file's URL.

        :func:`vitscope.read_run` reads it. An existing run is never overwritten.
        """
        store = importlib.import_module("vitscope.runs.store")  # by name, as the store imports this module
        return store.place(path).write(self)

    def _find(self, name: str) -> tuple[xr.Dataset, str]:
        """The group and the quantity of ``group`` or ``group/quantity``."""
        if not isinstance(name, str):  # pyright: ignore[reportUnnecessaryIsInstance] - people hand in anything
            raise UserError(f"{name!r:.40} is not a name; this run holds {', '.join(self) or 'nothing'}.")
        group, _, quantity = name.partition("/")
        if group not in self.tree.children:
            near, held = nearest(group, self.tree.children), f"it holds {', '.join(self) or 'nothing'}"
            raise UserError(f"There is no {group!r} in this run{near}: {self.skipped.get(group, held)}.")
        dataset = self.tree[group].to_dataset()
        if quantity and quantity not in dataset:
            known = quantities(dataset)
            raise UserError(f"{group} has no {quantity!r}{nearest(quantity, known)}: it has {', '.join(known)}.")
        return dataset, quantity

    def __repr__(self) -> str:
        said = [f"{name} {text}" for name, text in self._facts if name in ("accuracy", "findings")]
        of = f"{self.spec.model.get('name', self.spec.verb)} on {self._source_text}"
        return f"<Run: {'; '.join([of, *said, f'{len(self)} groups' if len(self) != 1 else '1 group'])}>"

    def _repr_html_(self) -> str:
        return html_table(f"Run: {self.spec.verb}", self._facts)

    @property
    def spec(self) -> Spec:
        """The question: verb, model, images and settings."""
        return cast(Spec, parse("spec", self.tree.attrs["spec"]))

    @property
    def provenance(self) -> Mapping[str, object]:
        """Package versions, machine, end time, seconds taken and command."""
        return self._attribute("provenance", {})

    @property
    def skipped(self) -> Mapping[str, str]:
        """Requested diagnostics that could not be measured, with the reason."""
        return self._attribute("skipped", {})

    @property
    def notes(self) -> tuple[str, ...]:
        """What the reader must know besides the numbers, such as images left out and why."""
        return tuple(self._attribute("notes", []))

    @property
    def anatomy(self) -> tuple[Mapping[str, str | int], ...]:
        """The units in order: unit, kind, stage, block."""
        return tuple(self._attribute("anatomy", []))

    @property
    def claims(self) -> tuple[Claim, ...]:
        """The findings' claims, in the order in which they are shown."""
        return tuple(self._attribute("claims", []))

    @property
    def beside(self) -> Mapping[str, str]:
        """Names and SHA-256 digests of the files that were written with it into the same folder."""
        return self._attribute("beside", {})

    def with_beside(self, digests: Mapping[str, str]) -> "Run":
        """The same run with the digests of these files beside it."""
        return self._with("beside", dict(digests)) if digests else self

    def with_claims(self, claims: tuple[Claim, ...]) -> "Run":
        """The same run with these claims."""
        stored = [{**asdict(claim), **{name: getattr(claim, name).value for name in _WORDS}} for claim in claims]
        return self._with("claims", stored)

    def _attribute(self, name: str, otherwise: Any) -> Any:  # noqa: ANN401 - what the schema says
        """The content of an attribute of the root; ``otherwise`` if it has none."""
        return parse(name, self.tree.attrs[name]) if name in self.tree.attrs else otherwise

    def _with(self, name: str, stored: object) -> "Run":
        tree = self.tree.copy()
        tree.attrs[name] = json.dumps(stored)
        return Run(tree)

    @property
    def accuracy(self) -> str | None:
        """Top-1 accuracy with its standard error as text, if measured; of each model in a run of several."""
        if "accuracy" not in self:
            return None
        found = self.tree["accuracy"].to_dataset()
        pairs = zip(found["top1"].values.ravel().tolist(), found["top1_error"].values.ravel().tolist(), strict=True)
        return ", ".join(f"{100 * mean:.1f} ± {100 * error:.1f} %" for mean, error in pairs)

    @property
    def _source_text(self) -> str:
        """What it was measured on: images, or a lab's trials."""
        images = self.spec.images
        count, of = self.tree.attrs.get("images", images.get("count", "?")), images.get("of")
        return f"{count:,} {of}" if of else f"{count} images of {images.get('name', 'an unnamed source')}"

    @property
    def _facts(self) -> list[tuple[str, str]]:
        """The model, the images and the results, for people."""
        model = self.spec.model
        size = f", {model['parameters']:,} parameters, {model['weights']}" if "parameters" in model else ""
        counts = Counter(claim.mark for claim in self.claims)
        facts = [
            ("model", f"{model.get('name', 'none')}{size}"),
            ("images" if "of" not in self.spec.images else "measured on", self._source_text),
            ("accuracy", self.accuracy or ""),
            ("findings", ", ".join(f"{count} {kind}" for kind, count in counts.items())),
            ("groups", ", ".join(self)),
            *(("left out", f"{name}: {reason}") for name, reason in self.skipped.items()),
            *(("note", note) for note in self.notes),
        ]
        return [(name, text) for name, text in facts if text]


def make_run(
    spec: Spec,
    groups: Mapping[str, xr.Dataset],
    count: int,
    *,
    provenance: str,
    anatomy: Sequence[Mapping[str, str | int]] = (),
    skipped: Mapping[str, str] = MappingProxyType({}),
    notes: Sequence[str] = (),
) -> Run:
    """The run of these groups; ``count`` is the number of images (or trials).

    ``provenance`` is what :func:`vitscope.runs.provenance.provenance` returns; ``anatomy`` the units in order;
    ``skipped`` what could not be measured and why; ``notes`` what the reader must know besides the numbers.
    """
    attributes = {
        "spec": spec.text,
        "provenance": provenance,
        "anatomy": json.dumps(list(map(dict, anatomy))),
        "skipped": json.dumps(dict(skipped)),
        "notes": json.dumps(list(notes)),
        "images": count,
    }
    return Run(xr.DataTree.from_dict({"/": xr.Dataset(attrs=attributes), **groups}))
