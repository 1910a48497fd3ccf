"""The numbers of ``how-vits-work.md``: every study of the paper on the available models.

    VITSCOPE_DATA=... python docs/reproductions/how_vits_work.py --out runs/reproduction \
        vit=runs/vit-cifar10/model.safetensors resnet18=runs/resnet18-cifar10/model.safetensors

ResNet-56 and DeiT-tiny are in the data folder. Each run is saved, and reused if it exists.
"""

import argparse
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import load_file

import vitscope
from vitscope.data import Images
from vitscope.data.augmented import WEAK
from vitscope.diagnostics.hessian_spectrum import HessianSpectrum
from vitscope.findings.checkup import conclude
from vitscope.interventions.studies.frequency_noise import FrequencyNoiseStudy
from vitscope.interventions.studies.lesion import LesionStudy
from vitscope.interventions.studies.loss_landscape import LossLandscape
from vitscope.models.subject import Subject
from vitscope.runs.run import Run
from vitscope.runs.store import RunFolder

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Case:
    """A model, its test images, and the images, augmented as in training, on which its loss is differentiated."""

    name: str
    subject: Subject
    test: Images
    training: Images
    minibatches: int
    landscape: bool


def cases(data: Path, checkpoints: dict[str, str]) -> list[Case]:
    """The available models."""
    found = []
    for name, path in checkpoints.items():
        test = vitscope.images(data / "cifar10", split="test", limit=2000)
        training = vitscope.images(data / "cifar10", split="train", limit=512).augment(WEAK)
        found.append(Case(name, vitscope.load(path, name=name), test, training, 8, True))
    test = vitscope.images(data / "cifar10", split="test", limit=2000)
    training = vitscope.images(data / "cifar10", split="train", limit=512).augment(WEAK)
    found.append(Case("resnet56", resnet56(data), test, training, 8, False))
    weights = data / "weights" / "deit_tiny_patch16_224_imagenet1k_fp16.safetensors"
    deit = vitscope.load("timm/deit_tiny_patch16_224", weights=weights, crop=0.875, name="deit-tiny")
    photos = vitscope.images(data / "imagenette", label="imagenet_label")
    found.append(Case("deit-tiny", deit, photos.sample(500), photos, 2, False))
    return found


def resnet56(data: Path) -> Subject:
    """The plain module of the example."""
    sys.path.insert(0, str(ROOT / "examples"))
    from resnet56_plain_module import CifarResNet

    model = CifarResNet()
    model.load_state_dict(load_file(data / "weights" / "cifar10_resnet56_akamaster_fp32.safetensors"))
    pixels = vitscope.PixelInput(image=32, channels=3, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    return vitscope.load(model, input=pixels, name="resnet56")


def runs(case: Case, folder: Path) -> dict[str, Run]:
    """Every study of a case; saved runs are reused."""
    plan = vitscope.Plan(batch_size=100)
    questions: dict[str, Callable[[vitscope.Plan], Run]] = {
        "noise-paper": lambda plan: vitscope.study(case.subject, case.test, FrequencyNoiseStudy(), plan=plan),
        "noise-equal": lambda plan: vitscope.study(
            case.subject, case.test, FrequencyNoiseStudy(energy="equal"), plan=plan
        ),
        "lesion": lambda plan: vitscope.study(case.subject, case.test, LesionStudy(), plan=plan),
        "spectrum": lambda plan: vitscope.measure(
            case.subject, case.training, [HessianSpectrum(batches=case.minibatches)], plan
        ),
    }
    if case.landscape:
        questions["landscape"] = lambda plan: vitscope.study(
            case.subject, case.training, LossLandscape(error=0.15), plan=plan
        )
    return {name: kept(folder / case.name / name, ask, plan) for name, ask in questions.items()}


def kept(folder: Path, ask: Callable[[vitscope.Plan], Run], plan: vitscope.Plan) -> Run:
    """The run in the folder, or a new one."""
    store = RunFolder(str(folder))
    held = store.read()
    if held is not None:
        return held
    print(f"{folder} ...", flush=True)
    return conclude(ask(vitscope.Plan(plan.batch_size, folder=store, resume=True)))


def main() -> None:
    """Run what is not saved yet and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", help="one of the models")
    parser.add_argument("checkpoints", nargs="*", metavar="NAME=FILE")
    arguments = parser.parse_args()
    if "VITSCOPE_DATA" not in os.environ:
        sys.exit("VITSCOPE_DATA is not set: there are no weights and no images.")
    given = dict(pair.split("=", 1) for pair in arguments.checkpoints)
    for case in cases(Path(os.environ["VITSCOPE_DATA"]), given):
        if arguments.only in (None, case.name):
            for name, run in runs(case, arguments.out).items():
                print(f"\n## {case.name}: {name}")
                show(run)


def show(run: Run) -> None:
    """Print the headline of every group, and the findings."""
    for group, node in run.tree.children.items():
        dataset = node.to_dataset()
        for name in ("top1_intact", "top1_change", "negative_share", "positive_mean", "largest_each", "nll"):
            if name in dataset and dataset[name].ndim <= 2:
                print(group, name, dataset[name].values.round(4).tolist())
    for claim in run.claims:
        print(f"* {claim.verdict.value}: {claim.statement} {claim.figure}")


if __name__ == "__main__":
    main()
