"""Where the work runs: in this process, in worker processes, or on a Ray cluster."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from vitscope.measurement.errors import UserError

if TYPE_CHECKING:
    from vitscope.engine.work.executor import AbstractExecutor


@dataclass(frozen=True)
class Workers:
    """How many workers there are, and where; each field is a flag."""

    workers: int = 1
    """Worker processes on this machine."""
    on: str = "local"
    """Where the work is done: local, ray (a Ray cluster on this machine), or ray://HOST:PORT."""

    def check(self) -> "Workers":
        """These settings; ``UserError`` if the number or the place is invalid. Imports nothing heavy."""
        if self.workers < 1:
            raise UserError(f"--workers must be 1 or more, not {self.workers}.")
        if self.on not in ("local", "ray") and not self.on.startswith("ray://"):
            raise UserError(f"--on takes local, ray or ray://HOST:PORT, not {self.on!r}.")
        if self.on != "local" and self.workers > 1:
            raise UserError(f"--workers counts processes on this machine: leave it out with --on {self.on}.")
        return self

    @property
    def executor(self) -> "AbstractExecutor":
        """The executor of these settings, if they are valid."""
        self.check()
        if self.on == "local":
            from vitscope.engine.work.executor import InProcess, Processes

            return InProcess() if self.workers == 1 else Processes(self.workers)
        from vitscope.engine.work.ray_cluster import RayCluster

        return RayCluster("local" if self.on == "ray" else self.on)
