"""How often every finding errs at the edge of its margin, by simulation: ``python tests/known/false_alarms.py``.

A run is drawn whose true numbers lie on the threshold, so that *holds* and *fails* are both wrong. Numbers per image
are even (normal) or as skewed as the exponential law.
"""

import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from functools import partial

import numpy as np
from finding_runs import depth, lesions, number, predictions, run_of, settings

from vitscope.findings.checkup import findings
from vitscope.measurement.claim import Verdict
from vitscope.runs.run import Run

Random = np.random.Generator
Draw = Callable[[Random, int], Run]
RULES = {finding.name: finding for finding in findings()}


def per_image(random: Random, law: str, *shape: int) -> np.ndarray:
    """Numbers of mean 0 and variance 1."""
    if law == "even":
        return random.normal(size=shape)
    return (random.exponential(size=shape) - 1) * (1 if law == "skewed" else -1)


def mean_of(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means over the images, which are last, with their errors."""
    return values.mean(-1), values.std(-1, ddof=1) / np.sqrt(values.shape[-1])


def at_depth(random: Random, count: int, group: str, name: str, shape: tuple[int, ...], edge: float, law: str) -> Run:
    """A quantity of units, or of heads, all of which lie on the edge."""
    spread = min(edge, 1 - edge) if 0 < edge < 1 else 1.0
    mean, error = mean_of(edge + spread * per_image(random, law, *shape, count))
    return run_of((group, depth(name, "a" * shape[0], mean, error, count)))


def across(random: Random, count: int, name: str, kinds: str, law: str) -> Run:
    """Changes across units whose mean is 0; images differ alike in all of them, but for a tenth."""
    values = per_image(random, law, count) + 0.1 * per_image(random, law, len(kinds), count)
    mean, error = mean_of(values)
    group, _, quantity = name.partition("/")
    return run_of((group, depth(quantity, kinds, mean, error, count)))


def high_norms(random: Random, count: int, law: str) -> Run:
    """Heads whose mass on high-norm patches is a twentieth."""
    mass, error = mean_of(0.05 * (1 + per_image(random, law, 12, 3, count)))
    share = depth("high_norm_share", "a" * 12, np.full(12, 0.004), 1e-4, count)
    return run_of(
        ("attention-sinks", depth("high_norm_mass", "a" * 12, mass, error, count)), ("attention-sinks", share)
    )


def reaching(random: Random, count: int, law: str) -> Run:
    """Six units of three heads, the last third of which reach further by the margin, more so in some images."""
    grown, way = ([one] * 4 + [other] * 2 for one, other in ((0.5, 0.55), (-0.1, 0.1)))
    values = np.array(grown)[:, None, None] + np.array(way)[:, None, None] * per_image(random, law, count)
    mean, error = mean_of(np.broadcast_to(values, (6, 3, count)))
    uniform = depth("uniform_distance", "a" * 6, np.ones(6), 0.0, count)
    return run_of(
        ("attention-distance", depth("distance", "a" * 6, mean, error, count)), ("attention-distance", uniform)
    )


def confident(random: Random, count: int, level: float, spread: float, tied: bool) -> Run:
    """Confidences around a level, with an accuracy that is 2 points lower: image by image, or only on average."""
    confidence = np.clip(level + spread * random.uniform(-1, 1, count), 0.02, 1)
    right = random.random(count) < (confidence if tied else level) - 0.02
    over = confidence - right
    return predictions(float(over.mean()), float(over.std(ddof=1) / np.sqrt(count)), float(right.mean()), count)


def turned(random: Random, count: int, gain: float, loss: float, units: int) -> list[tuple[int, int]]:
    """How many images each of several units gains and loses."""
    return [tuple(one[:2]) for one in random.multinomial(count, (gain, loss, 1 - gain - loss), units).tolist()]


def spare(random: Random, count: int, margin: float, gain: float, others: float) -> Run:
    """Twelve units, of which one loses the margin and the others as much or, more, what is given."""
    rest = turned(random, count, 0.0, others, 11) if others else turned(random, count, gain, gain + margin, 11)
    return lesions("am" * 6, [*turned(random, count, gain, gain + margin, 1), *rest], count)


def kept(random: Random, count: int, margin: float, gain: float) -> Run:
    """A share of the tokens that loses the margin."""
    (one,) = turned(random, count, gain, gain + margin, 1)
    return settings("token-keep", "keep", {0.7: one}, count, by="attention")


def attended(random: Random, count: int, share: float) -> Run:
    """Six attention units that all lose the same."""
    return lesions("a" * 6, turned(random, count, 0.0, share, 6), count)


def noisy(random: Random, count: int, share: float) -> Run:
    """Nine bands that all lose the same."""
    bands = np.linspace(0.1, 0.9, 9).round(1).tolist()
    lost = turned(random, count, 0.0, share, 9)
    return settings("frequency-noise", "frequency_band", dict(zip(bands, lost, strict=True)), count)


def curved(random: Random, count: int, law: str) -> Run:
    """Mini-batches with a tenth of negative eigenvalues: five at a time or none, or each for itself."""
    shares = random.random(count) < 0.1 if law == "all or none" else random.binomial(5, 0.1, count) / 5
    mean, error = mean_of(shares.astype(float))
    return run_of(("hessian-spectrum", number("negative_share", float(mean), float(error), count)))


LAWS = ("even", "skewed", "skewed down")
SPECTRUM, VARIANCE = "fourier-spectrum/sharpening", "feature-variance/log_change"


def _of_depth(group: str, name: str, shape: tuple[int, ...], edge: float) -> dict[str, Draw]:
    return {law: partial(at_depth, group=group, name=name, shape=shape, edge=edge, law=law) for law in LAWS}


def _across(name: str, kinds: str) -> dict[str, Draw]:
    return {law: partial(across, name=name, kinds=kinds, law=law) for law in LAWS}


CASES: Mapping[str, Mapping[str, Draw]] = {
    "attention-smooths": _across(SPECTRUM, "aaaaa"),
    "attention-lowers-variance": _across(VARIANCE, "aaaaa"),
    "mlp-sharpens": _across(SPECTRUM, "mmmmm"),
    "mlp-raises-variance": _across(VARIANCE, "mmmmm"),
    "early-attention-sharpens": _across(SPECTRUM, "aaaa"),
    "low-pass-in-depth": _across("fourier-spectrum/at_highest_frequency", "am"),
    "oversmoothing": _of_depth("token-similarity", "cosine", (1,), 0.9),
    "rank-collapse": _of_depth("token-rank", "rank", (1,), 2.0),
    "query-collapse": _of_depth("attention-diversity", "mutual_information", (1, 3), 0.05),
    "sparse-attention": _of_depth("attention-sparsity", "keys_share", (12, 3), 0.2),
    "entropy-collapse": _of_depth("attention-entropy", "relative_entropy", (12, 3), 0.05),
    "prefix-sinks": _of_depth("attention-sinks", "prefix_mass", (12, 3), 0.5),
    "redundant-heads": _of_depth("attention-diversity", "heads", (12,), 0.05),
    "high-norm-tokens": {law: partial(high_norms, law=law) for law in LAWS},
    "reach-grows-with-depth": {law: partial(reaching, law=law) for law in LAWS},
    "calibration": {
        "97 % sure": partial(confident, level=0.97, spread=0.03, tied=True),
        "70 % sure": partial(confident, level=0.7, spread=0.3, tied=True),
        "confidence apart from accuracy": partial(confident, level=0.9, spread=0.1, tied=False),
    },
    "spare-units": {
        "1 lost of 100, all units": partial(spare, margin=0.01, gain=0.0, others=0.0),
        "4 lost, 3 gained": partial(spare, margin=0.01, gain=0.03, others=0.0),
        "one unit at the edge, others lose half": partial(spare, margin=0.01, gain=0.0, others=0.5),
    },
    "tokens-to-spare": {
        "2 lost of 100": partial(kept, margin=0.02, gain=0.0),
        "5 lost, 3 gained": partial(kept, margin=0.02, gain=0.03),
    },
    "late-attention-matters": {f"{share:.0%} lost": partial(attended, share=share) for share in (0.01, 0.2)},
    "low-frequencies-matter": {f"{share:.0%} lost": partial(noisy, share=share) for share in (0.01, 0.2)},
    "negative-curvature": {law: partial(curved, law=law) for law in ("all or none", "each for itself")},
}
"""For every finding that is a test, runs at its edge by the law of the numbers."""
COUNTS = {"negative-curvature": (4, 8, 16, 60)} | dict.fromkeys(
    ("spare-units", "tokens-to-spare", "late-attention-matters", "low-frequencies-matter"), (64, 256, 1000)
)
"""Over how many samples, where not over 20 to 200 images."""


def errors(name: str, draw: Draw, count: int, draws: int, rate: float, seed: int = 0) -> Counter[Verdict]:
    """The verdicts of so many runs at the edge."""
    random = np.random.default_rng(seed)
    judged = (RULES[name].judge(draw(random, count), rate) for _ in range(draws))
    return Counter(judgement.verdict for judgement in judged if judgement is not None)


def table(draws: int, rate: float) -> Iterator[str]:
    """For each finding the share of runs with a verdict, under the law with the most of them, by number of samples."""
    for name, laws in CASES.items():
        counts = COUNTS.get(name, (20, 50, 200))
        found = [
            [draws - errors(name, draw, n, draws, rate)[Verdict.UNDECIDED] for draw in laws.values()] for n in counts
        ]
        shares = ", ".join(f"{100 * max(one) / draws:.2f} % of {n}" for one, n in zip(found, counts, strict=True))
        yield f"| `{name}` | {shares} |"


if __name__ == "__main__":
    print("| finding | wrong verdicts, under the worst distribution, by number of images |\n|---|---|")
    for line in table(int(sys.argv[1]) if len(sys.argv) > 1 else 2000, 0.01):
        print(line, flush=True)
