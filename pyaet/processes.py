"""Independent tasks in single-threaded processes that never outlive the run that started them."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import TypeVar

from pyaet.io.errors import RunError

Task = TypeVar("Task")
Result = TypeVar("Result")

_PARENT_CHECK_S = 1.0


def in_processes(work: Callable[[Task], Result], tasks: Sequence[Task], workers: int) -> Iterator[tuple[int, Result]]:
    """Yield (index of the task, result) as tasks finish; with one worker they run here, in order.

    The first fault ends all processes and is raised; a process that the system killed is a `RunError`.
    """
    workers = min(workers, len(tasks))
    if workers <= 1:
        for i, task in enumerate(tasks):
            yield i, work(task)
        return
    # One thread a process: threads inside small transforms lose more than they win.
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
        os.environ.setdefault(name, "1")
    context = get_context("spawn")
    pool = ProcessPoolExecutor(workers, context, initializer=_end_with_parent, initargs=(os.getpid(),))
    try:
        pending = {pool.submit(work, task): i for i, task in enumerate(tasks)}
        while pending:
            finished, _ = wait(pending, return_when=FIRST_COMPLETED)
            for future in finished:
                yield pending.pop(future), future.result()
    except BrokenProcessPool:
        raise RunError(
            "a worker process was ended from outside, most likely for lack of memory; lower compute.workers"
        ) from None
    finally:
        for process in list((getattr(pool, "_processes", None) or {}).values()):
            process.terminate()
        pool.shutdown(wait=False, cancel_futures=True)


def _end_with_parent(parent: int) -> None:
    """Leave Ctrl-C to the parent, and leave when the parent is gone: a killed run must not go on working in the dark."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_PARENT_CHECK_S)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
