"""``Monitor``: chosen diagnostics of a model during its training, in any loop."""

import logging
import os
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import final

import torch
from torch import nn

from vitscope.data import Images
from vitscope.engine.curvature.curvature import CURVATURES
from vitscope.engine.measure import AsMeasurable, Measurement
from vitscope.engine.plan import Plan
from vitscope.engine.reading.diagnostic import DIAGNOSTICS
from vitscope.measurement.errors import UserError
from vitscope.runs.registry import resolve_names
from vitscope.runs.run import Run
from vitscope.training.watch.pace import Pace, Turn
from vitscope.training.watch.scalar import Scalar, scalars
from vitscope.training.watch.sink import AbstractSink
from vitscope.training.watch.snapshot import AsSubject, SubjectMaker, device_of, keep_random_states, snapshot
from vitscope.training.watch.store import StepStore

_LOG = logging.getLogger(__name__)


@final
@dataclass(eq=False)
class Monitor:
    """Measures diagnostics of a live module at regular steps, and leaves the training bitwise unchanged.

    ``step(module, number)``, called after every step of the optimiser, measures a copy of the module in evaluation
    mode at the multiples of ``every``; random states, mode, hooks, gradients and batch statistics are untouched. Each
    measurement is a separate run in ``folder`` (``step-000200/run.nc``), and its scalars go to ``sinks`` too. A
    measurement that fails is noted there, in ``step-000200/failure.txt`` and in the log, and the training goes on; a
    sink that fails is noted in the log. With several processes, only the first measures.

    Cost: a copy of the weights in memory, and the seconds that each measurement logs as ``watch/seconds``; ``budget``
    bounds their share (:class:`~vitscope.training.watch.pace.Pace`). Raises ``UserError`` for invalid settings.
    """

    images: Images
    """The small, fixed set of images to measure on, the same at every step."""
    diagnostics: AsMeasurable | Iterable[AsMeasurable]
    """What to measure, as for :func:`vitscope.measure`: values, or names from ``vitscope list``."""
    folder: str | os.PathLike[str]
    """Where the runs are saved: a folder or any fsspec URL."""
    every: int = 200
    """Steps between measurements; its multiples are measured, including 0."""
    budget: float = 0.05
    """Largest share of wall time that measuring may take; a measurement that would exceed it is postponed."""
    sinks: Sequence[AbstractSink] = ()
    subject: SubjectMaker = field(default_factory=AsSubject)
    """Makes a subject from a copy of the module."""
    batch_size: int = 32
    """Images per forward pass."""
    clock: Callable[[], float] = time.perf_counter
    """The clock of the budget, in seconds."""
    pace: Pace = field(init=False)
    _said: set[str] = field(default_factory=set[str], init=False)

    def __post_init__(self) -> None:
        self.pace = Pace(self.every, self.budget)
        self.diagnostics = resolve_names(self.diagnostics, DIAGNOSTICS, CURVATURES)
        if not self.diagnostics:
            raise UserError("There is nothing to watch; give at least one diagnostic, such as AttentionEntropy().")
        if self.batch_size < 1:
            raise UserError(f"The batch size is {self.batch_size}; it must be at least 1.")

    def step(self, module: nn.Module, number: int, sinks: Sequence[AbstractSink] = ()) -> Run | None:
        """Measure if this step is due; call it after every step of the optimiser. Returns the run, if one succeeded.

        ``sinks`` are used besides the monitor's own. A step that is passed twice is measured once.
        """
        if not _is_first_process():
            return None
        turn = self.pace.turn(number, self.clock())
        if turn is Turn.POSTPONE:
            self._say_postponed(number, (*self.sinks, *sinks))
        return self.measure(module, number, sinks) if turn is Turn.MEASURE else None

    def measure(self, module: nn.Module, number: int, sinks: Sequence[AbstractSink] = ()) -> Run | None:
        """Measure now, whatever the pace; return the run, or None if it failed."""
        sinks = (*self.sinks, *sinks)
        _wait_for_device(module)
        began = self.clock()
        found = self._attempt(module, number, sinks)
        measured = self.clock()
        if found is not None:
            told = (*found.scalars, *self._costs(began, measured))
            self._tell(sinks, number, lambda sink: sink.log(number, told))
        self.pace.record_measurement(began, self.clock())
        return None if found is None else found.run

    def close(self) -> None:
        """Close the sinks."""
        self._tell(self.sinks, 0, lambda sink: sink.close())

    def _attempt(self, module: nn.Module, number: int, sinks: Sequence[AbstractSink]) -> "_Measured | None":
        store = StepStore(os.fspath(self.folder))
        try:
            with keep_random_states():
                run = self._run(module, number, store)
                return _Measured(run, scalars(run))
        except Exception as error:
            text, trace = _sentence(error), "" if isinstance(error, UserError) else traceback.format_exc()
        self._say(f"Step {number} could not be measured: {text}")
        try:
            store.write_failure(number, f"{text}\n{trace}")
        except Exception as error:
            self._say(f"This failure could not be noted in {store.url} either: {_sentence(error)}")
        self._tell(sinks, number, lambda sink: sink.note(number, f"could not be measured: {text}"))
        return None

    def _run(self, module: nn.Module, number: int, store: StepStore) -> Run:
        subject = replace(self.subject(snapshot(module)), weights=f"step {number} of a training")
        measurement = Measurement.of(subject, self.images, self.diagnostics)
        folder, held = store.place(number, lambda: measurement.spec)
        if held is not None:
            return held
        plan = Plan(batch_size=self.batch_size, command=f"Monitor.step(module, {number})")
        tree = measurement.answer(plan).run.tree.copy()
        tree.attrs["step"] = number
        run = Run(tree)
        folder.write(run)
        for name, reason in run.skipped.items():
            self._say(f"{name} is not measured: {reason}.")
        return run

    def _costs(self, began: float, ended: float) -> tuple[Scalar, ...]:
        share = self.pace.share(began)
        seconds = Scalar("watch/seconds", ended - began, "s")
        return (seconds,) if share is None else (seconds, Scalar("watch/share", share, "1"))

    def _say_postponed(self, number: int, sinks: Sequence[AbstractSink]) -> None:
        text = (
            f"The last measurement took {self.pace.cost:.3g} s, too much for a time share of {self.budget:g} at step "
            f"{number}; measurements wait for later multiples of {self.every} until they fit. Raise every or budget, "
            "or use fewer images or diagnostics."
        )
        if "postponed" not in self._said:
            self._said.add("postponed")
            _LOG.warning("%s", text)
            self._tell(sinks, number, lambda sink: sink.note(number, text))

    def _tell(self, sinks: Sequence[AbstractSink], number: int, say: Callable[[AbstractSink], None]) -> None:
        with keep_random_states():  # libraries name their runs at random
            for sink in sinks:
                try:
                    say(sink)
                except Exception as error:
                    self._say(f"{type(sink).__name__} failed, first at step {number}: {_sentence(error)}", repr(error))

    def _say(self, text: str, once: str | None = None) -> None:
        if (key := once or text) not in self._said:
            self._said.add(key)
            _LOG.warning("%s", text)


@dataclass(frozen=True)
class _Measured:
    run: Run
    scalars: tuple[Scalar, ...]


def _is_first_process() -> bool:
    distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
    return not distributed or torch.distributed.get_rank() == 0


def _wait_for_device(module: nn.Module) -> None:
    """Wait for the training's own work, which would otherwise count as the measurement's."""
    device = device_of(module)
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _sentence(error: Exception) -> str:
    return str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
