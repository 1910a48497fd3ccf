"""One temperature for all logits: pencil and paper, another optimiser, the fold, and what is refused."""

import math

import numpy as np
import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from torch import nn

from vitscope import PixelInput, UserError, images, load
from vitscope.interventions import Temperature
from vitscope.interventions.temperature import fit_temperature, labelled_logits


def test_by_pencil_and_paper():
    """Margins of 2, three of four right: the best confidence is 3/4, so 2 / T = log 3."""
    logits = torch.tensor([[1.0, -1.0]] * 4).double()
    labels = torch.tensor([0, 0, 0, 1])
    assert fit_temperature(logits, labels) == pytest.approx(2 / math.log(3), rel=1e-10)
    assert fit_temperature(1000 * logits, labels) == pytest.approx(2000 / math.log(3), rel=1e-10)
    assert fit_temperature(1e-3 * logits - 5, labels) == pytest.approx(2e-3 / math.log(3), rel=1e-6)


@settings(deadline=None, max_examples=30, derandomize=True)
@given(st.integers(0, 1000), st.integers(2, 5), st.floats(0.1, 30))
def test_no_other_temperature_has_a_smaller_loss(seed, classes, scale):
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, classes, 60)
    logits = scale * (generator.standard_normal((60, classes)) + 1.5 * np.eye(classes)[labels])
    logits[0] = scale * 9 * np.eye(classes)[(labels[0] + 1) % classes]  # one is wrong

    def loss(inverse: float) -> float:
        shifted = inverse * (logits - logits.max(1, keepdims=True))
        return float((np.log(np.exp(shifted).sum(1)) - shifted[np.arange(60), labels]).mean())

    found = minimize_scalar(loss, bounds=(1e-6, 20 / scale), method="bounded", options={"xatol": 1e-12})
    fitted = fit_temperature(torch.from_numpy(logits), torch.from_numpy(labels))
    assert loss(1 / fitted) <= found.fun + 1e-12
    assert fitted == pytest.approx(1 / found.x, rel=1e-4)


def test_what_cannot_be_fitted_is_a_sentence():
    right = torch.tensor([[2.0, 1.0], [0.0, 3.0]])
    for logits, labels, why in (
        (right, [0, 1], "predicts all 2 images correctly"),
        (right, [1, 0], "no better than chance"),
        (torch.zeros(2, 2), [0, 1], "predicts all 2"),  # ties count as right: nothing is to be gained
        (torch.tensor([[math.inf, 1.0], [0.0, 3.0]]), [0, 1], "not finite"),
        (right.repeat(2, 1), [0, 1, 1, 0], "no better than chance"),
    ):
        with pytest.raises(UserError, match=why):
            fit_temperature(logits, torch.tensor(labels), "x")
    for temperature in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(UserError, match="temperature is"):
            Temperature(temperature)


def test_it_is_folded_into_the_classifier_of_an_ordinary_module():
    subject = load("digits")
    warm = Temperature(2.5)(subject)
    pixels = torch.randn(4, *subject.preprocessing.shape)
    assert warm.edits == ()
    own, new = (dict(one.module.named_parameters()) for one in (subject, warm))
    assert {name for name in own if own[name] is not new[name]} == {"head.weight", "head.bias"}
    torch.testing.assert_close(warm.module(pixels), subject.module(pixels) / 2.5)
    assert torch.equal(warm(pixels).argmax(1), subject(pixels).argmax(1))
    assert Temperature(1.0)(subject) is subject
    back = Temperature(0.4)(warm)
    torch.testing.assert_close(back(pixels), subject(pixels))


def test_two_heads_are_divided_together():
    torch.manual_seed(0)
    small = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 1, "num_heads": 3, "num_classes": 7}
    subject = load(timm.create_model("deit_tiny_distilled_patch16_224", **small).eval())
    warm = Temperature(3.0)(subject)
    own, new = (dict(one.module.named_parameters()) for one in (subject, warm))
    changed = {name for name in own if own[name] is not new[name]}
    assert changed == {"head.weight", "head.bias", "head_dist.weight", "head_dist.bias"}
    pixels = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(warm(pixels), subject(pixels) / 3)


class Cosine(nn.Module):
    """A classifier that normalises its logits, so that no weights can divide them."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.Sequential(nn.Sequential(nn.Conv2d(3, 8, 2, 2), nn.ReLU()), nn.Sequential(nn.Conv2d(8, 8, 1)))
        self.head = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.normalize(self.head(self.blocks(x).mean((2, 3))), dim=1)


def test_where_no_weights_can_the_walk_divides():
    torch.manual_seed(0)
    subject = load(Cosine().eval(), input=PixelInput(8, 3, (0.5,) * 3, (0.5,) * 3))
    warm = Temperature(0.1)(subject)
    pixels = torch.randn(2, 3, 8, 8)
    assert warm.edits == (Temperature(0.1),)
    assert warm.module is subject.module
    assert warm.places == subject.places
    torch.testing.assert_close(warm(pixels), subject(pixels) / 0.1)


def test_fitted_on_labelled_images():
    subject, some = load("digits"), images("digits", limit=300)
    warm = Temperature.fitted(Temperature(4.0)(subject), some)
    plain = Temperature.fitted(subject, some, batch_size=11)
    assert plain.temperature == pytest.approx(4 * warm.temperature, rel=1e-4)
    logits, labels = labelled_logits(subject, some)
    losses = [float(nn.functional.cross_entropy(logits / t, labels)) for t in (1.0, plain.temperature)]
    near = [float(nn.functional.cross_entropy(logits / (plain.temperature * f), labels)) for f in (0.99, 1.01)]
    assert losses[1] < min(losses[0], *near)
    with pytest.raises(UserError, match="no labels"):
        Temperature.fitted(subject, images("digits", limit=20, label="none"))
