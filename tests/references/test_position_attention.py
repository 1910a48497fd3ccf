"""The reduction to correlations against autograd through the model itself, with all its dimensions."""

import itertools
import math
from collections import defaultdict

import pytest
import torch
from torch.nn import functional

from vitscope.labs.masked.clusters import ClusteredPatches, MaskedSamples, concatenate
from vitscope.labs.masked.contrastive import Contrastive, representation
from vitscope.labs.masked.position_attention import (
    Correlations,
    PositionAttention,
    at_zero,
    reconstruction_gradient,
    reconstruction_loss,
    unavoidable_loss,
)
from vitscope.labs.masked.training import read

SETTINGS = [
    ClusteredPatches(low=0.5, high=2.0),
    ClusteredPatches(100, 3, 20, 8, masked_share=0.5),
    ClusteredPatches(12, 1, 4, 4, low=0.0, high=1.0, masked_share=0.9),
    ClusteredPatches(7, 2, 3, 1, low=1.0, high=3.0, masked_share=0.3),
]
CLOSE = {"rtol": 0, "atol": 1e-8}


def case(setting, seed=0, count=6, scale=1.0):
    """Partition, samples and a random matrix Q on features and positions."""
    generator = torch.Generator().manual_seed(seed)
    partition, samples = setting.partition(generator)[None], setting.draw(count, generator)
    dim = setting.clusters * setting.areas + setting.patches
    return partition, samples, scale * torch.randn(dim, dim, generator=generator, dtype=torch.float64)


def reduced(matrix, partition, setting):
    """The reduction of Q."""
    features = setting.clusters * setting.areas
    feature = matrix[features:, :features].reshape(1, setting.patches, setting.clusters, setting.areas)
    return PositionAttention(Correlations(feature, matrix[None, features:, features:]), partition)


def ambient(matrix, partition, samples, setting):
    """Images, attention and outputs of the model in the dimension of its tokens."""
    features = setting.clusters * setting.areas
    areas = partition[0, samples.clusters[0]]
    images = torch.zeros(*areas.shape, len(matrix), dtype=torch.float64)
    which = samples.clusters[0][:, None] * setting.areas + areas
    images.scatter_(2, which[..., None], samples.strengths[0].gather(1, areas)[..., None])
    seen = images * samples.visible[0][..., None]
    codes = functional.pad(torch.eye(setting.patches, dtype=torch.float64), (features, 0))
    attention = ((codes @ matrix) @ (seen + codes).mT).softmax(-1)
    return images, attention, attention @ seen


def ambient_loss(matrix, partition, samples, setting):
    images, _, outputs = ambient(matrix, partition, samples, setting)
    return ((outputs - images).square().sum(-1) * ~samples.visible[0]).sum(-1) / 2


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("scale", [0.0, 1.0, 5.0])
def test_attention_loss_and_gradient_are_those_of_the_ambient_model(setting, scale):
    partition, samples, matrix = case(setting, scale=scale)
    matrix.requires_grad_()
    loss = ambient_loss(matrix, partition, samples, setting)
    gradient = torch.autograd.grad(loss.mean(), matrix)[0]
    attention = reduced(matrix.detach(), partition, setting).attend(samples)
    torch.testing.assert_close(attention.dense()[0], ambient(matrix, partition, samples, setting)[1].detach(), **CLOSE)
    torch.testing.assert_close(reconstruction_loss(attention)[0], loss.detach(), **CLOSE)
    found, expected = reconstruction_gradient(attention), reduced(gradient, partition, setting).correlations
    torch.testing.assert_close(found.feature, expected.feature, **CLOSE)
    torch.testing.assert_close(found.position, expected.position, **CLOSE)
    features = setting.clusters * setting.areas
    assert float(gradient[:features].abs().max()) == 0  # nothing else of Q learns
    assert float(found.feature.abs().max()) > 1e-5


@pytest.mark.parametrize("setting", SETTINGS)
def test_gradient_is_autograd_through_the_reduction(setting):
    partition, samples, matrix = case(setting, seed=1)
    model = reduced(matrix, partition, setting)
    feature = model.correlations.feature.clone().requires_grad_()
    position = model.correlations.position.clone().requires_grad_()
    areas, strengths = partition[0, samples.clusters[0]], samples.strengths[0]
    of_key = strengths.gather(1, areas) * samples.visible[0]
    of_cluster = feature[0].movedim(1, 0)[samples.clusters[0]]
    keyed = of_cluster.gather(2, areas[:, None].expand(-1, setting.patches, -1))
    attention = (of_key[:, None] * keyed + position[0]).softmax(-1)
    mixed = torch.einsum("bpq,bqm->bpm", attention * of_key[:, None], functional.one_hot(areas, setting.areas).double())
    target = functional.one_hot(areas, setting.areas) * strengths[:, None]
    loss = ((mixed - target).square().sum(-1) * ~samples.visible[0]).sum(-1).mean() / 2
    expected = torch.autograd.grad(loss, (feature, position))
    found = reconstruction_gradient(model.attend(samples))
    torch.testing.assert_close(found.feature, expected[0], **CLOSE)
    torch.testing.assert_close(found.position, expected[1], **CLOSE)


def test_gradient_is_the_papers_formulas_written_out():
    setting = ClusteredPatches(8, 2, 4, 2, low=0.5, high=2.0, masked_share=0.5)
    partition, samples, matrix = case(setting, seed=2)
    model = reduced(matrix, partition, setting)
    attention = model.attend(samples)
    feature, position = (torch.zeros_like(part) for part in (model.correlations.feature, model.correlations.position))
    for sample, cluster in enumerate(samples.clusters[0].tolist()):
        area, z, weights = partition[0, cluster], samples.strengths[0, sample], attention.dense()[0, sample]
        visible = samples.visible[0, sample]
        for p in range(8):
            if visible[p]:
                continue
            own, mass = int(area[p]), [weights[p][visible & (area == m)].sum() for m in range(setting.areas)]
            squares = [(z[m] * mass[m]) ** 2 for m in range(setting.areas)]
            for m in range(setting.areas):
                rest = sum(squares[i] for i in range(setting.areas) if i not in (m, own))
                if m == own:
                    speed = z[m] * mass[m] * (z[m] ** 2 * (1 - mass[m]) ** 2 + rest)
                else:
                    pull = z[own] ** 2 * (1 - mass[own]) * mass[own]
                    speed = z[m] * mass[m] * (rest - z[m] ** 2 * mass[m] * (1 - mass[m]) - pull)
                feature[0, p, cluster, m] -= speed / 6
            g = torch.stack([visible[q] * _push(z, mass, int(area[q]), own) for q in range(8)])
            position[0, p] += weights[p] * (g - (weights[p] * g).sum()) / 6
    found = reconstruction_gradient(attention)
    torch.testing.assert_close(found.feature, feature, **CLOSE)
    torch.testing.assert_close(found.position, position, **CLOSE)


def _push(z, mass, area, own):
    return -(z[own] ** 2) * (1 - mass[own]) if area == own else z[area] ** 2 * mass[area]


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("objective", [Contrastive(0.3, 0.1), Contrastive(1.0)])
def test_contrastive_loss_and_gradient_are_those_of_the_ambient_model(setting, objective):
    partition, samples, matrix = case(setting, seed=3, count=9, scale=0.5)
    other = setting.mask_again(samples, torch.Generator().manual_seed(4))
    features = setting.clusters * setting.areas
    matrix[:features] = 0  # never read, but the penalty would count it
    matrix.requires_grad_()
    one, two = (ambient(matrix, partition, view, setting)[2].mean(1) for view in (samples, other))
    scores = one @ two.detach().mT / objective.temperature
    loss = functional.cross_entropy(scores, torch.arange(9)) + objective.penalty / 2 * matrix.square().sum()
    gradient = torch.autograd.grad(loss, matrix)[0]
    model = reduced(matrix.detach(), partition, setting)
    found, expected = objective.gradient(model, [samples, other]), reduced(gradient, partition, setting).correlations
    torch.testing.assert_close(objective.loss(model, [samples, other])[0], loss.detach(), **CLOSE)
    torch.testing.assert_close(found.feature, expected.feature, **CLOSE)
    torch.testing.assert_close(found.position, expected.position, **CLOSE)
    norms = representation(model.attend(samples))[0].norm(dim=1)
    torch.testing.assert_close(norms, one.detach().norm(dim=1), **CLOSE)


def test_descent_on_the_correlations_is_descent_on_the_matrix():
    setting = ClusteredPatches(16, 2, 8, 4, masked_share=0.5)
    partition, samples, _ = case(setting, count=32)
    matrix = torch.zeros(22, 22, dtype=torch.float64, requires_grad=True)
    model = at_zero(partition, setting.areas)
    for _ in range(30):
        gradient = torch.autograd.grad(ambient_loss(matrix, partition, samples, setting).mean(), matrix)[0]
        matrix = (matrix - 3 * gradient).detach().requires_grad_()
        model = model.descend(reconstruction_gradient(model.attend(samples)), 3.0)
    expected = reduced(matrix.detach(), partition, setting).correlations
    torch.testing.assert_close(model.correlations.feature, expected.feature, **CLOSE)
    torch.testing.assert_close(model.correlations.position, expected.position, **CLOSE)
    assert float(model.correlations.feature.abs().max()) > 1


def test_a_trial_axis_changes_no_trial():
    settings = [ClusteredPatches(100, 3, 20, 8), ClusteredPatches(100, 3, 40, 6, low=0.5, high=2.0, masked_share=0.5)]
    cases = [case(setting, seed=seed) for seed, setting in enumerate(settings)]
    models = [reduced(matrix, partition, settings[0]) for partition, _, matrix in cases]
    alone = [reconstruction_gradient(model.attend(one[1])) for model, one in zip(models, cases, strict=True)]
    feature = torch.cat([model.correlations.feature for model in models])
    position = torch.cat([model.correlations.position for model in models])
    together = PositionAttention(Correlations(feature, position), torch.cat([one[0] for one in cases]))
    found = reconstruction_gradient(together.attend(concatenate([one[1] for one in cases])))
    torch.testing.assert_close(found.feature, torch.cat([one.feature for one in alone]), rtol=0, atol=1e-13)
    torch.testing.assert_close(found.position, torch.cat([one.position for one in alone]), rtol=0, atol=1e-13)


def test_single_precision_is_close_and_large_correlations_stay_finite():
    setting = SETTINGS[0]
    partition, samples, matrix = case(setting)
    double = reconstruction_gradient(reduced(matrix, partition, setting).attend(samples))
    single = reduced(matrix.float(), partition, setting).attend(samples.to(torch.float32, torch.device("cpu")))
    torch.testing.assert_close(reconstruction_gradient(single).feature.double(), double.feature, rtol=0, atol=1e-6)
    for size in (60.0, -60.0):
        large = reduced(torch.full_like(matrix, size).float(), partition, setting)
        attention = large.attend(samples.to(torch.float32, torch.device("cpu")))
        assert bool(reconstruction_gradient(attention).feature.isfinite().all())
        torch.testing.assert_close(attention.mass.sum(-2), torch.ones(1, 6, 100))


def test_a_large_correlation_with_an_area_of_hidden_patches_takes_no_attention():
    setting = ClusteredPatches(8, 1, 4, 2, masked_share=0.5)
    partition = torch.tensor([[[0, 0, 0, 0, 1, 1, 2, 2]]])
    seen = torch.tensor([[[True, True, True, False, False, False, True, False]]])
    samples = MaskedSamples(torch.zeros(1, 1, dtype=torch.int64), torch.ones(1, 1, 3), seen)
    model = at_zero(partition, setting.areas, torch.float32)
    model.correlations.feature[..., 1] = 500
    attention = model.attend(samples)
    torch.testing.assert_close(attention.dense(), torch.full((1, 1, 8, 8), 1 / 8))


def test_the_unavoidable_loss_is_where_perfect_attention_ends():
    setting = ClusteredPatches(20, 2, 8, 3, low=0.5, high=2.0, masked_share=0.75)
    partition, samples, _ = case(setting, count=200)
    own = functional.one_hot(partition, setting.areas).permute(0, 2, 1, 3).double()
    perfect = PositionAttention(Correlations(300 * own - 150, torch.zeros(1, 20, 20).double()), partition)
    attention = perfect.attend(samples)
    torch.testing.assert_close(reconstruction_loss(attention), unavoidable_loss(attention), rtol=0, atol=1e-9)
    assert 0 < float(unavoidable_loss(attention).mean()) < math.inf


def test_readings_are_plain_means():
    setting = ClusteredPatches(8, 2, 4, 2, low=0.5, high=2.0, masked_share=0.75)
    partition, samples, matrix = case(setting, seed=5, count=20)
    model = reduced(matrix, partition, setting)
    reading = read(model, samples)
    kinds = {"own_global": [], "own_local": [], "local_to_global": [], "others": []}
    for p, k, m in itertools.product(range(8), range(2), range(3)):
        own = int(partition[0, k, p])
        kind = ("own_local" if own else "own_global") if m == own else ("others" if m else "local_to_global")
        kinds[kind].append(float(model.correlations.feature[0, p, k, m]))
    weights, lists = model.attend(samples).dense()[0], defaultdict(list)
    for sample, p in itertools.product(range(20), range(8)):
        visible, area = samples.visible[0, sample], partition[0, samples.clusters[0, sample]]
        if visible[p]:
            continue
        mates = visible & (area == area[p])
        of = "local" if area[p] else "global"
        mass = float(weights[sample, p][mates].sum())
        lists[f"{of}_attention_always"].append(mass)
        if mates.any():
            lists[f"{of}_attention"].append(mass)
        if area[p]:
            lists["stray_attention"].append(float(weights[sample, p][visible & (area == 0)].sum()))
    for name, values in (kinds | lists).items():
        assert float(getattr(reading, name)) == pytest.approx(sum(values) / len(values)), name
    assert len(lists["local_attention"]) < len(lists["local_attention_always"])
    assert float(reading.position) == float(model.correlations.position.abs().max())
    loss = ambient_loss(matrix, partition, samples, setting)
    assert float(reading.loss) == pytest.approx(float(loss.mean()))
    blind = unavoidable_loss(model.attend(samples)).mean()
    assert float(reading.excess) == pytest.approx(float(loss.mean() - blind))
