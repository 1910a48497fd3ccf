"""Pruning by magnitude against ``torch.nn.utils.prune``."""

import copy

import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune, spectral_norm, weight_norm

from vitscope import PixelInput, images, load, study
from vitscope.interventions.studies.weight_prune import WeightPruneStudy
from vitscope.interventions.weight_prune import WeightPrune
from vitscope.measurement.errors import UserError
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


NORMS = {
    "weight norm": parametrizations.weight_norm,
    "spectral norm": parametrizations.spectral_norm,
    "weight norm by hooks": weight_norm,
    "spectral norm by hooks": spectral_norm,
    "pruned by torch": lambda layer: prune.l1_unstructured(layer, "weight", amount=0.2),
}


def small(change=lambda _: None):
    module = nn.Sequential(nn.Conv2d(3, 4, 8, 8), nn.Flatten(), nn.Linear(64, 4))
    change(module[2])
    return load(module, input=PixelInput(32, 3, (0.5,), (0.5,)))


@pytest.mark.filterwarnings("ignore:.*weight_norm.*")
@pytest.mark.parametrize("norm", NORMS.values(), ids=NORMS)
def test_a_layer_that_computes_its_weights_is_named_and_not_passed_over(norm):
    subject = small(norm)
    with pytest.raises(UserError, match=r"computes 2\.weight from other numbers"):
        WeightPrune(1.0)(subject)
    with pytest.raises(UserError, match=r"computes 2\.weight"):
        study(subject, images([Image.new("RGB", (32, 32))]), WeightPruneStudy())


def test_a_layer_whose_norm_was_removed_is_pruned():
    subject = small(lambda layer: parametrize.remove_parametrizations(parametrizations.weight_norm(layer), "weight"))
    assert not any(kernel.any() for kernel in kernels_of(WeightPrune(1.0)(subject)).values())


def test_quantised_layers_are_named_and_not_passed_over():
    plain = nn.Sequential(nn.Conv2d(3, 4, 8, 8), nn.Flatten(), nn.Linear(64, 4))
    subject = load(torch.ao.quantization.quantize_dynamic(plain, {nn.Linear}), input=PixelInput(32, 3, (0.5,), (0.5,)))
    with pytest.raises(UserError, match=r"computes 2\.weight"):
        WeightPrune(0.5)(subject)
