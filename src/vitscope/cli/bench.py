"""``vitscope bench``: time models against each other, and measure their memory and operations."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vitscope.cli.bench_summary import print_bench
from vitscope.cli.error_reporting import command_line
from vitscope.cli.flags import make_settings, with_flags
from vitscope.cli.model import ModelRequest
from vitscope.cli.paths import refuse_absent
from vitscope.cli.request import answer
from vitscope.cli.terminal import waiting
from vitscope.measurement.bounds import COUNT, SEED, Bounds, check_number
from vitscope.measurement.errors import UserError

if TYPE_CHECKING:
    from vitscope.deploy.contestant import AsModel

EXPORTED = (".onnx", ".pt2")
"""Suffixes of exported files, which run as they are."""


@dataclass(frozen=True)
class BenchRequest:
    """How models are timed, and where the run is saved; each field is a flag."""

    batch: str = "1,32"
    """Images of a pass: one number, or several separated by commas."""
    backend: str = "eager"
    """What runs the models: eager, compile, onnx, or several separated by commas. Exported files run on their own."""
    rounds: int | None = None
    """Rounds in which every model takes its turn; if left out, as many as --seconds allow."""
    seconds: float = 60.0
    """Seconds that the rounds take, about; memory, compiling and exporting come on top."""
    threads: int | None = None
    """Threads of PyTorch and ONNX Runtime; PyTorch's own choice if left out."""
    images: str | None = None
    """Time on these images instead of noise, and say whether reading them takes longer than the model."""
    split: str | None = None
    """Which of several splits of --images."""
    no_memory: bool = False
    """Do not measure memory, which starts a process for each model and backend."""
    seed: int = 0
    """Seed of the order in which models take their turns, and of the intervals."""
    out: str | None = None
    """Folder or fsspec URL; benches/MODEL-ADDRESS if left out."""
    resume: bool = False
    """Continue an interrupted run."""

    def __post_init__(self) -> None:
        """Refuse what is known to be wrong before anything heavy is imported."""
        _ = self.batches, self.backends
        refuse_absent(self.images, "--images")
        check_number("--seed", self.seed, SEED)
        check_number("--seconds", self.seconds, Bounds(above=0, most=1e6), whole=False)
        for name, number, least in (("--rounds", self.rounds, 2), ("--threads", self.threads, 1)):
            if number is not None:
                check_number(name, number, Bounds(least, 100_000))

    @property
    def batches(self) -> tuple[int, ...]:
        """The batch sizes, each once."""
        texts = [one.strip() for one in self.batch.split(",")]
        if not all(one.isdecimal() for one in texts):
            raise UserError(f"--batch takes numbers of images separated by commas, as in 1,32; not {self.batch!r}.")
        for one in texts:
            check_number("--batch", int(one), COUNT)
        return tuple(dict.fromkeys(map(int, texts)))

    @property
    def backends(self) -> tuple[str, ...]:
        """The backends, each once."""
        names = tuple(dict.fromkeys(one.strip() for one in self.backend.split(",")))
        if not all(names):
            raise UserError(f"--backend takes names separated by commas, as in eager,onnx; not {self.backend!r}.")
        return names


def bench_models(
    models: Annotated[
        list[str],
        typer.Argument(
            help="Models as for vitscope checkup, or exported .onnx and .pt2 files. The first is the reference.",
            metavar="MODEL",
        ),
    ],
    **fields: object,
) -> None:
    """Time models against each other: they take turns, so that disturbances of the machine affect all of them.

    Reports medians and ratios with intervals, peak memory above the weights, multiply-adds and weights in use. If a
    model does less work but is no faster, it says what binds it. Flags of the model apply to all models.
    """
    request = make_settings(BenchRequest, fields)
    model = _shared(models, fields)
    with waiting("Loading the models"):
        import torch

        from vitscope.deploy.bench import BenchQuestion
        from vitscope.deploy.benching import BenchSettings
        from vitscope.deploy.contestant import contestants_of
        from vitscope.engine.plan import Plan

        threads = torch.get_num_threads() if request.threads is None else request.threads
        torch.manual_seed(request.seed)  # random weights are the same ones when the command is given again
        contestants = contestants_of(_load(models, model), request.backends, model.device)
        settings = BenchSettings(
            request.batches,
            request.rounds,
            request.seconds,
            threads,
            _pictures(request),
            not request.no_memory,
            request.seed,
        )
    plan = Plan(resume=request.resume, command=command_line())
    answer(BenchQuestion(contestants, settings), "benches", request.out, plan, print_bench)


def _shared(models: Sequence[str], fields: dict[str, object]) -> ModelRequest:
    """The flags of the models, with the first one's name; every name is checked."""
    named = [one for one in models if Path(one).suffix not in EXPORTED]
    requests = [make_settings(ModelRequest, {**fields, "model": one}) for one in named]
    if not requests:
        return make_settings(ModelRequest, {**fields, "model": None})
    if len(requests) > 1 and requests[0].weights is not None:
        raise UserError(
            f"--weights {requests[0].weights} is of one model, and {len(requests)} were given; "
            "give checkpoints as models, or time one model at a time."
        )
    return requests[0]


def _load(models: Sequence[str], shared: ModelRequest) -> "list[AsModel]":
    """The subjects of names and checkpoints; exported files as they are."""
    found: list[AsModel] = []
    for one in models:
        if Path(one).suffix in EXPORTED:
            found.append(one)
            continue
        pretrained = shared.pretrained and not Path(one).exists()  # a checkpoint has its own weights
        found.append(replace(shared, model=one, pretrained=pretrained).subject())
    return found


def _pictures(request: BenchRequest):  # noqa: ANN202 - imported as it is called
    from vitscope.data import images

    return None if request.images is None else images(request.images, split=request.split)


bench = with_flags(bench_models, BenchRequest, ModelRequest, without=("model",))
