"""Small convex heads, compared with cvxpy with SCS and with Clarabel, and gated ReLU networks, compared with scnn.

    python benchmarks/convex_solvers.py [--rounds 3] [--limit 300]

The problem is token-wise self-attention with the linear activation and the squared loss, 20 images of 8 tokens, lifted
to 16 x 12, 64 x 80 and 256 x 160 entries. Each contestant runs in its own process, on one thread. The table has the CPU
time of the solve (for cvxpy with its compilation, which a user waits for too) and the growth of the peak resident
memory beyond the imports. The requested relative accuracy is 1e-6; ``off`` is the distance of the objective from the
best certified one. Contestants that take longer than ``--limit`` seconds are stopped.

The second table is a gated ReLU network on 2,000 images of one token of width 50, with one output and 50 gates,
compared with scnn's accelerated proximal gradient on the same gates and objective, both to a relative accuracy of 1e-4.
It needs

    pip install cvxpy
    python -m venv PEER && PEER/bin/pip install pyscnn       # not scnn, which is another project
    python benchmarks/convex_solvers.py --scnn PEER/bin/python
"""

import argparse
import importlib.util
import json
import platform
import resource
import statistics
import subprocess
import sys
import time

import numpy as np

SIZES: dict[str, tuple[int, int]] = {"16 x 12": (4, 3), "64 x 80": (8, 10), "256 x 160": (16, 10)}
IMAGES, TOKENS, BETA = 20, 8, 0.3
CONTESTANTS = ("vitscope lifted", "vitscope greedy", "SCS", "CLARABEL")


def data(dim: int, outputs: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    tokens = random.standard_normal((IMAGES, TOKENS, dim)) / np.sqrt(dim)
    return tokens, random.standard_normal((IMAGES, TOKENS, outputs))


def ours(solver: str, dim: int, outputs: int):
    import torch

    from vitscope.convex.block import Sizes
    from vitscope.convex.blocks.attention import AttentionBlock
    from vitscope.convex.gates import terms
    from vitscope.convex.loss import Squared
    from vitscope.convex.problem import Problem
    from vitscope.convex.solver import solve

    torch.set_num_threads(1)
    tokens, targets = map(torch.from_numpy, data(dim, outputs))
    gates = terms(AttentionBlock(), Sizes(TOKENS, dim, outputs), None, torch.Generator(), torch.float64)
    loss = Squared(targets, torch.ones(IMAGES, dtype=torch.float64))

    def run() -> float:
        problem = Problem(tokens, loss, AttentionBlock(), gates, BETA, pooled=False, dtype=torch.float64)
        return solve(problem, solver=solver, tol=1e-6, max_passes=20000).certificate.primal

    return run


def theirs(solver: str, dim: int, outputs: int):
    import cvxpy

    tokens, targets = data(dim, outputs)

    def run() -> float:
        lifted = cvxpy.Variable((dim * dim, dim * outputs))
        gram = np.einsum("nsk,nsl->nkl", tokens, tokens)
        rows = np.einsum("nsa,nkl->nsakl", tokens, gram).reshape(IMAGES * TOKENS, dim, dim, dim)
        # Rows of the output as inner products with Z[(a k), (l o)]; one matrix, as cvxpy needs it.
        design = rows.reshape(IMAGES * TOKENS, dim * dim * dim)
        order = np.arange(dim * dim * dim * outputs).reshape(dim * dim, dim, outputs)
        columns = [cvxpy.reshape(lifted[:, order[0, :, o]], (dim**3,), order="C") for o in range(outputs)]
        found = cvxpy.vstack([design @ column for column in columns])
        loss = cvxpy.sum_squares(found.T - targets.reshape(-1, outputs)) / (2 * IMAGES)
        program = cvxpy.Problem(cvxpy.Minimize(loss + BETA * cvxpy.normNuc(lifted)))
        options = {"eps_abs": 1e-7, "eps_rel": 1e-7, "max_iters": 200000} if solver == "SCS" else {}
        return float(program.solve(solver=solver, **options))

    return run


def network() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Images, targets of a ReLU network of ten neurons with noise, and gates as columns."""
    random = np.random.default_rng(0)
    images, gates = random.standard_normal((2000, 50)), random.standard_normal((50, 50))
    hidden = np.maximum(images @ random.standard_normal((50, 10)) / np.sqrt(50), 0)
    return images, hidden @ random.standard_normal(10) + 0.1 * random.standard_normal(2000), gates


NETWORK_BETA = 0.05


def our_network(solver: str):
    import torch

    from vitscope.convex.block import Term
    from vitscope.convex.blocks.mlp import Mlp
    from vitscope.convex.loss import Squared
    from vitscope.convex.problem import Problem
    from vitscope.convex.solver import solve

    torch.set_num_threads(1)
    images, targets, gates = map(torch.from_numpy, network())
    found = tuple(Term(gate.contiguous(), slice(0, 50), slice(0, 1)) for gate in gates.T)
    loss = Squared(targets[:, None, None], torch.ones(2000, dtype=torch.float64))

    def run() -> float:
        problem = Problem(images[:, None], loss, Mlp(), found, NETWORK_BETA, dtype=torch.float64)
        return solve(problem, solver=solver, tol=1e-4, max_passes=20000).certificate.primal

    return run


def their_network():
    from scnn.metrics import Metrics
    from scnn.models import ConvexGatedReLU
    from scnn.optimize import optimize_model
    from scnn.regularizers import NeuronGL1
    from scnn.solvers import RFISTA

    images, targets, gates = network()

    def run() -> float:
        model = ConvexGatedReLU(gates)
        _, metrics = optimize_model(
            model,
            RFISTA(model, tol=1e-8, max_iters=20000),
            Metrics(),
            images,
            targets,
            regularizer=NeuronGL1(NETWORK_BETA),
            return_convex=True,
            unitize_data=False,
            dtype="float64",
            device="cpu",
        )
        return float(metrics.objective[-1])

    return run


def contestant(name: str, size: str) -> None:
    if size == "network":
        run = their_network() if name == "scnn" else our_network(name.split()[1])
    else:
        dim, outputs = SIZES[size]
        run = ours(name.split()[1], dim, outputs) if name.startswith("vitscope") else theirs(name, dim, outputs)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.process_time()
    value = run()
    seconds = time.process_time() - began
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    print(json.dumps({"value": value, "seconds": seconds, "megabytes": grown}))


def measured(name: str, size: str, limit: float, python: str = sys.executable) -> dict[str, float] | None:
    asked = [python, __file__, "--contestant", name, "--size", size]
    try:
        done = subprocess.run(asked, capture_output=True, text=True, timeout=limit, check=True)
    except (subprocess.TimeoutExpired, subprocess.CalledProcessError):
        return None
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--limit", type=float, default=300)
    parser.add_argument("--scnn", help="Python of an environment with pyscnn")
    parser.add_argument("--contestant")
    parser.add_argument("--size")
    given = parser.parse_args()
    if given.contestant:
        return contestant(given.contestant, given.size)
    if importlib.util.find_spec("cvxpy") is None:
        sys.exit("cvxpy is not installed: pip install cvxpy")
    print(f"{platform.processor() or platform.machine()}, one thread\n")
    for size in SIZES:
        table(size, dict.fromkeys(CONTESTANTS, sys.executable), given.rounds, given.limit)
    if given.scnn:
        names = {"scnn": given.scnn, "vitscope lifted": sys.executable, "vitscope greedy": sys.executable}
        table("network", names, given.rounds, given.limit)
    return None


def table(size: str, names: dict[str, str], rounds: int, limit: float) -> None:
    """Run every contestant in turn for some rounds, and print medians."""
    taken: dict[str, list[dict[str, float] | None]] = {name: [] for name in names}
    for _ in range(rounds):
        for name, found in taken.items():
            if None not in found:
                found.append(measured(name, size, limit, names[name]))
    best = min(one["value"] for name, found in taken.items() for one in found if one and "vitscope" in name)
    for name, found in taken.items():
        whole = [one for one in found if one]
        if len(whole) < len(found):
            print(f"{size:10} {name:16} over {limit:.0f} s, or out of memory")
            continue
        seconds, megabytes = (statistics.median(one[key] for one in whole) for key in ("seconds", "megabytes"))
        off = abs(whole[0]["value"] / best - 1)
        print(f"{size:10} {name:16} {seconds:9.3f} s {megabytes:8.1f} MB  off {off:.1e}")


if __name__ == "__main__":
    main()
