"""``bench``: time models against each other in turns, and measure their memory and operations."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from typing_extensions import override

from vitscope.data import Images
from vitscope.deploy.bench_claims import judge_bench
from vitscope.deploy.bench_results import describe_bench
from vitscope.deploy.benching import Benching, BenchSettings, threads_of
from vitscope.deploy.contestant import AbstractContestant, AsBackend, AsModel, contestants_of
from vitscope.deploy.machine import describe_machine
from vitscope.deploy.memory import EACH
from vitscope.engine.plan import Plan, check_plan
from vitscope.engine.question import AbstractQuestion, Answer, carry_out
from vitscope.engine.work.work import Amount
from vitscope.runs.provenance import provenance
from vitscope.runs.run import Run, make_run
from vitscope.runs.spec import Spec


def bench(
    models: AsModel | Sequence[AsModel],
    batch: int | Sequence[int] = (1, 32),
    backend: AsBackend | Sequence[AsBackend] = ("eager",),
    rounds: int | None = None,
    seconds: float | int = 60.0,
    threads: int | None = None,
    device: str | None = None,
    images: Images | None = None,
    memory: bool = True,
    seed: int = 0,
    plan: Plan | None = None,
    labels: Sequence[str] | None = None,
) -> Run:
    """Time models against each other on one or several backends, and measure their memory and operations.

    ``models`` are subjects (edits included), modules, anything :func:`vitscope.load` takes, or exported ``.onnx`` and
    ``.pt2`` files; ``labels`` name them. Every subject runs on every ``backend`` (``eager``, ``compile``, ``onnx``) at
    every ``batch`` size, on noise or on the first ``images``. The first model on the first backend is the reference.

    After a warm-up contestants take turns in each of ``rounds`` rounds, in random order by ``seed``. If ``rounds`` is
    None, there are as many as last about ``seconds``. ``threads`` (default: PyTorch's current number) are fixed for
    PyTorch and ONNX Runtime. The run's address depends on them and on the machine.

    The run has these groups, along ``model``, ``backend`` and ``batch_size``:

    * ``timing``: median and 90th percentile in ms and images a second, with bootstrap intervals over rounds;
    * ``time-ratio``: the time over the reference's in the same round, with the exact interval of the median;
    * ``memory``: the peak above the weights in MB, in a process of its own for each contestant, unless ``memory`` is
      False;
    * ``operations``: multiply-adds of an image in 1e9, and weights in use in 1e6;
    * ``pass``: operators, MB moved and the share of the time in products, where PyTorch runs operators one by one;
    * ``logits``: the largest difference of each backend from the module, relative to the largest logit;
    * ``machine``: what a large product, a large copy and small operators reached in the same rounds;
    * ``reading``: the time to read a batch of the images, if there are any.

    Its claims say which model is faster, and what binds one whose work fell by more than its time.

    Cost: ``seconds``, some 10 s per contestant for memory, and compiling and exporting. The plan's executor is unused.
    With ``plan.folder`` finished rounds are saved at once. A contestant that cannot run is left out with the reason in
    ``run.skipped``. Raises ``UserError`` if the reference cannot run or a backend is missing.
    """
    contestants = contestants_of(models, backend, device, labels)
    batches = (batch,) if isinstance(batch, int) else tuple(batch)
    fixed = torch.get_num_threads() if threads is None else threads
    settings = BenchSettings(batches, rounds, seconds, fixed, images, memory, seed)
    return carry_out(BenchQuestion(contestants, settings), check_plan(plan))


@final
@dataclass(frozen=True, eq=False)
class BenchQuestion(AbstractQuestion):
    """How long contestants take at several batch sizes, and what binds them."""

    contestants: tuple[AbstractContestant, ...]
    settings: BenchSettings

    @property
    @override
    def title(self) -> str:
        return "Bench"

    @override
    def make_spec(self) -> Spec:
        """The content of the contestants, the settings and the machine, on which the answer depends."""
        settings = self.settings
        subjects = {one.model: one.facts() for one in self.contestants}
        names = list(subjects)
        several = f"{names[0]} and {len(names) - 1} others" if len(names) > 2 else " against ".join(names)
        images: dict[str, object] = {"name": "noise", "count": max(settings.batches), "of": "images of noise"}
        if settings.images is not None:
            images |= {"name": settings.images.name, "of": f"images of {settings.images.name}"}
            images["fingerprint"] = settings.images.fingerprint
        onnx = ("onnxruntime",) if any(one.backend == "onnx" for one in self.contestants) else ()
        asked: dict[str, object] = {
            "contestants": [f"{one.model} on {one.backend}" for one in self.contestants],
            "backends": {one.backend: one.settings() for one in self.contestants if one.settings()},
            "batch": list(settings.batches),
            "rounds": f"those of {settings.seconds:g} s" if settings.rounds is None else settings.rounds,
            "memory": settings.memory,
            "seed": settings.seed,
            "machine": describe_machine(self.contestants[0].device, settings.threads, *onnx),
        }
        return Spec("bench", {"name": several, "subjects": subjects}, images, asked)

    @property
    @override
    def total(self) -> Amount:
        """Seconds of the rounds and of measuring memory, roughly."""
        return self.settings.seconds + (EACH * len(self.contestants) if self.settings.memory else 0)

    @override
    def kept_amount(self, plan: Plan) -> Amount:
        """The saved work in seconds; rounds count as if there were 50, unless their number was given."""
        rounds, peaks = self._parts(plan)
        return EACH * peaks + self.settings.seconds * min(rounds / (self.settings.rounds or 50), 1.0)

    @override
    def describe_kept(self, plan: Plan) -> str:
        rounds, peaks = self._parts(plan)
        return f"{rounds} rounds and the memory of {peaks} of {len(self.contestants)} contestants are saved"

    def _parts(self, plan: Plan) -> tuple[int, int]:
        """The numbers of rounds and of contestants' memory that an interrupted attempt saved."""
        names = [] if plan.store is None else list(plan.store.parts(self.spec))
        peaks = sum("block" in name for name in names)
        return len(names) - peaks, peaks

    @override
    def answer(self, plan: Plan) -> Answer:
        """The run, with its claims."""
        began = time.perf_counter()
        with threads_of(self.settings.threads):
            benching = Benching(self.contestants, self.settings, self.spec, plan, self.total)
            found = benching.measure()
        run = make_run(
            self.spec,
            describe_bench(found),
            max(self.settings.batches),
            provenance=provenance(time.perf_counter() - began, plan.command),
            skipped=benching.skipped,
            notes=benching.notes,
        )
        return Answer(run.with_claims(judge_bench(found)))
