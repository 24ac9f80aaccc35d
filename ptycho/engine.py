"""One loop for all solvers: prepare, `init`, `step` for each batch, stop on the last pass or when a sentence says why.

Standard shapes: see `ptycho.data` and `ptycho.result`.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from ptycho.batches import make_batches
from ptycho.calibrate import measured_aperture
from ptycho.data import Patterns, fit_detector, window_size
from ptycho.forward import Multislice
from ptycho.grid import Array, pixel_A, resize_centred, to_numpy
from ptycho.likelihood import LIKELIHOODS
from ptycho.optics import Optics, propagator
from ptycho.positions import refine_positions
from ptycho.problem import Problem, State
from ptycho.result import Diverged, Result
from ptycho.scan import Scan, canvas_shape
from ptycho.settings import Settings
from ptycho.solvers.gradient import GradientSolver
from ptycho.solvers.lsqml import LsqmlSolver

log = logging.getLogger(__name__)

Progress = Callable[[int, int, float], None]
_DIVERGED = 1.5


class Solver(Protocol):
    """What the loop asks of a solver."""

    def init(self, state: State) -> None:
        """Prepare for the first step."""

    def step(self, state: State, ids: np.ndarray, probe: bool) -> tuple[State, Array]:
        """State after one update with the patterns `ids`, and the loss of each pattern before it."""

    def end_iteration(self, state: State) -> None:
        """Called once all patterns were used."""


def reconstruct(
    patterns: Patterns,
    optics: Optics,
    settings: Settings | None = None,
    *,
    rng: np.random.Generator,
    probe: np.ndarray | None = None,
    object_: np.ndarray | None = None,
    progress: Progress | None = None,
    xp: Any = np,
) -> Result:
    """Object, probe and positions that explain the patterns of one tilt.

    probe: complex (y, x) or (mode, y, x) entering the first slice, centred, on the pixels of the result (the size of
        `window_size`); it is scaled to the electrons of the mean pattern. None makes it from `optics`, the edge of its aperture
        from the mean pattern.
    object_: complex (slice, y, x) to start from, centred, on the pixels of the result; it is cropped or padded with vacuum.
    rng: order of the batches. progress: called after each iteration with (done, total, loss per pattern).
    xp: numpy or cupy, where the work is done.
    Raises ValueError for arguments that do not fit together, Diverged when the loss explodes.
    """
    settings = settings or Settings()
    problem, state = _prepare(patterns, optics, settings, probe, object_, xp)
    solver: Solver = (GradientSolver if settings.solver == "gradient" else LsqmlSolver)(problem, settings)
    given_px = state.probes.scan.positions_px
    clock, trace = _Clock(), []
    solver.init(state)
    for i in range(settings.iterations):
        state, loss = _iterate(problem, solver, state, settings, i, rng)
        if settings.update_positions is not None and i >= settings.update_positions:
            state = refine_positions(problem, state, given_px, settings.position_sigma_A / problem.pixel_A)
        trace.append((loss, *clock.read()))
        _check(trace, settings)
        if progress is not None:
            progress(i + 1, settings.iterations, loss)
        reason = terminate([t[0] for t in trace], settings.tolerance)
        if reason:
            log.info(reason)
            break
    return _result(state, problem, settings, np.array(trace, np.float64))


def _iterate(
    problem: Problem, solver: Solver, state: State, settings: Settings, i: int, rng: np.random.Generator
) -> tuple[State, float]:
    """One pass over all patterns: state and mean loss per pattern."""
    probe = settings.update_probe is not None and i >= settings.update_probe
    total = 0.0
    for ids in make_batches(state.probes.scan.positions_px, settings.patterns_per_batch, settings.batching, rng):
        state, loss = solver.step(state, ids, probe)
        total += float(loss.sum(dtype=np.float64))
    solver.end_iteration(state)
    return state, total / len(problem.counts)


def terminate(loss: list[float], tolerance: float) -> str | None:
    """Sentence that says why the run may stop before its last iteration, or None."""
    if tolerance > 0 and len(loss) > 1 and 0 <= loss[-2] - loss[-1] < tolerance * abs(loss[-2]):
        return f"iteration {len(loss)} lowered the loss by less than {tolerance:g} of it: converged."
    return None


def _check(trace: list[tuple[float, float, float]], settings: Settings) -> None:
    losses = [t[0] for t in trace]
    loss, first = losses[-1], losses[0]
    growing = len(losses) > 2 and _DIVERGED * first < losses[-2] < loss
    if math.isfinite(loss) and not growing:
        return
    knob = "step" if settings.solver == "gradient" else "beta_lsq"
    raise Diverged(
        f"the loss per pattern went from {first:.6g} to {loss:.6g} by iteration {len(trace)}: the reconstruction diverged; "
        f"check defocus, step and detector calibration first, then lower {knob} ({getattr(settings, knob)}) or hold the probe fixed."
    )


class _Clock:
    """Processor and wall seconds since it was made."""

    def __init__(self) -> None:
        self._start = time.process_time(), time.perf_counter()

    def read(self) -> tuple[float, float]:
        return time.process_time() - self._start[0], time.perf_counter() - self._start[1]


def _prepare(
    patterns: Patterns,
    optics: Optics,
    settings: Settings,
    probe: np.ndarray | None,
    object_: np.ndarray | None,
    xp: Any,
) -> tuple[Problem, State]:
    """Bring the data to the window, the positions to pixels, and make probe and object."""
    n = window_size(patterns, settings.detector)
    counts, mask = fit_detector(patterns, (n, n))
    pixel = pixel_A(optics.wavelength_A, n, patterns.pixel_mrad)
    positions_px = patterns.positions_A / pixel
    canvas = canvas_shape(positions_px, (n, n))
    dtype = np.dtype(settings.dtype)
    complex_dtype = np.result_type(dtype, np.complex64)
    z_first = -0.5 * (settings.slices - 1) * (settings.slice_A or 0.0)
    if probe is None:
        edge = measured_aperture(counts.mean(0, dtype=np.float64), optics.semiangle_mrad / patterns.pixel_mrad, mask)
        wave = optics.probe((n, n), (pixel, pixel), z_first, edge)
    else:
        wave = _check_probe(probe, n)
    electrons = counts.sum(dtype=np.float64) / len(counts)
    wave = wave * math.sqrt(electrons) / np.linalg.norm(wave)
    kernel = None
    if settings.slices > 1:
        kernel = xp.asarray(
            propagator((n, n), (pixel, pixel), settings.slice_A or 0.0, optics.wavelength_A).astype(complex_dtype)
        )
    bright = (np.abs(np.fft.fft2(wave, norm="ortho")) ** 2).sum(0 if wave.ndim == 3 else ())
    offset = settings.offset * float((bright**2).sum() / bright.sum())
    problem = Problem(
        xp.asarray(counts),
        None if mask is None else xp.asarray(mask),
        LIKELIHOODS[settings.likelihood],
        offset,
        Multislice(kernel, settings.threads),
        pixel,
    )
    wave = xp.asarray(wave.reshape(-1, n, n).astype(complex_dtype))
    start = xp.asarray(_start_object(object_, settings.slices, canvas).astype(complex_dtype))
    return problem, State.start(start, wave, Scan(positions_px, canvas, (n, n)), settings.threads)


def _check_probe(probe: np.ndarray, n: int) -> np.ndarray:
    if probe.shape[-2:] != (n, n) or probe.ndim not in (2, 3) or not np.isfinite(probe).all() or not probe.any():
        raise ValueError(
            f"probe has shape {probe.shape}; expected finite values of shape ({n}, {n}) or (mode, {n}, {n}): one sample per "
            'detector pixel after fitting to a fast size (detector="full" keeps the detector\'s own size).'
        )
    return probe.reshape(-1, n, n)


def _start_object(object_: np.ndarray | None, slices: int, canvas: tuple[int, int]) -> np.ndarray:
    if object_ is None:
        return np.ones((slices, *canvas))
    if object_.ndim != 3 or len(object_) != slices:
        raise ValueError(f"object_ has shape {object_.shape}; expected ({slices}, y, x), one image per slice.")
    inside = resize_centred(np.ones(object_.shape[-2:]), canvas)
    return np.where(inside > 0, resize_centred(object_, canvas), 1.0)


def _result(state: State, problem: Problem, settings: Settings, trace: np.ndarray) -> Result:
    return Result(
        object=to_numpy(state.object).astype(np.complex64),
        probe=to_numpy(state.probe).astype(np.complex64),
        positions_A=state.probes.scan.positions_px * problem.pixel_A,
        loss=trace[:, 0],
        cpu_s=trace[:, 1],
        wall_s=trace[:, 2],
        pixel_A=problem.pixel_A,
        slice_A=settings.slice_A or 0.0 if settings.slices > 1 else 0.0,
    )
