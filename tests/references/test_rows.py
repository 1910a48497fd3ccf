"""Attention diagnostics against their definitions written out over stored maps of a real windowed model."""

import numpy as np
import pytest
import timm
import torch

from vitscope import load
from vitscope.diagnostics.attention_distance import AttentionDistance
from vitscope.diagnostics.attention_entropy import AttentionEntropy
from vitscope.diagnostics.attention_sinks import AttentionSinks
from vitscope.engine.reading.activation import AttentionRows, Geometry, Workspace
from vitscope.models.attention import Attention
from vitscope.models.stream import Stream
from vitscope.models.subject import AbstractObserver


class Kept(AbstractObserver):
    def __init__(self):
        self.attentions: list[tuple[Attention, Stream]] = []

    def stream(self, layer: int, stream: Stream) -> None:
        self.last = stream

    def attention(self, layer: int, attention: Attention) -> torch.Tensor:
        self.attentions.append((attention, self.last))
        return attention.context()


@pytest.fixture(scope="module", params=["vit_tiny_patch16_224", "swin_tiny_patch4_window7_224"])
def rows(request):
    torch.manual_seed(0)
    small = {"img_size": 64, "num_classes": 5}
    extra = {"window_size": 4} if "swin" in request.param else {"depth": 2}
    subject = load(timm.create_model(request.param, **small, **extra))
    kept = Kept()
    with torch.inference_mode():
        subject.anatomy.walk(torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1)), kept)
    attention, stream = kept.attentions[1]
    return AttentionRows(attention, stream.tokens.norm(dim=-1), Geometry.of(attention, (64, 64)), Workspace())


def maps(rows):
    return rows.attention.weights().double().numpy()


def patches(rows):
    return rows.attention.query_tokens.numpy() >= rows.attention.prefix


def test_weights_are_the_softmax_of_the_scores(rows):
    torch.testing.assert_close(rows.weights, rows.attention.weights(), rtol=1e-5, atol=1e-7)


def test_entropy(rows):
    weights = maps(rows)
    entropy = -(weights * np.log(weights + 1e-300)).sum(-1)
    chosen = np.broadcast_to(patches(rows)[None, :, None], entropy.shape)
    expected = np.where(chosen, entropy, 0).sum((1, 3)) / chosen.sum((1, 3))
    np.testing.assert_allclose(AttentionEntropy().observe(rows)["entropy"], expected, rtol=1e-4)


def test_distance(rows):
    a, weights = rows.attention, maps(rows)
    height, width = a.grid
    cell = (64 / height, 64 / width)

    def centre(token):
        return np.array([(token // width + 0.5) * cell[0], (token % width + 0.5) * cell[1]])

    means = []
    for window, (queries, keys) in enumerate(zip(a.query_tokens.tolist(), a.key_tokens.tolist(), strict=True)):
        for i, query in enumerate(queries):
            if query < a.prefix:
                continue
            inside = [j for j, key in enumerate(keys) if key >= a.prefix]
            reach = [np.linalg.norm(centre(query - a.prefix) - centre(keys[j] - a.prefix)) for j in inside]
            mass = weights[:, window, :, i][..., inside]
            means.append((mass * np.array(reach)).sum(-1) / mass.sum(-1))
    expected = np.mean(means, axis=0)
    np.testing.assert_allclose(AttentionDistance().observe(rows)["distance"], expected, rtol=1e-4)


def test_prefix_mass(rows):
    found = AttentionSinks().observe(rows)
    weights = maps(rows)
    expected = {1: lambda: weights[:, 0, :, 1:, 0].mean(-1)}.get(rows.attention.prefix, lambda: None)()
    assert ("prefix_mass" in found) == (expected is not None)
    np.testing.assert_allclose(found.get("prefix_mass", np.nan), np.nan if expected is None else expected, rtol=1e-4)


def test_the_rows_of_a_sample_are_rows_of_the_whole_evenly_spread(rows):
    sample = rows.sample(8)
    slots = rows.geometry.spread(8)
    assert 4 <= len(slots) <= 8
    assert patches(rows)[:, slots].all()
    assert torch.equal(sample.weights, rows.weights[..., slots, :])
    torch.testing.assert_close(sample.share.sum(-1), torch.ones(len(sample.share)))
    assert len(rows.geometry.spread(10_000)) == patches(rows).sum(-1).max()


def test_a_spread_has_its_share_in_every_row_and_column():
    tokens = torch.arange(197)[None]
    slots = Geometry(tokens, tokens, (14, 14), 1, (224, 224), torch.float32).spread(70) - 1
    assert len(slots) == 65
    for line in (slots // 14, slots % 14):
        assert set(line.bincount(minlength=14).tolist()) == {4, 5}


def test_the_context_is_the_fused_kernels(rows):
    torch.testing.assert_close(rows.context, rows.attention.context(), rtol=1e-4, atol=1e-5)
