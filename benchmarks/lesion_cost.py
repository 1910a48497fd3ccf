"""Cost of a lesion study of every unit of a 12-block ViT, compared with one full pass per unit.

    python benchmarks/lesion_cost.py [--images 64] [--batch 16] [--rounds 3] [--model vit_tiny_patch16_224]

The contestants use the same model (random weights) and decoded images, in turn in one process on one thread; the
figures are medians of CPU seconds over the rounds. The contestants' losses are compared and must be the same.

* ``full passes``: what a user would write, ``model(x)`` without one unit, for the intact model and each of 24 units;
* ``full passes, measured``: the same by ``vitscope.measure`` of every edited subject, images decoded once;
* ``study``: ``vitscope.study`` unchanged, which runs the units before a lesion once;
* ``study, walks apart``: the same with branches never put into one batch;
* ``study, walks in one batch``: up to 64 images of several branches through a unit together.

``--batch 1,4,16,64`` runs everything at several batch sizes, to see when putting branches together pays off.
"""

import argparse
import platform
import statistics
import time

import numpy as np
import torch
from torch import Tensor

import vitscope
from vitscope.diagnostics.accuracy import Accuracy
from vitscope.engine.reading import together
from vitscope.engine.study import study
from vitscope.interventions.lesion import Lesion
from vitscope.interventions.studies.lesion import LesionStudy
from vitscope.models.subject import Composition, Subject


class Normalised:
    """A transform for images that are already decoded."""

    def __call__(self, picture) -> Tensor:
        """Pixels from -1 to 1."""
        return torch.from_numpy(np.array(picture)).permute(2, 0, 1).float() / 127.5 - 1


def losses(logits: Tensor, labels: Tensor) -> Tensor:
    return torch.nn.functional.cross_entropy(logits.float(), labels)


def full_passes(subject: Subject, pictures, size: int) -> list[float]:
    """The intact model, then each unit left out, by plain calls of the model's own parts."""
    batches = list(pictures.batches(subject.preprocessing.transform, size))
    anatomy = subject.anatomy
    assert isinstance(anatomy, Composition)
    found = []
    with torch.inference_mode():
        for left_out in range(len(anatomy.units) + 1):
            total = 0.0
            for batch in batches:
                stream = anatomy.stem(batch.pixels)
                for layer, unit in enumerate(anatomy.units, start=1):
                    if layer != left_out:
                        stream = unit(stream)
                total += float(losses(anatomy.tail(stream), batch.labels)) * len(batch.indices)
            found.append(total / len(pictures))
    return found


def measured(subject: Subject, pictures, size: int) -> list[float]:
    plan = vitscope.Plan(batch_size=size)
    subjects = [subject, *(Lesion((layer,))(subject) for layer in range(1, len(subject.places) + 1))]
    return [float(vitscope.measure(one, pictures, [Accuracy()], plan)["accuracy/nll"]) for one in subjects]


def shared(subject: Subject, pictures, size: int) -> list[float]:
    run = study(subject, pictures, LesionStudy(), plan=vitscope.Plan(batch_size=size))
    return [float(run["lesion-accuracy/nll_intact"]), *run["lesion-accuracy/nll"].values.tolist()]


def with_most(most: int):
    def run(subject: Subject, pictures, size: int) -> list[float]:
        before, together.IMAGES_TOGETHER_ON_CPU = together.IMAGES_TOGETHER_ON_CPU, most
        try:
            return shared(subject, pictures, size)
        finally:
            together.IMAGES_TOGETHER_ON_CPU = before

    return run


CONTESTANTS = {
    "full passes": full_passes,
    "full passes, measured": measured,
    "study": shared,
    "study, walks apart": with_most(0),
    "study, walks in one batch": with_most(64),
}


def main() -> None:
    """Run every contestant in turn and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--batch", default="16")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--model", default="vit_tiny_patch16_224")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    subject = vitscope.load(f"timm/{arguments.model}")
    object.__setattr__(subject.preprocessing, "transform", Normalised())
    generator = np.random.default_rng(0)
    side = subject.preprocessing.shape[1]
    pixels = generator.integers(0, 256, (arguments.images, side, side, 3), "uint8")
    pictures = vitscope.images((pixels, generator.integers(0, 1000, arguments.images)))
    print(f"{arguments.model}, {arguments.images} images, {platform.machine()}, 1 thread, torch {torch.__version__}")
    for size in map(int, arguments.batch.split(",")):
        compare(subject, pictures, size, arguments.rounds)


def compare(subject: Subject, pictures, size: int, rounds: int) -> None:
    """Print one table."""
    seconds: dict[str, list[float]] = {name: [] for name in CONTESTANTS}
    for _ in range(rounds):
        reference: list[float] | None = None
        for name, contestant in CONTESTANTS.items():
            start = time.process_time()
            found = contestant(subject, pictures, size)
            seconds[name].append(time.process_time() - start)
            reference = reference or found
            np.testing.assert_allclose(found, reference, rtol=1e-4)
    base = seconds["full passes"]
    print(f"batches of {size:<29} {'CPU s':>8} {'times faster':>13}")
    for name, spent in seconds.items():
        ratio = statistics.median(one / two for one, two in zip(base, spent, strict=True))
        print(f"{name:40} {statistics.median(spent):8.2f} {ratio:13.2f}")


if __name__ == "__main__":
    main()
