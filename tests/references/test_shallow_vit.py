"""The shallow ViT's closed forms against the paper's formula written out, and its gradient against autograd."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from deeper_vit import DeeperVit
from hypothesis import given, settings
from hypothesis import strategies as st

from vitscope.labs.shallow.attention import attention, attention_received, profile
from vitscope.labs.shallow.shallow_vit import ShallowVit, mean_error, mean_hinge
from vitscope.labs.shallow.token_model import Role, TokenModel
from vitscope.labs.shallow.weights import Weights, stack_trials
from vitscope.measurement.errors import UserError

TOKENS, IMAGES = 12, 6
DATA = TokenModel(tokens=TOKENS, relevant=0.34, spurious=0.2)


def formula(model, weights, tokens, keep):
    """F of every image of one trial, query by query, as the paper states it."""
    outputs = []
    for image, kept in zip(tokens, keep, strict=True):
        total = 0.0
        keys = [k for k in range(len(image)) if kept[k] or not model.drops_keys]
        for query in range(len(image)):
            if kept[query]:
                scores = [model.scale * (weights.key @ image[k]) @ (weights.query @ image[query]) for k in keys]
                shares = (
                    torch.stack(scores).softmax(0) if model.attention else tokens.new_full((len(keys),), 1 / len(keys))
                )
                mixed = sum(share * image[k] for share, k in zip(shares, keys, strict=True))
                total = total + weights.top[:, query] @ (weights.output @ weights.value @ mixed).relu()
        outputs.append(total / int(kept.sum()))
    return torch.stack(outputs)


def setting(model, trials=2, seed=0, size=1.0):
    generator = torch.Generator().manual_seed(seed)
    weights = stack_trials([model.initial(TOKENS, DATA.vectors, generator) for _ in range(trials)])
    weights = Weights(*(size * part.double() for part in weights.trained), weights.top.double())
    drawn = [DATA.draw(IMAGES, generator) for _ in range(trials)]
    tokens, labels, roles = (torch.stack([getattr(one, n) for one in drawn]) for n in ("tokens", "labels", "roles"))
    keep = torch.rand(trials, IMAGES, TOKENS, generator=generator) < 0.6
    keep[..., 0] = True
    return weights, tokens.double(), labels.double(), roles, keep


def of(weights, trial):
    """One trial's matrices, by name."""
    return SimpleNamespace(**{name: part[trial] for name, part in vars(weights).items()})


MODELS = [
    ShallowVit(neurons=7, value_width=11, query_width=13, xi=0.5),
    ShallowVit(neurons=7, xi=0.5, scale=0.3, drops_keys=False),
    ShallowVit(neurons=7, xi=0.5, zero_query=True),
    ShallowVit(neurons=7, xi=0.5, attention=False),
    ShallowVit(neurons=7, xi=0.5, attention=False, drops_keys=False),
]


@pytest.mark.parametrize("kept", [True, False], ids=["some tokens", "all tokens"])
@pytest.mark.parametrize("model", MODELS, ids=range(len(MODELS)))
def test_outputs_and_gradients_are_those_of_the_formula(model, kept):
    weights, tokens, labels, _, keep = setting(model)
    keep = keep if kept else torch.ones_like(keep)
    leaves = Weights(*(part.clone().requires_grad_() for part in weights.all))
    wanted = torch.stack([formula(model, of(leaves, trial), tokens[trial], keep[trial]) for trial in range(2)])
    given = keep if kept else None
    torch.testing.assert_close(model.outputs(weights, tokens, given), wanted.detach(), rtol=1e-12, atol=1e-14)
    loss = mean_hinge(wanted, labels).sum()
    slopes = torch.autograd.grad(loss, leaves.trained, allow_unused=True, materialize_grads=True)
    assert float(slopes[3].abs().max()) > 1e-4
    for found, slope in zip(model.gradient(weights, tokens, labels, given), slopes, strict=True):
        torch.testing.assert_close(found, slope, rtol=1e-11, atol=1e-14)


def test_images_beyond_the_margin_give_no_gradient():
    model = MODELS[0]
    weights, tokens, labels, _, _ = setting(model, size=3.0)
    right = labels * model.outputs(weights, tokens).sign()
    weights = replace(weights, output=weights.output * 1e3)
    assert all(float(part.abs().max()) == 0 for part in model.gradient(weights, tokens, labels * right))


@settings(max_examples=25, deadline=None)
@given(st.floats(-2, 3), st.integers(0, 1000), st.booleans())
def test_large_scores_overflow_nowhere(power, seed, single):
    model = replace(MODELS[0], scale=10**power)
    weights, tokens, labels, _, keep = setting(model, seed=seed)
    exact = attention(model, weights, tokens, keep) @ tokens
    hidden = (exact @ torch.bmm(weights.output, weights.value).mT.unsqueeze(1)).relu()
    wanted = ((hidden * weights.top.mT.unsqueeze(1)).sum(3) * keep).sum(2) / keep.sum(2)
    dtype, near = (torch.float32, 1e-3) if single else (torch.float64, 1e-10)
    found = model.outputs(weights.to(dtype, torch.device("cpu")), tokens.to(dtype), keep)
    scale = float(wanted.abs().max())
    torch.testing.assert_close(found.double(), wanted, rtol=0, atol=near * scale * max(1, model.scale))
    slopes = model.gradient(weights.to(dtype, torch.device("cpu")), tokens.to(dtype), labels.to(dtype), keep)
    assert all(part.isfinite().all() for part in slopes)


def test_very_negative_scores_leave_dropped_keys_out():
    model = replace(MODELS[0], scale=-1e4)
    weights, tokens, _, _, keep = setting(model)
    keep[:] = False
    keep[..., :2] = True
    few = tokens[:, :, :2]
    short = replace(weights, top=weights.top[:, :, :2])
    torch.testing.assert_close(model.outputs(weights, tokens, keep), model.outputs(short, few), rtol=1e-10, atol=1e-13)


def test_the_initial_model_has_the_stated_errors():
    model = ShallowVit(neurons=400, value_width=12, query_width=11, sigma=0.3, delta=0.2, xi=0.05)
    weights = model.initial(TOKENS, DATA.vectors, torch.Generator().manual_seed(0))
    for part, error in ((weights.value, 0.3), (weights.key, 0.2), (weights.query, 0.2)):
        off = part[0] @ DATA.vectors.T - torch.eye(part.shape[1], 10)
        torch.testing.assert_close(off.norm(dim=0), torch.full((10,), error))
    assert abs(float(weights.output.std()) / 0.05 - 1) < 5 / (2 * 4800) ** 0.5  # fails by chance once in a million
    assert set(weights.top.unique().tolist()) == {-0.05000000074505806, 0.05000000074505806}
    assert abs(float(weights.top.sign().mean())) < 5 / 4800**0.5
    with pytest.raises(UserError, match="value_width"):
        ShallowVit(value_width=9).initial(TOKENS, DATA.vectors, torch.Generator())


def test_a_shared_top_layer_does_not_see_places():
    model = ShallowVit(neurons=7, xi=0.5, shared_top=True)
    weights = model.initial(TOKENS, DATA.vectors, torch.Generator().manual_seed(0))
    own = replace(model, shared_top=False).initial(TOKENS, DATA.vectors, torch.Generator().manual_seed(0))
    assert weights.top.eq(weights.top[:, :, :1]).all()
    assert set(weights.top.abs().unique().tolist()) == set(own.top.abs().unique().tolist())
    assert all(torch.equal(one, other) for one, other in zip(weights.trained, own.trained, strict=True))
    tokens = DATA.draw(4, torch.Generator().manual_seed(1)).tokens.unsqueeze(0)
    moved, there = tokens.flip(2), model.outputs(weights, tokens)
    torch.testing.assert_close(model.outputs(weights, moved), there, rtol=1e-4, atol=1e-6)
    assert not torch.allclose(model.outputs(own, moved), model.outputs(own, tokens), rtol=1e-2)


def test_profiles_are_means_over_queries_of_a_role():
    model = MODELS[0]
    weights, tokens, _, roles, keep = setting(model)
    found = profile(model, weights, tokens, roles, keep)
    weight = attention(model, weights, tokens, keep)
    torch.testing.assert_close(weight.sum(3), torch.ones(2, IMAGES, TOKENS).double())
    for asking in Role:
        chosen = (roles[1] == asking) & keep[1]
        rows, shown = weight[1][chosen], roles[1].unsqueeze(1).expand(-1, TOKENS, -1)[chosen]
        assert int(found.queries[1, asking]) == len(rows)
        for key in Role:
            expected = (rows * (shown == key)).sum(1).mean()
            torch.testing.assert_close(found.mass[1, asking, key], expected, equal_nan=True)
        entropy = torch.distributions.Categorical(rows).entropy().mean()
        torch.testing.assert_close(found.entropy[1, asking], entropy, equal_nan=True)
    torch.testing.assert_close(found.overall.sum(1), torch.ones(2).double())
    torch.testing.assert_close(attention_received(model, weights, tokens), attention(model, weights, tokens).mean(2))


def test_the_zero_one_error_counts_wrong_sides():
    outputs, labels = torch.tensor([[0.2, -0.1, 3.0, 0.0]]), torch.tensor([[1.0, 1.0, -1.0, 1.0]])
    assert mean_error(outputs, labels).tolist() == [0.75]
    torch.testing.assert_close(mean_hinge(outputs, labels), torch.tensor([(0.8 + 1.1 + 4.0 + 1.0) / 4]))


def test_one_layer_of_the_deeper_model_is_the_shallow_one():
    shallow = MODELS[0]
    weights, tokens, labels, _, keep = setting(shallow)
    deep = DeeperVit(shallow, 1)
    torch.testing.assert_close(deep.outputs((weights,), tokens, keep), shallow.outputs(weights, tokens, keep))
    (found,) = deep.gradient((weights,), tokens, labels, keep)
    for one, other in zip(found, shallow.gradient(weights, tokens, labels, keep), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-14)


def test_more_layers_start_as_the_shallow_model_and_learn():
    deep = DeeperVit(MODELS[0], 3)
    layers = deep.initial(TOKENS, DATA.vectors, torch.Generator().manual_seed(1))
    sample = DATA.draw(IMAGES, torch.Generator().manual_seed(2))
    tokens, labels = sample.tokens[None], sample.labels[None]
    torch.testing.assert_close(deep.outputs(layers, tokens), deep.shallow.outputs(layers[-1], tokens))
    slopes = deep.gradient(layers, tokens, labels)
    assert all(float(slope[3].abs().max()) > 0 for slope in slopes)
    moved = replace(layers[0], output=layers[0].output - 1e-3 * slopes[0][3])
    before, after = (mean_hinge(deep.outputs((one, *layers[1:]), tokens), labels) for one in (layers[0], moved))
    predicted = 1e-3 * float(slopes[0][3].square().sum())
    assert float(before - after) == pytest.approx(predicted, rel=0.1)
