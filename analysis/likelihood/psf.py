"""The image of one atom: the intensity of the electron probe, blurred by what the atom and the source do.

Dark-field images are incoherent: an atom shows the probe's intensity |ψ|² about its place. With aperture α, wavelength λ and
aberrations χ the transfer of frequencies is the autocorrelation of the pupil exp(−iχ), times exp(−2π²w²k²) for a blur of
standard deviation w (Kirkland, Advanced Computing in Electron Microscopy, doi:10.1007/978-3-030-33260-0, ch. 3 and 5):

    P(r) = 2π ∫ transfer(k) J₀(2πkr) k dk

Spread functions are round. Near an atom they are kept as tables over the squared distance, so that no root is needed to read them.
The rings of the aperture fade as r⁻³ only: a twentieth of the light lies beyond the reach of the tables. It is smooth and is added
for all atoms at once by Fourier transforms. Without optics the spread is a Gaussian of width w, which has no such tail.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import fft

Array = NDArray[np.float64]

STEPS_PER_PX2 = 10.0
"""Entries of a table per squared pixel of distance; a linear reading between them is right to 1e-5 of the peak."""
DEFOCUS_STEP_A = 2.0
AIRY_RINGS, WIDTHS = 4.0, 5.0
"""Reach in units of 0.61 λ / α, and in widths where that is more."""
_BOX_A, _FINER = 160.0, 2
_ELECTRON_REST_EV = 510998.95


@dataclass(frozen=True)
class Optics:
    """Beam energy, semi-angle of the aperture, and spherical aberration C₃₀."""

    energy_eV: float
    semiangle_mrad: float
    c30_A: float = 0.0

    def __post_init__(self) -> None:
        if not (self.energy_eV > 0 and self.semiangle_mrad > 0 and np.isfinite(self.c30_A)):
            raise ValueError(
                f"energy_eV is {self.energy_eV}, semiangle_mrad {self.semiangle_mrad} and c30_A {self.c30_A}; expected positive "
                "energy and semi-angle and a finite aberration"
            )

    @property
    def wavelength_A(self) -> float:
        """Relativistic wavelength of the electrons."""
        e = self.energy_eV
        return 12.264259 / np.sqrt(e * (1 + e / (2 * _ELECTRON_REST_EV)))

    @property
    def cutoff_per_A(self) -> float:
        """Highest frequency in an image, 2 α / λ."""
        return 2e-3 * self.semiangle_mrad / self.wavelength_A


@dataclass(frozen=True)
class Spread:
    """Spread functions for pixels of `pixel_A` out to `reach_px`; without optics Gaussians."""

    optics: Optics | None
    pixel_A: float
    reach_px: float

    @classmethod
    def of(cls, optics: Optics | None, pixel_A: float, widest_A: float) -> Spread:
        """Spread functions that reach far enough for blurs up to `widest_A`."""
        reach = WIDTHS * widest_A
        if optics is not None:
            reach = max(reach, AIRY_RINGS * 0.61e3 * optics.wavelength_A / optics.semiangle_mrad)
        return cls(optics, pixel_A, reach / pixel_A)

    def tables(self, defocus_A: Array, width_A: Array) -> Array:
        """P (tilts, elements, entries) at squared distances of entry / STEPS_PER_PX2 px², summing to 1 over the pixels.

        defocus_A: (tilts,). width_A: (elements,), standard deviation of the blur.
        """
        entries = int(np.ceil(self.reach_px**2 * STEPS_PER_PX2)) + 2
        if self.optics is None:
            square = np.arange(entries) / STEPS_PER_PX2
            variance = (np.asarray(width_A) / self.pixel_A)[:, None] ** 2
            gauss = np.exp(-0.5 * square / variance) / (2 * np.pi * variance)
            tables = np.broadcast_to(gauss, (len(defocus_A), *gauss.shape)).copy()
        else:
            k, hankel = _hankel(self.optics, self.pixel_A, entries)
            blur = np.exp(-2 * (np.pi * np.asarray(width_A)[:, None] * k) ** 2)
            seen = _transfers(self.optics, np.abs(defocus_A))[:, None] * blur
            tables = (seen.reshape(-1, len(k)) @ hankel).reshape(len(defocus_A), len(width_A), entries)
        return np.ascontiguousarray(tables - tables[..., -2:-1])

    def tail(self, shape: tuple[int, int], defocus_A: float, width_A: float) -> Array:
        """Transfer (ky, kx ≥ 0) over a periodic field (y, x) of that part of a spread function which `tables` leaves out."""
        if self.optics is None:
            return np.zeros((shape[0], shape[1] // 2 + 1))
        defocus, width = np.array([abs(defocus_A)]), np.array([width_A])
        k, seen = _frequencies(self.optics), _transfers(self.optics, defocus)[0]
        per_A = np.hypot(*np.meshgrid(fft.fftfreq(shape[0]), fft.rfftfreq(shape[1]), indexing="ij")) / self.pixel_A
        whole = np.interp(per_A, k, seen * np.exp(-2 * (np.pi * width_A * k) ** 2), right=0.0)
        near = stamp(self.tables(defocus, width)[0, 0], self.reach_px)
        field = np.zeros(shape)
        field[: len(near), : len(near)] = near
        return np.asarray(whole - fft.rfft2(np.roll(field, 2 * (-(len(near) // 2),), (0, 1))).real)


def stamp(entries: Array, reach_px: float) -> Array:
    """The image (y, x) of an atom of one electron at the middle of a pixel, after a table (entries,)."""
    line = np.arange(-int(reach_px), int(reach_px) + 1)
    square = line[:, None] ** 2 + line**2
    values = np.interp(square * STEPS_PER_PX2, np.arange(len(entries)), entries)
    return np.where(square <= reach_px**2, values, 0.0)


def _frequencies(optics: Optics) -> Array:
    """Radial frequencies (k,) in 1/Å at which transfers are kept, from 0 to beyond the cutoff."""
    return np.arange(0, optics.cutoff_per_A * _BOX_A * _FINER + 2) / (_BOX_A * _FINER)


@lru_cache(maxsize=4)
def _hankel(optics: Optics, pixel_A: float, entries: int) -> tuple[Array, Array]:
    """Frequencies (k,) and the matrix (k, entries) that makes a table of a transfer."""
    from scipy.special import j0

    k = _frequencies(optics)
    radius = np.sqrt(np.arange(entries) / STEPS_PER_PX2) * pixel_A
    measure = 2 * np.pi * k * (k[1] - k[0]) * pixel_A**2
    return k, measure[:, None] * j0(2 * np.pi * np.outer(k, radius))


def _transfers(optics: Optics, defocus_A: Array) -> Array:
    """Transfer (tilts, k) at defoci that may lie between the steps, linear between them."""
    at = defocus_A / DEFOCUS_STEP_A
    low = np.floor(at).astype(int)
    share = (at - low)[:, None]
    near, far = (np.stack([_transfer(optics, int(n)) for n in which]) for which in (low, low + 1))
    return (1 - share) * near + share * far


@lru_cache(maxsize=512)
def _transfer(optics: Optics, steps: int) -> Array:
    """Transfer (k,) at a defocus of so many steps, 1 at frequency 0."""
    from scipy.interpolate import CubicSpline

    limit = 1e-3 * optics.semiangle_mrad / optics.wavelength_A
    side = 2 * int(np.ceil(2 * limit * _BOX_A)) + 4
    k = np.fft.fftfreq(side, 1 / side) / _BOX_A
    square = k[:, None] ** 2 + k**2
    wavelength = optics.wavelength_A
    phase = np.pi * wavelength * square * (steps * DEFOCUS_STEP_A + 0.5 * optics.c30_A * wavelength**2 * square)
    # The rim of the aperture passes through pixels: each lets through about its share.
    pupil = np.clip((limit - np.sqrt(square)) * _BOX_A + 0.5, 0, 1) * np.exp(-1j * phase)
    otf = np.fft.fft2(np.abs(np.fft.ifft2(pupil)) ** 2).real[0, : side // 2]
    at = _frequencies(optics)
    curve = CubicSpline(np.arange(side // 2) / _BOX_A, otf / otf[0])(at)
    return np.where(at < optics.cutoff_per_A, curve, 0.0)
