"""Shards folded on a Ray cluster."""

from collections.abc import Iterable
from dataclasses import dataclass
from types import ModuleType
from typing import final

from vitscope.engine.executor import ATTEMPTS, AbstractExecutor
from vitscope.engine.parcel import packed, unpacked
from vitscope.engine.work import AbstractWork, Advance, Finished, Result, Shard
from vitscope.measurement.errors import UserError


@final
@dataclass(frozen=True)
class RayCluster(AbstractExecutor):
    """The Ray cluster at ``address`` (``ray://host:port``, ``host:port``, or ``local`` for one on this machine)."""

    address: str

    def fold(self, work: AbstractWork[Result], shards: Iterable[Shard], advance: Advance) -> Finished[Result]:
        """The shards' results; Ray starts the shard of a worker that died again elsewhere."""
        ray = _ray()
        started_here = not ray.is_initialized()
        if started_here:
            self._connect(ray)
        try:
            content = ray.put(packed(work))
            fold = ray.remote(num_cpus=1, max_retries=ATTEMPTS)(_fold_remotely)
            pending = {fold.remote(content, shard): shard for shard in shards}
            while pending:
                done, _ = ray.wait(list(pending))
                shard, result = pending.pop(done[0]), work.read(ray.get(done[0]))
                advance(work.passes(shard) * result.done)
                yield shard, result
        finally:
            if started_here:
                ray.shutdown()

    def _connect(self, ray: ModuleType) -> None:
        try:
            ray.init(address=self.address, log_to_driver=False, logging_level="error")
        except ConnectionError as error:
            raise UserError(f"No Ray cluster answers at {self.address!r}: {error}") from error


def _fold_remotely(content: bytes, shard: Shard) -> bytes:
    return unpacked(content).fold(shard, lambda _: None).to_bytes()


def _ray() -> ModuleType:
    try:
        import ray
    except ImportError as error:
        raise UserError("A Ray cluster was asked for and ray is not installed: pip install 'vitscope[ray]'.") from error
    return ray
