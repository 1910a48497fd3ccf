"""Convex heads, compared with what a user would train instead: Adam over five learning rates, and logistic regression.

    python benchmarks/convex_heads.py [--features FOLDER] [--images 5000] [--epochs 100] [--share 0.05] [--threads 2]

The data are 5,000 images of 49 tokens of width 64 in 10 classes: those in FOLDER (``tokens.npy`` and ``labels.npy``, as
``vitscope head`` saves them), or drawn by a seed. They are standardised and divided by the root of the width, as the
estimators do; beta is ``--share`` of the smallest beta at which zero is the optimum.

Adam minimises the same objective (mean cross-entropy and half of beta times the squared weights) over the heads
themselves, with batches of 100, cosine decay to zero, ``--heads`` heads in all (more if the optimum has more, which
a user could not know beforehand) and the same frozen gates; its layers are as economical as ours (pooled before
the heads). The comparison is of the final objective on all images and the CPU time of the whole grid of rates.
Logistic regression is scikit-learn's on the mean token, computing the mean included, its l2 penalty chosen so that the
weights have the same Frobenius norm; for both, the fastest of a hundred fits counts, taken in turn. It is fitted with
its default tolerance, and with the one that brings it as near to its optimum as ours is.

``--only memory`` fits an attention head to 2,000 images of 196 tokens of width 256 in 100 classes, from a memory map:
its lifted variable alone would take 6.9 GB. It reports the peak resident memory, which may include part of the map.
"""

import argparse
import math
import platform
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from vitscope.convex.block import BLOCKS, Sizes, Term
from vitscope.convex.blocks.attention import AttentionBlock
from vitscope.convex.blocks.linear import Linear
from vitscope.convex.certificate import largest_beta
from vitscope.convex.gates import terms
from vitscope.convex.loss import CrossEntropy
from vitscope.convex.problem import Problem
from vitscope.convex.solver import Solution, solve

RATES = (3e-4, 1e-3, 3e-3, 1e-2, 3e-2)
DIM, TOKENS, CLASSES = 64, 49, 10


def drawn(images: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens with a separate covariance and a faint mean for each class, by a seed."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(CLASSES, (images,), generator=generator)
    means = 0.15 * torch.randn(CLASSES, DIM, generator=generator)
    mixing = torch.eye(DIM) + 0.1 * torch.randn(CLASSES, DIM, DIM, generator=generator)
    noise = torch.randn(images, TOKENS, DIM, generator=generator)
    return torch.einsum("nsd,nde->nse", noise, mixing[labels]) + means[labels][:, None], labels


def kept(folder: Path, images: int) -> tuple[torch.Tensor, torch.Tensor]:
    tokens = torch.from_numpy(np.load(folder / "tokens.npy", mmap_mode="r")[:images].copy())
    return tokens, torch.from_numpy(np.load(folder / "labels.npy")[:images])


def standardised(tokens: torch.Tensor) -> torch.Tensor:
    flat = tokens.flatten(0, 1)
    return (tokens - flat.mean(0)) / flat.std(0) / math.sqrt(tokens.shape[2])


class Heads(nn.Module):
    """Pooled attention heads under frozen gates, for Adam."""

    def __init__(self, gates: tuple[Term, ...], heads: list[int], dim: int) -> None:
        super().__init__()
        self.gates = [None if gate.vector is None else gate.vector.view(dim, dim) for gate in gates]
        scale = 0.1 / math.sqrt(dim)
        self.left = nn.ParameterList(scale * torch.randn(count, dim, dim) for count in heads)
        self.right = nn.ParameterList(scale * torch.randn(count, dim, CLASSES) for count in heads)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Logits."""
        found = torch.zeros(len(tokens), CLASSES)
        for gate, left, right in zip(self.gates, self.left, self.right, strict=True):
            if gate is None:
                asked = torch.einsum("bd,hde->bhe", tokens.mean(1), left)
                context = asked @ tokens.transpose(1, 2) @ tokens
            else:
                mask = (tokens @ gate @ tokens.transpose(1, 2) >= 0).to(tokens)
                queries = mask.transpose(1, 2) @ tokens / tokens.shape[1]
                scores = torch.stack([((queries @ matrix) * tokens).sum(-1) for matrix in left], 1)
                context = scores @ tokens
            found = found + torch.einsum("bhd,hdc->bc", context, right)
        return found

    def penalty(self) -> torch.Tensor:
        """Half the squared weights."""
        return torch.stack([part.square().sum() for part in self.parameters()]).sum() / 2


def adam(
    gates: tuple[Term, ...], heads: list[int], data: tuple[torch.Tensor, torch.Tensor], beta: float, epochs: int
) -> tuple[list[float], float]:
    """The objective after training at each rate, and the seconds of all of them."""
    tokens, labels = data
    began, found = time.process_time(), []
    for rate in RATES:
        torch.manual_seed(0)
        model = Heads(gates, heads, tokens.shape[2])
        optimizer = torch.optim.Adam(model.parameters(), rate)
        steps = epochs * math.ceil(len(tokens) / 100)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        for _ in range(epochs):
            for rows in torch.randperm(len(tokens)).split(100):
                loss = functional.cross_entropy(model(tokens[rows]), labels[rows]) + beta * model.penalty()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
        with torch.no_grad():
            logits = torch.cat([model(part) for part in tokens.split(500)])
            found.append(float(functional.cross_entropy(logits, labels) + beta * model.penalty()))
    return found, time.process_time() - began


def attention(data: tuple[torch.Tensor, torch.Tensor], count: int | None, given: argparse.Namespace) -> None:
    tokens, labels = data
    gates = terms(AttentionBlock(), Sizes(TOKENS, DIM, CLASSES), count, torch.Generator().manual_seed(0), torch.float32)
    problem = Problem(tokens, CrossEntropy(labels, torch.ones(len(labels)), CLASSES), AttentionBlock(), gates, 1.0)
    problem = problem.with_beta(given.share * largest_beta(problem))
    began = time.process_time()
    solution = solve(problem, tol=1e-3)
    ours = time.process_time() - began
    certificate = solution.certificate
    least = -(-given.heads // len(gates))
    heads = [max(least, len(factors)) for factors in solution.heads.terms]
    title = "linear activation" if count is None else f"gated ReLU, {count} gates"
    print(f"\n## Attention head, {title}, beta {problem.beta:.3g}")
    print(f"vitscope: {ours:.1f} s, {solution.history[-1].passes} passes, {certificate.heads} heads")
    print(f"  objective {certificate.primal:.6f}, bound {certificate.dual:.6f}, gap {certificate.relative_gap:.2e}")
    objectives, seconds = adam(gates, heads, data, problem.beta, given.epochs)
    for rate, value in zip(RATES, objectives, strict=True):
        print(f"Adam, rate {rate:g}: objective {value:.6f}, over the bound by {value / certificate.dual - 1:.2e}")
    print(f"the grid, {sum(heads)} heads, {given.epochs} epochs: {seconds:.1f} s, best {min(objectives):.6f}")
    print(f"ours takes {ours / seconds:.3f} of it")


def linear(data: tuple[torch.Tensor, torch.Tensor], share: float) -> None:
    from sklearn.linear_model import LogisticRegression

    tokens, labels = data
    train, test = slice(0, len(tokens) * 4 // 5), slice(len(tokens) * 4 // 5, None)
    targets = CrossEntropy(labels[train], torch.ones(len(labels[train])), CLASSES)
    gates = terms(Linear(), Sizes(TOKENS, DIM, CLASSES), None, torch.Generator(), torch.float32)
    beta = share * largest_beta(Problem(tokens[train], targets, BLOCKS["linear"](), gates, 1.0))
    mean = tokens.mean(1).numpy()

    def ours(tol: float) -> Solution:
        return solve(Problem(tokens[train], targets, BLOCKS["linear"](), gates, beta), tol=tol)

    def theirs(strength: float, tol: float = 1e-4) -> LogisticRegression:
        seen = tokens[train].mean(1).numpy()
        return LogisticRegression(C=strength, fit_intercept=False, max_iter=1000, tol=tol).fit(seen, labels[train])

    def above(strength: float, fitted: LogisticRegression, least: float = 0.0) -> float:
        logits = torch.from_numpy(mean[train].astype(float) @ fitted.coef_.T)
        penalty = float(np.square(fitted.coef_, dtype=float).sum()) / (2 * strength * len(logits))
        return float(functional.cross_entropy(logits, labels[train])) + penalty - least

    solution, strength = ours(1e-3), 1.0
    weights = solution.heads.terms[0].lift()
    for _ in range(7):
        strength *= float(weights.norm()) ** 2 / float(np.linalg.norm(theirs(strength).coef_)) ** 2
    least, optimum = above(strength, theirs(strength, 1e-9)), ours(1e-5).certificate.dual
    near = solution.certificate.primal / optimum - 1
    tight = next(
        t for t in (1e-4 * 0.5**k for k in range(20)) if above(strength, theirs(strength, t), least) <= near * least
    )
    calls = (lambda: ours(1e-3), lambda: theirs(strength), lambda: theirs(strength, tight))
    seconds = [[clocked(call) for call in calls] for _ in range(100)]
    mine, default, tighter = np.min(seconds, axis=0)
    right = (torch.from_numpy(mean[test]) @ weights).argmax(1) == labels[test]
    print(f"\n## Linear head, beta {beta:.3g}")
    print(f"vitscope: {mine:.4f} s, gap {solution.certificate.relative_gap:.1e}, accuracy {right.float().mean():.4f}")
    print(f"  at most {near:.1e} above the optimum, {solution.history[-1].passes} passes")
    for tol, taken in ((1e-4, default), (tight, tighter)):
        fitted = theirs(strength, tol)
        far, score = above(strength, fitted, least) / least, fitted.score(mean[test], labels[test])
        print(f"LogisticRegression(C={strength:.3g}, tol={tol:.1e}): {taken:.4f} s, accuracy {score:.4f}")
        print(f"  {far:.1e} above its optimum, {fitted.n_iter_[0]} iterations; ours takes {mine / taken:.2f} of it")


def clocked(call: Callable[[], object]) -> float:
    began = time.process_time()
    call()
    return time.process_time() - began


def memory() -> None:
    tokens, dim, classes, images = 196, 256, 100, 2000
    random = np.random.default_rng(0)
    labels = torch.from_numpy(random.integers(classes, size=images))
    means = random.standard_normal((classes, dim), dtype=np.float32)
    with tempfile.TemporaryDirectory() as folder:
        shape = (images, tokens, dim)
        kept = np.lib.format.open_memmap(Path(folder) / "tokens.npy", "w+", np.float32, shape)
        for at in range(images):
            kept[at] = (random.standard_normal((tokens, dim), dtype=np.float32) + means[labels[at]]) / 16
        kept.flush()
        del kept
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        stored = np.load(Path(folder) / "tokens.npy", mmap_mode="r")
        gates = terms(AttentionBlock(), Sizes(tokens, dim, classes), None, torch.Generator(), torch.float32)
        problem = Problem(stored, CrossEntropy(labels, torch.ones(images), classes), AttentionBlock(), gates, 1.0)
        problem = problem.with_beta(0.5 * largest_beta(problem))
        began = time.process_time()
        solution = solve(problem, tol=1e-2, max_passes=200)
        seconds = time.process_time() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    certificate = solution.certificate
    print(f"\n## Attention head, 2,000 images, 196 x 256, 100 classes: {seconds:.0f} s, {certificate.heads} heads")
    print(f"relative gap {certificate.relative_gap:.1e} ({certificate.kind})")
    print(f"peak {peak:.2f} GB resident, {before:.2f} of it before the fit; the lifted variable: 6.87 GB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--features", type=Path)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--heads", type=int, default=8)
    parser.add_argument("--share", type=float, default=0.05)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", choices=("linear", "attention", "gated", "memory"))
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    if given.only == "memory":
        return memory()
    tokens, labels = kept(given.features, given.images) if given.features else drawn(given.images)
    print(f"{platform.processor() or platform.machine()}, {given.threads} threads, torch {torch.__version__}")
    data = (standardised(tokens), labels)
    if given.only in (None, "linear"):
        linear(data, given.share)
    if given.only in (None, "attention"):
        attention(data, None, given)
    if given.only in (None, "gated"):
        attention(data, 4, given)
    return None


if __name__ == "__main__":
    main()
