"""Cost of a checkup, compared with bare forward passes and with the same measurements from stored attention maps.

    python benchmarks/checkup_cost.py [--images 256] [--batch 32] [--rounds 3]

Each contestant runs in its own processes, in turn, over the same images with the same model
(``vit_tiny_patch16_224``, random weights); the figures are medians over the rounds. Peak memory is the process's
largest resident set. The images are those of ``VITSCOPE_DATA`` if it is set, and noise otherwise. ``nnsight`` takes
part if it is installed.
"""

import argparse
import importlib.util
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

MODEL = "vit_tiny_patch16_224"
CONTESTANTS = {
    "bare forward passes": "bare",
    "vitscope, every default diagnostic": "checkup",
    "floor: forward passes, weights made and unread": "floor",
    "torchvision feature extractor, maps stored": "extractor",
    "nnsight, maps stored": "nnsight",
}


def batches(count: int, size: int):
    """The decoded images, batch by batch; decoding is the same for all and not timed."""
    import numpy as np
    import torch

    import vitscope

    data = os.environ.get("VITSCOPE_DATA")
    source = (
        Path(data) / "imagenette" if data else np.random.default_rng(0).integers(0, 256, (count, 224, 224, 3), "uint8")
    )
    pictures = vitscope.images(source, limit=count, label="imagenet_label" if data else None)
    subject = vitscope.load(f"timm/{MODEL}")
    found = list(pictures.batches(subject.preprocessing.transform, size))
    return (
        subject,
        [batch.pixels for batch in found],
        [
            batch.labels if batch.labels is not None else torch.zeros(len(batch.indices), dtype=torch.long)
            for batch in found
        ],
    )


def bare(subject, pixels, labels):
    """Forward passes only."""
    for batch in pixels:
        subject.module(batch)


def checkup(subject, pixels, labels):
    """Every default diagnostic, folded over the batches."""
    from vitscope import default_diagnostics
    from vitscope.engine.reading.activation import Predictions, Workspace
    from vitscope.engine.reading.shard import Reading

    diagnostics, workspace = default_diagnostics(), Workspace()
    states = [diagnostic.init() for diagnostic in diagnostics]
    for batch, truth in zip(pixels, labels, strict=True):
        reading = Reading(diagnostics, subject.places, tuple(batch.shape[2:]), workspace)
        reading.predictions(Predictions(subject.anatomy.walk(batch, reading), truth))
        states = [d.update(s, o) for d, s, o in zip(diagnostics, states, reading.results(), strict=True)]


def floor(subject, pixels, labels):
    """The minimum for every reader of weights: the scores, their softmax, and the context from them."""
    import torch

    from vitscope.engine.reading.activation import AttentionRows, Geometry, Workspace
    from vitscope.models.subject import AbstractObserver

    workspace = Workspace()

    class Softmax(AbstractObserver):
        def stream(self, layer, stream):
            pass

        def attention(self, layer, attention):
            geometry, parts = Geometry.of(attention, (224, 224)), []
            for start in range(0, attention.queries.shape[0], 8):
                chunk = attention.images(start, start + 8)
                parts.append(AttentionRows(chunk, chunk.queries, geometry, workspace).context)
            return torch.cat(parts)

    for batch in pixels:
        subject.anatomy.walk(batch, Softmax())


def from_stored(maps, shape):
    """The attention diagnostics' own reductions, over maps that another tool stored."""
    from vitscope import default_diagnostics
    from vitscope.engine.reading.activation import ActivationKind, AttentionRows, Geometry, Workspace
    from vitscope.models.attention import Attention, global_tokens

    workspace = Workspace()
    for weights in maps:
        tokens = global_tokens(weights.shape[-1], weights.device)
        empty = weights.new_empty(weights.shape[0], 1, weights.shape[1], weights.shape[2], 1)
        attention = Attention(empty, empty, empty, tokens, tokens, (14, 14), 1, 1.0)
        rows = AttentionRows(attention, weights.new_ones(shape), Geometry.of(attention, (224, 224)), workspace)
        vars(rows).update(weights=weights[:, None], scores=weights[:, None].log())
        for diagnostic in default_diagnostics():
            if diagnostic.reads is ActivationKind.ATTENTION:
                diagnostic.observe(rows)


def extractor(subject, pixels, labels):
    """Torchvision's feature extractor with fused attention off."""
    from torchvision.models.feature_extraction import create_feature_extractor, get_graph_node_names

    for block in subject.module.blocks:
        block.attn.fused_attn = False
    names = [name for name in get_graph_node_names(subject.module)[1] if "softmax" in name]
    model = create_feature_extractor(subject.module, [*names, "head"])
    for batch in pixels:
        stored = model(batch)
        from_stored([stored[name] for name in names], (batch.shape[0], 197))


def nnsight(subject, pixels, labels):
    """A trace of nnsight with fused attention off."""
    from nnsight import NNsight, save

    for block in subject.module.blocks:
        block.attn.fused_attn = False
    model = NNsight(subject.module)
    for batch in pixels:
        with model.trace(batch):
            saved = save([])
            for block in model.blocks:
                saved.append(block.attn.attn_drop.input)
        from_stored(saved, (batch.shape[0], 197))


def run_one(name: str, count: int, size: int) -> None:
    """Run one contestant in this process; print seconds and peak memory as JSON."""
    import torch

    subject, pixels, labels = batches(count, size)
    contestant = globals()[name]
    with torch.inference_mode():
        contestant(subject, pixels[:1], labels[:1])
        start = time.perf_counter()
        contestant(subject, pixels, labels)
        seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"seconds": seconds, "peak_mb": peak}))


def main() -> None:
    """Run every contestant in turn and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        run_one(arguments.one, arguments.images, arguments.batch)
        return
    contestants = {
        title: name for title, name in CONTESTANTS.items() if name != "nnsight" or importlib.util.find_spec("nnsight")
    }
    results: dict[str, list[dict[str, float]]] = {title: [] for title in contestants}
    for _ in range(arguments.rounds):
        for title, name in contestants.items():
            command = [
                sys.executable,
                __file__,
                "--one",
                name,
                "--images",
                str(arguments.images),
                "--batch",
                str(arguments.batch),
            ]
            output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            results[title].append(json.loads(output.splitlines()[-1]))
    show(results, arguments.images)


def show(results: dict[str, list[dict[str, float]]], count: int) -> None:
    """Print the table, relative to the bare forward passes of the same round."""
    import torch

    bare_runs = results["bare forward passes"]
    print(
        f"{MODEL}, {count} images, {platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}"
    )
    print(f"{'':45} {'s':>7} {'x bare':>7} {'peak MB':>8} {'over bare MB':>13}")
    for title, runs in results.items():
        seconds = statistics.median(run["seconds"] for run in runs)
        ratio = statistics.median(run["seconds"] / base["seconds"] for run, base in zip(runs, bare_runs, strict=True))
        peak = statistics.median(run["peak_mb"] for run in runs)
        more = peak - statistics.median(run["peak_mb"] for run in bare_runs)
        print(f"{title:45} {seconds:7.2f} {ratio:7.2f} {peak:8.0f} {more:13.0f}")


if __name__ == "__main__":
    main()
