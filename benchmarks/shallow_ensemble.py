"""Ensembles of shallow ViTs, compared with a Python loop with autograd over the same models, and the arithmetic floor.

    python benchmarks/shallow_ensemble.py [--threads 2] [--rounds 5] [--share 0.03] [--device cpu]

First come SGD steps in two shapes, 200 models each: 40 tokens of width 10, 50 neurons, batch 20; and one bound by
overhead, 8 tokens of width 4, batch 4 (the loop takes part with 10 of the models). Then comes the phase diagram of 9
relevant shares x 8 sample sizes x 20 trials, each of which stops by its own criterion, in the loop too. The loop runs
an evenly spaced ``--share`` of the trials, spread over the whole diagram; the ensemble is timed on those and, with
``--full``, on all of them.

The loop is plain: the network as the paper states it, ``torch.autograd.grad``, float32, torch on one thread, which is
fastest. The ensemble runs with one thread and with ``--threads``. CPU and wall time are those of the process; the
contestants take turns within a round, and medians over rounds are shown. Wall time is meaningful only on an idle
machine.

The floor is the multiply-adds of the merged closed form at the speed of a large float32 matrix product on this machine,
and the exponentials at the speed of ``exp2``: no arrangement of the same arithmetic can beat it on one core.
"""

import argparse
import statistics
import time
from dataclasses import replace

import torch

from vitscope.labs.shallow.criterion import Criterion
from vitscope.labs.shallow.ensemble import Budget, train
from vitscope.labs.shallow.shallow_vit import ShallowVit
from vitscope.labs.shallow.token_model import TokenModel
from vitscope.labs.shallow.trial import BATCHES, DATA, INITIAL, TESTS, ShallowTrial

RELEVANT = (0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5)
SAMPLES = (8, 16, 32, 64, 128, 256, 512, 1024)
SHAPES = {
    "40 tokens, width 10, batch 20": (TokenModel(), 10, 20),
    "8 tokens, width 4, batch 4": (TokenModel(tokens=8, dim=4, patterns=4, relevant=0.5, confusion=0.13), 4, 4),
}


class Loop:
    """One model by the paper's formula and autograd."""

    def __init__(self, trial, device):
        self.trial = trial
        self.data = self.images(trial.data.draw(trial.samples, trial.generator(DATA)), device)
        self.tests = self.images(trial.data.draw(trial.tests, trial.generator(TESTS)), device)
        weights = trial.model.initial(trial.data.places, trial.data.vectors, trial.generator(INITIAL))
        self.parts = [part[0].to(device).requires_grad_() for part in weights.trained]
        self.top = weights.top[0].T.contiguous().to(device)
        self.chance = trial.generator(BATCHES)

    @staticmethod
    def images(sample, device):
        """Tokens and labels."""
        return sample.tokens.to(device), sample.labels.to(device)

    def outputs(self, tokens):
        """The network's output F for each image."""
        query, key, value, output = self.parts
        attention = (tokens @ query.T @ (tokens @ key.T).mT).softmax(2)
        return ((attention @ (tokens @ value.T) @ output.T).relu() * self.top).sum((1, 2)) / tokens.shape[1]

    def advance(self):
        """Make the steps up to the next evaluation."""
        trial, (tokens, labels) = self.trial, self.data
        draws = torch.randint(0, trial.samples, (trial.criterion.every, trial.batch), generator=self.chance)
        for rows in draws.to(tokens.device):
            loss = (1 - labels[rows] * self.outputs(tokens[rows])).relu().mean()
            slopes = torch.autograd.grad(loss, self.parts)
            with torch.no_grad():
                for part, slope in zip(self.parts, slopes, strict=True):
                    part.sub_(slope, alpha=trial.rate)

    def train(self):
        """Train; return the evaluations of the hinge loss, and those of the error."""
        hinge, error = [], []
        while True:
            with torch.no_grad():
                margins = self.tests[1] * self.outputs(self.tests[0])
            hinge.append((1 - margins).relu().mean().item())
            error.append((margins <= 0).float().mean().item())
            if self.trial.criterion.stops(hinge, error):
                return hinge, error
            self.advance()


def timed(work, device):
    """CPU and wall seconds, and the result."""
    cpu, wall = time.process_time(), time.perf_counter()
    found = work()
    if device != "cpu":
        torch.cuda.synchronize()
    return time.process_time() - cpu, time.perf_counter() - wall, found


def contest(contestants, rounds, device):
    """Median CPU and wall seconds of each, taking turns."""
    spent = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, work in contestants.items():
            spent[name].append(timed(work, device)[:2])
    return {name: [statistics.median(column) for column in zip(*runs, strict=True)] for name, runs in spent.items()}


def show(medians, scales, note=""):
    """Print a row for each contestant; ``scales`` says how much work each did."""
    base = [seconds / scales["loop"] for seconds in medians["loop"]]
    for name, seconds in medians.items():
        each = [value / scales[name] for value in seconds]
        ratios = [mine / own for mine, own in zip(base, each, strict=True)]
        print(f"{name:24} {each[0] * 1e6:12.1f} {each[1] * 1e6:12.1f} {ratios[0]:9.1f} {ratios[1]:9.1f} {note}")


def steps(name, arguments):
    """Print the table of SGD steps."""
    data, width, batch = SHAPES[name]
    every, models = 20, 200
    criterion = Criterion(goal="none", steps=every, every=every)
    model = ShallowVit(value_width=width, query_width=width)
    base = ShallowTrial(data=data, model=model, samples=64, rate=0.1, batch=batch, tests=1, criterion=criterion)
    trials = [replace(base, seed=seed) for seed in range(models)]
    longer = [replace(trial, criterion=replace(criterion, steps=6 * every)) for trial in trials]
    loops = [Loop(trial, arguments.device) for trial in trials[:10]]

    def ensemble(threads):
        return Budget(threads=threads, device=arguments.device, cache=arguments.cache << 20)

    def loop():
        for one in loops:
            one.advance()

    contestants = {"loop": loop}
    for threads in sorted({1, arguments.threads}):
        contestants[f"all, threads {threads}"] = lambda threads=threads: train(longer, ensemble(threads))
        contestants[f"start, threads {threads}"] = lambda threads=threads: train(trials, ensemble(threads))
    medians = contest(contestants, arguments.rounds, arguments.device)
    for threads in sorted({1, arguments.threads}):  # less the drawing of data and models, and the first steps
        start = medians.pop(f"start, threads {threads}")
        whole = medians.pop(f"all, threads {threads}")
        medians[f"ensemble, threads {threads}"] = [a - b for a, b in zip(whole, start, strict=True)]
    scales = dict.fromkeys(medians, 5 * every * models) | {"loop": every * len(loops)}
    print(f"\n{name}, {models} models, {model.neurons} neurons: microseconds for a step of a model")
    header()
    show(medians, scales)
    floor(name, medians["loop"][0] / scales["loop"])


def header():
    print(f"{'':24} {'CPU us':>12} {'wall us':>12} {'x CPU':>9} {'x wall':>9}")


def floor(name, loop):
    """The arithmetic of one step at the machine's best speed, on one core."""
    data, width, batch = SHAPES[name]
    tokens, neurons = data.tokens, 50
    products = batch * (4 * tokens * tokens * width + 3 * tokens * neurons * width + 2 * tokens * width * width)
    exponentials = batch * tokens * tokens
    square = torch.randn(768, 768)
    many = torch.randn(1 << 18)
    best = min(timed(lambda: square @ square, "cpu")[0] for _ in range(8)) / 768**3
    exponential = min(timed(lambda: many.exp2(), "cpu")[0] for _ in range(8)) / len(many)
    least = products * best + exponentials * exponential
    print(
        f"{'floor, one core':24} {least * 1e6:12.1f} {'':12} {loop / least:9.1f}           "
        f"{2e-6 * products:.2f} Mflop at {2e-9 / best:.0f} Gflop/s, {exponentials} exponentials at "
        f"{exponential * 1e9:.2f} ns"
    )


def diagram(arguments):
    """Print the table of the phase diagram."""
    criterion = Criterion(loss=1e-2, steps=300, every=20)
    base = ShallowTrial(
        criterion=criterion, model=ShallowVit(sigma=0.3, delta=0.2, xi=0.05), data=TokenModel(noise=0.3)
    )
    trials = [
        replace(base, seed=seed, samples=samples, data=replace(base.data, relevant=relevant))
        for seed in range(20)
        for relevant in RELEVANT
        for samples in SAMPLES
    ]
    stride = max(1, round(1 / arguments.share))
    stride += next(add for add in range(100) if all((stride + add) % prime for prime in (2, 3, 5)))
    some = trials[::stride]
    loops = {"loop": lambda: [Loop(trial, arguments.device).train() for trial in some]}

    def ensemble(these, threads):
        budget = Budget(threads=threads, device=arguments.device, cache=arguments.cache << 20)
        return lambda: train(these, budget)

    counts = sorted({1, arguments.threads})
    subset = {f"ensemble, threads {threads}": ensemble(some, threads) for threads in counts}
    medians = contest(loops | subset, 1, arguments.device)
    scales = dict.fromkeys(medians, len(some))
    print(f"\nphase diagram, 9 x 8 x 20 = {len(trials)} trials, {len(some)} of them: microseconds for a trial")
    header()
    show(medians, scales)
    ended = [len(Loop(trial, arguments.device).train()[0]) for trial in some[:8]]
    own = [len(outcome.hinge) for outcome in train(some[:8])]
    print(f"evaluations of the first trials, loop {ended}, ensemble {own}")
    if arguments.full:
        spent = contest(
            {f"all, threads {threads}": ensemble(trials, threads) for threads in counts}, 1, arguments.device
        )
        show({"loop": medians["loop"]} | spent, dict.fromkeys(spent, len(trials)) | {"loop": len(some)})


def main() -> None:
    """Print the three tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--share", type=float, default=0.03)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--cache", type=int, default=8, help="MiB of intermediate results in progress, for each thread")
    parser.add_argument("--full", action="store_true", help="run the ensemble on the whole phase diagram, too")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(f"torch {torch.__version__}, {arguments.device}, float32, {arguments.rounds} rounds")
    for name in SHAPES:
        steps(name, arguments)
    diagram(arguments)


if __name__ == "__main__":
    main()
