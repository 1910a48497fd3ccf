"""Shards folded on a Ray cluster."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from types import ModuleType
from typing import Any, final

from vitscope.engine.work.executor import ATTEMPTS, AbstractExecutor
from vitscope.engine.work.parcel import pack, unpack
from vitscope.engine.work.work import AbstractWork, Advance, Finished, Result, Shard
from vitscope.measurement.errors import UserError
from vitscope.measurement.text import reason


@final
@dataclass(frozen=True)
class RayCluster(AbstractExecutor):
    """The Ray cluster at ``address`` (``ray://host:port``, ``host:port``, or ``local`` for one on this machine)."""

    address: str

    def fold(self, work: AbstractWork[Result], shards: Iterable[Shard], advance: Advance) -> Finished[Result]:
        """The shards' results; if a worker dies, Ray restarts its shard elsewhere."""
        ray = _ray()
        started_here = not ray.is_initialized()
        if started_here:
            self._connect(ray)
        try:
            content = ray.put(pack(work))
            fold = ray.remote(num_cpus=1, max_retries=ATTEMPTS)(_fold_remotely)
            pending = {fold.remote(content, shard): shard for shard in shards}
            while pending:
                done, _ = ray.wait(list(pending))
                shard = pending.pop(done[0])
                result = work.read(_got(ray, done[0], shard))
                advance(work.passes(shard) * result.done)
                yield shard, result
        finally:
            if started_here:
                ray.shutdown()

    def _connect(self, ray: ModuleType) -> None:
        if self.address.startswith("ray://") and find_spec("grpc") is None:
            raise UserError(f"{self.address} needs Ray's client, which is not installed: pip install 'vitscope[ray]'.")
        try:
            ray.init(address=self.address, log_to_driver=False, logging_level="error")
        except (ConnectionError, ValueError, RuntimeError) as error:
            why = reason(error)
            raise UserError(f"No Ray cluster answers at {self.address!r}: {why}.") from error


def _got(ray: ModuleType, reference: object, shard: Shard) -> bytes:
    """A shard's result as bytes. Raises the shard's own error as it is, and ``UserError`` if its workers died."""
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError:
        raise  # it is an instance of the shard's own error, too
    except ray.exceptions.RayError as error:
        raise UserError(
            f"Ray's workers died {ATTEMPTS} times at batches {shard.start} to {shard.stop} "
            f"({type(error).__name__}); finished work is saved. Try a smaller --batch-size, with --resume."
        ) from error


def _fold_remotely(content: bytes, shard: Shard) -> bytes:
    return _unpack_once(content).fold(shard, lambda _: None).to_bytes()


@lru_cache(maxsize=1)
def _unpack_once(content: bytes) -> AbstractWork[Any]:
    """The work, unpacked once so that what it caches lasts from shard to shard in this process."""
    return unpack(content)


def _ray() -> ModuleType:
    try:
        import ray
    except ImportError as error:
        raise UserError("A Ray cluster needs ray, which is not installed: pip install 'vitscope[ray]'.") from error
    return ray
