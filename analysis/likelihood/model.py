"""What is expected of every pixel, and how likely the counts are.

    expected λ = ground · background_t + scale_t Σ_a A_a P_t(x − P R_t r_a − shift_t) + glow
    misfit     = Σ λ − k + k log(k / λ)          half the deviance of Poisson counts k; 0 where λ = k

Images live where the counts do, in numpy or cupy arrays; all else is numpy's.

Standard shapes: counts, expected (tilts, y, x); places (tilts, atoms, 2) as pixel (x, y); positions (atoms, 3) in Å as (x, y, z).
"""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from analysis.likelihood import cuda, kernels
from analysis.likelihood.psf import Spread
from analysis.uncertainty import share_out

Array = NDArray[np.float64]
Ints = NDArray[np.int64]

DARKEST = 1e-3
"""Fewer electrons are never expected of a pixel: one electron where none can be would rule everything out."""


@dataclass(frozen=True, eq=False)
class State:
    """All that is fitted.

    positions_A (atoms, 3), element (atoms,) as numbers; amplitudes (elements,) in electrons, widths_A (elements,);
    scales, defocus_A, backgrounds (tilts,); shifts_px (tilts, 2) as (x, y).
    """

    positions_A: Array
    element: Ints
    amplitudes: Array
    widths_A: Array
    scales: Array
    shifts_px: Array
    defocus_A: Array
    backgrounds: Array

    def select(self, keep: NDArray[Any]) -> State:
        """With some of the atoms."""
        return replace(self, positions_A=self.positions_A[keep], element=self.element[keep])


@dataclass(frozen=True, eq=False)
class Model:
    """Counts in electrons (tilts, y, x), how the specimen was turned (tilts, 3, 3), and how atoms look.

    ground: (tilts, y, x) or a number, the shape of the background, which a factor for each tilt multiplies. glow: (tilts, y, x) or
    0, the light of all atoms beyond the reach of their spread functions; smooth, it is held while atoms move.
    """

    counts: Array
    rotations: Array
    pixel_A: float
    spread: Spread
    ground: Array | float = 1.0
    threads: int = 1
    glow: Array | float = 0.0

    @property
    def xp(self) -> Any:
        """numpy or cupy, where the images are."""
        return library_of(self.counts)

    @property
    def to_pixels(self) -> Array:
        """d(pixel x, y) / d(position in Å): (tilts, 2, 3)."""
        return self.rotations[:, :2] / self.pixel_A

    def origin(self, state: State) -> Array:
        """Where the origin of the specimen is seen: (tilts, 2) as pixel (x, y)."""
        ny, nx = self.counts.shape[1:]
        return state.shifts_px + np.array([nx // 2, ny // 2], float)

    def seen(self, state: State) -> Array:
        """Where every atom is seen (tilts, atoms, 2)."""
        return np.einsum("tij,aj->tai", self.to_pixels, state.positions_A) + self.origin(state)[:, None]

    def bright(self, state: State) -> Array:
        """Electrons of every atom in every tilt (tilts, atoms)."""
        return state.scales[:, None] * state.amplitudes[state.element]

    def tables(self, state: State) -> Array:
        """Spread functions (tilts, elements, entries)."""
        return self.spread.tables(state.defocus_A, state.widths_A)

    def atoms(self, state: State, tables: Array | None = None, bright: Array | None = None) -> Array:
        """The image of the atoms alone (tilts, y, x)."""
        out = self.xp.zeros(self.counts.shape)
        tables = self.tables(state) if tables is None else tables
        self._run(kernels.render, state, self.bright(state) if bright is None else bright, tables, out)
        return out

    def expected(self, state: State, tables: Array | None = None) -> Array:
        """λ (tilts, y, x)."""
        return self.lit(self.atoms(state, tables), state.backgrounds)

    def lit(self, atoms: Array, backgrounds: Array) -> Array:
        """λ of an image of atoms (tilts, y, x), on its background."""
        return self.xp.maximum(atoms + self.glow + self.ground * self.xp.asarray(backgrounds)[:, None, None], DARKEST)

    def glowing(self, state: State) -> Model:
        """The same with the glow of the atoms as they are now."""
        if self.spread.optics is None:
            return self
        ny, nx = self.counts.shape[1:]
        shape = fft.next_fast_len(2 * ny), fft.next_fast_len(2 * nx, real=True)
        bright, seen = self.bright(state), self.seen(state)
        width_A = float(np.average(state.widths_A[state.element], weights=bright[0]))
        glow = np.empty((len(seen), ny, nx))

        def tilt(t: int) -> None:
            spectrum = fft.rfft2(shared_out(seen[t], bright[t], shape))
            spectrum *= self.spread.tail(shape, float(state.defocus_A[t]), width_A)
            glow[t] = fft.irfft2(spectrum, s=shape)[:ny, :nx]

        with ThreadPoolExecutor(self.threads) as pool:
            list(pool.map(tilt, range(len(seen))))
        return replace(self, glow=self.xp.asarray(np.maximum(glow, 0.0)))

    def misfits(self, expected: Array) -> Array:
        """Half the deviance (tilts,) of each tilt."""
        k = self.counts
        each = expected - k + k * np.log(np.maximum(k, DARKEST) / expected)
        return on_host(each.sum(axis=(1, 2)))

    def misfit(self, expected: Array) -> float:
        """Half the deviance of all counts."""
        return float(self.misfits(expected).sum())

    def pulls(self, state: State, slope: Array, tables: Array) -> Array:
        """Σ slope · ∂λ/∂(pixel x, pixel y, electrons) of every atom in every tilt (tilts, atoms, 3)."""
        out = self.xp.zeros((len(self.counts), len(state.element), 3))
        self._run(kernels.pulls, state, self.bright(state), tables, slope, out)
        return on_host(out)

    def sharpness(self, state: State, weight: Array, tables: Array) -> Array:
        """Σ weight J Jᵀ (tilts, atoms, 3, 3) with J = ∂λ/∂(pixel x, pixel y, electrons)."""
        out = self.xp.zeros((len(self.counts), len(state.element), 6))
        self._run(kernels.sharpness, state, self.bright(state), tables, weight, out)
        return on_host(out)[..., [0, 1, 2, 1, 3, 4, 2, 4, 5]].reshape(*out.shape[:2], 3, 3)

    def on_host(self) -> Model:
        """The same with its images in the memory of the CPU."""
        ground, glow = (on_host(part) if np.ndim(part) else part for part in (self.ground, self.glow))
        return replace(self, counts=on_host(self.counts), ground=ground, glow=glow)

    def _run(self, kernel: Any, state: State, bright: Array, tables: Array, *images: Array) -> None:
        """A kernel over all tilts where the counts are: on threads of the CPU, or on the GPU."""
        shared: tuple[Any, ...] = (bright, state.element, tables, self.spread.reach_px, *images)
        if self.xp is np:
            share_out(kernel, len(self.counts), self.threads, self.seen(state), *shared)
        else:
            cuda.launch(kernel.__name__, state.positions_A, self.to_pixels, self.origin(state), *shared)


def shared_out(places: Array, weights: Array, shape: tuple[int, int]) -> Array:
    """A field (y, x) with each weight (n,) shared by the four pixels about its place (n, 2) as (x, y), periodic."""
    low = np.floor(places).astype(np.int64)
    part = places - low
    field = np.zeros(shape[0] * shape[1])
    for dx, dy in ((0, 0), (0, 1), (1, 0), (1, 1)):
        share = np.abs(1 - dx - part[:, 0]) * np.abs(1 - dy - part[:, 1])
        at = (low[:, 1] + dy) % shape[0] * shape[1] + (low[:, 0] + dx) % shape[1]
        field += np.bincount(at, weights * share, len(field))
    return field.reshape(shape)


def library_of(array: Any) -> Any:
    """cupy where the array is of it, else numpy; cupy's arrays do not answer `__array_namespace__`."""
    library = type(array).__module__.partition(".")[0]
    return sys.modules["cupy"] if library == "cupy" else np


def on_host(array: Any) -> Array:
    """The array (numpy or cupy) in the memory of the CPU."""
    return array if isinstance(array, np.ndarray) else np.asarray(array.get())
