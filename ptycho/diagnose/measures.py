"""Three absolute tests of a result against its patterns; none needs a truth.

The loss against that of counting noise alone. The share of the structure in the patterns that the model explains: what is
left of the patterns of neighbouring positions after the model is subtracted is independent noise where the model is right,
so that the mean of their products is the squared misfit, free of noise; it is compared with the same for an empty object. And
the slope of the loss along a calibration (defocus, rotation, scale) at the final object, in units of its counting noise:
zero where the calibration is right, for the object itself has no slope left.

Standard shapes: see `ptycho.result`; intensities (pattern, ky, kx) with zero frequency at [0, 0]; slopes (3, pattern, pixel)
along the defocus and the positions y and x.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from scipy.spatial import cKDTree

from ptycho.data import Patterns, on_window
from ptycho.diagnose.expected import expected_loss, poisson_loss
from ptycho.grid import fft2, ifft2
from ptycho.optics import Optics, propagator
from ptycho.result import Result

Model = Callable[[Result, np.ndarray], np.ndarray]
"""Intensities (m, ky, kx) of the patterns with the given numbers, zero frequency at [0, 0]."""

_NEIGHBOURS = 2
_PART = 64
_DEFOCUS_STEP = 0.02
_POSITION_STEP_PX = 0.1


@dataclass(frozen=True)
class Fit:
    """Agreement of model and patterns, per pattern.

    loss, expected: Poisson loss and what counting noise alone would leave (nan: not known); sigma: of their difference. empty_loss: of an
    object of vacuum. structure: twice the loss that all structure in the patterns is worth, from products of neighbouring
    patterns; left: of this after the model is subtracted; structure_sigma: of either. mean_misfit: share of the electrons by
    which the mean pattern differs from that of the model, less what noise does.
    """

    loss: float
    expected: float
    sigma: float
    empty_loss: float
    structure: float
    left: float
    structure_sigma: float
    mean_misfit: float = 0.0


@dataclass(frozen=True)
class Slope:
    """The calibration `name` asks to be changed by `step` (in `unit`), `z` standard deviations of counting noise.

    moves_A: how far that moves the outermost position; 0 for a defocus.
    """

    name: str
    unit: str
    step: float
    z: float
    moves_A: float = 0.0


@dataclass(frozen=True)
class Jitter:
    """By how much the patterns pull at their own positions: rms_A per axis beyond counting noise, z standard deviations of
    it; sigma_A: how well a single pattern knows its position (median, per axis)."""

    rms_A: float
    z: float
    sigma_A: float


@dataclass(frozen=True, eq=False)
class Sample:
    """What is compared: a result and its patterns, the offset in electrons, the model, and `most` patterns."""

    result: Result
    patterns: Patterns
    offset: float
    model: Model
    most: int

    @property
    def ids(self) -> np.ndarray:
        """Numbers of the patterns, evenly spread."""
        n = len(self.patterns.counts)
        return np.unique(np.linspace(0, n - 1, min(n, self.most)).astype(int))

    @cached_property
    def mask(self) -> np.ndarray:
        """(ky, kx) True where the window of the result was measured, zero frequency at [0, 0]."""
        mask = self.patterns.mask
        return on_window(np.ones(self.patterns.detector_shape, bool) if mask is None else mask, self._side)

    @cached_property
    def beam(self) -> np.ndarray:
        """Electrons (ky, kx) of the probe in vacuum, zero frequency at [0, 0]."""
        return (np.abs(fft2(self.result.probe.copy())) ** 2).sum(0)

    def data(self, ids: np.ndarray) -> np.ndarray:
        """Counts (m, ky, kx) of some patterns in the window of the result, zero frequency at [0, 0]."""
        return on_window(np.asarray(self.patterns.counts[ids], np.float32), self._side)

    def empty(self, ids: np.ndarray) -> np.ndarray:
        """What the patterns would be without a specimen: the beam, times the dose and with the background of each."""
        scales, backgrounds = self.result.scales, self.result.backgrounds
        scale = np.ones(len(ids)) if scales is None else scales[ids]
        background = np.zeros(len(ids)) if backgrounds is None else backgrounds[ids]
        empty = scale[:, None, None] * self.beam + background[:, None, None]
        return empty.astype(np.float32)

    @property
    def _side(self) -> int:
        return int(self.result.probe.shape[-1])


def measure_fit(s: Sample, block: int) -> Fit:
    """Goodness of fit on the sample and the nearest neighbours of its patterns; structure in blocks of `block` pixels."""
    ids, pairs = _neighbours(s)
    sums, residuals = np.zeros(4), []
    for part in np.array_split(ids, max(1, len(ids) // _PART)):
        data, intensity, empty = s.data(part), s.model(s.result, part), s.empty(part)
        seen = data[:, s.mask]
        mean, variance = expected_loss(intensity[:, s.mask], s.offset)
        losses = (poisson_loss(seen, m[:, s.mask], s.offset).sum(dtype=np.float64) for m in (intensity, empty))
        sums += [*losses, mean.sum(), variance.sum()]
        residuals.append([_blocks(np.where(s.mask, data - m, 0), block) for m in (intensity, empty)])
    loss, empty_loss, expected, variance = (sums / len(ids)).tolist()
    level = _blocks(np.where(s.mask, s.beam, 0), block)
    weight = 1 / (level + max(s.offset, 1e-6) * block**2)
    sigma = math.sqrt(float(((level * weight) ** 2).sum()) / len(pairs))
    after, before = (np.concatenate(r) for r in zip(*residuals, strict=True))
    beyond = np.abs(after.mean(0)).sum() - math.sqrt(2 / math.pi) * np.sqrt(level / len(ids)).sum()
    mean_misfit = max(float(beyond / level.sum()), 0.0)
    left, structure = (_product(r - r.mean(0), pairs, weight) for r in (after, before))
    return Fit(loss, expected, math.sqrt(variance / len(ids)), empty_loss, structure, left, sigma, mean_misfit)


def measure_slopes(s: Sample, optics: Optics) -> tuple[tuple[Slope, ...], Jitter]:
    """Slope of the loss along the defocus and along a rotation and a scaling of the positions about their mean, and along
    each position for itself."""
    force, curvature, noise = _derivatives(s, optics)
    y, x = (s.result.positions_A - s.result.positions_A.mean(0)).T
    reach, zero, degree = float(np.hypot(y, x).max()), np.zeros(len(y)), math.radians(1)
    directions = (
        ("defocus", "Å", 0.0, (zero + 1, zero, zero)),
        ("scan rotation", "°", degree * reach, (zero, degree * x, -degree * y)),
        ("scan scale", "of it", reach, (zero, y, x)),
    )
    out = []
    for name, unit, lever, direction in directions:
        d = np.stack(direction, axis=1)
        pull = float(np.einsum("ns,ns->", d, force))
        bend, variance = (float(np.einsum("ns,nst,nt->", d, m, d)) for m in (curvature, noise))
        if variance > 0:
            out.append(Slope(name, unit, pull / bend, pull / math.sqrt(variance), abs(pull / bend) * lever))
    return tuple(out), _jitter(force[s.ids, 1:], curvature[s.ids, 1:, 1:], noise[s.ids, 1:, 1:])


def _jitter(force: np.ndarray, curvature: np.ndarray, noise: np.ndarray) -> Jitter:
    """From minus the slopes (m, 2), curvatures and variances (m, 2, 2): a position off by d has the force C d + noise."""
    beyond = float((force**2).sum() - np.einsum("mii->", noise))
    spread = math.sqrt(2 * float((noise**2).sum()))
    bend = float((curvature**2).sum())
    inverse = np.linalg.pinv(curvature, hermitian=True)
    own = np.einsum("mij,mjk,mki->m", inverse, noise, inverse) / 2
    sigma_A = math.sqrt(float(np.median(own)))
    return Jitter(math.sqrt(max(beyond, 0.0) / max(bend, 1e-30)), beyond / max(spread, 1e-30), sigma_A)


def _derivatives(s: Sample, optics: Optics) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of the loss of each pattern by the defocus and its position (y, x), per Å: minus its slope (n, 3), the mean curvature
    and the variance of the slope (n, 3, 3); zero for patterns outside the sample."""
    depth = optics.wavelength_A / (optics.semiangle_mrad * 1e-3) ** 2
    steps = np.array([_DEFOCUS_STEP * depth, *2 * [_POSITION_STEP_PX * s.result.pixel_A]])
    changed = [replace(s.result, probe=_defocused(s.result, optics, steps[0]))]
    changed += [replace(s.result, positions_A=s.result.positions_A + e) for e in steps[1] * np.eye(2)]
    n = len(s.patterns.counts)
    force, curvature, noise = np.zeros((n, 3)), np.zeros((n, 3, 3)), np.zeros((n, 3, 3))
    for part in np.array_split(s.ids, max(1, len(s.ids) // _PART)):
        intensity = s.model(s.result, part)
        slopes = np.stack([(s.model(r, part) - intensity) / e for r, e in zip(changed, steps, strict=True)])
        weight = s.mask / np.maximum(intensity + s.offset, 1e-6)
        residual = weight * (s.data(part) - intensity)
        force[part] = np.einsum("snyx,nyx->ns", slopes, residual)
        for out, w in ((curvature, weight), (noise, weight**2 * intensity)):
            out[part] = np.einsum("snyx,tnyx->nst", slopes * w, slopes, optimize=True)
    return force, curvature, noise


def _defocused(result: Result, optics: Optics, distance_A: float) -> np.ndarray:
    """The probe with its crossover moved downstream by distance_A."""
    back = propagator(result.probe.shape[-2:], (result.pixel_A,) * 2, -distance_A, optics.wavelength_A)
    return ifft2(fft2(result.probe.copy()) * back.astype(np.complex64))


def _neighbours(s: Sample) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of the sample and its neighbours, and pairs (p, 2) of places in them, each once."""
    positions = s.result.positions_A
    near = cKDTree(positions).query(positions[s.ids], k=min(_NEIGHBOURS + 1, len(positions)))[1]
    near[:, 0] = s.ids
    ids, places = np.unique(near, return_inverse=True)
    places = places.reshape(near.shape)
    pairs = np.concatenate([places[:, [0, k]] for k in range(1, places.shape[1])])
    pairs = pairs[pairs[:, 0] != pairs[:, 1]]
    return ids, np.unique(np.sort(pairs, axis=1), axis=0)


def _blocks(images: np.ndarray, block: int) -> np.ndarray:
    """Sums over blocks of block × block pixels of centred patterns, flat: (..., blocks)."""
    centred = np.fft.fftshift(images, axes=(-2, -1))
    rows = np.add.reduceat(centred, np.arange(0, images.shape[-2], block), axis=-2)
    return np.add.reduceat(rows, np.arange(0, images.shape[-1], block), axis=-1).reshape(*images.shape[:-2], -1)


def _product(residual: np.ndarray, pairs: np.ndarray, weight: np.ndarray) -> float:
    """Mean over the pairs of Σ residual × neighbour's residual / variance."""
    return float(np.einsum("ij,ij->", residual[pairs[:, 0]] * weight, residual[pairs[:, 1]]) / len(pairs))
