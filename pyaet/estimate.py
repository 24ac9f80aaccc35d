"""What a run will need, told before it starts: memory from array sizes, time from counted work.

The rates below are for one core of a 2024 server; they make the stated times right to about a factor of two.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from pyaet.device import available_memory_bytes, cpu_count, resolve_device
from pyaet.io.errors import InputError
from pyaet.plan import Input, Plan
from pyaet.run import NO_INPUT

FFT_FLOP_PER_S = 2.5e9
"""Ptychography on one core, counted as 5 N log2 N per transform, everything else of the engine included."""
PROJECTOR_FLOP_PER_S = 4e9
"""RESIRE on one core, counted as 2 operations per voxel, tilt and tap."""
DENOISE_S_PER_PIXEL = {"none": 3e-6, "wavelet": 1e-5, "nlm": 3e-5, "bm3d": 3e-4}
GPU_SPEEDUP = 100.0
BASE_BYTES = 400 * 2**20
"""An interpreter with the numerical libraries loaded."""


def estimate(plan: Plan) -> dict[str, Any]:
    """Open the inputs of a plan and state shape, memory and time; raises `InputError` for unusable input."""
    if plan.input is None:
        return _simulated(plan)
    device = resolve_device(plan.compute.device)
    workers = plan.compute.workers or cpu_count()
    projections = _ptychography if plan.input.kind == "4dstem" else _adf
    told, shape, bytes_first, seconds_first = projections(plan, plan.input, workers)
    n, ny, nx = shape
    taps = 3.5 if plan.tomography.subvoxels[1] == 1 else 12.0
    depth = plan.tomography.depth or nx
    rounds = 2 * plan.tomography.iterations if plan.tomography.method == "resire" else 1
    seconds_tomo = rounds * 2 * taps * n * depth * ny * nx / (PROJECTOR_FLOP_PER_S * workers)
    bytes_tomo = BASE_BYTES + 4 * (4 * n * ny * nx + 4 * depth * ny * nx)
    seconds = seconds_first + seconds_tomo
    need = max(bytes_first, bytes_tomo)
    free = available_memory_bytes(device)
    told |= {
        "device": device,
        "workers": workers,
        "volume_voxels": [depth, ny, nx],
        "memory_GB": round(need / 1e9, 2),
        "memory_free_GB": round(free / 1e9, 2),
        "seconds_estimated": round(seconds / (GPU_SPEEDUP if device == "cuda" else 1)),
    }
    if plan.truth is not None:
        from pyaet.stages.structure import read_truth

        told["truth_atoms"] = len(read_truth(plan.truth))
    if free and need > free:
        raise InputError(
            f"memory: the run needs about {need / 1e9:.1f} GB and {free / 1e9:.1f} GB are free; "
            "lower compute.workers, or tomography.depth"
        )
    return told


def _adf(plan: Plan, source: Input, workers: int) -> tuple[dict[str, Any], tuple[int, int, int], int, float]:
    from pyaet.io.images import inspect_stack
    from pyaet.stages.adf import checked_angles

    stack = inspect_stack(source.path, variable=source.variable, axes=source.axes, pixel_A=source.pixel_A)
    angles_deg = checked_angles(source)
    pixels = int(np.prod(stack.shape))
    told = {"images": list(stack.shape), "tilts_deg": [float(angles_deg[:, 1].min()), float(angles_deg[:, 1].max())]}
    return told, stack.shape, BASE_BYTES + 40 * pixels, DENOISE_S_PER_PIXEL[plan.adf.denoise] * pixels


def _ptychography(plan: Plan, source: Input, workers: int) -> tuple[dict[str, Any], tuple[int, int, int], int, float]:
    import ptycho
    from pyaet.stages.ptychography import engine_settings, tilts_of

    tilts = tilts_of(source)
    first = tilts[0]
    settings = engine_settings(plan.ptychography, 1)
    patterns, detector = first.shape[0] * first.shape[1], first.shape[2:]
    pixel_A = ptycho.wavelength_A(first.energy_eV) / (detector[1] * first.pixel_mrad * 1e-3)
    ny, nx = (math.ceil(n * first.step_A / pixel_A) for n in first.shape[:2])
    object_shape = (ny + detector[0], nx + detector[1])
    each = BASE_BYTES + ptycho.memory_bytes(patterns, detector, object_shape, settings)
    size = detector[0] * detector[1]
    transforms = 4 * settings.slices * patterns * settings.iterations
    seconds = len(tilts) * transforms * 5 * size * np.log2(size) / (FFT_FLOP_PER_S * min(workers, len(tilts)))
    told = {
        "tilts": len(tilts),
        "tilts_deg": [tilts[0].angles_deg[1], tilts[-1].angles_deg[1]],
        "patterns_per_tilt": patterns,
        "detector_px": list(detector),
        "slices": settings.slices,
        "pixel_A": round(pixel_A, 5),
    }
    return told, (len(tilts), ny, nx), each * min(workers, len(tilts)), float(seconds)


def _simulated(plan: Plan) -> dict[str, Any]:
    """A plan that simulates its own input has no files to open: what will be made is told instead."""
    from pyaet.stages.simulation import described

    if plan.simulation is None:
        raise InputError(NO_INPUT)
    return described(plan.simulation)
