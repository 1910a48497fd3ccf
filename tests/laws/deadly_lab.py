"""A lab that kills whoever comes to one of its trials first, and what compares its runs."""

import os
import signal
import sys
from collections.abc import Hashable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import final

import cloudpickle
import numpy as np
import xarray as xr

from vitscope.labs.lab import AbstractLab, Datasets, Values
from vitscope.measurement.claim import Claim
from vitscope.measurement.quantity import Quantity
from vitscope.measurement.trials import Along, over_trials

SQUARE = Quantity("square", "Square", "1", "The seed squared.")


@final
@dataclass(frozen=True)
class Deadly(AbstractLab[int]):
    """Squares of seeds; whoever is first to come to the seed 3 is killed."""

    name = "deadly"
    title = "Deadly"
    question = "Who survives?"
    references = ("none",)
    at_once = 2

    mark: str = ""
    trials: int = 7
    seed: int = 0

    @classmethod
    def smoke(cls) -> "Deadly":
        """It is small."""
        return cls()

    def plan_trials(self) -> tuple[int, ...]:
        """The seeds."""
        return tuple(range(self.trials))

    def form(self, trial: int) -> Hashable:
        """Seeds up to 4, and the others."""
        return trial > 4

    def run_trials(self, trials: Sequence[int]) -> Values:
        """The squares."""
        if self.mark and 3 in trials and not Path(self.mark).exists():
            Path(self.mark).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return {"square": np.array([one**2.0 for one in trials]), "wide": np.ones((len(trials), 2, 3))}

    def datasets_of(self, values: Values) -> Datasets:
        """One number, and one for each trial."""
        axis = Along("step", list(range(self.trials)), "Seed")
        parts = over_trials(SQUARE, [axis], values["square"][:, None])
        return {"squares": self.group("squares", "squares", parts)}

    def claims(self, datasets: Datasets, rate: float) -> tuple[Claim, ...]:
        """None."""
        return ()


@contextmanager
def travelling():
    """Workers cannot import this file, so that its classes travel whole."""
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    yield
    cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


def same(one: Mapping[str, xr.DataTree], other: Mapping[str, xr.DataTree]) -> bool:
    """Whether two runs have the same numbers to the last bit."""
    return list(one) == list(other) and all(one[name].to_dataset().equals(other[name].to_dataset()) for name in one)
