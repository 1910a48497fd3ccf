"""The run store of a watched training: one folder per measured step."""

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
    """Runs under ``url`` (a path or any fsspec URL): ``step-000200/run.nc``, never overwritten."""

    url: str

    def place(self, step: int, spec: Callable[[], Spec]) -> tuple[RunFolder, Run | None]:
        """The folder of the step's run, and the run there that already answers the same question, if there is one.

        If another run is there (from another training, or from a resumed one that took another course), the folder is
        ``step-000200-2``, and so on. ``spec`` is called only if a run is found.
        """
        for number in count(1):
            folder = RunFolder(self._of(step, number))
            held = folder.read()
            if held is None or held.spec.address == spec().address:
                return folder, held
        raise AssertionError("numbers do not end")

    def write_failure(self, step: int, text: str) -> None:
        """Write to the step's folder why there is no run."""
        files, path = fsspec.core.url_to_fs(self._of(step, 1))
        files.makedirs(path, exist_ok=True)
        files.pipe_file(posixpath.join(str(path), FAILURE_FILE), text.encode())

    def _of(self, step: int, number: int) -> str:
        again = "" if number == 1 else f"-{number}"
        return posixpath.join(self.url, f"step-{step:06d}{again}")
