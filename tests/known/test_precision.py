"""Models in any precision are fed in their own and measured in float32 or finer."""

import copy
import warnings
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from torch import nn

import vitscope
from vitscope import PixelInput, images, load, measure
from vitscope.diagnostics import default_diagnostics
from vitscope.diagnostics.hessian_trace import HessianTrace
from vitscope.findings.checkup import checkup
from vitscope.measurement.errors import UserError
from vitscope.models.feed import input_like
from vitscope.models.named import NamedModules
from vitscope.models.subject import Composition
from vitscope.numerics import precision
from vitscope.numerics.precision import to_float64

INPUT = PixelInput(32, 3, (0.5,), (0.5,))
SMALL = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 3, "num_classes": 4}


def vit():
    torch.manual_seed(0)
    return timm.create_model("vit_tiny_patch16_224", **SMALL).eval()


def pictures():
    rng = np.random.default_rng(0)
    shown = [Image.fromarray(rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)) for _ in range(4)]
    return images((shown, np.arange(4)))


@pytest.fixture(scope="module")
def exact():
    return measure(load(vit(), input=INPUT), pictures(), default_diagnostics())


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float16, 0.02), (torch.bfloat16, 0.1), (torch.float64, 1e-4)], ids=str
)
def test_every_number_is_that_of_float32_up_to_the_models_rounding(exact, dtype, tolerance):
    subject = load(vit().to(dtype), input=INPUT)
    assert isinstance(subject.anatomy, Composition)
    run = measure(subject, pictures(), default_diagnostics())
    for name in ("accuracy/nll", "feature-variance/variance", "attention-entropy/entropy", "token-similarity/cosine"):
        np.testing.assert_allclose(run[name].values, exact[name].values, rtol=tolerance, atol=tolerance)


def test_half_precision_is_studied_and_its_curvature_is_taken_in_float32():
    subject = load(vit().to(torch.bfloat16), input=INPUT)
    wanted = [*default_diagnostics(), HessianTrace(vectors=2, batch=2, batches=1)]
    run = checkup(subject, pictures(), wanted, studies=["lesion", "frequency-noise", "token-keep", "weight-prune"])
    assert not set(run.skipped) & {"lesion", "frequency-noise", "token-keep", "weight-prune", "hessian-trace"}
    assert np.isfinite(run["hessian-trace/trace"].values).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_norms_of_another_precision_do_not_say_what_the_input_is(dtype):
    class Mixed(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.norm, self.stem = nn.LayerNorm(24), nn.Conv2d(3, 24, 8, 8).to(dtype)
            self.blocks = nn.Sequential(*(nn.Sequential(nn.Linear(24, 24), nn.GELU()).to(dtype) for _ in range(2)))
            self.head = nn.Linear(24, 4)

        def forward(self, x):
            x = self.blocks(self.stem(x).flatten(2).transpose(1, 2))
            return self.head(self.norm(x.float()).mean(1))

    module = Mixed().eval()
    assert input_like(module).dtype == dtype
    run = measure(load(module, input=INPUT), pictures(), default_diagnostics())
    assert np.isfinite(float(run["accuracy/nll"]))


def quantised(module):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.ao.quantization.quantize_dynamic(copy.deepcopy(module), {nn.Linear}, dtype=torch.qint8)


def test_dynamically_quantised_layers_are_read_and_have_no_curvature(exact):
    subject = load(quantised(vit()), input=INPUT)
    assert len(subject.fingerprint) == 64
    assert subject.fingerprint != load(vit(), input=INPUT).fingerprint
    wanted = [*default_diagnostics(), HessianTrace(vectors=2, batch=2, batches=1)]
    run = checkup(subject, pictures(), wanted, studies=["token-keep"])
    np.testing.assert_allclose(run["accuracy/nll"].values, exact["accuracy/nll"].values, rtol=0.1)
    assert "quantised layers (blocks.0.attn.qkv)" in run.skipped["hessian-trace"]
    assert "The operations of its quantised layers are not counted." in run.notes
    assert any("depend on what else is in its batch" in note for note in run.notes)


def test_a_module_without_a_single_parameter_is_measured():
    module = quantised(nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 8), nn.ReLU(), nn.Linear(8, 4)))
    assert not list(module.parameters())
    subject = load(module, input=INPUT)
    assert isinstance(subject.anatomy, NamedModules)
    assert np.isfinite(float(measure(subject, pictures(), default_diagnostics())["accuracy/nll"]))


@pytest.mark.parametrize("make", [vit, lambda: nn.DataParallel(vit()), lambda: nn.Sequential(nn.Conv2d(3, 4, 32))])
def test_weights_without_numbers_are_refused(make):
    with pytest.raises(UserError, match=r"no numbers in .*, which is on the device 'meta'"):
        load(make().to("meta"), input=INPUT)


def test_lazy_layers_that_saw_no_picture_are_named():
    module = nn.Sequential(nn.LazyConv2d(4, 3), nn.LazyBatchNorm2d(), nn.Flatten(), nn.LazyLinear(4))
    with pytest.raises(UserError, match=r"no numbers yet in 0\.weight and 7 more weights"):
        load(module, input=INPUT)
    module(torch.zeros(2, 3, 32, 32))
    assert load(module, input=INPUT).class_count == 4


def test_a_device_without_float64_is_not_asked_for_it(monkeypatch):
    values = torch.arange(4, dtype=torch.float32)
    monkeypatch.setattr(precision, "WITHOUT_DOUBLE", frozenset({"meta"}))
    with pytest.raises(NotImplementedError, match="meta"):  # the numbers are fetched before they are widened
        to_float64(values.to("meta"))
    assert to_float64(values).dtype == torch.float64


def test_nothing_but_one_function_widens_to_float64():
    folder = Path(vitscope.__file__).parent
    beyond = ("convex", "labs")  # their data are the CPU's
    found = [
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*.py")
        if path.relative_to(folder).parts[0] not in beyond
        and any(".double()" in line and "known" not in line for line in path.read_text().splitlines())
    ]
    known = {"numerics/precision.py", "models/baked.py", "models/surgery.py", "models/transformers/input.py"}
    assert {name for name in found if not name.startswith("diagnostics/")} <= known
