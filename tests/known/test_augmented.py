"""Augmented images: the same pixels and targets in every batch, and what they are by hand."""

import pickle
import random

import numpy as np
import pytest
import torch
from torchvision.transforms.functional import pil_to_tensor

from vitscope.data import images
from vitscope.data.augmentation import python_seeded, random_part, shift_crops
from vitscope.data.augmented import STRONG, WEAK, Augmentation, Augmenting
from vitscope.diagnostics.accuracy import Accuracy
from vitscope.engine.measure import measure
from vitscope.engine.plan import Plan
from vitscope.measurement.errors import UserError
from vitscope.models.load import load

PIXELS = np.random.default_rng(0).integers(0, 256, (23, 8, 8, 3), np.uint8)
LABELS = np.random.default_rng(1).integers(0, 4, 23)
POOL = images((PIXELS, LABELS))
STILL = Augmentation("none", flip=False, randaugment=0, mixup=0.0, cutmix=0.0, label_smoothing=0.0)


def shown(picture):
    return pil_to_tensor(picture).float() / 255


def read(some, batch_size=8):
    batches = list(some.batches(shown, batch_size))
    targets = None if batches[0].targets is None else torch.cat([batch.targets for batch in batches])
    return torch.cat([batch.pixels for batch in batches]), targets


@pytest.mark.parametrize("augmentation", [WEAK, STRONG, Augmentation("resized", mixup=0.0)])
def test_batches_do_not_matter(augmentation):
    some = POOL.augment(augmentation, 3)
    pixels, targets = read(some)
    assert not torch.equal(pixels, read(POOL)[0])
    for batch_size in (1, 5, 23):
        again, others = read(some, batch_size)
        assert torch.equal(again, pixels)
        assert (targets is None) == (others is None)
        assert targets is None or torch.equal(others, targets)
    middle = next(iter(some.batches(shown, 5, 2, 3)))
    assert torch.equal(middle.pixels, pixels[10:15])
    assert middle.indices.tolist() == [10, 11, 12, 13, 14]


def test_another_seed_is_another_augmentation_and_another_question():
    one, other = POOL.augment(STRONG, 0), POOL.augment(STRONG, 1)
    assert not torch.equal(read(one)[0], read(other)[0])
    prints = {some.fingerprint for some in (POOL, one, other, POOL.augment(WEAK, 0))}
    assert len(prints) == 4
    assert one.fingerprint == POOL.augment(STRONG, 0).fingerprint == one.for_classes(9, None).fingerprint


def test_what_is_drawn_for_an_image_is_its_own():
    weak = POOL.augment(WEAK, 0)
    some = weak.take(np.array([2, 7, 11]))
    assert torch.equal(read(some)[0], read(weak)[0][[2, 7, 11]])


def test_no_augmentation_is_the_images():
    pixels, targets = read(POOL.augment(STILL))
    assert torch.equal(pixels, read(POOL)[0])
    assert targets is None


def test_half_are_mirrored_and_the_others_as_they_are():
    pixels, plain = read(POOL.augment(Augmentation("none", 0.0, 1.0, True, 0, 0.0, 0.0, 0.0)))[0], read(POOL)[0]
    mirrored = [bool(torch.equal(one, other.flip(2))) for one, other in zip(pixels, plain, strict=True)]
    still = [bool(torch.equal(one, other)) for one, other in zip(pixels, plain, strict=True)]
    assert all(one != other for one, other in zip(mirrored, still, strict=True))
    assert 5 <= sum(mirrored) <= 18


def test_a_shift_is_filled_with_grey():
    image = np.arange(12, dtype=np.uint8).reshape(1, 2, 6, 1)
    found = shift_crops(image, np.array([[0.0, 0.0, 0.99]]), 0.5, (118,))
    assert found[0, :, :, 0].tolist() == [[118] * 6, [3, 4, 5, 118, 118, 118]]


def test_a_random_part_lies_within_the_picture():
    assert random_part((10, 20), 1.0, np.full(5, 0.5)) == (0, pytest.approx(2.929, abs=1e-3), 10, pytest.approx(17.071, abs=1e-3))  # fmt: skip  # noqa: E501
    for draws in np.random.default_rng(0).random((200, 5)):
        left, top, right, bottom = random_part((10, 20), 0.08, draws)
        assert 0 <= left < right <= 10 + 1e-9
        assert 0 <= top < bottom <= 20 + 1e-9


def partners(some):
    return [some.augmentation.partner(index, some.positions) for index in range(len(some))]


@pytest.mark.parametrize(("mixup", "cutmix"), [(0.8, 0.0), (0.0, 1.0), (0.8, 1.0)])
def test_images_and_targets_are_mixed_alike(mixup, cutmix):
    flat = np.zeros((23, 16, 16), np.uint8)
    flat[::2] = 255
    some = images((flat, (flat[:, 0, 0] > 0).astype(int)))
    some = some.augment(Augmentation("none", 0.0, 1.0, False, 0, mixup, cutmix, 0.0))
    pixels, targets = read(some)
    torch.testing.assert_close(pixels.mean((1, 2, 3)), targets[:, 1])
    torch.testing.assert_close(targets.sum(1), torch.ones(23))
    between = ((pixels > 0) & (pixels < 1)).flatten(1).any(1)
    different = torch.tensor([flat[i, 0, 0] != flat[j, 0, 0] for i, j in enumerate(partners(some))])
    assert between[different].any() == (mixup > 0)
    assert not between[~different].any()
    if mixup and cutmix:
        assert not between[different].all()


def test_a_partner_is_another_image_and_each_may_be():
    many = images((np.zeros((4, 2, 2), np.uint8), np.zeros(4, int)))
    found = [partners(many.augment(STRONG, seed)) for seed in range(60)]
    assert {(i, j) for row in found for i, j in enumerate(row)} == {
        (i, j) for i in range(4) for j in range(4) if i != j
    }
    alone = many.take(np.array([2])).augment(STRONG)
    assert partners(alone) == [None]
    assert read(alone)[1].tolist() == [[pytest.approx(1.0)]]


def test_targets_are_smoothed_over_the_models_classes():
    smooth = Augmentation("none", 0.0, 1.0, False, 0, 0.0, 0.0, 0.2)
    targets = read(POOL.augment(smooth).for_classes(10, None))[1]
    assert targets.shape == (23, 10)
    torch.testing.assert_close(targets[0, LABELS[0]], torch.tensor(0.82))
    torch.testing.assert_close(targets.sum(1), torch.ones(23))
    mixed = Augmenting(smooth, 0, 4).target(1, 3, 0.25, 99)
    torch.testing.assert_close(mixed, torch.tensor([0.05, 0.25, 0.05, 0.65]))


def test_mixup_weights_have_betas_moments():
    draws = [Augmenting(Augmentation(mixup=0.8, cutmix=0.0), 0)._draws(position).mixup for position in range(2000)]
    assert np.mean(draws) == pytest.approx(0.5, abs=0.03)  # four standard errors
    assert np.var(draws) == pytest.approx(1 / (4 * (2 * 0.8 + 1)), abs=0.01)


def test_a_cut_has_the_area_of_its_share():
    areas = [Augmenting(Augmentation(mixup=0.0), 0).mix(torch.zeros(1, 64, 64), torch.ones(1, 64, 64), i)
             for i in range(50)]  # fmt: skip
    for cut, share in areas:
        assert float(cut.mean()) == pytest.approx(1 - share)
        rows, columns = (cut[0].amax(axis).sum() for axis in (1, 0))
        assert float(cut.sum()) == float(rows * columns)  # one rectangle
    assert np.std([share for _, share in areas]) > 0.1


def test_a_broken_partner_leaves_an_image_unmixed(tmp_path):
    pictures = [*PIXELS[:3]]
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
    from PIL import Image

    for name, pixels in zip(("a", "b", "c"), pictures, strict=True):
        Image.fromarray(pixels).save(tmp_path / name / "x.png")
    (tmp_path / "b" / "x.png").write_bytes(b"broken")
    mixing = Augmentation("none", 0.0, 1.0, False, 0, 0.8, 0.0, 0.0)
    seed = next(seed for seed in range(50) if partners(images(tmp_path).augment(mixing, seed))[:3:2] == [1, 0])
    batch = next(iter(images(tmp_path, max_broken=1).augment(mixing, seed).batches(shown, 8)))
    assert batch.indices.tolist() == [0, 2]
    assert torch.equal(batch.pixels[0], torch.from_numpy(pictures[0]).permute(2, 0, 1) / 255)
    assert batch.targets[0].tolist() == [1, 0, 0]
    assert 0 < batch.targets[1, 0] < 1
    assert len(batch.broken) == 1


def test_workers_see_the_same():
    some = POOL.augment(STRONG, 1)
    sent = pickle.loads(pickle.dumps(some))
    assert torch.equal(read(sent)[0], read(some)[0])
    assert torch.equal(read(sent)[1], read(some)[1])


def test_the_loss_is_the_cross_entropy_with_soft_targets():
    subject, some = load("digits"), images("digits", limit=12)
    augmented = some.augment(STRONG, 1)
    run = measure(subject, augmented, [Accuracy()], Plan(5))
    batch = next(iter(augmented.for_classes(10, subject.classes).batches(subject.preprocessing.transform, 12)))
    with torch.no_grad():
        expected = torch.nn.functional.cross_entropy(subject.module(batch.pixels), batch.targets)
    assert float(run["accuracy/nll"]) == pytest.approx(float(expected), rel=1e-5)
    assert run.spec.address != measure(subject, some, [Accuracy()]).spec.address


def test_global_states_come_back():
    random.seed(3)
    np.random.seed(3)  # noqa: NPY002
    python, numpy = random.getstate(), np.random.get_state()[1].copy()  # noqa: NPY002
    with python_seeded(0):
        random.random()
        np.random.random()  # noqa: NPY002
    assert random.getstate() == python
    assert np.array_equal(np.random.get_state()[1], numpy)  # noqa: NPY002
    read(POOL.augment(STRONG))
    assert np.array_equal(np.random.get_state()[1], numpy)  # noqa: NPY002


@pytest.mark.parametrize("fields", [{"padding": -0.1}, {"randaugment": 11}, {"label_smoothing": 1.5}, {"mixup": -1.0}])
def test_what_is_no_augmentation_is_refused(fields):
    with pytest.raises(UserError, match=next(iter(fields))):
        Augmentation(**fields)


def test_images_of_different_sizes_cannot_be_mixed():
    small, large = Augmenting(STRONG), torch.zeros(3, 4, 4)
    with pytest.raises(UserError, match="3x2x4 and 3x4x4"):
        small.mix(torch.zeros(3, 2, 4), large, 0)
