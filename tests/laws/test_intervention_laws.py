"""The laws of interventions, over every registered one: all of them on one model a family, one on all the others."""

import copy
import subprocess
import sys
from dataclasses import dataclass
from math import prod

import numpy as np
import pytest
import torch
from torch import nn

from vitscope import images
from vitscope.engine.intervention import AbstractIntervention
from vitscope.engine.reading.shard import Pass
from vitscope.engine.work.parcel import pack, unpack
from vitscope.interventions import all_interventions
from vitscope.measurement.errors import UserError
from vitscope.models.adapter import ADAPTERS, AbstractAdapter, Example
from vitscope.models.attention import Attention
from vitscope.models.catalogue import import_installed_adapters
from vitscope.models.stream import Stream
from vitscope.models.subject import AbstractObserver, Composition, Preprocessing, Subject, Unwatched
from vitscope.models.unit import UnitKind

import_installed_adapters()
EXAMPLES = [(adapter, example) for _, adapter in ADAPTERS.items() for example in adapter.examples()]
FAMILIES = [adapter for adapter, _ in EXAMPLES]
FIRST = [index for index, family in enumerate(FAMILIES) if FAMILIES.index(family) == index]
REST = [index for index in range(len(EXAMPLES)) if index not in FIRST]
INTERVENTIONS = all_interventions()


def transform(picture):
    raise AssertionError("no picture is read here")


@dataclass
class Applied:
    """An intervention, the subject after it and its logits; None where it refuses the model or what meets it there."""

    intervention: AbstractIntervention
    subject: Subject | None
    logits: torch.Tensor | None


@dataclass
class Case:
    index: int
    subject: Subject
    pixels: torch.Tensor
    logits: torch.Tensor
    before: "State"
    applied: list[Applied]


def built(adapter: type[AbstractAdapter], example: Example) -> tuple[Subject, torch.Tensor]:
    torch.manual_seed(0)
    module = example.build().eval().double()
    generator = torch.Generator().manual_seed(1)
    for parameter in module.parameters():  # LayerScale, gates and biases start at trivial values
        parameter.data += 0.05 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    channels = example.image_shape[0]
    preprocessing = Preprocessing(example.image_shape, transform, "", (0.5,) * channels, (0.25,) * channels)
    anatomy = adapter.anatomy(module)
    pixels = torch.randn(2, *example.image_shape, generator=generator, dtype=torch.float64)
    with torch.inference_mode():
        classes = anatomy.walk(pixels, Unwatched()).shape[-1]
    return Subject(example.name, adapter.name, module, anatomy, preprocessing, classes), pixels


@pytest.fixture(scope="module", params=FIRST, ids=[FAMILIES[index].name for index in FIRST])
def case(request) -> Case:
    asked = [example for one in INTERVENTIONS for example in one.examples()]
    return case_of(request.param, asked)


def case_of(index: int, asked: list[AbstractIntervention]) -> Case:
    subject, pixels = built(*EXAMPLES[index])
    next(subject.module.parameters()).requires_grad_(False)
    logits, before = logits_of(subject, pixels), state_of(subject.module)
    return Case(index, subject, pixels, logits, before, [Applied(one, *after(subject, pixels, one)) for one in asked])


def logits_of(subject: Subject, pixels: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return subject.anatomy.walk(pixels, Unwatched())


def after(
    subject: Subject, pixels: torch.Tensor, *interventions: AbstractIntervention
) -> tuple[Subject | None, torch.Tensor | None]:
    """The subject after these, and its logits; None where they are refused, in a sentence."""
    found = None
    try:
        for intervention in interventions:
            subject = intervention(subject)
        found = subject
        return found, logits_of(subject, pixels)
    except UserError as error:
        sentence = str(error)
    assert sentence.endswith(".")
    return found, None


@dataclass
class State:
    """All of a module that an intervention must leave alone, and the global random states.

    Python's own is left out: the type checks of these tests draw from it. See the last test.
    """

    tensors: dict[str, tuple[torch.Tensor, torch.Tensor, bool]]
    modes: list[bool]
    hooks: list[tuple[int, ...]]
    grads: list[bool]
    numpy: dict
    torch: torch.Tensor


def state_of(module: nn.Module) -> State:
    tensors = module.state_dict(keep_vars=True)
    parts = list(module.modules())
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks", "_state_dict_hooks")
    return State(
        {name: (tensor, tensor.detach().clone(), tensor.requires_grad) for name, tensor in tensors.items()},
        [part.training for part in parts],
        [tuple(len(getattr(part, kind)) for kind in kinds) for part in parts],
        [parameter.grad is None for parameter in module.parameters()],
        np.random.get_state(legacy=False),  # noqa: NPY002 (the global state is what is watched)
        torch.get_rng_state(),
    )


def assert_untouched(module: nn.Module, before: State) -> None:
    now = state_of(module)
    assert list(now.tensors) == list(before.tensors)
    for name, (tensor, _, requires_grad) in now.tensors.items():
        same, value, required = before.tensors[name]
        assert tensor is same, name
        assert torch.equal(tensor, value), name
        assert requires_grad == required, name
    assert (now.modes, now.hooks, now.grads) == (before.modes, before.hooks, before.grads)
    np.testing.assert_equal(now.numpy, before.numpy)
    assert torch.equal(now.torch, before.torch)


class Interrupted(Exception):
    """Raised from inside a walk."""


@dataclass
class Interrupting(AbstractObserver):
    """An observer that raises at a layer."""

    layer: int

    def stream(self, layer: int, stream: Stream) -> None:
        if layer == self.layer:
            raise Interrupted

    def attention(self, layer: int, attention: Attention) -> torch.Tensor:
        return attention.context()


def test_the_original_stays_as_it_was(case):
    """After all of them, in success and in failure; where this fails, the next test but one names the culprit."""
    assert_stays(case)
    assert sum(applied.logits is not None for applied in case.applied) > len(INTERVENTIONS) / 2


@pytest.mark.parametrize("start", range(4))
def test_the_original_of_every_other_model_stays_as_it_was(start):
    """One example of every third intervention, others for the next model."""
    for index in REST[start::4]:
        some = INTERVENTIONS[index % 3 :: 3]
        assert_stays(case_of(index, [one.examples()[index % len(one.examples())] for one in some]))


def assert_stays(case: Case) -> None:
    assert_untouched(case.subject.module, case.before)
    for applied in case.applied:
        if applied.logits is not None:
            with pytest.raises(Interrupted), torch.inference_mode():
                applied.subject.anatomy.walk(case.pixels, Interrupting(len(case.subject.places)))
    assert_untouched(case.subject.module, case.before)
    assert case.subject.edits == ()
    assert torch.equal(logits_of(case.subject, case.pixels), case.logits)


@pytest.mark.parametrize("intervention", INTERVENTIONS, ids=lambda one: one.name)
def test_no_intervention_touches_the_original(intervention):
    for index in (0, len(EXAMPLES) // 2, len(EXAMPLES) - 1):
        subject, pixels = built(*EXAMPLES[index])
        before = state_of(subject.module)
        for example in intervention.examples():
            after(subject, pixels, example)
            assert_untouched(subject.module, before)


def test_units_keep_their_places_and_what_did_not_change_is_shared(case):
    own = [(id(parameter), parameter.shape) for parameter in case.subject.module.parameters()]
    for applied in case.applied:
        if applied.subject is not None:
            assert applied.subject.places == case.subject.places
            assert applied.subject.name == case.subject.name
            new = [(id(parameter), parameter.shape) for parameter in applied.subject.module.parameters()]
            smaller = applied.intervention.changes_shapes
            assert smaller or [shape for _, shape in new] == [shape for _, shape in own]
            if smaller:
                assert sum(map(prod, (shape for _, shape in new))) < sum(map(prod, (shape for _, shape in own)))
                assert {id(one) for one in case.subject.module.parameters()} & {one for one, _ in new}
            assert applied.intervention.changes_weights or applied.subject.module is case.subject.module
            assert applied.intervention.changes_weights or new == own


def test_nothing_changes_no_logit(case):
    for intervention in INTERVENTIONS:
        settings = intervention.nothing()
        for nothing in settings[case.index % max(1, len(settings)) :][:1]:
            _, logits = after(case.subject, case.pixels, nothing)
            if logits is not None:
                torch.testing.assert_close(logits, case.logits, rtol=1e-9, atol=1e-9)


def test_what_is_equal_gives_the_same(case):
    for applied in case.applied[case.index % 4 :: 4]:
        again = copy.deepcopy(applied.intervention)
        assert (again, again.settings) == (applied.intervention, applied.intervention.settings)
        if applied.logits is not None:
            assert applied.logits.shape == case.logits.shape
            assert applied.logits.isfinite().all()
            assert torch.equal(applied.logits, after(case.subject, case.pixels, again)[1])


def test_an_image_does_not_depend_on_its_neighbours(case):
    for applied in case.applied[case.index % 4 :: 4]:
        if applied.logits is not None:
            alone = logits_of(applied.subject, case.pixels[1:])
            torch.testing.assert_close(alone, applied.logits[1:], rtol=1e-8, atol=1e-8)


def test_nothing_before_or_after_an_intervention_changes_nothing(case):
    compared, idle = 0, [one.nothing()[0] for one in INTERVENTIONS if one.nothing()]
    for number, applied in enumerate(case.applied[case.index % 4 :: 4]):
        nothing = idle[(case.index + number) % len(idle)]
        for both in ((nothing, applied.intervention), (applied.intervention, nothing)):
            _, logits = after(case.subject, case.pixels, *both)
            if logits is not None and applied.logits is not None:
                torch.testing.assert_close(logits, applied.logits, rtol=1e-9, atol=1e-9)
                compared += 1
    assert compared


def test_a_worker_finds_the_same_subject(case):
    pictures = images(np.zeros((1, 8, 8, 3), "uint8"))
    for applied in case.applied[case.index % 4 :: 4]:
        if applied.logits is not None:
            arrived = unpack(pack(Pass(applied.subject, pictures, (), 1))).subject
            assert arrived.places == applied.subject.places
            assert len(arrived.edits) == len(applied.subject.edits)
            assert torch.equal(logits_of(arrived, case.pixels), applied.logits)


def test_a_unit_that_can_be_left_out_returns_its_input_where_all_weights_are_zero(case):
    """And one that cannot be left out returns something else: so nothing is left in place without need."""
    adapter, example = EXAMPLES[case.index]
    still, _ = built(adapter, example)
    for tensor in (*still.module.parameters(), *still.module.buffers()):
        if tensor.is_floating_point():
            tensor.data.zero_()
    seen = Streams()
    with torch.inference_mode():
        case.subject.anatomy.walk(case.pixels, seen)
        assert isinstance(still.anatomy, Composition)
        for layer, unit in enumerate(still.anatomy.units, start=1):
            entering = seen.streams[layer - 1]
            entering = entering.with_values(entering.values.abs() + 0.1)  # an activation at a block's end keeps it
            left = seen.streams[layer]
            out = unit(entering)
            assert (out.values.shape, out.layout, out.grid) == (left.values.shape, left.layout, left.grid)
            if unit.bypass is None:
                assert out.values.shape != entering.values.shape or not torch.equal(out.values, entering.values)
                continue
            assert unit.place.kind not in (UnitKind.DOWNSAMPLING, UnitKind.REARRANGEMENT)
            through = unit.bypass(entering)
            assert (through.layout, through.grid, through.prefix) == (out.layout, out.grid, out.prefix)
            assert torch.equal(through.patches, entering.patches)
            torch.testing.assert_close(out.values, through.values, rtol=0, atol=0)


@dataclass
class Streams(AbstractObserver):
    """Keeps every stream."""

    def __post_init__(self) -> None:
        self.streams: dict[int, Stream] = {}

    def stream(self, layer: int, stream: Stream) -> None:
        self.streams[layer] = stream

    def attention(self, layer: int, attention: Attention) -> torch.Tensor:
        return attention.context()


@pytest.mark.parametrize("intervention", INTERVENTIONS, ids=lambda one: one.name)
def test_every_intervention_says_what_it_is(intervention):
    assert intervention.title
    assert intervention.references
    assert intervention.__doc__
    assert intervention.examples()
    for example in (*intervention.examples(), *intervention.nothing()):
        assert example.settings["intervention"] == intervention.name


PROGRAM = """
import random, torch, vitscope
from vitscope.interventions import all_interventions
from vitscope.measurement.errors import UserError
from vitscope.models.own.vit import Vit, VitConfig
from vitscope.models.subject import Unwatched
torch.set_num_threads(1)
subject = vitscope.load(Vit(VitConfig(image=16, dim=24, depth=2, heads=3, classes=7)))
before = random.getstate()
for intervention in all_interventions():
    for example in intervention.examples():
        try:
            example(subject).anatomy.walk(torch.ones(1, 3, 16, 16), Unwatched())
        except UserError:
            pass
        assert random.getstate() == before, example
print("done")
"""


def test_no_intervention_draws_from_pythons_global_randomness():
    found = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False)
    assert found.stdout == "done\n", found.stderr
