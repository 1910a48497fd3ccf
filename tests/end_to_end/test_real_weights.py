"""Real weights on real images: the published accuracies."""

import pytest

import vitscope
from vitscope.diagnostics.accuracy import Accuracy
from vitscope.diagnostics.fourier_spectrum import FourierSpectrum
from vitscope.measurement.errors import UserError

COUNT = 250
IMAGENETTE = [0, 217, 482, 491, 497, 566, 569, 571, 574, 701]
"""Its ten classes among the thousand of ImageNet."""


@pytest.fixture(scope="module")
def run(real_data):
    """DeiT-tiny on a balanced quarter of Imagenette; the whole of it gives 0.702 (``docs/experiments.md``)."""
    weights = real_data / "weights" / "deit_tiny_patch16_224_imagenet1k_fp16.safetensors"
    subject = vitscope.load("timm/deit_tiny_patch16_224", weights=weights, crop=0.875)
    images = vitscope.images(real_data / "imagenette", label="imagenet_label", limit=COUNT)
    return vitscope.measure(subject, images, [Accuracy(), FourierSpectrum()])


def test_accuracy_is_the_published_one(run):
    accuracy = run["accuracy/top1"]
    assert abs(accuracy.item() - 0.702) < 3 * run["accuracy/top1_error"].item()
    assert run["accuracy/top5"].item() > 0.85


def test_accuracy_among_the_ten_classes_is_the_published_one(run):
    among = run["accuracy/top1_present"]
    assert abs(among.item() - 0.979) < 3 * run["accuracy/top1_present_error"].item()


def test_it_is_low_pass_in_depth(run):
    ends = run["fourier-spectrum/at_highest_frequency"]
    early, late = ends.sel(layer=slice(3, 6)).mean().item(), ends.sel(layer=slice(16, 24)).mean().item()
    assert late < early - 0.1


def test_labels_of_ten_classes_are_not_taken_for_a_thousand(real_data):
    """Imagenette's names are among ImageNet's, so its classes are known; CIFAR-10's are not."""
    subject = vitscope.load("timm/deit_tiny_patch16_224")
    known = vitscope.images(real_data / "imagenette").for_classes(1000, subject.classes)
    assert sorted({int(label) for label in known.labels}) == IMAGENETTE
    with pytest.raises(UserError, match="are not the model's"):
        vitscope.measure(subject, vitscope.images(real_data / "cifar10", split="test", limit=20), [Accuracy()])
