"""Masked pretraining: which areas one attention layer learns to attend to, in which order."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import final

import numpy as np
import xarray as xr

from vitscope.labs.lab import LABS, Datasets, Values
from vitscope.labs.masked.areas import HUANG, areas_axis, by_setting, describe_areas, group_name, readings, step_axis
from vitscope.labs.masked.clusters import ClusteredPatches
from vitscope.labs.masked.lab import AbstractAreasLab
from vitscope.labs.masked.theory import phase_one_level, subset_plateau
from vitscope.labs.masked.training import MaskedTraining, MaskedTrial, train
from vitscope.labs.verdict import join_advice, judge_all, read_mean
from vitscope.measurement.claim import Claim, ClaimKind, Verdict
from vitscope.measurement.estimate import above, below, between
from vitscope.measurement.quantity import Quantity
from vitscope.measurement.trials import Along, curves, over_trials, prediction

ATTENDED = 0.9
"""Attention to the own area, if a patch of it is visible, from which an area counts as attended."""
SAME = 0.03
"""Two attention masses count as equal if they surely differ by less than this."""
PLATEAU, KINDS = "local, all: predicted", ("global", "local")
LONGER = "Train longer (--steps), or with a larger --rate."

PHI = Quantity(
    "correlation",
    "Feature-position correlation",
    "1",
    "Phi: what the attention score of a query gains per unit of strength from a key's feature, or from a position.",
)
ATTENTION = Quantity(
    "attention",
    "Attention to the own area",
    "1",
    "Attention of hidden patches to the visible patches of their own area; visible: only of those that have one.",
    "Larger is better: hidden patches are rebuilt from there.",
)
EXCESS = Quantity(
    "excess_loss",
    "Loss above the unavoidable",
    "1",
    "Mean reconstruction loss less that of areas without a visible patch, which no attention can avoid.",
    "Smaller is better; 0 is the optimum.",
)
LEAD = Quantity(
    "early_lead",
    "Lead of unlearning",
    "1",
    "At the first recorded step: how much more the correlation of local queries with the global feature has fallen "
    "than the one with their own has grown, as a share of the sum of both.",
    "Neither: above 0 there are two phases, below 0 there is one.",
)
FALL = Quantity(
    "deepest_fall",
    "Deepest fall of local to global",
    "1",
    "The smallest correlation of local queries with the global feature over all recorded steps.",
)
LEVEL = Quantity(
    "predicted_fall",
    "Predicted level of phase I",
    "1",
    "-(gap/2) log P / Lo for a positive gap; lower orders are left out.",
)


@LABS.add("masked-phases")
@final
@dataclass(frozen=True)
class MaskedPhases(AbstractAreasLab):
    r"""One attention layer on masked patches: the sign of the information gap decides what it learns first.

    Patches form a large global area of :math:`P^{\kappa_c}` and local areas of :math:`P^{\kappa_s}`; all patches of an
    area share a feature. The layer rebuilds hidden patches from visible ones, by gradient descent on

    .. math:: L = \tfrac12 E \sum_{p \text{ hidden}} \lVert F_p - X_p \rVert^2

    from Q = 0. With :math:`\Delta = (1 - \kappa_s) - 2 (1 - \kappa_c) > 0` a local query first unlearns the global
    feature, down to about :math:`-\frac{\Delta}{2 Lo} \log P`, and only then finds its own area; with
    :math:`\Delta < 0` it finds its own area from the start (Huang, Wen, Chi, Liang, arXiv 2403.02233).

    Nothing can be known of a hidden patch whose area is hidden too: over all hidden patches, attention to the own area
    ends at the share that has a visible patch, near :math:`1 - \gamma^{C - 1}`, which says nothing about what was
    learned. Look at the curves marked visible.

    Conclude which of two causes is faster in this data model. Do not conclude that a trained transformer has such
    phases: there is one layer, no values to learn, one fixed partition for each cluster, and plain gradient descent.
    The level of phase I is the leading order in log P, which is not large at 100 patches; it is drawn, not tested.
    """

    name = "masked-phases"
    title = "Masked pretraining: phases"
    question = "What does masked pretraining learn first?"

    @classmethod
    def smoke(cls) -> "MaskedPhases":
        """Sixteen patches, thirty steps."""
        return cls(
            areas="10/2,4/3", patches=16, clusters=2, masked_share=0.5, steps=30, batch_size=8, evaluated=32, trials=2
        )

    def run_trials(self, trials: Sequence[MaskedTrial]) -> Values:
        """Every reading at every recorded step."""
        return readings(train(trials, MaskedTraining(self.recorded, self.batch_size, self.evaluated)))

    def datasets_of(self, values: Values) -> Datasets:
        """What is learned and attended to at each setting of the areas, and the loss at all of them."""
        groups: dict[str, xr.Dataset] = {}
        steps, found = step_axis(self.recorded), by_setting(values, len(self.data))
        for data, own in zip(self.data, found, strict=True):
            groups[group_name("learned", data)] = self._learning(data, own, steps)
            groups[group_name("attended", data)] = self._looking(data, own, steps)
        loss = np.stack([own["excess"] for own in found])
        groups["excess-loss"] = self.group(
            "loss above the unavoidable",
            "The mean reconstruction loss less that of areas without a visible patch.",
            over_trials(EXCESS, [areas_axis(self.data), steps], loss),
        )
        return groups

    def claims(self, datasets: Datasets, rate: float) -> tuple[Claim, ...]:
        """Phases by the sign of the gap, areas attended, plateaus."""
        rules = (self._phases, self._attending_claim, self._plateau)
        return tuple(rule(datasets, data, rate) for rule in rules for data in self.data)

    def _learning(self, data: ClusteredPatches, found: Values, steps: Along) -> xr.Dataset:
        own, fall = found["own_local"], -found["local_to_global"]
        lead = (fall - own)[0] / (np.abs(fall) + np.abs(own))[0]
        level = phase_one_level(data.information_gap, data.low, data.patches) if data.low else np.nan
        measured = {
            "local query, own area": own,
            "local query, global area": -fall,
            "local query, other local areas": found["others"],
            "global query, own area": found["own_global"],
            "positions, largest modulus": found["position"],
        }
        return self.group(
            f"what is learned with areas {describe_areas(data)}",
            "",
            curves(PHI, [steps], measured, {}),
            over_trials(replace(LEAD, label=f"{LEAD.label}, {describe_areas(data)}"), [], lead),
            over_trials(FALL, [], (-fall).min(0)),
            prediction(LEVEL, [], np.array(level)),
        )

    def _looking(self, data: ClusteredPatches, found: Values, steps: Along) -> xr.Dataset:
        measured = {
            "global, visible": found["global_attention"],
            "local, visible": found["local_attention"],
            "local, all": found["local_attention_always"],
        }
        plateau = np.array(subset_plateau(data, data.local_size))
        return self.group(
            f"where it looks with areas {describe_areas(data)}",
            "Attention of hidden patches to the visible patches of their own area, over all hidden patches and over "
            "those whose area has a visible patch. The prediction is the share of hidden patches that have one, exact "
            "for this number of hidden patches.",
            curves(ATTENTION, [steps], measured, {PLATEAU: plateau}),
        )

    def _phases(self, datasets: Datasets, data: ClusteredPatches, rate: float) -> Claim:
        """Whether unlearning leads if and only if the gap is positive."""
        group, positive = group_name("learned", data), data.information_gap > 0
        lead = read_mean(datasets[group], "early_lead")
        learns = "unlearns the global feature" if positive else "finds its own area"
        verdict, more = judge_all(lambda one: (above if positive else below)(one, 0.0, rate), lead)
        return Claim(
            "phases",
            f"With areas {describe_areas(data)}, a local query first {learns}",
            verdict,
            f"lead of unlearning at the first step {lead.text}",
            f"The lead is {'above' if positive else 'below'} 0 by Student's interval over trials.",
            HUANG,
            more,
            f"{group}/correlation",
            0.9,
            kind=ClaimKind.THEORY,
            rate=rate,
        )

    def _attending_claim(self, datasets: Datasets, data: ClusteredPatches, rate: float) -> Claim:
        group, last = group_name("attended", data), self.recorded[-1]
        found = datasets[group]
        means = [read_mean(found, "attention", curve=f"{one}, visible", step=last) for one in KINDS]
        verdict, more = judge_all(lambda one: above(one, ATTENDED, rate), *means)
        return Claim(
            "diverse-attention",
            f"With areas {describe_areas(data)}, hidden patches of all areas attend to their own area",
            verdict,
            f"after {last} steps: global {means[0].text}, local {means[1].text}",
            f"Attention to the own area, if a patch of it is visible, is above {ATTENDED:g} for global and for "
            "local patches by Student's interval over trials.",
            HUANG,
            join_advice(more, LONGER),
            f"{group}/attention",
            0.8,
            kind=ClaimKind.THEORY,
            rate=rate,
        )

    def _plateau(self, datasets: Datasets, data: ClusteredPatches, rate: float) -> Claim:
        """Whether attention over all hidden patches ends at the share with a visible patch, once areas are attended."""
        group, last = group_name("attended", data), self.recorded[-1]
        found = datasets[group].sel(step=last)
        visible, whole, plateau = (
            read_mean(found, "attention", curve=curve) for curve in ("local, visible", "local, all", PLATEAU)
        )
        reached, bound = above(visible, ATTENDED, rate) is Verdict.HOLDS, plateau.mean
        verdict, more = judge_all(lambda one: between(one, bound - SAME, bound + SAME, rate), whole)
        return Claim(
            "plateau",
            f"With areas {describe_areas(data)}, attention over all hidden local patches ends at the share with a "
            "visible patch",
            verdict if reached else Verdict.UNDECIDED,
            f"after {last} steps {whole.text}, predicted {bound:.3g}",
            f"The difference is less than {SAME:g} by Student's interval over trials; undecided until the attention "
            f"if visible is above {ATTENDED:g}.",
            HUANG,
            join_advice(more if reached else "", LONGER),
            f"{group}/attention",
            0.5,
            kind=ClaimKind.THEORY,
            rate=rate,
        )
