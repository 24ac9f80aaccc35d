"""What a run will need, told before it starts: memory from array sizes, time from counted work.

The rates below are for one core of a 2024 server; they make the stated times right to about a factor of two.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from pyaet.device import Device, available_memory_bytes, cpu_count, resolve_device
from pyaet.io.angles import read_angles
from pyaet.io.errors import InputError
from pyaet.io.fourdstem import check_counts
from pyaet.io.images import inspect_stack, read_stack
from pyaet.io.structures import read_structure
from pyaet.memory import TiltSize, device_bytes, likelihood_bytes, resident_bytes, tomography_bytes, volume_bytes
from pyaet.plan import NO_INPUT, Input, Plan, Simulation, Tomography
from pyaet.simulate.fourdstem import Recording
from pyaet.stages.adf import angle_spec, checked_angles
from pyaet.stages.ptychography import tilts_of
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
AUTO_ITERATIONS = 200
"""Iterations that "auto" is taken for; it can be fewer, and more on clean data."""
BASE_S = 15.0
"""Start, tracing and report of a particle of a few hundred atoms, and its refinement without counts."""
LIKELIHOOD_S = 7e-4
"""Of one core, for one atom in one tilt: fit of the counts with its search for atoms; two halves cost as much again."""
FILLING, SOLID = 0.5, 0.5
"""Of the field of view, the sphere across it taken for the particle; of a minimum distance cubed, the atoms it holds."""


@dataclass(frozen=True)
class Need:
    """What leads to the projections: facts to tell, shape (n, y, x) of the projections, peak bytes, and seconds; pixel of counts."""

    told: dict[str, Any]
    shape: tuple[int, int, int]
    bytes: int
    seconds: float
    pixel_A: float | None = None


def estimate(plan: Plan, device: str | None = None) -> dict[str, Any]:
    """Open the inputs of a plan and state shape, memory and time; raises `InputError` for unusable input."""
    place = resolve_device(device or plan.compute.device)
    workers = plan.compute.workers or cpu_count()
    first = _first(plan, workers, place)
    if plan.truth is not None:
        first.told["truth_atoms"] = len(read_truth(plan.truth))
    if plan.structure.reference is not None:
        first.told["reference_atoms"] = len(read_structure(plan.structure.reference))
    bytes_tomo, seconds_tomo = _tomography(plan, first.shape, workers, place)
    told, bytes_fit, seconds_fit = _likelihood(plan, first, workers)
    need, free = max(first.bytes, bytes_tomo, bytes_fit), available_memory_bytes(place)
    if free and need > free:
        raise InputError(
            f"memory: the run needs about {need / 1e9:.1f} GB and {free / 1e9:.1f} GB are free; "
            "lower compute.workers, or tomography.depth"
        )
    # Atoms are searched for on the CPU, which is half of the work of a fit.
    fit_s = seconds_fit / (2 if place == "cuda" else 1)
    seconds = (first.seconds + seconds_tomo) / (GPU_SPEEDUP if place == "cuda" else 1) + fit_s + BASE_S
    return (
        first.told
        | told
        | {
            "device": place,
            "workers": workers,
            "volume_voxels": [plan.tomography.depth or first.shape[2], *first.shape[1:]],
            "memory_GB": round(need / 1e9, 2),
            "memory_free_GB": round(free / 1e9, 2),
            "seconds_estimated": round(seconds),
        }
    )


def _first(plan: Plan, workers: int, place: Device) -> Need:
    """The way to the projections, whichever the plan takes."""
    if plan.input is None:
        if plan.simulation is None:
            raise InputError(NO_INPUT)
        return _simulation(plan, plan.simulation, workers, place)
    if plan.input.kind == "4dstem":
        tilts = tilts_of(plan.input)
        _enough_tilts([tilt.angles_deg for tilt in tilts])
        for tilt in tilts:
            check_counts(tilt)
        largest = max(tilts, key=lambda tilt: tilt.counts_bytes)
        scan, detector = largest.shape[:2], largest.shape[2:]
        size = tilt_size(scan, detector, largest.step_A, largest.energy_eV, largest.pixel_mrad, largest.dtype.itemsize)
        return _ptychography(plan, size, len(tilts), workers, place)
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
    seconds = DENOISE_S_PER_PIXEL[plan.adf.denoise] * pixels
    return Need(told, stack.shape, BASE_BYTES + 40 * pixels, seconds, stack.pixel_A)


def tilt_size(
    scan: tuple[int, int], detector: tuple[int, int], step_A: float, energy_eV: float, pixel_mrad: float, itemsize: int
) -> TiltSize:
    """The size of a tilt of a regular scan (y, x)."""
    field_A = scan[0] * step_A, scan[1] * step_A
    return TiltSize(scan[0] * scan[1], detector, field_A, energy_eV, pixel_mrad, itemsize)


def _ptychography(plan: Plan, tilt: TiltSize, tilts: int, workers: int, place: Device) -> Need:
    """One tilt stands for all of the series."""
    settings = plan.ptychography.engine()
    at_once = 1 if place == "cuda" else min(workers, tilts)
    limit = resident_bytes(at_once)
    each = BASE_BYTES + tilt.held_bytes(limit) + tilt.engine_bytes(settings, gpu=False)
    on_gpu = tilt.engine_bytes(settings, gpu=True)
    window = tilt.window(settings)
    transforms = 4 * settings.slices * tilt.patterns * settings.iterations * tilts
    flop = 5 * window**2 * math.log2(window**2) * settings.probe_modes * settings.object_states
    told = {
        "tilts": tilts,
        "patterns_per_tilt": tilt.patterns,
        "detector_px": list(tilt.detector),
        "slices": settings.slices,
        "pixel_A": round(tilt.pixel_A(settings), 5),
        "patterns_per_update": tilt.batch(settings),
        "patterns_per_chunk": {"cpu": tilt.chunk(settings, gpu=False), "gpu": tilt.chunk(settings, gpu=True)},
        "counts_GB_per_tilt": round(tilt.counts_bytes / 1e9, 3),
        "counts_stay_on_disk": limit is not None and tilt.counts_bytes > limit,
        "tilts_at_once": at_once,
        "memory_cpu_GB": round(each * at_once / 1e9, 2),
        "memory_gpu_GB": round(on_gpu / 1e9, 2),
    }
    if place == "cuda":
        streamed = replace(settings, device_bytes=device_bytes(tilt, settings, place))
        told["counts_sent_in_chunks"] = streamed.device_bytes is not None
        on_gpu = tilt.engine_bytes(streamed, gpu=True)
    seconds = transforms * flop / (FFT_FLOP_PER_S * at_once)
    need = on_gpu if place == "cuda" else each * at_once
    return Need(told, (tilts, *tilt.image_px(settings)), need, seconds)


def _simulation(plan: Plan, settings: Simulation, workers: int, place: Device) -> Need:
    told = described(settings)
    _enough_tilts(read_angles(angle_spec(settings.angles)))
    tilts, scan = told["tilts"], scan_shape(settings)
    made = recording(settings) if settings.kind == "4dstem" else imaging(settings)
    grid = made.grid(settings.diameter_A / 2)
    transforms = 2 * grid.slices * settings.phonons * scan[0] * scan[1] * tilts
    seconds = transforms * 5 * grid.window**2 * math.log2(grid.window**2) / (FFT_FLOP_PER_S * min(workers, tilts))
    if isinstance(made, Recording):
        detector = made.detector, made.detector
        tilt = tilt_size(scan, detector, made.step_A, made.energy_eV, made.pixel_mrad, 2)
        then = _ptychography(plan, tilt, tilts, workers, place)
    else:
        seconds = 0.0 if settings.model == "linear" else seconds
        then = Need({}, (tilts, *scan), BASE_BYTES, 0.0, settings.step_A)
    return Need(then.told | told, then.shape, max(then.bytes, 2 * BASE_BYTES), then.seconds + seconds, then.pixel_A)


def _tomography(plan: Plan, shape: tuple[int, int, int], workers: int, place: Device) -> tuple[int, float]:
    """Bytes and CPU seconds of the reconstruction and of its halves."""
    n, ny, nx = shape
    settings = plan.tomography
    _enough_to_hold_out(settings, n)
    taps = 3.5 if settings.subvoxels[1] == 1 else 12.0
    once = 2 * taps * n * (settings.depth or nx) * ny * nx / (PROJECTOR_FLOP_PER_S * workers)
    limit = volume_bytes(shape, settings, place)
    return BASE_BYTES + tomography_bytes(shape, settings, limit, place), once * _projections_made(settings)


def _likelihood(plan: Plan, first: Need, workers: int) -> tuple[dict[str, Any], int, float]:
    """What to tell, bytes and seconds of the fit of counts, nothing where there are none."""
    asked = plan.refinement
    if first.pixel_A is None or not asked.enabled or asked.method == "least_squares" or plan.adf.denoise != "none":
        return {}, 0, 0.0
    n, ny, nx = first.shape
    across_A = first.pixel_A * min(ny, nx)
    atoms = max(1, round(FILLING * np.pi / 6 * across_A**3 * SOLID / plan.specimen.min_distance_A**3))
    size = BASE_BYTES + likelihood_bytes(first.shape, atoms, len(plan.specimen.elements))
    seconds = LIKELIHOOD_S * n * atoms * (1 + asked.quality) / min(workers, 2)
    return {"atoms_assumed": atoms}, size, seconds


def _projections_made(settings: Tomography) -> int:
    """How often all tilts are projected or smeared back; the two halves of a judgement are as much work as the whole."""
    if settings.method == "fbp":
        return 2 + 2 * settings.quality
    # As many again for the trial that chooses the number.
    rounds = 2 * AUTO_ITERATIONS if settings.iterations == "auto" else settings.iterations
    halves = AUTO_ITERATIONS if settings.iterations == "auto" else settings.iterations
    return 2 * (rounds + halves * settings.quality)


def _enough_to_hold_out(settings: Tomography, tilts: int) -> None:
    if settings.iterations == "auto" and settings.held_out > (tilts - 1) // 2:
        raise InputError(
            f"tomography.held_out: {settings.held_out} of {tilts} tilts; expected less than half of them, so that a volume remains"
        )
