"""The probe-forming lens and the propagation of free space.

The probe in the plane z (Å, along the beam, 0 = particle centre) is the inverse transform of
A(k) exp(iπλ(Δf − z)k² − iπ/2·λ³C30k⁴): the crossover lies Δf downstream of the particle centre, and free space of
thickness d multiplies the spectrum by exp(−iπλdk²) (Kirkland, Advanced Computing in Electron Microscopy,
doi:10.1007/978-1-4419-6533-2).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ptycho.grid import frequencies, ifft2

_HC_EV_A = 12398.419843320026
_TWICE_REST_ENERGY_EV = 2 * 510998.95


def wavelength_A(energy_eV: float) -> float:
    """Relativistic electron wavelength in Å: hc / sqrt(E (E + 2mc²))."""
    return _HC_EV_A / math.sqrt(energy_eV * (energy_eV + _TWICE_REST_ENERGY_EV))


@dataclass(frozen=True)
class Optics:
    """Aberrations of the illumination; `defocus_A` > 0: the crossover lies that far downstream (+z) of z = 0.

    Raises ValueError when the energy or the semiangle is not positive.
    """

    energy_eV: float
    semiangle_mrad: float
    defocus_A: float
    c30_A: float = 0.0

    def __post_init__(self) -> None:
        for name in ("energy_eV", "semiangle_mrad"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"{name} is {value}; expected a positive number, check its unit.")
        for name in ("defocus_A", "c30_A"):
            if not math.isfinite(getattr(self, name)):
                raise ValueError(f"{name} is {getattr(self, name)}; expected a finite length in Å.")

    @property
    def wavelength_A(self) -> float:
        """Electron wavelength in Å."""
        return wavelength_A(self.energy_eV)

    def probe(
        self,
        shape: tuple[int, int],
        pixel_A: tuple[float, float],
        z_A: float = 0.0,
        aperture: np.ndarray | None = None,
    ) -> np.ndarray:
        """Probe of unit total intensity in the plane z_A: complex128 (y, x), centred at index n // 2.

        aperture: amplitude (ky, kx), zero frequency at [0, 0], in place of the ideal disk.
        """
        k2 = _k_squared(shape, pixel_A)
        lam = self.wavelength_A
        phase = math.pi * lam * (self.defocus_A - z_A) * k2 - 0.5 * math.pi * lam**3 * self.c30_A * k2**2
        amplitude = self._aperture(k2, shape, pixel_A) if aperture is None else aperture
        spectrum = amplitude * np.exp(1j * phase)
        wave = np.fft.fftshift(ifft2(spectrum))
        return wave / np.linalg.norm(wave)

    def _aperture(self, k2: np.ndarray, shape: tuple[int, int], pixel_A: tuple[float, float]) -> np.ndarray:
        """Disk with an edge one detector pixel wide, in amplitude the square root of the covered share."""
        edge = max(1 / (n * p) for n, p in zip(shape, pixel_A, strict=True))
        radius = self.semiangle_mrad * 1e-3 / self.wavelength_A
        return np.sqrt(np.clip((radius - np.sqrt(k2)) / edge + 0.5, 0.0, 1.0))


def propagator(
    shape: tuple[int, int], pixel_A: tuple[float, float], distance_A: float, wavelength_A: float
) -> np.ndarray:
    """Spectrum multiplier exp(−iπλdk²) of free space of thickness d: complex128 (ky, kx), zero frequency at [0, 0]."""
    return np.exp(-1j * math.pi * wavelength_A * distance_A * _k_squared(shape, pixel_A))


def _k_squared(shape: tuple[int, int], pixel_A: tuple[float, float]) -> np.ndarray:
    ky, kx = (frequencies(n) / p for n, p in zip(shape, pixel_A, strict=True))
    return ky[:, None] ** 2 + kx[None, :] ** 2
