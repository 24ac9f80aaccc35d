"""How the compiled CPU kernels are made and shared out among threads.

Kernels take (start, stop, ...) and do the rows start <= i < stop of their work. They release the interpreter lock, so
plain Python threads run them side by side: no process-wide thread settings, and the number of threads belongs to the
caller.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numba

Kernel = TypeVar("Kernel", bound=Callable[..., Any])

# More parts than threads even out rows of unequal cost.
PARTS_PER_THREAD = 4


def compiled(function: Kernel) -> Kernel:
    """Compile a kernel on its first call; the result is kept on disk, or in memory where no folder can be written."""
    # "contract" lets a product and a sum become one fused operation; nothing else about the arithmetic is relaxed.
    options: dict[str, Any] = {"nogil": True, "fastmath": {"contract"}, "error_model": "numpy"}
    try:
        return numba.njit(cache=True, **options)(function)
    except RuntimeError:
        return numba.njit(cache=False, **options)(function)


def available_threads() -> int:
    """Number of CPU cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def share_out(kernel: Callable[..., None], count: int, threads: int, *arguments: Any) -> None:
    """Run kernel(start, stop, *arguments) over range(count) on so many threads; an error in any of them is raised."""
    parts = max(1, min(count, PARTS_PER_THREAD * threads))
    share_parts(kernel, [count * part // parts for part in range(parts + 1)], threads, *arguments)


def share_parts(kernel: Callable[..., None], bounds: Sequence[int], threads: int, *arguments: Any) -> None:
    """The same, cut at the bounds only: what lies between two of them is the work of one thread."""
    if threads == 1 or len(bounds) <= 2:
        kernel(bounds[0], bounds[-1], *arguments)
        return
    with ThreadPoolExecutor(threads) as pool:
        jobs = [pool.submit(kernel, a, b, *arguments) for a, b in itertools.pairwise(bounds)]
        for job in jobs:
            job.result()


def cuda_types(real: str, store: str) -> str:
    """The first lines of every CUDA text: `real`, in which is reckoned, and `store`, which is read; dtype characters e, f, d."""
    names = {"e": "__half", "f": "float", "d": "double"}
    header = "#include <cuda_fp16.h>\n" if store == "e" else ""
    return f"{header}typedef {names[real]} real;\ntypedef {names[store]} store;\n"
