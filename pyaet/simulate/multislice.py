"""Multislice simulation of a converged electron beam through one orientation of a small particle.

Atoms and lens come from abTEM (J. Madsen, T. Susi, doi:10.12688/openreseurope.13015.1): independent-atom potentials in
the Lobato parametrisation, and the probe. The wave is carried here by the multislice recursion (E. J. Kirkland,
Advanced Computing in Electron Microscopy, doi:10.1007/978-3-030-33260-0), arranged for a small particle in vacuum:
every probe stands still in its own window and the specimen moves below it, so the window follows the beam and not the
field of view. Transforms are SciPy's, whose result, unlike that of FFTW's measured plans, is the same at every run.
Standard shapes: transmission (slice, y, x) complex64 with coordinate 0 at n // 2, probe spectrum
(ky, kx) complex64 with zero frequency at [0, 0], window intensities (n, ky, kx).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from scipy import constants, fft

BATCH_BYTES = 2_000_000
"""Waves carried together; as many as the cache of one core holds, beyond which the transforms slow down."""

ABTEM = {"device": "cpu", "precision": "float32", "fft": "numpy", "diagnostics.progress_bar": False}


def wavelength_A(energy_eV: float) -> float:
    """Return the relativistic wavelength in Å of electrons of kinetic energy `energy_eV`."""
    joule, rest = energy_eV * constants.e, constants.m_e * constants.c**2
    return constants.h * constants.c / np.sqrt(joule * (joule + 2 * rest)) * 1e10


@dataclass(frozen=True)
class Grid:
    """Sampling shared by potential and wave: `window` pixels of `pitch_A` hold a wave, `slices` of `slice_A` the depth.

    The potential spans `extent` pixels. All are even, so that index n // 2 is coordinate 0; z = 0 is the middle.
    """

    energy_eV: float
    window: int
    extent: int
    pitch_A: float
    slices: int
    slice_A: float

    @property
    def depth_A(self) -> float:
        return self.slices * self.slice_A

    @cached_property
    def frequencies_per_A(self) -> np.ndarray:
        return fft.fftfreq(self.window, self.pitch_A)

    @cached_property
    def passband(self) -> np.ndarray:
        """Frequencies (ky, kx) a wave may hold: two thirds of the band along each axis, so products never alias."""
        return _square_band(self.window)

    @cached_property
    def propagator(self) -> np.ndarray:
        """Fresnel propagator over one slice, cut to the passband, (ky, kx) complex64."""
        k2 = self.frequencies_per_A**2
        phase = -np.pi * wavelength_A(self.energy_eV) * self.slice_A * (k2[:, None] + k2)
        return (self.passband * np.exp(1j * phase)).astype(np.complex64)


def transmission(positions_A: np.ndarray, symbols: Sequence[str], grid: Grid) -> np.ndarray:
    """Return exp(i σ V) of every slice, (slice, y, x) complex64, band-limited; positions (n, 3) as (x, y, z) in Å."""
    import abtem
    from ase import Atoms

    width = grid.extent * grid.pitch_A
    # abTEM's first array axis carries its x: handing it (y, x, z) makes its arrays (slice, y, x).
    shifted = positions_A[:, [1, 0, 2]] + [width / 2, width / 2, grid.depth_A / 2]
    shifted[:, 2] = np.clip(shifted[:, 2], 1e-3, grid.depth_A - 1e-3)
    atoms = Atoms(list(symbols), positions=shifted, cell=[width, width, grid.depth_A])
    with abtem.config.set(ABTEM):
        potential: Any = abtem.Potential(
            atoms, gpts=grid.extent, slice_thickness=grid.slice_A, parametrization="lobato", projection="infinite"
        ).build(lazy=False)
        array = potential.transmission_function(grid.energy_eV).array
    if array.shape[0] != grid.slices:
        raise RuntimeError(f"abTEM made {array.shape[0]} slices; expected {grid.slices} of {grid.slice_A:g} Å")
    band = _square_band(grid.extent)
    return fft.ifft2(fft.fft2(array) * band).astype(np.complex64)


def probe_spectrum(grid: Grid, semiangle_mrad: float, defocus_A: float) -> np.ndarray:
    """Return the probe at coordinate 0 on the first slice's plane, (ky, kx) complex64 of unit total intensity.

    `defocus_A` > 0 puts the crossover that far downstream of z = 0.
    """
    import abtem

    # A slice's phase acts in its middle, half a slice below the entrance face.
    above_centre = (grid.depth_A - grid.slice_A) / 2
    width = grid.window * grid.pitch_A
    with abtem.config.set(ABTEM):
        probe = abtem.Probe(
            energy=grid.energy_eV,
            semiangle_cutoff=semiangle_mrad,
            defocus=defocus_A + above_centre,
            gpts=grid.window,
            extent=width,
        ).build(scan=abtem.CustomScan([(width / 2, width / 2)]), lazy=False)
    spectrum = fft.fft2(fft.ifftshift(np.asarray(probe.array).reshape(grid.window, grid.window)))
    return (spectrum / np.linalg.norm(spectrum)).astype(np.complex64)


def diffraction(
    configurations: Sequence[np.ndarray], spectrum: np.ndarray, positions_A: np.ndarray, grid: Grid
) -> Iterator[tuple[slice, np.ndarray]]:
    """Yield (rows of `positions_A`, intensities (n, ky, kx) float32) of probes at (y, x) positions, batch by batch.

    Intensities are the mean over the frozen-phonon `configurations`, each (slice, y, x); each sums to at most 1 (what
    leaves the passband is lost) and has zero frequency at [0, 0]. Raises `ValueError` when a window would leave the
    potential.
    """
    corner, offset_A = _window_corners(positions_A, grid)
    batch = max(1, BATCH_BYTES // (8 * grid.window**2))
    for start in range(0, len(positions_A), batch):
        rows = slice(start, min(start + batch, len(positions_A)))
        probes = _shifted_probes(spectrum, offset_A[rows], grid)
        total = np.zeros(probes.shape, dtype=np.float32)
        for slices in configurations:
            waves = _through(slices, probes, corner[rows], grid)
            total += waves.real**2 + waves.imag**2
        yield rows, total * (grid.passband / np.float32(len(configurations)))


def _through(slices: np.ndarray, probes: np.ndarray, corner: np.ndarray, grid: Grid) -> np.ndarray:
    """Waves (n, ky, kx) in the far field after all slices; unit transforms keep the total intensity."""
    waves, n = probes.copy(), grid.window
    for depth, layer in enumerate(slices):
        if depth:
            waves *= grid.propagator
            waves = fft.ifft2(waves, overwrite_x=True, norm="ortho")
        for wave, (y, x) in zip(waves, corner, strict=True):
            wave *= layer[y : y + n, x : x + n]
        waves = fft.fft2(waves, overwrite_x=True, norm="ortho")
    return waves


def _window_corners(positions_A: np.ndarray, grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    """First pixel (n, 2) of every window in the potential, and by how much (n, 2) in Å its probe is off-centre."""
    nearest = np.rint(positions_A / grid.pitch_A).astype(int)
    corner = nearest + grid.extent // 2 - grid.window // 2
    if corner.min() < 0 or corner.max() + grid.window > grid.extent:
        reach = np.abs(positions_A).max()
        raise ValueError(
            f"a probe at {reach:.3g} Å with a window of {grid.window * grid.pitch_A:.3g} Å leaves the potential of "
            f"{grid.extent * grid.pitch_A:.3g} Å; expected a potential wide enough for scan and window"
        )
    return corner, positions_A - nearest * grid.pitch_A


def _shifted_probes(spectrum: np.ndarray, offset_A: np.ndarray, grid: Grid) -> np.ndarray:
    """Probes (n, y, x) complex64 in the middle of their windows, off by `offset_A` (n, 2) as (y, x)."""
    k = grid.frequencies_per_A
    centred = offset_A + grid.window // 2 * grid.pitch_A
    ramp_y, ramp_x = (np.exp(-2j * np.pi * centred[:, axis, None] * k).astype(np.complex64) for axis in (0, 1))
    return fft.ifft2(spectrum * ramp_y[:, :, None] * ramp_x[:, None, :], overwrite_x=True, norm="ortho")


def _square_band(n: int) -> np.ndarray:
    low = np.abs(fft.fftfreq(n)) <= 1 / 3
    return (low[:, None] & low).astype(np.float32)


def even_fast(n: float) -> int:
    """Return the smallest even size of at least `n` that transforms fast (factors 2, 3 and 5)."""
    return 2 * fft.next_fast_len(math.ceil(n / 2 - 1e-9), real=True)
