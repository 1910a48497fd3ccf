"""Savings from removing half of the patch tokens: time against operations, and against ToMe at equal token numbers.

    python benchmarks/token_keep.py [--batch 16] [--rounds 9] [--keep 0.5] [--layer 3] [--tome FOLDER]

The model is DeiT-tiny's architecture at 224 pixels (``vit_tiny_patch16_224``, random weights); figures are CPU time of
the forward pass on one thread. The contestants take turns within a round; a ratio is taken within the round, and the
median over rounds is shown. ``operations`` are those of matrix products and convolutions
(``torch.utils.flop_counter``); ``over`` is the ratio of times over the ratio of operations, 1 if time follows the
operations exactly. ToMe (github.com/facebookresearch/ToMe, CC-BY-NC 4.0, not part of this project) takes part if it can
be imported, or is in ``--tome``.
"""

import argparse
import importlib.util
import platform
import statistics
import sys
import time

MODEL = "vit_tiny_patch16_224"


def contestants(keep, layer):
    """Forward passes by name, the dense model first."""
    import timm

    import vitscope
    from vitscope.interventions.token_keep import TokenKeep, kept_count
    from vitscope.interventions.token_merge import TokenMerge
    from vitscope.interventions.token_ranking import AtRandom, ByAttention, ByNorm
    from vitscope.models.subject import Unwatched

    subject = vitscope.load(f"timm/{MODEL}")
    away = 196 - kept_count(keep, 196)

    def walk(intervention):
        anatomy = intervention(subject).anatomy
        return lambda images: anatomy.walk(images, Unwatched())

    passes = {
        "dense": subject.module,
        "TokenKeep by attention": walk(TokenKeep(keep, layer, ByAttention())),
        "TokenKeep by norm": walk(TokenKeep(keep, layer, ByNorm())),
        "TokenKeep at random": walk(TokenKeep(keep, layer, AtRandom())),
        "TokenMerge in one unit": walk(TokenMerge(away, (layer,))),
        "TokenMerge, r = 8 everywhere": walk(TokenMerge(8)),
    }
    if importlib.util.find_spec("tome") is None:
        return passes
    import tome

    for title, r in (
        ("ToMe in one block", [away if 2 * block + 1 == layer else 0 for block in range(12)]),
        ("ToMe, r = 8 everywhere", 8),
    ):
        model = timm.create_model(MODEL).eval()
        model.load_state_dict(subject.module.state_dict())
        tome.patch.timm(model)
        model.r = r
        passes[title] = model
    return passes


def operations(forward, image):
    """Operations for one image, in 1e9."""
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        forward(image)
    return counter.get_total_flops() / 1e9


def main() -> None:
    """Time every contestant in turn and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--keep", type=float, default=0.5)
    parser.add_argument("--layer", type=int, default=3, help="the attention unit, an odd number")
    parser.add_argument("--tome", help="a folder that holds the package tome")
    arguments = parser.parse_args()
    if arguments.tome:
        sys.path.insert(0, arguments.tome)
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(0)
    images = torch.randn(arguments.batch, 3, 224, 224)
    with torch.inference_mode():
        passes = contestants(arguments.keep, arguments.layer)
        counted = {title: operations(forward, images[:1]) for title, forward in passes.items()}
        seconds: dict[str, list[float]] = {title: [] for title in passes}
        for _ in range(arguments.rounds + 1):  # the first warms up
            for title, forward in passes.items():
                start = time.process_time()
                forward(images)
                seconds[title].append(time.process_time() - start)
    print(f"{MODEL}, {arguments.batch} images, keep {arguments.keep:g} from layer {arguments.layer}, one thread,")
    print(f"{platform.machine()}, torch {torch.__version__}, {arguments.rounds} rounds")
    print(f"{'':30} {'ms/image':>9} {'x dense':>8} {'operations':>11} {'x dense':>8} {'over':>6}")
    for title, runs in seconds.items():
        ratios = [one / dense for one, dense in zip(runs[1:], seconds["dense"][1:], strict=True)]
        ratio, share = statistics.median(ratios), counted[title] / counted["dense"]
        each = 1e3 * statistics.median(runs[1:]) / arguments.batch
        print(f"{title:30} {each:9.2f} {ratio:8.3f} {counted[title]:9.3f} G {share:8.3f} {ratio / share:6.3f}")
    for own, peer in (
        ("TokenKeep by attention", "ToMe in one block"),
        ("TokenMerge in one unit", "ToMe in one block"),
        ("TokenMerge, r = 8 everywhere", "ToMe, r = 8 everywhere"),
    ):
        if peer in seconds:
            ratios = [a / b for a, b in zip(seconds[own][1:], seconds[peer][1:], strict=True)]
            print(f"{own}: {statistics.median(ratios):.3f} times the time of {peer}")
    if "ToMe in one block" not in seconds:
        print("ToMe is absent: give its folder with --tome.")


if __name__ == "__main__":
    main()
