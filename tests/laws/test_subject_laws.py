"""The laws of subjects, over every registered adapter on its small random models."""

import copy
from dataclasses import dataclass, field

import pytest
import torch
from torch import nn

from vitscope.diagnostics import default_diagnostics
from vitscope.engine.reading.activation import Workspace
from vitscope.engine.reading.shard import Reading
from vitscope.models.adapter import ADAPTERS, AbstractAdapter, Example
from vitscope.models.attention import Attention
from vitscope.models.catalogue import adapter_of, import_installed_adapters
from vitscope.models.stream import Layout, Stream
from vitscope.models.subject import AbstractObserver, Composition
from vitscope.models.unit import AbstractAttentionUnit

import_installed_adapters()
CASES = [(adapter, example) for _, adapter in ADAPTERS.items() for example in adapter.examples()]
IDS = [f"{adapter.name}: {example.name}" for adapter, example in CASES]


@dataclass
class Recorder(AbstractObserver):
    streams: dict[int, Stream] = field(default_factory=dict)
    attentions: dict[int, Attention] = field(default_factory=dict)

    def stream(self, layer: int, stream: Stream) -> None:
        self.streams[layer] = stream

    def attention(self, layer: int, attention: Attention) -> torch.Tensor:
        self.attentions[layer] = attention
        return attention.context()


@dataclass
class Case:
    adapter: type[AbstractAdapter]
    module: nn.Module
    images: torch.Tensor
    anatomy: Composition
    recorder: Recorder
    logits: torch.Tensor
    expected: torch.Tensor
    outputs: dict[str, torch.Tensor]


def upstream(output: object) -> torch.Tensor:
    """Logits, or features of a model without classifier, as a plain tensor."""
    if isinstance(output, torch.Tensor):
        return output
    for name in ("logits", "image_embeds", "pooler_output"):
        if getattr(output, name, None) is not None:
            return getattr(output, name)
    return output.last_hidden_state[:, 0]


def first(output: object) -> torch.Tensor:
    return output[0] if isinstance(output, tuple) else output


@pytest.fixture(scope="module", params=CASES, ids=IDS)
def case(request) -> Case:
    adapter, example = request.param
    assert isinstance(example, Example)
    torch.manual_seed(0)
    module = example.build().eval().double()
    generator = torch.Generator().manual_seed(1)
    for parameter in module.parameters():  # LayerScale, gates and biases start at trivial values
        parameter.data += 0.05 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    images = torch.randn(2, *example.image_shape, generator=generator, dtype=torch.float64)
    outputs: dict[str, torch.Tensor] = {}
    with torch.inference_mode():
        anatomy = adapter.anatomy(module)
        hooks = [
            module.get_submodule(unit.place.name).register_forward_hook(
                lambda _m, _i, out, name=unit.place.name: outputs.__setitem__(name, first(out))
            )
            for unit in anatomy.units
            if isinstance(unit, AbstractAttentionUnit)
        ]
        expected = upstream(module(images, **adapter.call_arguments(module, images)))
        for hook in hooks:
            hook.remove()
        recorder = Recorder()
        logits = anatomy.walk(images, recorder)
    return Case(adapter, module, images, anatomy, recorder, logits, expected, outputs)


def test_logits_equal_the_upstream_models(case):
    torch.testing.assert_close(case.logits, case.expected, rtol=1e-9, atol=1e-9)


def test_reading_changes_neither_logits_nor_weights(case):
    before = copy.deepcopy(case.module.state_dict())
    with torch.inference_mode():
        stream = case.anatomy.stem(case.images)
        for unit in case.anatomy.units:
            stream = unit(stream)
        assert torch.equal(case.anatomy.tail(stream), case.logits)
    for name, value in case.module.state_dict().items():
        assert torch.equal(value, before[name])


def test_diagnostics_change_the_logits_by_rounding_at_most(case):
    diagnostics = default_diagnostics()
    reading = Reading(diagnostics, case.anatomy.places, tuple(case.images.shape[2:]), Workspace())
    with torch.inference_mode():
        watched = case.anatomy.walk(case.images, reading)
    torch.testing.assert_close(watched, case.logits, rtol=1e-9, atol=1e-9)
    read = {key for found in reading.results() for key in found}
    assert {layer for layer, _ in read} >= set(case.recorder.attentions)


def test_the_adapter_is_found_by_the_module_alone(case):
    assert adapter_of(case.module) is case.adapter


def test_every_stream_has_its_declared_shape(case):
    assert set(case.recorder.streams) == set(range(len(case.anatomy.units) + 1))
    for stream in case.recorder.streams.values():
        height, width = stream.grid
        assert stream.values.ndim == len(stream.layout.value.split())
        assert stream.patches.shape[:2] == (2, height * width)
        assert stream.feature_map.shape == (2, stream.patches.shape[2], height, width)
        assert stream.prefix == 0 or stream.layout is Layout.TOKENS
        torch.testing.assert_close(stream.feature_map.flatten(2).transpose(1, 2), stream.patches)


def test_attention_rows_are_probabilities(case):
    for attention in case.recorder.attentions.values():
        weights = attention.weights()
        assert weights.min() >= 0
        torch.testing.assert_close(weights.sum(-1), torch.ones_like(weights[..., 0]))
        assert weights.shape == (*attention.queries.shape[:-1], attention.keys.shape[-2])
        assert attention.query_tokens.shape == (weights.shape[1], weights.shape[3])
        assert attention.key_tokens.shape == (weights.shape[1], weights.shape[4])
        tokens = attention.prefix + attention.grid[0] * attention.grid[1]
        assert attention.key_tokens.max() == tokens - 1
        assert attention.key_tokens.min() >= -1


def test_weights_and_values_give_the_modules_own_output(case):
    attentions = {
        unit.place.name: (unit, case.recorder.attentions[layer])
        for layer, unit in enumerate(case.anatomy.units, start=1)
        if isinstance(unit, AbstractAttentionUnit)
    }
    assert set(attentions) == set(case.outputs)
    for name, (unit, attention) in attentions.items():
        context = attention.mixed_weights() @ attention.values
        with torch.inference_mode():
            torch.testing.assert_close(unit.branch(attention, context), case.outputs[name], rtol=1e-9, atol=1e-9)


def test_every_unit_knows_its_place(case):
    places = case.anatomy.places
    assert len(places) > 0
    assert all(place.stage >= 0 for place in places)
    assert [place.stage for place in places] == sorted(place.stage for place in places)
