"""The laws of token features, over every registered family of models."""

import copy

import numpy as np
import pytest
import torch
from torch.nn import functional

from vitscope.convex.features import TokenRecipe, extract
from vitscope.data import images
from vitscope.models.adapter import ADAPTERS
from vitscope.models.attention import Attention
from vitscope.models.catalogue import import_installed_adapters
from vitscope.models.stream import Stream
from vitscope.models.subject import AbstractObserver, Preprocessing, Subject

import_installed_adapters()
FAMILIES = [(adapter, adapter.examples()[0]) for _, adapter in ADAPTERS.items()]
COUNT = 5


class Last(AbstractObserver):
    def stream(self, layer: int, stream: Stream) -> None:
        self.seen = stream

    def attention(self, layer: int, attention: Attention) -> torch.Tensor:
        return attention.context()


def noise(shape):
    return np.random.default_rng(0).integers(0, 256, (COUNT, *shape[1:], 3), dtype=np.uint8)


def transform(channels):
    def transformed(picture):
        values = torch.from_numpy(np.array(picture.convert("RGB"))).permute(2, 0, 1)
        return (values[:channels].float() - 128) / 64

    return transformed


@pytest.fixture(scope="module", params=FAMILIES, ids=[adapter.name for adapter, _ in FAMILIES])
def subject(request) -> Subject:
    adapter, example = request.param
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = example.build().eval()
        with torch.no_grad():
            for parameter in module.parameters():  # LayerScale, gates and biases start at trivial values
                parameter.add_(0.05 * torch.randn(parameter.shape))
    read = Preprocessing(example.image_shape, transform(example.image_shape[0]), "")
    return Subject(example.name, adapter.name, module, adapter.anatomy(module), read, 7)


def test_features_are_the_last_stream_of_a_watched_walk(subject, tmp_path):
    before = copy.deepcopy(subject.module.state_dict())
    state = torch.get_rng_state()
    pictures = noise(subject.preprocessing.shape)
    found = extract(subject, images(pictures), TokenRecipe(prefix=True), folder=tmp_path, batch_size=2)
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(value, before[name]) for name, value in subject.module.state_dict().items())
    assert not any(part.training or part._forward_hooks for part in subject.module.modules())
    batch = torch.stack([transform(subject.preprocessing.shape[0])(images(pictures).read(i)) for i in range(COUNT)])
    last = Last()
    with torch.no_grad():
        subject.anatomy.walk(batch, last)
        direct = found.extractor(batch)
        copied = copy.deepcopy(found.extractor)(batch)
    wanted = functional.layer_norm(last.seen.tokens, last.seen.tokens.shape[-1:], eps=1e-6)
    assert (found.grid, found.prefix) == (last.seen.grid, last.seen.prefix)
    for one in (torch.from_numpy(found.tokens.copy()), direct, copied):
        torch.testing.assert_close(one, wanted, rtol=1e-3, atol=1e-4)


def test_pooling_to_one_token_is_the_mean_and_all_components_are_a_rotation(subject, tmp_path):
    pictures = images(noise(subject.preprocessing.shape))
    plain = extract(subject, pictures, folder=tmp_path)
    pooled = extract(subject, pictures, TokenRecipe(pool=1), folder=tmp_path)
    np.testing.assert_allclose(pooled.tokens[:, 0], plain.tokens.mean(1), rtol=1e-4, atol=1e-5)
    dim = plain.tokens.shape[2]
    turned = extract(subject, pictures, TokenRecipe(width=dim), folder=tmp_path)
    projection = turned.extractor.projection
    torch.testing.assert_close(projection.components.T @ projection.components, torch.eye(dim), rtol=0, atol=1e-5)
    variances = turned.tokens.astype(np.float64).reshape(-1, dim).var(0)
    assert (np.diff(variances) <= 1e-5 * variances[0]).all()
    np.testing.assert_allclose(
        variances.sum(), plain.tokens.reshape(-1, dim).astype(np.float64).var(0).sum(), rtol=1e-4
    )
