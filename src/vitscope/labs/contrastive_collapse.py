"""Contrastive pretraining against masked reconstruction: whether attention collapses to the global area."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import final

import xarray as xr

from vitscope.labs.lab import LABS, Datasets, Values
from vitscope.labs.masked.areas import HUANG, by_setting, describe_areas, group_name, readings, step_axis
from vitscope.labs.masked.clusters import ClusteredPatches
from vitscope.labs.masked.contrastive import Contrastive
from vitscope.labs.masked.lab import AbstractAreasLab
from vitscope.labs.masked.training import MaskedTraining, MaskedTrial, Reconstruction, train
from vitscope.labs.verdict import join_advice, judge_all, read_mean
from vitscope.measurement.bounds import Bounds, bounded_field
from vitscope.measurement.claim import Claim, ClaimKind
from vitscope.measurement.estimate import above, below
from vitscope.measurement.quantity import Quantity
from vitscope.measurement.trials import curves, over_trials

OBJECTIVES, READ = ("reconstruction", "contrastive"), ("stray_attention", "local_attention")
COLLAPSED, DIVERSE = 0.5, 0.2
"""Attention of local patches to the global area: above the first it has collapsed, below the second it has not."""
LONGER = "Train longer (--steps), or with a larger --contrastive-rate, and try other temperatures."

STRAY = Quantity(
    "stray_attention",
    "Attention of local patches to the global area",
    "1",
    "Attention of hidden patches of local areas to the visible patches of the global area.",
    "Smaller is more diverse.",
)
OWN = Quantity(
    "own_attention",
    "Attention of local patches to their own area",
    "1",
    "Attention of hidden patches of local areas to the visible patches of their own area, if there is one.",
    "Larger is more diverse.",
)
COLLAPSE = replace(
    STRAY,
    name="collapse",
    label="Contrast, local on global area",
    meaning="Attention of hidden patches of local areas to the global area, after the last step of contrast.",
)


@LABS.add("contrastive-collapse")
@final
@dataclass(frozen=True)
class ContrastiveCollapse(AbstractAreasLab):
    r"""The same layer on the same images, trained by reconstruction and by contrast of two masks of an image.

    The contrastive objective is InfoNCE between two random masks, with stop-gradient on the second view:

    .. math:: -\frac1B \sum_i \log \frac{e^{r_i \cdot r'_i / \tau}}{\sum_j e^{r_i \cdot r'_j / \tau}}
       + \frac{\lambda}{2} \lVert Q \rVert_F^2, \qquad r = \frac1P \sum_p F_p

    The claim of the third version of the paper (Huang, Wen, Chi, Liang, arXiv 2403.02233v3) is that under contrast all
    patches attend to the global area whatever the sign of the information gap, while reconstruction makes each attend
    to its own. From Q = 0 the contrastive gradient is the same for every query of an image, so that attention never
    becomes diverse here, whichever area it goes to.

    Conclude what this objective does at this temperature and after this many steps. The paper's own temperature and
    penalty are not on record, representations are not normalised, and another temperature can favour another area: do
    not conclude that contrastive pretraining always collapses to the global one, nor from `undecided` that it does not.
    """

    name = "contrastive-collapse"
    title = "Contrastive collapse"
    question = "What does contrast make attention look at?"

    temperature: float = bounded_field(1.0, Bounds(above=0, most=1e6))
    """Temperature of the contrastive objective, tau."""
    penalty: float = 0.0
    """Weight of the squared attention matrix in the contrastive objective, lambda."""
    rate: float = 6.0
    """Learning rate of reconstruction."""
    contrastive_rate: float = 2400.0
    """Learning rate of the contrastive objective, whose gradients are some P times smaller."""
    steps: int = 200

    @classmethod
    def smoke(cls) -> "ContrastiveCollapse":
        """Sixteen patches, twenty steps."""
        return cls(
            areas="10/2,4/3",
            patches=16,
            clusters=2,
            masked_share=0.5,
            contrastive_rate=60.0,
            steps=20,
            batch_size=8,
            evaluated=32,
            trials=2,
        )

    def run_trials(self, trials: Sequence[MaskedTrial]) -> Values:
        """The readings under both objectives."""
        training = MaskedTraining(self.recorded, self.batch_size, self.evaluated)
        contrast = [MaskedTrial(one.setting, one.seed, self.contrastive_rate) for one in trials]
        made = {
            "reconstruction": readings(train(trials, training, Reconstruction())),
            "contrastive": readings(train(contrast, training, Contrastive(self.temperature, self.penalty))),
        }
        return {f"{objective} {one}": found[one] for objective, found in made.items() for one in READ}

    def datasets_of(self, values: Values) -> Datasets:
        """For each setting of the areas, attention of local patches to the global area and to their own."""
        groups: dict[str, xr.Dataset] = {}
        steps = [step_axis(self.recorded)]
        for data, found in zip(self.data, by_setting(values, len(self.data)), strict=True):
            of = {one: {name: found[f"{name} {one}"] for name in OBJECTIVES} for one in READ}
            parts = (curves(quantity, steps, of[one], {}) for one, quantity in zip(READ, (STRAY, OWN), strict=True))
            last = replace(COLLAPSE, label=f"{COLLAPSE.label}, areas {describe_areas(data)}")
            end = over_trials(last, [], of[STRAY.name]["contrastive"][-1])
            groups[group_name("local", data)] = self.group(
                f"local patches with areas {describe_areas(data)}", "", *parts, end
            )
        return groups

    def claims(self, datasets: Datasets, rate: float) -> tuple[Claim, ...]:
        """Collapse under contrast, diversity under reconstruction, for each setting of the areas."""
        rules = (self._collapses, self._does_not)
        return tuple(rule(datasets, data, rate) for rule in rules for data in self.data)

    def _collapses(self, datasets: Datasets, data: ClusteredPatches, rate: float) -> Claim:
        group, at = group_name("local", data), {"step": self.recorded[-1], "curve": "contrastive"}
        stray, own = (read_mean(datasets[group], one, **at) for one in (STRAY.name, OWN.name))
        verdict, more = judge_all(lambda one: above(one, COLLAPSED, rate), stray)
        return Claim(
            "contrastive-collapse",
            f"With areas {describe_areas(data)}, contrast makes local patches attend to the global area",
            verdict,
            f"after {at['step']} steps: to the global area {stray.text}, to their own {own.text}",
            f"Attention to the global area is above {COLLAPSED:g} by Student's interval over trials.",
            HUANG,
            join_advice(more, LONGER),
            f"{group}/{STRAY.name}",
            0.9,
            kind=ClaimKind.THEORY,
            rate=rate,
        )

    def _does_not(self, datasets: Datasets, data: ClusteredPatches, rate: float) -> Claim:
        group, at = group_name("local", data), {"step": self.recorded[-1], "curve": "reconstruction"}
        stray = read_mean(datasets[group], STRAY.name, **at)
        verdict, more = judge_all(lambda one: below(one, DIVERSE, rate), stray)
        return Claim(
            "reconstruction-does-not-collapse",
            f"With areas {describe_areas(data)}, reconstruction keeps local patches off the global area",
            verdict,
            f"after {at['step']} steps: to the global area {stray.text}",
            f"Attention to the global area is below {DIVERSE:g} by Student's interval over trials.",
            HUANG,
            join_advice(more, LONGER),
            f"{group}/{STRAY.name}",
            0.6,
            kind=ClaimKind.THEORY,
            rate=rate,
        )
