"""Pruning by magnitude against ``torch.nn.utils.prune``."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

from vitscope.interventions.weight_prune import WeightPrune
from vitscope.models.load import load
from vitscope.models.rewritten import kernels_of


@pytest.mark.parametrize("share", [0.1, 0.5, 0.93])
def test_the_same_weights_go_as_in_torch(share):
    subject = load("digits")
    kernels = kernels_of(subject)
    owners = [name.removesuffix(".weight") for name in kernels]

    def masks(change):
        module = copy.deepcopy(subject.module)
        change([(module.get_submodule(name), "weight") for name in owners])
        return [module.get_submodule(name).weight == 0 for name in owners]

    def layers(parts):
        for part, name in parts:
            prune.l1_unstructured(part, name, amount=share)

    together = masks(lambda parts: prune.global_unstructured(parts, prune.L1Unstructured, amount=share))
    assert all(isinstance(subject.module.get_submodule(name), nn.Linear | nn.Conv2d) for name in owners)
    for expected, scope in ((together, "global"), (masks(layers), "layer")):
        found = [kernel == 0 for kernel in kernels_of(WeightPrune(share, scope)(subject)).values()]
        groups = [range(len(found))] if scope == "global" else [[index] for index in range(len(found))]
        for group in groups:
            sizes = [list(kernels.values())[index].abs().flatten() for index in group]
            gone, theirs = (torch.cat([each[index].flatten() for index in group]) for each in (found, expected))
            values = torch.cat(sizes)
            assert int(gone.sum()) == int(theirs.sum())
            assert set(values[gone != theirs].tolist()) <= {float(values[gone].max())}  # torch breaks ties at will
