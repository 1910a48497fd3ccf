"""Modules that are handed over in wrappers: examined as what they hold if that computes the same, and never if not."""

from functools import partial

import pytest
import timm
import torch
from checkpoint_files import small
from timm.utils import ModelEma, ModelEmaV2, ModelEmaV3
from torch import nn
from torch.optim.swa_utils import AveragedModel

from vitscope import PixelInput, load
from vitscope.measurement.errors import UserError
from vitscope.models.subject import Unwatched
from vitscope.models.unwrapped import unwrap

INPUT = PixelInput(32, 3, (0.5,), (0.5,))


class Around(nn.Module):
    """Calls what it holds, with something before and after; its criterion has weights too."""

    def __init__(self, model, before=lambda x: x, after=lambda x: x):
        super().__init__()
        self.model, self.before, self.after = model, before, after
        self.criterion = nn.CrossEntropyLoss(weight=torch.ones(4))

    def forward(self, x):
        return self.after(self.model(self.before(x)))


class Trained(Around):
    """As trainers' modules do, in training it returns a loss."""

    def forward(self, x):
        return super().forward(x).sum() if self.training else super().forward(x)


class Cooled(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model, self.temperature = model, nn.Parameter(torch.tensor(1.5))

    def forward(self, x):
        return self.model(x) / self.temperature


class Pair(nn.Module):
    def __init__(self, student, teacher):
        super().__init__()
        self.student, self.teacher = student, teacher

    def forward(self, x):
        return self.student(x)


def compiled(module):
    return torch.compile(module, backend="eager")


def compiled_inside(module):
    module.blocks[0] = compiled(module.blocks[0])
    return module


def compiled_in_place(module):
    module.compile(backend="eager")
    module.blocks[0].compile(backend="eager")
    return module


@pytest.mark.parametrize(
    ("wrap", "words"),
    [
        (compiled, "OptimizedModule"),
        (nn.DataParallel, "DataParallel"),
        (AveragedModel, "AveragedModel"),
        (ModelEmaV2, "ModelEmaV2"),
        (ModelEmaV3, "ModelEmaV3"),
        (lambda module: nn.DataParallel(compiled(module)), "DataParallel around OptimizedModule"),
        (Around, "Around holds a VisionTransformer (model) and gives its logits"),
        (lambda module: Around(Around(module)), "Around holds a VisionTransformer (model.model) and gives its logits"),
        (lambda module: Around(compiled(module)), "Around holds a VisionTransformer (model) and gives its logits"),
        (lambda module: compiled(Around(module)), "Around holds a VisionTransformer (model) and gives its logits"),
        (nn.Sequential, "Sequential holds a VisionTransformer (0) and gives its logits"),
        (lambda module: Trained(module).train(), "Trained holds a VisionTransformer (model) and gives its logits"),
        (compiled_inside, None),
        *((partial(Around, after=after), "Around holds a VisionTransformer (model) and gives its logits")
          for after in (lambda y: {"logits": y}, lambda y: (y,), lambda y: [y, None], lambda y: y[:, :, None, None])),
        (compiled_in_place, None),
    ],
)  # fmt: skip
def test_a_wrapper_is_examined_as_what_it_holds(wrap, words):
    torch.manual_seed(0)
    handed = wrap(small(img_size=32))
    subject = load(handed, input=INPUT)
    assert subject.family == "timm/vit"
    assert words is None or any(words in note for note in subject.notes)
    pixels = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        given = handed(pixels)
        logits = given["logits"] if isinstance(given, dict) else given[0] if isinstance(given, tuple | list) else given
        torch.testing.assert_close(subject.anatomy.walk(pixels, Unwatched()), logits.flatten(1))


@pytest.mark.parametrize(
    "wrap",
    [
        lambda module: Around(module, before=lambda x: (x - 0.4) / 0.2),
        lambda module: Around(module, before=lambda x: x.clamp(0, 1)),
        lambda module: Around(module, before=lambda x: x.flip(3)),
        lambda module: Around(module, after=lambda y: y.log_softmax(1)),
        lambda module: Around(module, after=lambda y: 2 * y),
        lambda module: Around(module, after=lambda y: {"logits": y.log_softmax(1)}),
        lambda module: nn.Sequential(nn.BatchNorm2d(3), module),
        Cooled,
    ],
)
def test_a_wrapper_that_computes_is_examined_as_it_is(wrap):
    torch.manual_seed(0)
    handed = wrap(small(img_size=32))
    subject = load(handed, input=INPUT)
    assert subject.module is handed
    assert "computes something else" in subject.notes[0]


def test_what_cannot_be_seen_in_the_logits_is_seen_at_the_input():
    module = small(img_size=32)
    nn.init.zeros_(module.head.weight)
    handed = Around(module, before=lambda x: (x - 0.4) / 0.2)
    assert load(handed, input=INPUT).module is handed


def test_of_two_models_neither_is_chosen():
    handed = Pair(small(img_size=32), small(img_size=32))
    assert load(handed, input=INPUT).module is handed


def test_a_wrapper_is_left_as_it_is():
    module = compiled_inside(small(img_size=32))
    handed = Around(module)
    load(handed, input=INPUT)
    assert handed.model is module
    assert type(module.blocks[0]).__name__ == "OptimizedModule"
    in_place = compiled_in_place(small(img_size=32))
    load(in_place, input=INPUT)
    assert in_place._compiled_call_impl is not None
    assert not any(part._forward_pre_hooks for part in handed.modules())


def test_an_average_that_is_no_module_holds_one():
    average = ModelEma(small(img_size=32))
    assert unwrap(average)[0] is average.ema


def hooked(module):
    handed = nn.DataParallel(module)
    handed.register_forward_hook(lambda module, given, output: 0 * output)
    return handed


def traced(module):
    return torch.jit.trace(module, torch.zeros(1, 3, 32, 32))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: hooked(small(img_size=32)), "The DataParallel has forward hooks of its own"),
        (lambda: traced(small(img_size=32)), "The parts of a ScriptModule cannot be read"),
        (lambda: 5, "A int is not a model; give a torch.nn.Module"),
        (lambda: timm.create_model, "A function is not a model"),
    ],
)
def test_what_cannot_be_unwrapped_is_named(make, message):
    with pytest.raises(UserError, match=message):
        unwrap(make())
