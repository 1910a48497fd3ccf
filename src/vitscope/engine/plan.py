"""``Plan``: how work is carried out, and the fold of work by a plan, which saves and reuses finished shards."""

import math
import os
from collections.abc import Callable, Generator, Sequence
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass, field, replace

from vitscope.engine.work.executor import AbstractExecutor, InProcess
from vitscope.engine.work.work import AbstractWork, Amount, Result, Shard
from vitscope.measurement.bounds import COUNT, check_number
from vitscope.measurement.errors import UserError
from vitscope.runs.spec import Spec
from vitscope.runs.store import RunFolder

Progress = Callable[[Amount, Amount], None]
"""Called with the work done so far and the total."""


def silent(done: Amount, total: Amount) -> None:
    """Report no progress."""


@dataclass(frozen=True)
class Plan:
    """How a question is carried out; no setting here changes the answer."""

    batch_size: int = 32
    executor: AbstractExecutor = field(default_factory=InProcess)
    folder: RunFolder | str | os.PathLike[str] | None = None
    """Path or URL of the folder where finished shards and the run are saved; None saves nothing."""
    resume: bool = False
    """Use the finished shards that an interrupted attempt left in ``folder``."""
    progress: Progress = silent
    say: Callable[[str], None] = lambda _: None
    """Called with what begins, and how long it will take."""
    tell: Callable[[str], None] = lambda _: None
    """Called repeatedly with what is under way and how far it has come; each call replaces the last."""
    command: str = ""
    """The command line or call that started this run, for its provenance."""

    def __post_init__(self) -> None:
        check_number("The batch size", self.batch_size, COUNT)

    @contextmanager
    def hold(self) -> Generator[None]:
        """Lock the folder, if there is one, for the block; ``UserError`` if another process holds it."""
        with self.store.hold() if self.store else nullcontext():
            yield

    @property
    def store(self) -> RunFolder | None:
        """The folder as a ``RunFolder``; None without a folder."""
        return RunFolder(os.fspath(self.folder)) if isinstance(self.folder, str | os.PathLike) else self.folder

    def after(self, done: Amount) -> "Plan":
        """The plan for a step that begins when ``done`` of the same total is done."""

        def progress(more: Amount, total: Amount) -> None:
            self.progress(done + more, total)

        return replace(self, progress=progress)


def check_plan(plan: Plan | None) -> Plan:
    """The plan, or the default one. ``UserError`` for anything else, such as a bare folder."""
    if plan is None or isinstance(plan, Plan):  # pyright: ignore[reportUnnecessaryIsInstance] - callers pass anything
        return plan or Plan()
    raise UserError(f"{plan!r:.60} is not a plan; give vitscope.Plan(folder=..., batch_size=...).")


def fold_work(work: AbstractWork[Result], spec: Spec, plan: Plan, total: Amount) -> dict[Shard, Result]:
    """The results of all shards in order; if the plan resumes, those of an interrupted attempt are reused.

    Each result is saved in the plan's folder as soon as it is finished. ``total`` is the total work, for the progress.
    """
    shards = work.shards()
    results = _read_parts(work, spec, shards, plan)
    done = sum(work.passes(shard) * result.done for shard, result in results.items())
    plan.progress(done, total)

    def advance(more: Amount) -> None:
        nonlocal done
        done += more
        plan.progress(total if math.isclose(done, total) else done, total)  # sums of shares are rounded

    missing = [shard for shard in shards if shard not in results]
    with plan.hold(), closing(plan.executor.fold(work, missing, advance)) as finished:
        for shard, result in finished:
            results[shard] = result
            if plan.store is not None:
                plan.store.write_part(spec, _part_name(shard, plan), result.to_bytes())
    return {shard: results[shard] for shard in shards}


def count_kept(work: AbstractWork[Result], spec: Spec, plan: Plan) -> Amount:
    """How much of the work an interrupted attempt left in the plan's folder."""
    results = _read_parts(work, spec, work.shards(), replace(plan, resume=True))
    return sum(work.passes(shard) * result.done for shard, result in results.items())


def _part_name(shard: Shard, plan: Plan) -> str:
    return f"batch-{plan.batch_size}-{shard.name}"


def _read_parts(work: AbstractWork[Result], spec: Spec, shards: Sequence[Shard], plan: Plan) -> dict[Shard, Result]:
    if plan.store is None or not plan.resume:
        return {}
    names = {_part_name(shard, plan): shard for shard in shards}
    found = {names[name]: result for name, result in plan.store.parts(spec, work.read, names).items()}
    return {shard: result for shard, result in found.items() if work.fits(shard, result)}
