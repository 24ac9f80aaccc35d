"""How kernels are compiled: on their first call, free of the interpreter lock, and kept on disk for the next start."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numba

Kernel = TypeVar("Kernel", bound=Callable[..., Any])


def compiled(function: Kernel) -> Kernel:
    """A numba kernel of relaxed arithmetic; kept in memory only where no folder can be written."""
    options: dict[str, Any] = {"nogil": True, "fastmath": True}
    try:
        return numba.njit(cache=True, **options)(function)
    except RuntimeError:
        return numba.njit(cache=False, **options)(function)
