"""The probe-forming lens and the propagation of free space.

The probe in the plane z (Å, along the beam, 0 = particle centre) is the inverse transform of
A(k) exp(iπλ(Δf − z)k² − iπ/2·λ³C30k⁴): the crossover lies Δf downstream of the particle centre, and free space of
thickness d multiplies the spectrum by exp(−iπλdk²) (Kirkland, Advanced Computing in Electron Microscopy,
doi:10.1007/978-1-4419-6533-2).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, fields

import numpy as np

from ptycho.grid import frequencies, ifft2

_HC_EV_A = 12398.419843320026
_TWICE_REST_ENERGY_EV = 2 * 510998.95
_MODE_SHARE = 0.02


def wavelength_A(energy_eV: float) -> float:
    """Relativistic electron wavelength in Å: hc / sqrt(E (E + 2mc²))."""
    return _HC_EV_A / math.sqrt(energy_eV * (energy_eV + _TWICE_REST_ENERGY_EV))


@dataclass(frozen=True)
class Optics:
    """Aberrations and coherence of the illumination.

    defocus_A > 0: the crossover lies that far downstream (+z) of z = 0. c12_A, phi12_deg: twofold astigmatism, c21_A,
    phi21_deg: axial coma, c23_A, phi23_deg: threefold astigmatism, c30_A: spherical aberration, in the notation of Krivanek
    (doi:10.1016/S0304-3991(99)00013-3) with azimuths from x towards y. focal_spread_A, source_size_A: standard deviations of
    the defocus (temporal coherence) and of the source image at the specimen (spatial coherence).
    Raises ValueError when the energy or the semiangle is not positive, or a length is not finite.
    """

    energy_eV: float
    semiangle_mrad: float
    defocus_A: float
    c30_A: float = 0.0
    c12_A: float = 0.0
    phi12_deg: float = 0.0
    c21_A: float = 0.0
    phi21_deg: float = 0.0
    c23_A: float = 0.0
    phi23_deg: float = 0.0
    focal_spread_A: float = 0.0
    source_size_A: float = 0.0

    def __post_init__(self) -> None:
        for name in ("energy_eV", "semiangle_mrad"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"{name} is {value}; expected a positive number, check its unit.")
        for item in fields(self):
            if not math.isfinite(getattr(self, item.name)):
                raise ValueError(f"{item.name} is {getattr(self, item.name)}; expected a finite number.")
        for name in ("focal_spread_A", "source_size_A"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}; expected a standard deviation in Å, not below 0.")

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
        spectrum = self._spectrum(shape, pixel_A, z_A, aperture)
        wave = np.fft.fftshift(ifft2(spectrum))
        return wave / np.linalg.norm(wave)

    def probe_modes(
        self,
        count: int,
        shape: tuple[int, int],
        pixel_A: tuple[float, float],
        z_A: float = 0.0,
        aperture: np.ndarray | None = None,
    ) -> np.ndarray:
        """Orthogonal probes (mode, y, x) whose intensities add up to the partially coherent probe, strongest first.

        The focal spread and the source size are averaged by Gauss–Hermite quadrature and the strongest `count` modes of the
        mixture kept. Without either the modes beyond the first are the probe's own low-order derivatives, with 2 % of the
        power each: a start from which a refinement finds them.
        """
        spectrum = self._spectrum(shape, pixel_A, z_A, aperture)
        if count == 1 and not (self.focal_spread_A or self.source_size_A):
            members = spectrum[None]
        elif self.focal_spread_A or self.source_size_A:
            members = np.stack([spectrum * factor for factor in self._mixture(shape, pixel_A)])
        else:
            members = np.stack([spectrum * factor for factor in _derivatives(count, shape, pixel_A, spectrum)])
        flat = members.reshape(len(members), -1)
        power, mixing = np.linalg.eigh(flat @ flat.conj().T)
        strongest = np.argsort(power)[::-1][:count]
        modes = (mixing[:, strongest].conj().T @ flat).reshape(-1, *shape)
        modes *= np.exp(-1j * np.angle(np.vdot(spectrum, modes[0])))
        waves = np.fft.fftshift(ifft2(modes), axes=(-2, -1))
        return waves / np.linalg.norm(waves)

    def _spectrum(
        self, shape: tuple[int, int], pixel_A: tuple[float, float], z_A: float, aperture: np.ndarray | None
    ) -> np.ndarray:
        ky, kx = _axes(shape, pixel_A)
        k2, azimuth, lam = ky**2 + kx**2, np.arctan2(ky, kx), self.wavelength_A
        phase = math.pi * lam * (self.defocus_A - z_A) * k2 - 0.5 * math.pi * lam**3 * self.c30_A * k2**2
        phase -= math.pi * lam * self.c12_A * k2 * np.cos(2 * (azimuth - math.radians(self.phi12_deg)))
        third = 2 * math.pi / 3 * lam**2 * k2**1.5
        phase -= third * self.c21_A * np.cos(azimuth - math.radians(self.phi21_deg))
        phase -= third * self.c23_A * np.cos(3 * (azimuth - math.radians(self.phi23_deg)))
        amplitude = self._aperture(k2, shape, pixel_A) if aperture is None else aperture
        return amplitude * np.exp(1j * phase)

    def _mixture(self, shape: tuple[int, int], pixel_A: tuple[float, float]) -> Iterator[np.ndarray]:
        """Weighted multipliers (ky, kx) of the members of the partially coherent mixture."""
        ky, kx = _axes(shape, pixel_A)
        nodes, weights = np.polynomial.hermite_e.hermegauss(5)
        weights = weights / weights.sum()
        rates = (
            math.pi * self.wavelength_A * self.focal_spread_A * (ky**2 + kx**2),
            2 * math.pi * self.source_size_A * ky,
            2 * math.pi * self.source_size_A * kx,
        )
        for at in itertools.product(*(range(5) if np.any(rate) else (2,) for rate in rates)):
            weight = math.prod(weights[i] if np.any(r) else 1.0 for i, r in zip(at, rates, strict=True))
            yield math.sqrt(weight) * np.exp(1j * sum(nodes[i] * r for i, r in zip(at, rates, strict=True)))

    def _aperture(self, k2: np.ndarray, shape: tuple[int, int], pixel_A: tuple[float, float]) -> np.ndarray:
        """Disk with an edge one detector pixel wide, in amplitude the square root of the covered share."""
        edge = max(1 / (n * p) for n, p in zip(shape, pixel_A, strict=True))
        radius = self.semiangle_mrad * 1e-3 / self.wavelength_A
        return np.sqrt(np.clip((radius - np.sqrt(k2)) / edge + 0.5, 0.0, 1.0))


def _derivatives(
    count: int, shape: tuple[int, int], pixel_A: tuple[float, float], spectrum: np.ndarray
) -> Iterator[np.ndarray]:
    """Multipliers 1, k_x, k_y, k_x², … (ky, kx) that give a spectrum 1, 2 %, 2 %, … of its power."""
    ky, kx = _axes(shape, pixel_A)
    orders = sorted(itertools.product(range(count), repeat=2), key=lambda o: (sum(o), o))[:count]
    total = float((np.abs(spectrum) ** 2).sum())
    for py, px in orders:
        factor = ky**py * kx**px + np.zeros(shape)
        power = float((np.abs(factor * spectrum) ** 2).sum())
        yield factor * math.sqrt((1.0 if py == px == 0 else _MODE_SHARE) * total / power)


def propagator(
    shape: tuple[int, int], pixel_A: tuple[float, float], distance_A: float, wavelength_A: float
) -> np.ndarray:
    """Spectrum multiplier exp(−iπλdk²) of free space of thickness d: complex128 (ky, kx), zero frequency at [0, 0]."""
    ky, kx = _axes(shape, pixel_A)
    return np.exp(-1j * math.pi * wavelength_A * distance_A * (ky**2 + kx**2))


def _axes(shape: tuple[int, int], pixel_A: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    """Spatial frequencies (ky, 1) and (1, kx) in 1/Å."""
    ky, kx = (frequencies(n) / p for n, p in zip(shape, pixel_A, strict=True))
    return ky[:, None], kx[None, :]
