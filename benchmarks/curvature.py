"""Cost of extreme Hessian eigenvalues and the spectral density, compared with the tools one would use instead.

    python benchmarks/curvature.py [--dim 64] [--depth 4] [--batch 16] [--batches 8] [--train 60]

The model is a ViT of patch 4 on 32 x 32 pixels, trained for a few steps on CIFAR-10 of ``VITSCOPE_DATA`` if that is set
and on fixed noise otherwise. All contestants run in this process on one thread, in turn on every mini-batch; figures
are CPU seconds (``time.process_time``) over all mini-batches. Peers take part if they are installed:

    pip install pyhessian curvlinops-for-pytorch hessian-eigenthings==1.0.0a5

Every autograd peer needs the fused attention kernel off, which is done for them. The goal is the five algebraically
largest and the five smallest eigenvalues, each with a residual of at most ``--tolerance`` times the spectral norm;
the residual that each contestant reached is computed for all by the same product, untimed.

* curvlinops: ``scipy.sparse.linalg.eigsh(which="BE")``, ``tol`` at that tolerance; the reached residual is shown.
* hessian-eigenthings has no stopping rule: it gets as many steps, in tens, as reach the tolerance, which
  is determined untimed; it is called once for each end.
* PyHessian has only the largest by modulus; it runs until its estimates change by less than 1e-3 (its default) and
  by less than 1e-6.

The floor is our number of products times the operations of one product: 6 forward passes (2 for each of the 3 of a
forward and backward pass, which it differentiates); the table gives the CPU seconds measured for such a forward pass.
A peer that makes the graph anew pays 9 forward passes' operations, so no stored graph can be more than 1.5 times as
fast at the same number of products. Several mini-batches at once by ``torch.func.vmap`` were tried and rejected:
0.093 s per product against 0.050 s from stored graphs (4 mini-batches, this ViT).
"""

import argparse
import copy
import importlib.util
import os
import time
import warnings
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

import vitscope
from vitscope.engine.curvature.hessian import minibatch_hessian, trainable_copy
from vitscope.numerics.lanczos import extreme_eigenpairs
from vitscope.numerics.spectral_density import lanczos_quadrature

TOP = 5
PEERS = {"curvlinops": "curvlinops", "hessian_eigenthings": "hessian-eigenthings", "pyhessian": "PyHessian"}


def build(arguments):
    """The model as a subject, after a few steps of training, and its mini-batches."""
    from timm.models.vision_transformer import VisionTransformer

    torch.manual_seed(0)
    module = VisionTransformer(
        img_size=32, patch_size=4, embed_dim=arguments.dim, depth=arguments.depth, num_heads=4, num_classes=10
    )
    count = arguments.batch * arguments.batches
    data = os.environ.get("VITSCOPE_DATA")
    if data:
        pictures = vitscope.images(Path(data) / "cifar10", split="train", limit=max(count, 512))
    else:
        noise = np.random.default_rng(0).integers(0, 256, (max(count, 512), 32, 32, 3), "uint8")
        pictures = vitscope.images((noise, np.arange(len(noise)) % 10))
    pixels = vitscope.PixelInput(32, 3, (0.5,), (0.25,))
    subject = vitscope.load(module, input=pixels, name=f"ViT, {arguments.depth} blocks of {arguments.dim}")
    optimiser = torch.optim.AdamW(module.parameters(), 1e-3)
    everything = list(pictures.batches(subject.preprocessing.transform, 64))
    for step in range(arguments.train):
        batch = everything[step % len(everything)]
        functional.cross_entropy(module(batch.pixels), batch.labels).backward()
        optimiser.step()
        optimiser.zero_grad()
    batches = list(pictures.batches(subject.preprocessing.transform, arguments.batch, 0, arguments.batches))
    return subject, batches


def unfused(module):
    """A copy without the fused kernel for the peers, which cannot differentiate it twice."""
    module = copy.deepcopy(module)
    for part in module.modules():
        if type(part).__name__ == "Attention":
            part.fused_attn = False
    return module


def timed(function):
    """The result of the call, and its CPU seconds."""
    start = time.process_time()
    result = function()
    return result, time.process_time() - start


class Contest:
    """The contestants for extreme eigenvalues; each returns values and vectors, or only values."""

    def __init__(self, subject, arguments):
        self.subject, self.peer, self.arguments = subject, unfused(subject.module), arguments
        self.steps = {}

    def vitscope(self, batch, end):
        """Eigenpairs by vitscope, and its number of products."""
        hessian = minibatch_hessian(trainable_copy(self.subject, "float32"), batch)
        generator = torch.Generator().manual_seed(0)
        found = extreme_eigenpairs(
            hessian.product, hessian.start(generator), generator, TOP, end, self.arguments.tolerance
        )
        return {"largest": found.largest, "smallest": found.smallest}, found.products

    def curvlinops(self, batch, end):
        """Eigenpairs of curvlinops' operator by ARPACK."""
        from curvlinops import HessianLinearOperator
        from scipy.sparse.linalg import LinearOperator, eigsh

        operator = HessianLinearOperator(
            self.peer, torch.nn.CrossEntropyLoss(), list(self.peer.parameters()), [(batch.pixels, batch.labels)],
            check_deterministic=False,
        ).to_scipy()  # fmt: skip
        products = 0

        def product(vector):
            nonlocal products
            products += 1
            return operator @ vector

        counted = LinearOperator(operator.shape, product, dtype=np.float32)
        count, which = (2 * TOP, "BE") if end == "both" else (TOP, "LA")
        start = np.random.default_rng(0).standard_normal(operator.shape[0]).astype(np.float32)
        values, vectors = eigsh(counted, k=count, which=which, tol=self.arguments.tolerance, v0=start)
        return ends(torch.from_numpy(values), torch.from_numpy(vectors.T.copy()), end), products

    def eigenthings(self, batch, end):
        """Eigenvalues by its Lanczos method, called once for each end."""
        from hessian_eigenthings import HessianOperator, lanczos
        from hessian_eigenthings.loss_fns import supervised_loss

        operator = HessianOperator(
            self.peer, [(batch.pixels, batch.labels)], supervised_loss(torch.nn.CrossEntropyLoss())
        )
        steps, found = self.steps[id(batch), end], {}
        for which, name in (("LA", "largest"), ("SA", "smallest")):
            if end in ("both", name):
                result = lanczos(
                    operator, k=TOP, max_iter=steps[name], which=which, seed=0, reorthogonalize=True
                )  # fmt: skip
                found[name] = (result.eigenvalues, result.eigenvectors)
        return found, sum(steps[name] for name in found)

    def settle(self, batch, end):
        """The steps, in tens, that each end alone needs for the tolerance; untimed."""
        hessian = minibatch_hessian(trainable_copy(self.subject, "float32"), batch)
        steps = {}
        for name in ("largest", "smallest") if end == "both" else (end,):
            generator = torch.Generator().manual_seed(0)
            start = torch.randn(hessian.size, generator=generator)
            found = extreme_eigenpairs(hessian.product, start, generator, TOP, name, self.arguments.tolerance)
            steps[name] = -10 * ((TOP - found.products) // 10)
        self.steps[id(batch), end] = steps

    def pyhessian(self, batch, tolerance, most):
        """Eigenvalues by its power iteration, with the graph stored."""
        from pyhessian import hessian

        self.peer.zero_grad()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            computer = hessian(self.peer, torch.nn.CrossEntropyLoss(), data=(batch.pixels, batch.labels), cuda=False)
            values, _ = computer.eigenvalues(maxIter=most, tol=tolerance, top_n=TOP)
        self.peer.zero_grad(set_to_none=True)
        return torch.tensor(values, dtype=torch.float64)

    def judge(self, batch):
        """The product for all residuals, and the spectral norm."""
        hessian = minibatch_hessian(trainable_copy(self.subject, "float32"), batch)
        generator = torch.Generator().manual_seed(1)
        found = extreme_eigenpairs(hessian.product, hessian.start(generator), generator, 1, tolerance=1e-3)
        return hessian.product, found.norm


def ends(values, vectors, end):
    """Pairs in ascending order, as the largest and the smallest."""
    pairs = {"largest": (values[-TOP:].flip(0), vectors[-TOP:].flip(0))}
    return pairs if end == "largest" else {**pairs, "smallest": (values[:TOP], vectors[:TOP])}


def residual(pairs, product):
    """The largest residual of these pairs."""
    values, vectors = (pairs.values, pairs.vectors) if hasattr(pairs, "residuals") else pairs
    worst = 0.0
    for value, vector in zip(values.double(), vectors, strict=True):
        image = product(vector.float())
        worst = max(worst, float((image.double() - value * vector.double()).norm() / vector.double().norm()))
    return worst


def extremes(contest, batches, installed):
    """Print both tables of extreme eigenvalues."""
    for end, title in (("both", "five largest and five smallest eigenvalues"), ("largest", "five largest eigenvalues")):
        seconds, worst, products = defaultdict(float), defaultdict(float), defaultdict(int)
        names = ["vitscope", *(["curvlinops"] if "curvlinops" in installed else [])]
        names += ["eigenthings"] if "hessian_eigenthings" in installed else []
        for batch in batches:
            product, norm = contest.judge(batch)
            if "eigenthings" in names:
                contest.settle(batch, end)
            for name in names:
                (found, count), spent = timed(lambda name=name: getattr(contest, name)(batch, end))  # noqa: B023
                seconds[name] += spent
                products[name] += count
                wanted = [found[one] for one in (("largest", "smallest") if end == "both" else ("largest",))]
                worst[name] = max(worst[name], *(residual(pairs, product) / norm for pairs in wanted))
        print(f"\n{title}, {len(batches)} mini-batches")
        print(f"{'':40} {'CPU s':>8} {'ratio':>7} {'products':>9} {'worst residual / norm':>22}")
        for name in names:
            ratio = seconds[name] / seconds["vitscope"]
            print(f"{name:40} {seconds[name]:8.1f} {ratio:7.2f} {products[name]:9d} {worst[name]:22.1e}")
        if end == "both" and "pyhessian" in installed:
            power(contest, batches, seconds["vitscope"])
        floor(contest, batches, products["vitscope"], seconds["vitscope"])


def power(contest, batches, ours):
    """Print PyHessian's time at two tolerances, and its distance from the largest eigenvalues by modulus."""
    for tolerance, most in ((1e-3, 100), (1e-6, 300)):
        spent, wrong, missed = 0.0, 0.0, 0
        for batch in batches:
            values, seconds = timed(lambda batch=batch: contest.pyhessian(batch, tolerance, most))  # noqa: B023
            spent += seconds
            found, _ = contest.vitscope(batch, "both")
            truth = torch.cat([found["largest"].values, found["smallest"].values])
            truth = truth[truth.abs().argsort(descending=True)][:TOP]
            error = float((values - truth).abs().max() / truth.abs().max())
            wrong, missed = max(wrong, error), missed + (error > 1e-3)
        title = f"PyHessian, 5 by modulus, tol={tolerance:g}"
        print(f"{title:40} {spent:8.1f} {spent / ours:7.2f} {'':9} worst error / norm {wrong:.1e}, "
              f"over 1e-3 on {missed} of {len(batches)}")  # fmt: skip


def floor(contest, batches, products, ours):
    """Print the time of the products' operations at the speed of the forward pass."""
    module, forward = contest.subject.module, 0.0
    with torch.no_grad():
        module(batches[0].pixels)
        for batch in batches:
            forward += min(timed(lambda batch=batch: module(batch.pixels))[1] for _ in range(5))
    each = forward / len(batches)
    print(f"{'floor: products x 6 forward passes':40} {6 * each * products:8.1f} {6 * each * products / ours:7.2f}")


def density(contest, batches, installed, steps, vectors):
    """Print the table of spectral densities, with the same steps and vectors for all."""
    seconds = defaultdict(float)
    for batch in batches:
        seconds["vitscope"] += timed(lambda: quadratures(contest, batch, steps, vectors))[1]  # noqa: B023
        if "curvlinops" in installed:
            seconds["curvlinops"] += timed(lambda: curvlinops_density(contest, batch, steps, vectors))[1]  # noqa: B023
        if "hessian_eigenthings" in installed:
            seconds["hessian-eigenthings"] += timed(lambda: eigenthings_density(contest, batch, steps, vectors))[1]  # noqa: B023
    print(f"\nspectral density, {steps} steps, {vectors} vectors, {len(batches)} mini-batches")
    for name, spent in seconds.items():
        print(f"{name:40} {spent:8.1f} {spent / seconds['vitscope']:7.2f}")
    floor(contest, batches, len(batches) * steps * vectors, seconds["vitscope"])


def quadratures(contest, batch, steps, vectors):
    hessian = minibatch_hessian(trainable_copy(contest.subject, "float32"), batch)
    generator = torch.Generator().manual_seed(0)
    for _ in range(vectors):
        lanczos_quadrature(hessian.product, hessian.start(generator), steps, generator, steps)


def curvlinops_density(contest, batch, steps, vectors):
    from curvlinops import HessianLinearOperator, lanczos_approximate_spectrum

    operator = HessianLinearOperator(
        contest.peer, torch.nn.CrossEntropyLoss(), list(contest.peer.parameters()), [(batch.pixels, batch.labels)],
        check_deterministic=False,
    )  # fmt: skip
    lanczos_approximate_spectrum(operator, steps, num_repeats=vectors, boundaries=(-500.0, 500.0))


def eigenthings_density(contest, batch, steps, vectors):
    from hessian_eigenthings import HessianOperator, spectral_density
    from hessian_eigenthings.loss_fns import supervised_loss

    loss = supervised_loss(torch.nn.CrossEntropyLoss())
    operator = HessianOperator(contest.peer, [(batch.pixels, batch.labels)], loss)
    spectral_density(operator, num_runs=vectors, lanczos_steps=steps, seed=0, num_grid_points=1024)


def main() -> None:
    """Build the model, run every contestant, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for flag, default in (("dim", 64), ("depth", 4), ("batch", 16), ("batches", 8), ("train", 60), ("steps", 30)):
        parser.add_argument(f"--{flag}", type=int, default=default)
    parser.add_argument("--vectors", type=int, default=2)
    parser.add_argument("--tolerance", type=float, default=1e-4)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    installed = {name for name in PEERS if importlib.util.find_spec(name)}
    for name in sorted(PEERS.keys() - installed):
        print(f"{PEERS[name]} is not installed and takes no part.")
    subject, batches = build(arguments)
    print(f"{subject.name}, {subject.parameter_count:,} weights, batch {arguments.batch}, torch {torch.__version__}")
    contest = Contest(subject, arguments)
    extremes(contest, batches, installed)
    density(contest, batches[:2], installed, arguments.steps, arguments.vectors)


if __name__ == "__main__":
    main()
