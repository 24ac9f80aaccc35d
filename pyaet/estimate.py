"""What a run will need, told before it starts: memory from array sizes, time from counted work.

The rates below are for one core of a 2024 server; they make the stated times right to about a factor of two.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from pyaet.device import available_memory_bytes, cpu_count, resolve_device
from pyaet.io.angles import read_angles
from pyaet.io.errors import InputError
from pyaet.io.fourdstem import check_counts
from pyaet.io.images import inspect_stack, read_stack
from pyaet.plan import NO_INPUT, Input, Plan, Simulation
from pyaet.simulate.fourdstem import Recording
from pyaet.stages.adf import angle_spec, checked_angles
from pyaet.stages.ptychography import engine_settings, tilts_of
from pyaet.stages.simulation import described, imaging, recording, scan_shape
from pyaet.stages.structure import read_truth

FFT_FLOP_PER_S = 7e9
"""Ptychography and simulation on one core, counted as 5 N log2 N per transform, everything else of the loop included."""
PROJECTOR_FLOP_PER_S = 4e9
"""RESIRE on one core, counted as 2 operations per voxel, tilt and tap."""
DENOISE_S_PER_PIXEL = {"none": 3e-6, "wavelet": 1e-5, "nlm": 3e-5, "bm3d": 1e-4}
GPU_SPEEDUP = 100.0
BASE_BYTES = 400 * 2**20
"""An interpreter with the numerical libraries loaded."""
FEWEST_TILTS = 3
BASE_S = 15.0
"""Start, tracing, refinement and report of a particle of a few hundred atoms."""


@dataclass(frozen=True)
class Need:
    """What leads to the projections: facts to tell, shape (n, y, x) of the projections, peak bytes, and seconds."""

    told: dict[str, Any]
    shape: tuple[int, int, int]
    bytes: int
    seconds: float


class Tilt(NamedTuple):
    """What the size of a ptychographic problem follows from; shape (scan_y, scan_x, ky, kx)."""

    energy_eV: float
    pixel_mrad: float
    step_A: float
    shape: tuple[int, int, int, int]


def estimate(plan: Plan, device: str | None = None) -> dict[str, Any]:
    """Open the inputs of a plan and state shape, memory and time; raises `InputError` for unusable input."""
    place = resolve_device(device or plan.compute.device)
    workers = plan.compute.workers or cpu_count()
    first = _first(plan, workers)
    if plan.truth is not None:
        first.told["truth_atoms"] = len(read_truth(plan.truth))
    bytes_tomo, seconds_tomo = _tomography(plan, first.shape, workers)
    need, free = max(first.bytes, bytes_tomo), available_memory_bytes(place)
    if free and need > free:
        raise InputError(
            f"memory: the run needs about {need / 1e9:.1f} GB and {free / 1e9:.1f} GB are free; "
            "lower compute.workers, or tomography.depth"
        )
    seconds = (first.seconds + seconds_tomo) / (GPU_SPEEDUP if place == "cuda" else 1) + BASE_S
    return first.told | {
        "device": place,
        "workers": workers,
        "volume_voxels": [plan.tomography.depth or first.shape[2], *first.shape[1:]],
        "memory_GB": round(need / 1e9, 2),
        "memory_free_GB": round(free / 1e9, 2),
        "seconds_estimated": round(seconds),
    }


def _first(plan: Plan, workers: int) -> Need:
    """The way to the projections, whichever the plan takes."""
    if plan.input is None:
        if plan.simulation is None:
            raise InputError(NO_INPUT)
        return _simulation(plan, plan.simulation, workers)
    if plan.input.kind == "4dstem":
        tilts = tilts_of(plan.input)
        _enough_tilts([tilt.angles_deg for tilt in tilts])
        for tilt in tilts:
            check_counts(tilt)
        first = Tilt(tilts[0].energy_eV, tilts[0].pixel_mrad, tilts[0].step_A, tilts[0].shape)
        return _ptychography(plan, first, len(tilts), workers)
    return _adf(plan, plan.input)


def _enough_tilts(angles_deg: ArrayLike) -> None:
    distinct = len(np.unique(np.asarray(angles_deg).round(3), axis=0))
    if distinct < FEWEST_TILTS:
        raise InputError(
            f"input.angles: {distinct} distinct tilt{'s' * (distinct != 1)}; expected at least {FEWEST_TILTS}, "
            "and tens of them for a volume to be trusted"
        )


def _adf(plan: Plan, source: Input) -> Need:
    stack = inspect_stack(source.path, variable=source.variable, axes=source.axes, pixel_A=source.pixel_A)
    angles_deg = checked_angles(source)
    _enough_tilts(angles_deg)
    read_stack(source.path, variable=source.variable, axes=source.axes, pixel_A=source.pixel_A, counts=True)
    theta = angles_deg[:, 1]
    pixels = int(np.prod(stack.shape))
    told = {"images": list(stack.shape), "tilts_deg": [float(theta.min()), float(theta.max())]}
    return Need(told, stack.shape, BASE_BYTES + 40 * pixels, DENOISE_S_PER_PIXEL[plan.adf.denoise] * pixels)


def _ptychography(plan: Plan, tilt: Tilt, tilts: int, workers: int) -> Need:
    """One tilt stands for all of the series."""
    import ptycho

    settings = engine_settings(plan.ptychography, 1)
    scan, detector = tilt.shape[:2], tilt.shape[2:]
    window = ptycho.window_side(detector, settings.detector)
    pixel_A = ptycho.wavelength_A(tilt.energy_eV) / (window * tilt.pixel_mrad * 1e-3)
    ny, nx = (math.ceil(n * tilt.step_A / pixel_A) for n in scan)
    patterns, size = scan[0] * scan[1], window**2
    each = ptycho.memory_bytes(patterns, detector, (ny + window, nx + window), settings)
    # Counts are there twice: as read, and brought to the window.
    each += BASE_BYTES + 2 * patterns * detector[0] * detector[1]
    at_once = min(workers, tilts)
    transforms = 4 * settings.slices * patterns * settings.iterations * tilts
    seconds = transforms * 5 * size * math.log2(size) / (FFT_FLOP_PER_S * at_once)
    told = {
        "tilts": tilts,
        "patterns_per_tilt": patterns,
        "detector_px": list(detector),
        "slices": settings.slices,
        "pixel_A": round(pixel_A, 5),
    }
    return Need(told, (tilts, ny, nx), each * at_once, seconds)


def _simulation(plan: Plan, settings: Simulation, workers: int) -> Need:
    told = described(settings)
    _enough_tilts(read_angles(angle_spec(settings.angles)))
    tilts, scan = told["tilts"], scan_shape(settings)
    made = recording(settings) if settings.kind == "4dstem" else imaging(settings)
    grid = made.grid(settings.diameter_A / 2)
    transforms = 2 * grid.slices * settings.phonons * scan[0] * scan[1] * tilts
    seconds = transforms * 5 * grid.window**2 * math.log2(grid.window**2) / (FFT_FLOP_PER_S * min(workers, tilts))
    if isinstance(made, Recording):
        tilt = Tilt(made.energy_eV, made.pixel_mrad, made.step_A, (*scan, made.detector, made.detector))
        then = _ptychography(plan, tilt, tilts, workers)
    else:
        seconds = 0.0 if settings.model == "linear" else seconds
        then = Need({}, (tilts, *scan), BASE_BYTES, 0.0)
    return Need(then.told | told, then.shape, max(then.bytes, 2 * BASE_BYTES), then.seconds + seconds)


def _tomography(plan: Plan, shape: tuple[int, int, int], workers: int) -> tuple[int, float]:
    """Bytes and CPU seconds of the reconstruction."""
    n, ny, nx = shape
    depth = plan.tomography.depth or nx
    taps = 3.5 if plan.tomography.subvoxels[1] == 1 else 12.0
    rounds = 2 * plan.tomography.iterations if plan.tomography.method == "resire" else 1
    table = 20 * n * depth * nx
    seconds = rounds * 2 * taps * n * depth * ny * nx / (PROJECTOR_FLOP_PER_S * workers)
    return BASE_BYTES + table + 16 * (n + depth) * ny * nx, seconds
