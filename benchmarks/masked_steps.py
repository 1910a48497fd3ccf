"""Gradient steps of masked pretraining: the closed form on correlations, compared with autograd through the model.

    python benchmarks/masked_steps.py [--steps 20] [--rounds 5] [--batch 48] [--trials 1]

The settings are P = 100 patches, 3 clusters and the paper's two signs of the information gap; one thread, CPU time
(``time.process_time``). The peer is the model in the dimension of its tokens, one for each feature and position:
attention of all queries to all keys, outputs, loss, ``torch.autograd.grad``, step. In its favour, its tokens are made
untimed, and it holds only the rows of Q that learn. Both start at Q = 0 and see the same samples; they take turns
within a round, a ratio is taken within the round, and the median over rounds is shown. ``apart`` is the largest
difference of their correlations after all steps of a round, ``operations`` those of the matrix products of one step.
"""

import argparse
import platform
import statistics
import time

import torch

from vitscope.labs.masked.clusters import ClusteredPatches, concatenate
from vitscope.labs.masked.position_attention import at_zero, reconstruction_gradient

SETTINGS = (ClusteredPatches(100, 3, 80, 4), ClusteredPatches(100, 3, 20, 8))
RATE = 6.0


def tokens(setting, partition, samples):
    """Images, and the same images with hidden patches zeroed, by features; keys also have their position."""
    features = setting.clusters * setting.areas
    areas = partition[samples.clusters[0]]
    images = torch.zeros(*areas.shape, features, dtype=samples.strengths.dtype)
    which = samples.clusters[0][:, None] * setting.areas + areas
    images.scatter_(2, which[..., None], samples.strengths[0].gather(1, areas)[..., None])
    images = torch.nn.functional.pad(images, (0, setting.patches))
    seen = images * samples.visible[0][..., None]
    codes = torch.nn.functional.pad(torch.eye(setting.patches, dtype=images.dtype), (features, 0))
    return images, seen, seen + codes, (~samples.visible[0]).to(images)


def ambient(rows, steps):
    """Steps by autograd: ``rows`` are those of Q that belong to positions."""
    for images, seen, keys, hidden in steps:
        rows = rows.detach().requires_grad_()
        outputs = (rows @ keys.mT).softmax(-1) @ seen
        loss = ((outputs - images).square().sum(-1) * hidden).sum(-1).mean() / 2
        rows = rows - RATE * torch.autograd.grad(loss, rows)[0]
    return rows.detach()


def reduced(model, steps):
    """Steps by the closed form."""
    for samples in steps:
        model = model.moved(reconstruction_gradient(model.attend(samples)), RATE)
    return model


def timed(function, *arguments):
    """The result of the call, and its CPU seconds."""
    start = time.process_time()
    result = function(*arguments)
    return result, time.process_time() - start


def contest(setting, dtype, arguments):
    """CPU seconds of each for every round, and the final difference of their correlations."""
    generator = torch.Generator().manual_seed(0)
    partition = setting.partition(generator)
    seconds, apart = [], 0.0
    for _ in range(arguments.rounds + 1):
        drawn = [
            [setting.draw(arguments.batch, generator).to(dtype, torch.device("cpu")) for _ in range(arguments.steps)]
            for _ in range(arguments.trials)
        ]
        features = setting.clusters * setting.areas
        rows, peer = torch.zeros(setting.patches, features + setting.patches, dtype=dtype), 0.0
        for trial in drawn:
            result, spent = timed(ambient, rows, [tokens(setting, partition, samples) for samples in trial])
            peer += spent
        together = [concatenate(list(step)) for step in zip(*drawn, strict=True)]
        start = at_zero(partition.expand(arguments.trials, -1, -1), setting.areas, dtype)
        model, own = timed(reduced, start, together)
        seconds.append((peer, own))
        apart = max(apart, float((model.correlations.position[-1] - result[:, features:]).abs().max()))
        apart = max(apart, float((model.correlations.feature[-1].flatten(1) - result[:, :features]).abs().max()))
    return seconds[1:], apart  # the first round warms up


def main() -> None:
    """Time both in turn and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=48)
    parser.add_argument("--trials", type=int, default=1, help="trials in one computation; the peer runs them in turn")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(
        f"{arguments.steps} steps of {arguments.batch} samples, {arguments.trials} trials, {arguments.rounds} rounds,"
    )
    print(f"one thread, {platform.machine()}, torch {torch.__version__}; CPU ms per step and trial")
    print(f"{'gap':>5} {'precision':>9} {'autograd':>9} {'closed':>7} {'ratio':>6} {'apart':>8} {'operations':>21}")
    for setting in SETTINGS:
        dim, slots = setting.clusters * setting.areas + setting.patches, setting.areas + 1
        products = [2e-6 * arguments.batch * setting.patches**2 * size for size in (4 * dim, 2 * slots)]
        for dtype in (torch.float64, torch.float32):
            seconds, apart = contest(setting, dtype, arguments)
            each = 1e3 / (arguments.steps * arguments.trials)
            peer, own = (each * statistics.median(column) for column in zip(*seconds, strict=True))
            ratio = statistics.median(one / other for one, other in seconds)
            print(
                f"{setting.information_gap:+5.2f} {str(dtype)[6:]:>9} {peer:9.2f} {own:7.2f} {ratio:6.1f} {apart:8.1e} "
                f"{products[0]:9.0f} M {products[1]:7.0f} M"
            )


if __name__ == "__main__":
    main()
