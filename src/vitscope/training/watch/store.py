"""The run store of a watched training: a folder for each step that was measured."""

import posixpath
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from typing import final

import fsspec

from vitscope.runs.run import Run
from vitscope.runs.spec import Spec
from vitscope.runs.store import RunFolder

FAILURE_FILE = "failure.txt"


@final
@dataclass(frozen=True)
class StepStore:
    """Runs under ``url`` (a path or any fsspec URL): ``step-000200/run.nc``, never one over another."""

    url: str

    def place(self, step: int, spec: Callable[[], Spec]) -> tuple[RunFolder, Run | None]:
        """Where the step's run belongs, and the run that answers the same question there already, if one does.

        Where another run is there (a training that was resumed and went another way, or another training), it is
        ``step-000200-2``, and so on. ``spec`` is asked only where a run is found.
        """
        for number in count(1):
            folder = RunFolder(self._of(step, number))
            held = folder.read()
            if held is None or held.spec.address == spec().address:
                return folder, held
        raise AssertionError("numbers do not end")

    def write_failure(self, step: int, text: str) -> None:
        """Say in the step's folder why there is no run."""
        files, path = fsspec.core.url_to_fs(self._of(step, 1))
        files.makedirs(path, exist_ok=True)
        files.pipe_file(posixpath.join(str(path), FAILURE_FILE), text.encode())

    def _of(self, step: int, number: int) -> str:
        again = "" if number == 1 else f"-{number}"
        return posixpath.join(self.url, f"step-{step:06d}{again}")
