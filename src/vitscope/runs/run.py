"""A run: what was asked, where the answer comes from, and the answer, as one xarray tree."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, cast

import xarray as xr

from vitscope.measurement.claim import Claim, Verdict
from vitscope.measurement.errors import UserError
from vitscope.measurement.quantity import headline
from vitscope.runs.spec import Spec, read_spec

APART = "apart"
"""The attribute of a group that is no diagnostic's: what was said image by image, and what follows from it."""


@dataclass(frozen=True)
class Run:
    """A tree with one group a diagnostic; its root's attributes hold spec, provenance, subject and claims as JSON."""

    tree: xr.DataTree

    def __getitem__(self, name: str) -> xr.DataArray:
        """A diagnostic's headline quantity, as in ``run["fourier-spectrum"]``, or ``run["accuracy/nll"]``."""
        diagnostic, _, quantity = name.partition("/")
        if diagnostic not in self.tree.children:
            reason = self.skipped.get(diagnostic, f"this run holds {', '.join(self.measured)}")
            raise UserError(f"There is no {diagnostic!r} in this run: {reason}.")
        dataset = self.tree[diagnostic].to_dataset()
        return dataset[quantity] if quantity else headline(dataset)

    def __contains__(self, name: object) -> bool:
        return name in self.tree.children

    @property
    def measured(self) -> Mapping[str, xr.Dataset]:
        """The diagnostics' groups by name, in order."""
        groups = {name: node.to_dataset() for name, node in self.tree.children.items()}
        return {name: group for name, group in groups.items() if APART not in group.attrs}

    @property
    def spec(self) -> Spec:
        """What was asked."""
        return read_spec(self.tree.attrs["spec"])

    @property
    def provenance(self) -> Mapping[str, object]:
        """Versions, machine, time."""
        return cast(Mapping[str, object], json.loads(self.tree.attrs["provenance"]))

    @property
    def skipped(self) -> Mapping[str, str]:
        """Diagnostics that were asked for and could not be had, with the reason."""
        return cast(Mapping[str, str], json.loads(self.tree.attrs["skipped"]))

    @property
    def notes(self) -> tuple[str, ...]:
        """What the reader must know beside the numbers: images left out and why."""
        return tuple(json.loads(self.tree.attrs["notes"]))

    @property
    def anatomy(self) -> tuple[Mapping[str, str | int], ...]:
        """The units in order: unit, kind, stage, block."""
        return tuple(json.loads(self.tree.attrs["anatomy"]))

    @property
    def claims(self) -> tuple[Claim, ...]:
        """What the findings' rules made of the numbers, weightiest first."""
        stored = cast(list[dict[str, Any]], json.loads(self.tree.attrs.get("claims", "[]")))
        for claim in stored:
            claim["verdict"] = Verdict(claim["verdict"])
        return tuple(Claim(**claim) for claim in stored)

    def with_claims(self, claims: tuple[Claim, ...]) -> "Run":
        """The same run with these claims."""
        stored = [{**asdict(claim), "verdict": claim.verdict.value} for claim in claims]
        tree = self.tree.copy()
        tree.attrs["claims"] = json.dumps(stored)
        return Run(tree)
