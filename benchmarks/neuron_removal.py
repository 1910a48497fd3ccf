"""What removing MLP neurons costs in accuracy, with and without repair, beside Torch-Pruning at the same share.

    python benchmarks/neuron_removal.py MODEL IMAGES [--share 0.25] [--limit 1000] [--pruning FOLDER]

MODEL is a checkpoint of a timm vision transformer, IMAGES a folder with a train and a test split. Neurons are chosen,
and the second layer refitted, by ``--calibration`` images of the train split, without labels; accuracy and negative
log-likelihood are measured on ``--limit`` images of the test split. No contestant is trained afterwards. ``loses`` is
the accuracy lost to the original in points, with the standard error of the paired difference, ``neurons`` the share of
all hidden neurons that is left. Torch-Pruning (github.com/VainF/Torch-Pruning, MIT) takes part if it can be imported,
or is in ``--pruning``: group magnitude (L2), compared in each layer and over all layers, and first-order Taylor
importance from the labels of the calibration images. ``magnitude, all layers`` is the first of these written by hand.
"""

import argparse
import copy
import importlib.util
import platform
import sys
import time
from dataclasses import replace

import torch
from torch.nn import functional

import vitscope
from vitscope.engine.measure import fit_images
from vitscope.interventions import RemoveNeurons
from vitscope.interventions.temperature import labelled_logits
from vitscope.models.edit import with_module

CHOICES = ("output", "error", "variance", "activation", "weight", "random")


def mlps_of(module):
    """The MLPs of a timm vision transformer."""
    return [block.mlp for block in module.blocks]


def magnitude_everywhere(subject, share):
    """The neurons of least weight norm among all layers, as lists for each layer."""
    norms = []
    for mlp in mlps_of(subject.module):
        first, second = mlp.fc1.weight.detach().norm(dim=1), mlp.fc2.weight.detach().norm(dim=0)
        norms.append((first.square() + second.square()).sqrt())
    order = torch.cat(norms).argsort()[: round(share * sum(map(len, norms)))]
    gone, start = [], 0
    layers = [number for number, place in enumerate(subject.places, 1) if place.kind.value == "mlp"]
    for layer, scores in zip(layers, norms, strict=True):
        inside = order[(order >= start) & (order < start + len(scores))] - start
        gone.append((layer, tuple(sorted(inside.tolist()))))
        start += len(scores)
    return RemoveNeurons(tuple(gone))(subject)


def torch_pruning(subject, share, images, kind, everywhere):
    """The subject after Torch-Pruning has removed a share of the hidden neurons."""
    import torch_pruning as tp

    module = copy.deepcopy(subject.module)
    firsts, seconds = ([getattr(mlp, name) for mlp in mlps_of(module)] for name in ("fc1", "fc2"))
    layers = [part for part in module.modules() if isinstance(part, torch.nn.Linear | torch.nn.Conv2d)]
    importance = {"magnitude": tp.importance.GroupMagnitudeImportance, "taylor": tp.importance.GroupTaylorImportance}
    pruner = tp.pruner.BasePruner(
        module,
        torch.zeros(1, *subject.preprocessing.shape),
        importance=importance[kind](),
        global_pruning=everywhere,
        pruning_ratio=share,
        ignored_layers=[part for part in layers if not any(part is one for one in (*firsts, *seconds))],
        round_to=8,
    )
    if kind == "taylor":
        for batch in fit_images(subject, images).batches(subject.preprocessing.transform, 50):
            functional.cross_entropy(module(batch.pixels), batch.labels, reduction="sum").backward()
    pruner.step()
    module.zero_grad(set_to_none=True)
    return with_module(replace(subject, edits=()), module)


def contestants(subject, share, calibration, pruning):
    """Names, and functions that make the subjects."""
    fitted = RemoveNeurons.fitted
    for by in CHOICES:
        for repair in (False, True):
            title = f"RemoveNeurons by {by}{', repaired' if repair else ''}"
            yield title, lambda by=by, repair=repair: fitted(subject, calibration, share, by=by, repair=repair)(subject)
    yield "magnitude, all layers", lambda: magnitude_everywhere(subject, share)
    if not pruning:
        return
    for kind, everywhere in (("magnitude", False), ("magnitude", True), ("taylor", False), ("taylor", True)):
        where = "all layers" if everywhere else "each layer"
        yield (
            f"Torch-Pruning, {kind}, {where}",
            lambda kind=kind, everywhere=everywhere: torch_pruning(subject, share, calibration, kind, everywhere),
        )


def main() -> None:
    """Measure every contestant and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("images")
    parser.add_argument("--share", type=float, default=0.25)
    parser.add_argument("--limit", type=int, default=1000)
    parser.add_argument("--calibration", type=int, default=1000)
    parser.add_argument("--pruning", help="a folder that holds the package torch_pruning")
    parser.add_argument("--only", default="", help="contestants whose names contain one of these, between commas")
    arguments = parser.parse_args()
    if arguments.pruning:
        sys.path.append(arguments.pruning)
    torch.set_num_threads(2)
    subject = vitscope.load(arguments.model)
    test = vitscope.images(arguments.images, split="test", limit=arguments.limit)
    calibration = vitscope.images(arguments.images, split="train", limit=arguments.calibration)
    logits, labels = labelled_logits(subject, test)
    right = logits.argmax(1) == labels
    hidden = sum(mlp.fc1.out_features for mlp in mlps_of(subject.module))
    print(f"{subject.name}, {len(test)} test and {len(calibration)} calibration images of {test.name},")
    print(f"share {arguments.share:g}, {platform.machine()}, torch {torch.__version__}")
    print(f"{'':36} {'accuracy':>9} {'loses':>14} {'NLL':>7} {'neurons':>8} {'seconds':>8}")
    nll = functional.cross_entropy(logits, labels)
    print(f"{'the original':36} {right.double().mean():9.4f} {'':14} {nll:7.4f} {1:8.3f}")
    found = importlib.util.find_spec("torch_pruning") is not None
    for title, make in contestants(subject, arguments.share, calibration, found):
        if not any(word in title for word in arguments.only.split(",")):
            continue
        start = time.perf_counter()
        smaller = make()
        seconds = time.perf_counter() - start
        after, _ = labelled_logits(smaller, test)
        change = right.double() - (after.argmax(1) == labels).double()
        error = change.std() / len(change) ** 0.5
        left = sum(mlp.fc1.out_features for mlp in mlps_of(smaller.module)) / hidden
        loses = f"{100 * change.mean():6.1f} ± {100 * error:4.1f}"
        accuracy, nll = (after.argmax(1) == labels).double().mean(), functional.cross_entropy(after, labels)
        print(f"{title:36} {accuracy:9.4f} {loses:>14} {nll:7.4f} {left:8.3f} {seconds:8.1f}", flush=True)
    if not found:
        print("Torch-Pruning is absent: pip install torch-pruning, or give its folder by --pruning.")


if __name__ == "__main__":
    main()
