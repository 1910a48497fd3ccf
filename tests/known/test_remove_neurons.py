"""Hidden neurons that are removed: known answers, choices, and what is refused."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils import parametrizations

import vitscope
from vitscope import UserError, images, load
from vitscope.interventions import RemoveNeurons, RemoveUnits
from vitscope.interventions.lesion import Lesion
from vitscope.interventions.remove_neurons import kept_width
from vitscope.models.own.vit import Vit, VitConfig
from vitscope.models.pixels import PixelInput


def small_vit(seed: int = 0) -> Vit:
    torch.manual_seed(seed)
    module = Vit(VitConfig(image=8, channels=3, patch=2, dim=12, depth=2, heads=3, classes=4)).double()
    for parameter in module.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return module


@pytest.fixture(scope="module")
def pictures():
    return images(np.random.default_rng(0).integers(0, 256, (24, 8, 8, 3), "uint8"))


@pytest.fixture
def pixels():
    return torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def test_neurons_that_others_know_are_removed_without_a_trace(pictures, pixels):
    """One neuron copies another, one is constant: ridge regression tells both exactly, so the logits stay."""
    module = small_vit()
    for block in module.blocks:
        first = block.mlp[0]
        first.weight.data[5] = first.weight.data[2]
        first.bias.data[5] = first.bias.data[2]
        first.weight.data[7] = 0.0
        first.bias.data[7] = 1.5
    subject = load(module)
    neurons = ((2, (5, 7)), (4, (5, 7)))
    bare = RemoveNeurons(neurons)(subject)
    removal = RemoveNeurons.fitted(subject, pictures, share=2 / 48, by="error", multiple=1, penalty=1e-12)
    assert {layer: set(gone) & {2, 5} != set() and 7 in gone for layer, gone in removal.neurons} == {2: True, 4: True}
    repaired = removal(subject)
    assert [block.mlp[0].out_features for block in repaired.module.blocks] == [46, 46]
    assert not torch.allclose(bare(pixels), subject(pixels), atol=1e-3)
    torch.testing.assert_close(repaired(pixels), subject(pixels), rtol=1e-6, atol=1e-6)


def test_the_original_stays_and_all_else_is_shared(pixels):
    subject = load(small_vit())
    before = {name: value.clone() for name, value in subject.module.state_dict().items()}
    smaller = RemoveNeurons(((2, (0, 47)),))(subject)
    assert [block.mlp[0].out_features for block in subject.module.blocks] == [48, 48]
    assert all(torch.equal(value, before[name]) for name, value in subject.module.state_dict().items())
    own, new = (dict(one.module.named_parameters()) for one in (subject, smaller))
    changed = {name for name in own if own[name] is not new[name]}
    assert changed == {"blocks.0.mlp.0.weight", "blocks.0.mlp.0.bias", "blocks.0.mlp.2.weight"} | {
        "blocks.0.mlp.2.bias"
    }
    assert smaller.parameter_count == subject.parameter_count - 2 * (12 + 1 + 12)
    torch.testing.assert_close(smaller.module(pixels), smaller(pixels))


def hidden_of(subject, pictures, block: int) -> torch.Tensor:
    """The activations of a block's hidden neurons, computed by hand: rows of tokens."""
    rows = []
    for batch in pictures.batches(subject.preprocessing.transform, 5):
        x = subject.module.embed(batch.pixels.double())
        for number, one in enumerate(subject.module.blocks):
            x = x + one.attn(one.norm1(x))
            hidden = functional.gelu(one.mlp[0](one.norm2(x)))
            if number == block:
                rows.append(hidden.flatten(0, 1))
            x = x + one.mlp[2](hidden)
    return torch.cat(rows).detach()


@pytest.mark.parametrize("by", ["output", "activation", "variance", "weight"])
def test_the_neurons_of_smallest_score_go(by, pictures):
    subject = load(small_vit())
    first, _, second = subject.module.blocks[1].mlp
    hidden = hidden_of(subject, pictures, 1)
    columns = second.weight.detach().square().sum(0).sqrt()
    score = {
        "output": columns * hidden.var(0, unbiased=False).sqrt(),
        "activation": hidden.abs().mean(0),
        "variance": hidden.var(0, unbiased=False),
        "weight": columns * first.weight.detach().square().sum(1).sqrt(),
    }[by]
    found = RemoveNeurons.fitted(subject, pictures, share=0.25, layers=(4,), by=by, batch_size=7)
    ((layer, gone),) = found.neurons
    assert layer == 4
    assert set(gone) == set(score.argsort()[: 48 - 40].tolist())  # 36 rounded to a multiple of 8 is 40
    kept = [neuron for neuron in range(48) if neuron not in gone]
    design = np.hstack([hidden[:, kept].numpy(), np.ones((len(hidden), 1))])
    expected = np.linalg.lstsq(design, (hidden @ second.weight.detach().T).numpy(), rcond=None)[0]
    near = RemoveNeurons.fitted(subject, pictures, share=0.25, layers=(4,), by=by, penalty=1e-12).repairs[0]
    np.testing.assert_allclose(near.weight.T.numpy(), expected[:-1], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose((near.bias - second.bias).detach().numpy(), expected[-1], rtol=1e-4, atol=1e-5)


def test_a_repair_helps_on_images_that_it_has_not_seen():
    subject = load("digits")
    train, test = images("digits", split="train", limit=150), images("digits", limit=60)
    pixels = torch.cat([batch.pixels for batch in test.batches(subject.preprocessing.transform, 60)])
    with torch.no_grad():
        logits = subject(pixels)
        errors = [
            float((RemoveNeurons.fitted(subject, train, 0.25, repair=repair)(subject)(pixels) - logits).square().mean())
            for repair in (False, True)
        ]
    assert errors[1] < 0.25 * errors[0]


def test_a_random_choice_is_that_of_its_seed():
    subject = load(small_vit())
    found = [RemoveNeurons.fitted(subject, by="random", repair=False, seed=seed) for seed in (3, 3, 4)]
    assert found[0] == found[1] != found[2]
    assert found[0].neurons[0][1] != found[0].neurons[1][1]


def test_values_of_the_same_numbers_are_equal(pictures):
    subject = load(small_vit())
    one, two = (RemoveNeurons.fitted(subject, pictures, 0.5, batch_size=24) for _ in range(2))
    other = RemoveNeurons.fitted(subject, pictures.sample(12, seed=0), 0.5)
    assert (one, hash(one), one.settings) == (two, hash(two), two.settings)
    assert one != other
    assert one.settings["repairs"] != other.settings["repairs"]


@pytest.mark.parametrize(
    ("width", "share", "multiple", "kept"),
    [
        (768, 0.25, 8, 576),
        (768, 0.24, 8, 584),
        (48, 0.25, 8, 40),
        (48, 0.25, 1, 36),
        (48, 0.99, 8, 8),
        (6, 0.5, 8, 6),
        (48, 0.0, 8, 48),
    ],
)
def test_widths_are_multiples(width, share, multiple, kept):
    assert kept_width(width, share, multiple) == kept


def test_edits_stay_and_units_that_they_leave_out_are_left_alone(pictures, pixels):
    subject = RemoveUnits((2,))(Lesion((3,))(load(small_vit())))
    assert RemoveNeurons.possible(subject) == (4,)
    smaller = RemoveNeurons.fitted(subject, pictures, 0.5)(subject)
    assert smaller.edits == subject.edits
    assert [block.mlp[0].out_features for block in smaller.module.blocks] == [48, 24]
    with pytest.raises(UserError, match=r"runs blocks\.0\.mlp\.2 not at all"):
        RemoveNeurons.fitted(subject, pictures, layers=(2,))


class Plain(nn.Module):
    """A plain network of residual MLPs on pixels."""

    def __init__(self, between: nn.Module) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 2, 2)
        self.blocks = nn.Sequential(*(Step(copy.deepcopy(between)) for _ in range(2)))
        self.head = nn.Linear(6, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.blocks(self.stem(x)).mean((2, 3)))


class Step(nn.Module):
    def __init__(self, between: nn.Module) -> None:
        super().__init__()
        self.up, self.between, self.down = nn.Conv2d(6, 16, 1), between, nn.Conv2d(16, 6, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.down(self.between(self.up(x)))


def plain(between: nn.Module) -> vitscope.models.subject.Subject:
    torch.manual_seed(0)
    return load(Plain(between).eval(), input=PixelInput(image=8, channels=3, mean=(0.5,) * 3, std=(0.5,) * 3))


def test_a_plain_module_of_convolutions_gets_narrower_too(pictures):
    subject = plain(nn.ReLU())
    assert RemoveNeurons.possible(subject) == (1, 2)
    smaller = RemoveNeurons.fitted(subject, pictures, 0.5)(subject)
    assert [tuple(block.down.weight.shape) for block in smaller.module.blocks] == [(6, 8, 1, 1)] * 2
    assert smaller.parameter_count < subject.parameter_count


class Shuffle(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.flip(1)


@pytest.mark.parametrize(
    ("between", "why"),
    [
        (Shuffle(), "what lies between up and down is not elementwise"),
        (nn.Softmax(1), "what lies between up and down is not elementwise"),
        (nn.BatchNorm2d(16), "a BatchNorm2d stands between up and down"),
        (nn.Sequential(nn.Conv2d(16, 16, 3, padding=1, bias=False), nn.ReLU()), "a Conv2d stands between up and down"),
    ],
)
def test_what_is_not_elementwise_is_refused_by_name(between, why, pictures):
    subject = plain(between)
    assert RemoveNeurons.possible(subject) == ()
    for removal in (lambda: RemoveNeurons(((2, (0,)),))(subject), lambda: RemoveNeurons.fitted(subject, pictures)):
        with pytest.raises(UserError, match=rf"blocks\.\d \(layer \d of Plain\) .*: {why}\.$"):
            removal()


def test_a_single_slope_is_elementwise():
    assert RemoveNeurons.possible(plain(nn.PReLU())) == (1, 2)


def test_what_cannot_be_is_a_sentence(pictures):
    subject = load(small_vit())
    fitted = RemoveNeurons.fitted(subject, pictures, 0.5, layers=(2,))
    wrong = RemoveNeurons(((4, fitted.neurons[0][1][:-1]),), fitted.repairs)
    for removal, why in (
        (RemoveNeurons(((2, (48,)),)), r"neurons 0 to 47; there is no neuron 48"),
        (RemoveNeurons(((2, (-1,)),)), r"there is no neuron -1"),
        (RemoveNeurons(((2, (3, 3)),)), r"name each neuron once"),
        (RemoveNeurons(((2, tuple(range(48))),)), r"leave one at least"),
        (RemoveNeurons(((1, (0,)),)), r"blocks\.0\.attn .*: it is an attention unit\."),
        (RemoveNeurons(((9, (0,)),)), r"there is no layer 9"),
        (wrong, r"repair of blocks\.1\.mlp has the shape \(12, 24\) instead of \(12, 25\)"),
    ):
        with pytest.raises(UserError, match=why):
            removal(subject)
    for given, why in (
        ({"share": 1.0}, "share is 1.0"),
        ({"share": -0.1}, "share is -0.1"),
        ({"multiple": 0}, "multiple is 0"),
        ({"images": None}, "give images"),
        ({"layers": (1,)}, "attention unit"),
    ):
        with pytest.raises(UserError, match=why):
            RemoveNeurons.fitted(**{"subject": subject, "images": pictures, **given})
    with pytest.raises(UserError, match="name each layer once"):
        RemoveNeurons(((2, (0,)), (2, (1,))))


def test_computed_weights_are_refused(pictures):
    module = small_vit()
    parametrizations.weight_norm(module.blocks[0].mlp[0])
    subject = load(module)
    with pytest.raises(UserError, match="make it a plain parameter first"):
        RemoveNeurons.fitted(subject, pictures)


def test_half_precision_stays_half(pictures):
    subject = load(small_vit().to(torch.bfloat16))
    smaller = RemoveNeurons.fitted(subject, pictures, 0.5)(subject)
    assert {parameter.dtype for parameter in smaller.module.parameters()} == {torch.bfloat16}
    assert smaller(torch.zeros(1, 3, 8, 8)).isfinite().all()
