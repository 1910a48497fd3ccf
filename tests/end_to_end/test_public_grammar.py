"""What the grammar of trainings is for, each with public names only: prune and retrain, distil, a new objective."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import final

import torch
from torch import Tensor

import vitscope
from vitscope.interventions.weight_prune import WeightPrune
from vitscope.measurement.quantity import Quantity
from vitscope.training.objective import OBJECTIVES, AbstractObjective, Forward, TrainingBatch
from vitscope.training.objectives.distillation import Distillation

LIGHT = vitscope.Recipe(epochs=2, batch=16, randaugment=0, mixup=0.0, cutmix=0.0, crop="none", flip=False, warmup=0.0)
SHOWN = vitscope.images("digits", split="train", limit=256)
TEST = vitscope.images("digits", split="test", limit=100)


def test_prune_and_retrain_until_a_tenth_of_the_weights_is_left(tmp_path: Path) -> None:
    subject = vitscope.load("digits")
    accuracies: list[float] = []
    for round, sparsity in enumerate((0.5, 0.75, 0.9)):
        pruned = WeightPrune(sparsity)(subject)
        before = vitscope.measure(pruned, TEST, "accuracy")
        trained = vitscope.train(LIGHT, SHOWN, tmp_path / f"{round}", start=pruned, test=TEST, hooks="keep-zeros")
        subject = trained.subject
        accuracies += [float(before["accuracy"]), float(trained.run["accuracy"])]
    kernels = [one for one in subject.module.parameters() if one.ndim >= 2]
    zeros = sum(int((one == 0).sum()) for one in kernels)
    assert zeros > 0.85 * sum(one.numel() for one in kernels)
    assert accuracies[-1] > accuracies[-2] + 0.05


def test_distil_the_digits_model_into_a_smaller_one_without_labels(tmp_path: Path) -> None:
    teacher = vitscope.load("digits")
    shown = vitscope.images("digits", split="train", limit=512, label="none")
    student = vitscope.Recipe(image=8, channels=1, patch=4, depth=1, epochs=12, batch=32, randaugment=0, flip=False,
                              crop="none", learning_rate=5e-3)  # fmt: skip
    trained = vitscope.train(student, shown, tmp_path, test=TEST, objective=Distillation(teacher, temperature=2.0))
    assert trained.subject.parameter_count < 0.5 * teacher.parameter_count
    assert float(trained.run["accuracy"]) > 0.5
    page = vitscope.compare((vitscope.measure(teacher, TEST, "accuracy"), trained.run), tmp_path / "page.html")
    assert "accuracy" in Path(page).read_text()
    assert vitscope.report(trained.run, tmp_path / "own.html")


@OBJECTIVES.add("brier-score")
@final
@dataclass(frozen=True)
class Brier(AbstractObjective):
    """The squared distance of the probabilities from the targets."""

    name = "brier-score"
    figures = (Quantity("brier", "Brier score", "1", "Squared distance from the class.", "Smaller is better."),)
    larger = False

    def loss(self, forward: Forward, batch: TrainingBatch) -> Tensor:
        assert batch.targets is not None
        return (forward(batch.images).softmax(1) - batch.targets).square().sum(1).mean()

    def evaluate(self, forward: Forward, batch: TrainingBatch) -> Mapping[str, Tensor]:
        assert batch.targets is not None
        return {"brier": (forward(batch.images).softmax(1) - batch.targets).square().sum(1)}


def test_a_new_objective_goes_by_its_name_and_chooses_the_epoch(tmp_path: Path) -> None:
    recipe = vitscope.Recipe(objective="brier-score", image=8, channels=1, patch=4, depth=1, epochs=4, batch=32,
                             randaugment=0, mixup=0.0, cutmix=0.0, validation=0.2, learning_rate=3e-3)  # fmt: skip
    trained = vitscope.train(recipe, SHOWN, tmp_path, test=TEST)
    brier = trained.metrics.validation_brier
    assert brier.values[-1] < brier.values[0]
    assert "code" in trained.run.spec.settings["objective"]
    with torch.inference_mode():
        assert trained.subject(torch.zeros(1, 1, 8, 8)).shape == (1, 10)
