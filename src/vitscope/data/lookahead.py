"""Work done ahead of its use, in a few background threads."""

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Given = TypeVar("Given")
Made = TypeVar("Made")

THREADS = min(8, max(1, (os.cpu_count() or 1) // 2))  # the other half computes


def ahead(function: Callable[[Given], Made], items: Iterable[Given], window: int) -> Generator[Made, None, None]:
    """The results of `function` in the order of `items`, up to `window` of them computed ahead of their use.

    An exception of `function` reaches the caller in place of its result. When the iterator is closed or
    dropped, waiting work is cancelled and the threads end.
    """
    pool = ThreadPoolExecutor(THREADS, thread_name_prefix="vitscope-ahead")
    waiting: deque[Future[Made]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > window:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        # No waiting: a generator may be collected in one of these threads, which cannot join itself.
        pool.shutdown(wait=False, cancel_futures=True)
