"""Who carries the work out: this process, worker processes, or a Ray cluster."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from vitscope.measurement.errors import UserError

if TYPE_CHECKING:
    from vitscope.engine.work.executor import AbstractExecutor


@dataclass(frozen=True)
class Workers:
    """How many there are, and where; each field is a flag."""

    workers: int = 1
    """Worker processes on this machine."""
    on: str = "local"
    """Where the work is done: local, ray (a Ray cluster on this machine), or ray://HOST:PORT."""

    def check(self) -> "Workers":
        """Themselves. Raises ``UserError`` for a number or a place that cannot be; imports nothing heavy."""
        if self.workers < 1:
            raise UserError(f"--workers takes a number from 1, not {self.workers}.")
        if self.on not in ("local", "ray") and not self.on.startswith("ray://"):
            raise UserError(f"--on takes local, ray or ray://HOST:PORT, not {self.on!r}.")
        if self.on != "local" and self.workers > 1:
            raise UserError(f"--workers counts processes of this machine: leave it out with --on {self.on}.")
        return self

    @property
    def executor(self) -> "AbstractExecutor":
        """What carries the work out, if it can be."""
        self.check()
        if self.on == "local":
            from vitscope.engine.work.executor import InProcess, Processes

            return InProcess() if self.workers == 1 else Processes(self.workers)
        from vitscope.engine.work.ray_cluster import RayCluster

        return RayCluster("local" if self.on == "ray" else self.on)
