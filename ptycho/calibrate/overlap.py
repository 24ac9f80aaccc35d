"""How well weak scattering with given aberrations, rotation and handedness explains the bright-field disk.

A weak phase φ changes the intensity of the detector pixel k at the spatial frequency q of the scan by i φ_q Γ(k, q),

    Γ(k, q) = P*(k) P(k − q) − P(k) P*(k + q),    P(k) = A(k) exp(iχ(k)),   χ(k) = πλ k·(C k) − ½πλ³ C30 k⁴

(Rodenburg and Bates, doi:10.1098/rsta.1992.0050). Where the disks overlap on both sides this is the image of the specimen
seen along k, shifted by C λk, times the contrast transfer sin(πλ q·C q); at the rim it is the deflection of the beam.
With D(k, q) the measured spectra in units of their counting noise, the best φ_q is the projection of D on Γ, and its energy

    S = Σ_q |Σ_k Γ* D|² / Σ_k |Γ|²

is the logarithm of the likelihood ratio against an empty field. It is largest at the right C (defocus and astigmatism),
rotation and handedness, and uses every electron of the disk once; shifting the images by pairs is the special case that
sees neither the contrast transfer nor the rim. The scan's frequencies are carried into the frame of the detector: q → M q,
M = R(rotation) · (exchange of y and x if transposed).

Standard shapes: spectra (q, pixel), k (2, pixel) and q (2, q) as (y, x) in 1/Å.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import scipy.fft

from ptycho.calibrate.disk import Disk, centred_grid
from ptycho.optics import Optics

_SUPER_PIXELS = 220
_LEAST_COVERED = 0.2
_HIGHEST = 0.7
_MOST_FREQUENCIES = 320
_IRREGULAR = 0.25
_CACHE_BYTES = 1 << 16


@dataclass(frozen=True)
class Illumination:
    """Aberrations and the frame of the scan: C = [[defocus + a, b], [b, defocus − a]] in (y, x) with astigmatism_A = (a, b),
    the angle by which the scan's vectors turn from +x towards +y into the detector's frame, and whether y and x are
    exchanged before."""

    defocus_A: float
    rotation_deg: float = 0.0
    transposed: bool = False
    astigmatism_A: tuple[float, float] = (0.0, 0.0)

    @property
    def aberrations_A(self) -> np.ndarray:
        """C (2, 2) in Å, axes (y, x)."""
        a, b = self.astigmatism_A
        return np.array([[self.defocus_A + a, b], [b, self.defocus_A - a]])

    @property
    def frame(self) -> np.ndarray:
        """M (2, 2), scan to detector, axes (y, x)."""
        return frame_matrix(self.rotation_deg, self.transposed)


def frame_matrix(rotation_deg: float, transposed: bool) -> np.ndarray:
    """Matrix (2, 2) in (y, x) that carries vectors of the scan into the frame of the detector: y and x are exchanged if
    `transposed`, then turned by rotation_deg from +x towards +y."""
    c, s = math.cos(math.radians(rotation_deg)), math.sin(math.radians(rotation_deg))
    turn = np.array([[c, s], [-s, c]])
    return turn[:, ::-1] if transposed else turn


@dataclass(frozen=True, eq=False)
class Overlap:
    """Spectra of super-pixels of the disk, (q, pixel) complex64 in units of their counting noise, and where they lie.

    k (2, pixel) and q (2, q) in 1/Å; weight (pixel,) share of the counting noise; dark (q,) spectrum of the dark field in units
    of its noise; radius of the aperture and side of a super-pixel (`edge`) in 1/Å.
    """

    spectra: np.ndarray
    k: np.ndarray
    q: np.ndarray
    weight: np.ndarray
    dark: np.ndarray
    radius: float
    edge: float
    wavelength_A: float
    c30_A: float

    @property
    def depth_of_field_A(self) -> float:
        """1 / (λ k²) at the rim of the aperture: the natural unit of defocus."""
        return 1 / (self.wavelength_A * self.radius**2)

    def low(self, highest: float, least: int = 24) -> Overlap:
        """The same at frequencies up to `highest` radii of the aperture, at least the `least` lowest."""
        length = np.hypot(*self.q)
        chosen = length <= max(highest * self.radius, float(np.sort(length)[min(least, len(length)) - 1]))
        return replace(self, spectra=self.spectra[chosen], q=self.q[:, chosen], dark=self.dark[chosen])

    def energy(self, at: Illumination) -> np.ndarray:
        """S of each frequency: (q,) float64."""
        overlap, norm, _ = self._explained(at)
        return np.abs(overlap) ** 2 / norm

    def positivity(self, at: Illumination) -> float:
        """Correlation of the best phase, seen through the probe's intensity, with the dark field in standard deviations."""
        overlap, norm, transfer = self._explained(at)
        expected = -1j * overlap / (norm + np.median(norm)) * transfer
        noise = math.sqrt(0.5 * float((np.abs(expected) ** 2).sum()))
        return float((expected.conj() * self.dark).real.sum() / noise) if noise > 0 else 0.0

    def _explained(self, at: Illumination) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Σ_k Γ* D, Σ_k |Γ|² and the transfer of the probe's intensity, (q,) each."""
        size = max(1, _CACHE_BYTES // (4 * len(self.weight)))
        parts = [self._part(at, slice(start, start + size)) for start in range(0, self.q.shape[1], size)]
        overlap, norm, transfer = (np.concatenate(column) for column in zip(*parts, strict=True))
        return overlap.astype(np.complex128), norm + 1e-3 * norm.max(), transfer

    def _part(self, at: Illumination, part: slice) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The same for some frequencies, with Γ = exp(−i odd) [(A₋ − A₊) cos even + i (A₋ + A₊) sin even]."""
        even, odd, lower, upper = self._phases(at, part)
        re = (lower - upper) * np.cos(even) * self.weight
        im = (lower + upper) * np.sin(even) * self.weight
        c, s = np.cos(odd), np.sin(odd)
        gamma = np.empty(re.shape, np.complex64)
        np.add(re * c, im * s, out=gamma.real)
        np.subtract(re * s, im * c, out=gamma.imag)
        overlap = np.einsum("qk,qk->q", gamma, self.spectra[part])
        norm = np.einsum("qk,qk->q", re, re) + np.einsum("qk,qk->q", im, im)
        transfer = (upper * (np.cos(even) * c - np.sin(even) * s)) @ self.weight / self.weight.sum()
        return overlap, norm.astype(np.float64), transfer

    def _phases(self, at: Illumination, part: slice) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Even and odd part of χ(k ± q) − χ(k) and the aperture at k − q and k + q, each (q, pixel) float32."""
        lam = self.wavelength_A
        q = (at.frame @ self.q[:, part]).astype(np.float32)
        bent = (2 * np.pi * lam * at.aberrations_A @ q).astype(np.float32)
        k = self.k.astype(np.float32)
        odd = bent.T @ k
        even = 0.5 * (q * bent).sum(0)[:, None]
        cross, k2, q2 = 2 * q.T @ k, (k * k).sum(0), (q * q).sum(0)[:, None]
        lower, upper = np.maximum(k2 + q2 - cross, 0), np.maximum(k2 + q2 + cross, 0)
        if self.c30_A:
            third = 0.5 * np.pi * lam**3 * self.c30_A
            even = even - third * (0.5 * (upper**2 + lower**2) - k2**2)
            odd = odd - 0.5 * third * (upper**2 - lower**2)
        return even, odd, self._aperture(lower), self._aperture(upper)

    def _aperture(self, k2: np.ndarray) -> np.ndarray:
        return np.clip((self.radius - np.sqrt(k2)) / self.edge + 0.5, 0.0, 1.0)


def super_pixels(disk: Disk, mask: np.ndarray, count: int = _SUPER_PIXELS) -> tuple[np.ndarray, np.ndarray, float]:
    """About `count` square groups of the good pixels of the disk: weights (ky, kx, group) of 0 and 1, the mean position
    (2, group) of each group in px from the centre of the disk, and the side of a square in px."""
    y, x = centred_grid(mask.shape, disk.centre_px)
    inside = mask & (np.hypot(y, x) < disk.radius_px + 0.5)
    side = max(1, math.ceil(math.sqrt(math.pi / count) * disk.radius_px - 0.25))
    cells = np.stack([np.rint(y[inside] / side), np.rint(x[inside] / side)], -1)
    label = np.unique(cells, axis=0, return_inverse=True)[1].reshape(-1)
    members = np.bincount(label)
    order = np.flatnonzero(members >= _LEAST_COVERED * side**2)
    weights = np.zeros((*mask.shape, len(order)), np.float32)
    weights[inside] = label[:, None] == order
    centres = np.stack([np.bincount(label, a[inside])[order] / members[order] for a in (y, x)])
    return weights, centres, float(side)


def scan_frequencies(positions_A: np.ndarray, scan_shape: tuple[int, int]) -> np.ndarray | None:
    """Frequencies q (2, ny, nx) in 1/Å of the transform over the scan; None when the positions are no regular grid."""
    ny, nx = scan_shape
    i, j = (a.ravel() - (n - 1) / 2 for a, n in zip(np.indices(scan_shape), scan_shape, strict=True))
    basis = np.column_stack([i, j])
    centred = positions_A - positions_A.mean(0)
    steps, *_ = np.linalg.lstsq(basis, centred, rcond=None)
    area = abs(np.linalg.det(steps))
    if area <= 0 or np.std(centred - basis @ steps) > _IRREGULAR * math.sqrt(area):
        return None
    index = np.stack(np.meshgrid(np.fft.fftfreq(ny), np.fft.fftfreq(nx), indexing="ij"))
    return np.einsum("ab,bij->aij", np.linalg.inv(steps), index)


def spectra_of_scan(images: np.ndarray, scan_shape: tuple[int, int], kept: np.ndarray) -> np.ndarray:
    """Transforms (ny, nx, m) of images (n, m) less their mean over the good patterns, scaled to keep white noise as it is."""
    ny, nx = scan_shape
    fluctuation = np.where(kept[:, None], images - images[kept].mean(0), 0.0).astype(np.float32)
    return scipy.fft.fft2(fluctuation.reshape(ny, nx, -1), axes=(0, 1), norm="ortho")


def half_plane(q: np.ndarray, highest: float) -> np.ndarray:
    """One of each pair ±q up to `highest`, without zero and the Nyquist lines: bool (ny, nx)."""
    ny, nx = q.shape[1:]
    i, j = np.meshgrid(np.fft.fftfreq(ny, 1 / ny), np.fft.fftfreq(nx, 1 / nx), indexing="ij")
    half = (i > 0) | ((i == 0) & (j > 0))
    return half & (np.abs(2 * i) < ny) & (np.abs(2 * j) < nx) & (np.hypot(*q) <= highest)


def measure_overlap(
    images: np.ndarray,
    centres_px: np.ndarray,
    side_px: float,
    dark: np.ndarray,
    kept: np.ndarray,
    q: np.ndarray,
    radius_px: float,
    optics: Optics,
) -> Overlap:
    """Spectra of super-pixels at the frequencies of the scan that hold the most energy.

    images (n, pixel): counts of super-pixels, centres_px (2, pixel) from the centre of the disk of radius_px, side_px of a
    square; dark (n,): counts of the dark field; kept (n,) True = good; q (2, ny, nx) of `scan_frequencies`.
    """
    mean = images[kept].mean(0)
    lit = mean > 0.1 * np.median(mean)
    radius = optics.semiangle_mrad * 1e-3 / optics.wavelength_A
    chosen = half_plane(q, _HIGHEST * radius)
    shape = (q.shape[1], q.shape[2])
    spectra = spectra_of_scan(images[:, lit], shape, kept)[chosen] / np.sqrt(mean[lit])
    shade = spectra_of_scan(dark[:, None], shape, kept)[..., 0]
    outer = half_plane(q, np.inf) & (np.hypot(*q) >= np.median(np.hypot(*q)))
    noise = math.sqrt(float(np.median(np.abs(shade[outer]) ** 2)) / math.log(2))
    energy = (np.abs(spectra) ** 2).sum(1)
    best = np.sort(np.argsort(-energy, kind="stable")[:_MOST_FREQUENCIES])
    return Overlap(
        spectra[best].astype(np.complex64),
        centres_px[:, lit] * radius / radius_px,
        q[:, chosen][:, best],
        np.sqrt(mean[lit] / mean[lit].max()).astype(np.float32),
        shade[chosen][best] / max(noise, 1e-30),
        radius,
        side_px * radius / radius_px,
        optics.wavelength_A,
        optics.c30_A,
    )
