"""Where arrays live: the one module that turns the words `cpu` and `cuda` into an array library.

The engines follow the library of their arrays, so moving the input is all it takes to choose a device.
"""

from __future__ import annotations

import os
from types import ModuleType
from typing import Any, Literal

import numpy as np

from pyaet.io.errors import InputError

Device = Literal["cpu", "cuda"]


def resolve_device(wanted: str) -> Device:
    """`cuda` where it is wanted or `auto` finds it; asking for CUDA without it is an `InputError`."""
    if wanted == "cpu":
        return "cpu"
    fault = _cuda_fault()
    if fault is None:
        return "cuda"
    if wanted == "cuda":
        raise InputError(
            f"device: found 'cuda' but {fault}; expected a CUDA device; use --device cpu or install pyaet[cuda12]"
        )
    return "cpu"


def array_module(device: Device) -> ModuleType:
    if device == "cpu":
        return np
    import cupy

    return cupy


def to_device(array: Any, device: Device) -> Any:
    return array if device == "cpu" else array_module(device).asarray(array)


def to_host(array: Any) -> np.ndarray:
    return array if isinstance(array, np.ndarray) else array.get()


def cpu_count() -> int:
    """Cores this process may use, which can be fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def available_memory_bytes(device: Device) -> int:
    """Free memory: of the GPU, or of the machine as far as its operating system tells (0 = unknown)."""
    if device == "cuda":
        return int(array_module(device).cuda.runtime.memGetInfo()[0])
    try:
        with open("/proc/meminfo") as lines:
            return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return 0


def _cuda_fault() -> str | None:
    try:
        import cupy
    except ImportError:
        return "cupy is not installed"
    try:
        return None if cupy.cuda.runtime.getDeviceCount() else "no CUDA device was found"
    except cupy.cuda.runtime.CUDARuntimeError as error:
        return f"CUDA does not answer ({error})"
