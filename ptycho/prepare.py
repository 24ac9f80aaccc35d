"""From patterns, optics and settings to the problem and the state a reconstruction starts from."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ptycho import variation
from ptycho.calibrate import measured_aperture
from ptycho.data import Counts, Patterns, window_size
from ptycho.feasible import check_feasible
from ptycho.grid import pixel_A, resize_centred, to_numpy
from ptycho.likelihood import Likelihood
from ptycho.optics import Optics
from ptycho.problem import Problem, State
from ptycho.propagate import FreeSpace
from ptycho.scan import Illumination, Scan, canvas_shape
from ptycho.settings import Settings

_STATE_SPREAD_RAD = 0.05


def prepare(
    patterns: Patterns,
    optics: Optics,
    settings: Settings,
    rng: np.random.Generator,
    probe: np.ndarray | None,
    object_: np.ndarray | None,
    xp: Any,
) -> tuple[Problem, State]:
    """Bring the data to the window, the positions to pixels, and make probe and object.

    Raises ValueError for a probe or an object of another shape, and for a scan or a defocus nothing can be made of.
    """
    check_feasible(patterns.positions_A, patterns.pixel_mrad, optics)
    n = window_size(patterns, settings.detector)
    counts = Counts(patterns, n, xp, settings.device_bytes)
    pixel = pixel_A(optics.wavelength_A, n, patterns.pixel_mrad)
    positions_px = patterns.positions_A / pixel
    canvas = canvas_shape(positions_px, (n, n))
    real = np.dtype(settings.dtype)
    dtype = np.result_type(real, np.complex64)
    wave = (
        _start_probe(patterns, optics, settings, counts, pixel) if probe is None else _check_probe(probe, settings, n)
    )
    bright = (np.abs(np.fft.fft2(wave, norm="ortho")) ** 2).sum(0)
    measured = np.ones(counts.window, bool) if counts.mask is None else to_numpy(counts.mask)
    gain = counts.mean[measured].sum() / bright[measured].sum()
    wave, bright = wave * math.sqrt(gain), bright * gain
    offset = settings.offset * float((bright**2).sum() / bright.sum())
    training = _training(len(counts), settings.held_out, rng)
    problem = Problem(counts, _likelihood(settings, counts), offset, pixel, training, settings.threads)
    start = _start_object(object_, settings, canvas, rng)
    state = State(
        xp.asarray(start.astype(dtype)),
        Illumination(Scan(positions_px, canvas, (n, n)), xp.asarray(wave.astype(dtype)), settings.threads),
        _free_space(patterns, optics, settings, n, pixel, xp, dtype),
        None if patterns.scales is None else xp.asarray((patterns.scales / np.mean(patterns.scales)).astype(real)),
    )
    if settings.probe_variations:
        state = variation.start(state, settings.probe_variations, rng)
    return problem, state


def _free_space(
    patterns: Patterns, optics: Optics, settings: Settings, n: int, pixel: float, xp: Any, dtype: np.dtype
) -> FreeSpace:
    tilts = np.asarray(settings.tilt_mrad, np.float64)[None]
    if patterns.tilts_mrad is not None:
        tilts = tilts + patterns.tilts_mrad
    return FreeSpace(settings.gaps_A, tilts, (n, n), pixel, optics.wavelength_A, xp, dtype)


def _likelihood(settings: Settings, counts: Counts) -> Likelihood:
    """The likelihood asked for; "gaussian" takes one variance for all pixels, that of the mean count and the read noise."""
    if settings.likelihood == "gaussian":
        return Likelihood("gaussian", variance=float(counts.mean.mean()) + settings.read_noise**2)
    if settings.likelihood == "anscombe":
        return Likelihood("anscombe", read_noise=settings.read_noise)
    return Likelihood(settings.likelihood)


def _training(n: int, held_out: float, rng: np.random.Generator) -> np.ndarray:
    """Numbers of the patterns to fit: all but a random share, at least one."""
    held = min(round(held_out * n), n - 1)
    return np.sort(rng.permutation(n)[held:])


def _start_probe(patterns: Patterns, optics: Optics, settings: Settings, counts: Counts, pixel: float) -> np.ndarray:
    """Probe (mode, y, x) in the plane of the first slice, its aperture's edge read off the mean pattern."""
    mask = None if counts.mask is None else to_numpy(counts.mask)
    edge = measured_aperture(counts.mean, optics.semiangle_mrad / patterns.pixel_mrad, mask)
    z_first = -0.5 * float(settings.gaps_A.sum())
    return optics.probe_modes(settings.probe_modes, counts.window, (pixel, pixel), z_first, edge)


def _check_probe(probe: np.ndarray, settings: Settings, n: int) -> np.ndarray:
    """A given probe as (mode, y, x), at least as many modes as asked for."""
    if probe.shape[-2:] != (n, n) or probe.ndim not in (2, 3) or not np.isfinite(probe).all() or not probe.any():
        raise ValueError(
            f"probe has shape {probe.shape}; expected finite values of shape ({n}, {n}) or (mode, {n}, {n}): one sample per "
            'detector pixel after fitting to a fast size (detector="full" keeps the detector\'s own size).'
        )
    modes = probe.reshape(-1, n, n)
    if len(modes) < settings.probe_modes:
        raise ValueError(
            f"probe has {len(modes)} modes and probe_modes is {settings.probe_modes}; expected a probe of at least as many "
            "modes, or probe_modes left at 1."
        )
    return modes


def _start_object(
    object_: np.ndarray | None, settings: Settings, canvas: tuple[int, int], rng: np.random.Generator
) -> np.ndarray:
    """Object (state, slice, Y, X): vacuum or what was given; the states of a mixed object differ by a little noise."""
    states, slices = settings.object_states, settings.slices
    if object_ is None:
        start: np.ndarray = np.ones((states, slices, *canvas), np.complex128)
    else:
        given = object_[None] if object_.ndim == 3 else object_
        if given.ndim != 4 or given.shape[1] != slices or len(given) not in (1, states):
            raise ValueError(f"object_ has shape {object_.shape}; expected ({slices}, y, x), one image per slice.")
        inside = resize_centred(np.ones(given.shape[-2:]), canvas)
        start = np.where(inside > 0, resize_centred(given, canvas), 1.0) * np.ones((states, 1, 1, 1))
    if states > 1 and (object_ is None or object_.ndim == 3):
        start = start * np.exp(1j * _STATE_SPREAD_RAD * rng.standard_normal(start.shape))
    return start
