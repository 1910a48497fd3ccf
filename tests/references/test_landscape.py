"""Loss landscapes against formulas, and where ``loss-landscapes`` 3.0.6 and Park and Kim's code go wrong."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from vitscope.data import images
from vitscope.data.augmented import STRONG
from vitscope.diagnostics.accuracy import Accuracy
from vitscope.engine.measure import measure
from vitscope.engine.plan import Plan
from vitscope.engine.study import study
from vitscope.interventions.direction import GivenDirection, RandomDirection
from vitscope.interventions.studies.loss_landscape import LossLandscape
from vitscope.interventions.weight_displacement import WeightDisplacement
from vitscope.measurement.errors import UserError
from vitscope.models.load import load
from vitscope.models.pixels import PixelInput
from vitscope.models.rewritten import parameters_of
from vitscope.models.saved import save
from vitscope.numerics.sample_size import sample_size, upper_deviation

PIXELS = PixelInput(4, 1, (0.5,), (0.5,))
POOL = np.random.default_rng(0).integers(0, 256, (60, 4, 4), np.uint8)
LABELS = np.random.default_rng(1).integers(0, 3, 60)


class Linear(nn.Module):
    """Logits that are linear in the weights, so that the loss along any line is known by formula."""

    def __init__(self):
        super().__init__()
        self.stem, self.flat, self.head = nn.Sequential(nn.Sequential(nn.Identity())), nn.Flatten(), nn.Linear(16, 3)
        nn.init.zeros_(self.head.bias)

    def forward(self, pixels):
        return self.head(self.flat(self.stem(pixels)))


@pytest.fixture(scope="module")
def linear():
    torch.manual_seed(0)
    return load(Linear(), input=PIXELS, units=["stem"])


@pytest.fixture(scope="module")
def shown():
    return images((POOL, LABELS))


def group(run):
    return run.tree["loss-landscape-accuracy"].to_dataset()


@pytest.fixture(scope="module")
def landscape(linear, shown):
    return group(study(linear, shown, LossLandscape(grid_size=5, extent=0.8, weight_decay=0.1)))


def test_the_centre_is_the_models_own_loss(linear, shown, landscape):
    """The centre of loss-landscapes is not the model: 1.96377 where its loss is 1.94402."""
    own = measure(linear, shown, [Accuracy()])["accuracy/nll"]
    assert float(landscape.nll.sel(first=0, second=0)) == float(own) == float(landscape.nll_intact)
    assert float(landscape.nll_change.sel(first=0, second=0)) == 0


def test_every_point_is_what_the_formula_says(linear, landscape):
    first, second = (RandomDirection(seed).of(linear)["head.weight"].double() for seed in (0, 1))
    pixels = ((torch.from_numpy(POOL) / 255 - 0.5) / 0.5).flatten(1)
    weights, bias = (p.double() for p in (linear.module.head.weight.detach(), linear.module.head.bias.detach()))
    for alpha in landscape["first"].values:
        for beta in landscape["second"].values:
            moved = weights + alpha * first + beta * second
            point = landscape.sel(first=alpha, second=beta)
            logits = pixels.double() @ moved.T + bias
            losses = functional.cross_entropy(logits, torch.from_numpy(LABELS), reduction="none")
            assert float(point.nll) == pytest.approx(float(losses.mean()), abs=1e-5)
            assert float(point.nll_error) == pytest.approx(float(losses.std() / 60**0.5), rel=1e-4)
            right = (logits.argmax(1) == torch.from_numpy(LABELS)).double()
            assert float(point.top1) == pytest.approx(float(right.mean()))
            assert float(point.l2) == pytest.approx(0.05 * float(moved.square().sum() + bias.square().sum()), rel=1e-6)
            assert float(point.l2_park_kim) == pytest.approx(0.1 * float(moved.norm() + bias.norm()), rel=1e-6)
    assert float(landscape.l2_intact) == float(landscape.l2.sel(first=0, second=0))
    assert "weight decay 0.1" in landscape.l2.attrs["meaning"]


def state(module):
    tensors = {name: (tensor.data_ptr(), tensor.clone()) for name, tensor in module.state_dict().items()}
    hooks = [(len(part._forward_hooks), len(part._forward_pre_hooks), part.training) for part in module.modules()]
    return tensors, (hooks, torch.get_rng_state().tolist(), np.random.get_state()[1].tolist())  # noqa: NPY002


def same(one, other):
    pairs = zip(one[0].values(), other[0].values(), strict=True)
    return all(a[0] == b[0] and torch.equal(a[1], b[1]) for a, b in pairs) and one[1] == other[1]


class Failing(nn.Module):
    def __init__(self, module):
        super().__init__()
        self.blocks = nn.Sequential(nn.Sequential(module))
        self.first = None

    def forward(self, pixels):
        weight = float(self.blocks[0][0].head.weight.sum())
        self.first = weight if self.first is None else self.first
        if weight != self.first:
            raise RuntimeError("displaced")
        return self.blocks(pixels)


def test_the_weights_are_untouched_in_success_and_in_failure(linear, shown):
    """loss-landscapes leaves the caller's model displaced."""
    before = state(linear.module)
    study(linear, shown.augment(STRONG), LossLandscape(grid_size=3, error=0.2, pilot=8))
    assert same(before, state(linear.module))
    failing = load(Failing(copy.deepcopy(linear.module)), input=PIXELS, units=["blocks.0.0.stem"])
    before = state(failing.module)
    with pytest.raises(RuntimeError, match="displaced"):
        study(failing, shown, LossLandscape(grid_size=3))
    assert same(before, state(failing.module))


def test_directions_are_gaussian_and_normalised_once_zero_biases_included():
    """loss-landscapes draws from U[0, 1), rescales a bias once for each filter, and divides by a zero one."""
    subject = load("vit-micro")  # fresh: its biases are zero
    direction, own = RandomDirection().of(subject), parameters_of(subject)
    assert any(float(p.abs().max()) == 0 for p in own.values() if p.ndim == 1)
    negative = np.mean([float((d < 0).float().mean()) for d in direction.values() if d.numel() > 1000])
    assert negative == pytest.approx(0.5, abs=0.02)
    for name, part in direction.items():
        torch.testing.assert_close(part.flatten(1).norm(dim=1), own[name].flatten(1).norm(dim=1))
    moved = WeightDisplacement(RandomDirection(), alpha=1.0)(subject)
    assert all(bool(p.isfinite().all()) for p in moved.module.parameters())


def test_every_point_sees_the_same_augmented_images(linear, shown):
    """Park and Kim's code draws Mixup and crops anew at every point; here, where nothing moves, nothing changes."""
    nothing = GivenDirection({"head.weight": torch.zeros(3, 16)})
    found = shown.for_classes(3, None).augment(STRONG)
    grid = LossLandscape(grid_size=3).grid(linear, found, Plan())
    still = type(grid)(grid.axes, tuple((WeightDisplacement(nothing, nothing, a, a),) for a in map(float, range(9))))
    losses = study(linear, found, still, [Accuracy()])["grid-accuracy/nll"].values
    assert np.ptp(losses) == 0
    assert losses[0, 0] != float(study(linear, shown, still, [Accuracy()])["grid-accuracy/nll"][0, 0])


def test_as_many_images_as_the_error_asks_for(linear, shown):
    few = group(study(linear, shown, LossLandscape(grid_size=3, error=0.12, pilot=30)))
    count = int(few.nll_count[0, 0])
    assert 10 < count < 60
    assert (few.nll_count == count).all()
    finite = few.nll_error * (1 - count / 60) ** 0.5
    assert float(finite.max()) < 0.12
    assert float(finite.max()) > 0.12 / 3
    everything = group(study(linear, shown, LossLandscape(grid_size=3)))
    assert float(abs(few.nll - everything.nll).max()) < 4 * 0.12
    run = study(linear, shown, LossLandscape(grid_size=3, error=0.12, pilot=30))
    assert any(f"{count} of the 60 images" in note for note in run.notes)
    assert any("standard error of 0.12 nats" in note for note in run.notes)


def test_the_pilots_images_are_the_first_measured_and_directions_are_found_once(linear, shown, monkeypatch):
    found, drawn = [], []
    directions, deviation = LossLandscape._directions, LossLandscape._deviation
    monkeypatch.setattr(
        LossLandscape, "_directions", lambda own, *given: found.append(given) or directions(own, *given)
    )
    monkeypatch.setattr(
        LossLandscape,
        "_deviation",
        lambda own, subject, some, *given: drawn.append(some) or deviation(own, subject, some, *given),
    )
    grid, measured = LossLandscape(grid_size=3, error=0.12, pilot=20).lay_out(linear, shown, Plan())
    assert len(found) == len(drawn) == 1
    assert len(grid.settings) == 9
    assert 20 < len(measured) < 60
    assert set(drawn[0].positions) < set(measured.positions)
    fewer = LossLandscape(grid_size=3, error=100.0, pilot=20).lay_out(linear, shown, Plan())[1]
    assert 1 < len(fewer) < 20
    assert set(fewer.positions) < set(drawn[-1].positions)


class Rooted(Linear):
    """Logits that are not finite for weights on one side of these."""

    def __init__(self):
        super().__init__()
        self.own = float(self.head.weight[0, 0].detach())

    def forward(self, pixels):
        return super().forward(pixels) * torch.sqrt(self.head.weight[0, 0] - self.own)


@pytest.mark.parametrize("batch_size", [7, 60])
def test_points_whose_logits_are_not_finite_are_counted(shown, batch_size):
    torch.manual_seed(0)
    subject = load(Rooted(), input=PIXELS, units=["stem"])
    run = study(subject, shown, LossLandscape(grid_size=5, extent=0.8), plan=Plan(batch_size=batch_size))
    silent = int((group(run).nll_count == 0).sum())
    assert 0 < silent < 25
    (note,) = (note for note in run.notes if "not finite" in note)
    assert note.startswith(f"In {silent} of 25 settings the logits of up to 60 of 60 images are not finite")


def test_the_sample_size_is_cochrans():
    assert sample_size(1.0, 0.1, 10**9) == 100
    assert sample_size(1.0, 0.1, 100) == 50
    assert sample_size(3.0, 1e-9, 1000) == 1000
    assert sample_size(float("inf"), 0.1, 77) == 77
    assert sample_size(float("nan"), 0.1, 77) == 77
    assert sample_size(0.0, 0.1, 77) == 2
    assert upper_deviation(1.0, 64) == pytest.approx((63 / 45.741) ** 0.5, rel=1e-4)  # 5% quantile of chi2 with 63


def test_the_first_direction_can_lead_to_another_checkpoint(shown, tmp_path):
    torch.manual_seed(0)
    one, other = load("vit-micro"), load("vit-micro")
    pool = images((np.repeat(POOL[..., None], 3, 3), LABELS))
    save(other, tmp_path / "other.safetensors")
    asked = LossLandscape(grid_size=3, towards=str(tmp_path / "other.safetensors"))
    found = group(study(one, pool, asked))
    own = float(measure(other, pool, [Accuracy()])["accuracy/nll"])
    assert float(found.nll.sel(first=1, second=0)) == pytest.approx(own, abs=1e-5)
    assert "towards other.safetensors" in found["first"].attrs["long_name"]


def test_eigenvectors_of_the_hessian_span_a_plane(linear, shown):
    found = group(study(linear, shown, LossLandscape(grid_size=3, directions="hessian", extent=0.1)))
    assert float(found.nll.sel(first=0, second=0)) == float(found.nll_intact)
    assert (found.nll.isel(first=[0, 2]).sel(second=0) != found.nll_intact).all()


@pytest.mark.parametrize("fields", [{"grid_size": 1}, {"extent": 0.0}, {"error": 0.0}, {"pilot": 2}])
def test_what_makes_no_landscape_is_refused(fields):
    with pytest.raises(UserError):
        LossLandscape(**fields)


def test_images_without_labels_are_refused(linear):
    with pytest.raises(UserError, match="no labels"):
        study(linear, images(POOL), LossLandscape(grid_size=3))
