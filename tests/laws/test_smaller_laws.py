"""Modules that really get smaller, over every family: they run by themselves, are what was asked for, and are saved."""

import json
from dataclasses import dataclass

import pytest
import torch
from torch import nn

from vitscope.interventions.head_lesion import HeadLesion, head_counts
from vitscope.interventions.low_rank import LowRank
from vitscope.interventions.remove_heads import RemoveHeads
from vitscope.interventions.remove_neurons import RemoveNeurons
from vitscope.interventions.temperature import Temperature
from vitscope.measurement.errors import UserError
from vitscope.models.adapter import ADAPTERS
from vitscope.models.catalogue import import_installed_adapters
from vitscope.models.own_forward import call_module, gap
from vitscope.models.subject import Preprocessing, Subject, Unwatched
from vitscope.models.surgery import is_pointwise, reshape, shape_changes

import_installed_adapters()
EXAMPLES = [(adapter, example) for _, adapter in ADAPTERS.items() for example in adapter.examples()]
NAMES = [f"{adapter.name}: {example.name}" for adapter, example in EXAMPLES]

GATED = {
    "timm/beit: shared bias, SwiGLU",
    "timm/eva: eva02",
    "timm/eva: eva02 sub-norm, separate projections",
    "timm/eva: gated attention",
    "timm/mixer: gated mixer",
    "timm/mixer: gmlp",
    "transformers/dinov2: dinov2 SwiGLU",
}
NORMED = {
    "timm/convnext: convnext v2",
    "transformers/convnext: convnext v2",
    "transformers/convnext: convnext v2 bare",
}
"""Without hidden neurons that can be removed, besides the residual networks."""
WHOLE_WIDTH = ("timm/beit", "timm/eva", "timm/swin-v2", "torchvision/swin", "torchvision/vit")
"""Upstream attention whose forward pass relies on the width of all heads."""
MIXED = ("timm/cait",)


def transform(picture):
    raise AssertionError("no picture is read here")


@dataclass
class Case:
    name: str
    build: object
    adapter: object
    subject: Subject
    pixels: torch.Tensor
    logits: torch.Tensor
    apart: float
    """How far its walk is from its own forward pass."""


@pytest.fixture(scope="module", params=range(len(EXAMPLES)), ids=NAMES)
def case(request) -> Case:
    adapter, example = EXAMPLES[request.param]
    torch.manual_seed(0)
    module = example.build().eval().double()
    generator = torch.Generator().manual_seed(1)
    for parameter in module.parameters():  # LayerScale, gates and biases start at trivial values
        parameter.data += 0.05 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    channels = example.image_shape[0]
    preprocessing = Preprocessing(example.image_shape, transform, "", (0.5,) * channels, (0.25,) * channels)
    pixels = torch.randn(2, *example.image_shape, generator=generator, dtype=torch.float64)
    anatomy = adapter.anatomy(module)
    with torch.inference_mode():
        logits = anatomy.walk(pixels, Unwatched())
        apart = gap(logits, call_module(module, pixels, adapter.call_arguments(module, pixels)))
    subject = Subject(example.name, adapter.name, module, anatomy, preprocessing, logits.shape[-1])
    return Case(NAMES[request.param], example.build, adapter, subject, pixels, logits, apart)


def logits_of(subject: Subject, pixels: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return subject.anatomy.walk(pixels, Unwatched())


def apply(make) -> Subject | str:
    """The subject after an intervention, or the sentence that refuses it."""
    try:
        return make()
    except UserError as error:
        sentence = str(error)
    assert sentence.endswith(".")
    return sentence


def check_smaller(case: Case, smaller: Subject, expected: torch.Tensor) -> None:
    """It has the logits expected, in its own forward pass too, and fewer weights; its shapes say how to load it."""
    logits = logits_of(smaller, case.pixels)
    torch.testing.assert_close(logits, expected, rtol=1e-9, atol=1e-9)
    assert smaller.parameter_count < case.subject.parameter_count
    assert torch.equal(logits_of(case.subject, case.pixels), case.logits)
    check_by_itself(case, smaller)
    check_restored(case, smaller.module, logits)


def check_by_itself(case: Case, smaller: Subject) -> None:
    """If the original's own forward pass is its walk, so is the smaller module's."""
    arguments = case.adapter.call_arguments(case.subject.module, case.pixels)
    with torch.inference_mode():
        own = call_module(smaller.module, case.pixels, arguments)
    assert case.apart > 1e-6 or gap(logits_of(smaller, case.pixels), own) < 1e-6


def check_restored(case: Case, module: nn.Module, logits: torch.Tensor) -> None:
    """A fresh module in the shapes that JSON says takes the state strictly, and gives the very same logits."""
    changes = json.loads(json.dumps(shape_changes(case.subject.module, module)))
    assert changes
    torch.manual_seed(3)
    fresh = reshape(case.build().double(), changes)
    fresh.load_state_dict(module.state_dict())
    with torch.inference_mode():
        again = case.adapter.anatomy(fresh.eval()).walk(case.pixels, Unwatched())
    torch.testing.assert_close(again, logits, rtol=0, atol=0)
    left = {key for change in shape_changes(module, fresh).values() for key in change}
    assert left <= {"shift_size"}  # which transformers' Swin sets as it runs


def test_modules_with_fewer_neurons(case):
    found = apply(lambda: RemoveNeurons.fitted(case.subject, by="weight", repair=False, multiple=2))
    residual = case.name.startswith(("timm/resnet", "torchvision/resnet"))
    if isinstance(found, str):
        assert residual or case.name in GATED | NORMED, found
        assert residual or ("stands between" in found) == (case.name in NORMED or "sub-norm" in case.name), found
        return
    assert not residual
    assert case.name not in GATED | NORMED
    smaller = found(case.subject)
    check_smaller(case, smaller, zero_columns(case, found, smaller))
    changes = json.loads(json.dumps(shape_changes(case.subject.module, smaller.module)))
    with torch.device("meta"):
        unmade = case.build().double()
    assert changes.items() <= shape_changes(unmade, smaller.module).items()  # and what running it sets


def zero_columns(case: Case, removal: RemoveNeurons, smaller: Subject) -> torch.Tensor:
    """The logits of the original if the second layers do not read the neurons; it is as before afterwards."""
    module = case.subject.module
    before = {name: value.clone() for name, value in module.state_dict().items()}
    places = {case.subject.places[layer - 1].name: gone for layer, gone in removal.neurons}
    for name, part in smaller.module.named_modules():
        old = module.get_submodule(name)
        if is_pointwise(part) and part.weight.shape[1] < old.weight.shape[1]:
            (gone,) = [gone for place, gone in places.items() if name.startswith(f"{place}.")]
            assert part.weight.shape[1] == old.weight.shape[1] - len(gone)
            old.weight.data[:, list(gone)] = 0
    logits = logits_of(case.subject, case.pixels)
    module.load_state_dict(before)
    assert not torch.allclose(logits, case.logits)
    return logits


def test_modules_with_fewer_heads(case):
    counts = head_counts(case.subject)
    heads = tuple((layer, (count - 1,)) for layer, count in counts.items() if count > 1)
    if not heads:
        assert not counts or set(counts.values()) == {1}
        return
    found = apply(lambda: RemoveHeads(heads)(case.subject))
    rotary = case.name == "timm/eva: perception encoder"
    if isinstance(found, str):
        assert case.name.startswith((*WHOLE_WIDTH, *MIXED)), found
        assert not rotary
        return
    assert rotary or not case.name.startswith((*WHOLE_WIDTH, *MIXED))
    check_smaller(case, found, logits_of(HeadLesion(heads)(case.subject), case.pixels))
    assert head_counts(found) == {layer: count - (count > 1) for layer, count in counts.items()}


def test_modules_of_low_rank(case):
    found = apply(lambda: LowRank(0.5)(case.subject))
    if isinstance(found, str):
        assert "no linear layer of its own" in found
        convolutional = ("timm/resnet", "torchvision/resnet", "timm/convnext", "timm/maxvit")
        assert case.name.startswith(convolutional), found
        return
    before = {name: value.clone() for name, value in case.subject.module.state_dict().items()}
    pairs = {name: part for name, part in found.module.named_modules() if is_pair(case.subject.module, name, part)}
    for name, (first, second) in pairs.items():
        old = case.subject.module.get_submodule(name)
        assert first.weight.numel() + second.weight.numel() <= 0.5 * old.weight.numel()
        old.weight.data = second.weight.data @ first.weight.data
    expected = logits_of(case.subject, case.pixels)
    case.subject.module.load_state_dict(before)
    assert pairs
    check_smaller(case, found, expected)


def is_pair(module: nn.Module, name: str, part: nn.Module) -> bool:
    known = dict(module.named_modules())
    return name in known and isinstance(known[name], nn.Linear) and isinstance(part, nn.Sequential)


def test_divided_logits(case):
    found = Temperature(1.7)(case.subject)
    logits = logits_of(found, case.pixels)
    torch.testing.assert_close(logits, case.logits / 1.7, rtol=1e-12, atol=1e-13)
    assert torch.equal(logits.argmax(1), case.logits.argmax(1))
    headless = ("bare", "pooled", "class token", "dinov2 wide", "mae encoder")
    walked = case.name.startswith("transformers") and any(word in case.name for word in headless)
    assert len(found.edits) == walked
    assert [p.shape for p in found.module.parameters()] == [p.shape for p in case.subject.module.parameters()]
    check_by_itself(case, found) if not walked else None
