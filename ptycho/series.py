"""What the tilts of one series must have in common, as numbers to compare them by.

All tilts see the same lens and the same particle: their probes overlap, and their phases add up to the same total, because the
projected potential of a particle does not depend on the direction it is seen from (the zeroth moment of the Radon transform).

Standard shapes: probe (mode, y, x), probes (tilt, y, x), phase (y, x), values (tilt,).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ptycho.grid import fft2, frequencies
from ptycho.optics import Optics
from ptycho.phase import find_vacuum

_INSIDE = 0.9
_MAD_TO_SIGMA = 1.4826


@dataclass(frozen=True)
class LowAberrations:
    """Defocus and twofold astigmatism of a probe, in the notation of `Optics`."""

    defocus_A: float
    c12_A: float
    phi12_deg: float


def low_aberrations(probe: np.ndarray, pixel_A: float, optics: Optics, z_A: float = 0.0) -> LowAberrations:
    """Defocus and astigmatism fitted to the phase of the probe's spectrum inside the aperture.

    probe: complex (mode, y, x) or (y, x) in the plane z_A, centred; of several modes the first is taken. optics: the stated
    lens; its aberrations are taken off first, so that only small phases are left, and those not fitted are trusted.
    Raises ValueError when the aperture holds too few pixels.
    """
    wave = probe.reshape(-1, *probe.shape[-2:])[0].astype(np.complex128)
    pixels = (pixel_A, pixel_A)
    ideal = optics.probe(wave.shape, pixels, z_A, np.ones(wave.shape))
    spectrum = np.fft.fftshift(fft2(np.fft.ifftshift(wave)) * np.conj(fft2(np.fft.ifftshift(ideal))))
    edge = optics.semiangle_mrad * 1e-3 / optics.wavelength_A
    y, x = np.meshgrid(*(np.fft.fftshift(frequencies(n)) / pixel_A / edge for n in wave.shape), indexing="ij")
    inside = y**2 + x**2 < _INSIDE**2
    if inside.sum() < 20:
        raise ValueError(
            f"the aperture covers {int(inside.sum())} pixels of the probe's spectrum; expected at least 20."
        )
    basis = np.stack([np.ones_like(y), y, x, y**2 + x**2, x**2 - y**2, 2 * x * y], axis=-1)
    fitted = np.zeros(basis.shape[-1])
    # The slope of the phase needs no unwrapping; what it leaves is small enough to be fitted itself.
    for _ in range(3):
        fitted[1:] += _slopes(spectrum * np.exp(-1j * basis @ fitted), basis[..., 1:], inside)
    rest = spectrum * np.exp(-1j * basis @ fitted)
    rest *= np.exp(-1j * np.angle(rest[inside].sum()))
    fitted += _weighted(basis[inside], np.angle(rest[inside]), np.abs(rest[inside]) ** 2)
    return _as_aberrations(fitted[3:] / (math.pi * optics.wavelength_A * edge**2), optics)


def _slopes(spectrum: np.ndarray, basis: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Coefficients of the basis (y, x, term) that explain the phase differences of neighbouring pixels."""
    rows, targets, weights = [], [], []
    for before, after in (
        ((slice(None, -1), slice(None)), (slice(1, None), slice(None))),
        ((slice(None), slice(None, -1)), (slice(None), slice(1, None))),
    ):
        both = inside[before] & inside[after]
        product = (spectrum[after] * np.conj(spectrum[before]))[both]
        rows.append((basis[after] - basis[before])[both])
        targets.append(np.angle(product))
        weights.append(np.abs(product))
    return _weighted(np.concatenate(rows), np.concatenate(targets), np.concatenate(weights))


def _weighted(rows: np.ndarray, target: np.ndarray, weight: np.ndarray) -> np.ndarray:
    root = np.sqrt(weight)
    return np.linalg.lstsq(rows * root[:, None], target * root, rcond=None)[0]


def _as_aberrations(found_A: np.ndarray, optics: Optics) -> LowAberrations:
    """From what the phase holds beyond the stated lens, in Å: (defocus, −c12 cos 2φ, −c12 sin 2φ)."""
    turned = math.radians(2 * optics.phi12_deg)
    cosine = optics.c12_A * math.cos(turned) - float(found_A[1])
    sine = optics.c12_A * math.sin(turned) - float(found_A[2])
    return LowAberrations(
        optics.defocus_A + float(found_A[0]), math.hypot(cosine, sine), math.degrees(math.atan2(sine, cosine)) / 2
    )


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    """|⟨a, b⟩| / (|a| |b|) of two complex waves (y, x): 1 for equal shapes, whatever their brightness and global phase."""
    return float(abs(np.vdot(a, b)) / max(float(np.linalg.norm(a) * np.linalg.norm(b)), 1e-30))


def median_probe(probes: np.ndarray) -> np.ndarray:
    """Median wave (y, x) of probes (tilt, y, x) of unit power, their global phases turned to agree."""
    waves = probes / np.linalg.norm(probes, axis=(1, 2), keepdims=True)
    middle = waves[len(waves) // 2]
    for _ in range(2):
        turns = np.exp(-1j * np.angle(np.einsum("yx,nyx->n", middle.conj(), waves)))
        turned = waves * turns[:, None, None]
        middle = np.median(turned.real, axis=0) + 1j * np.median(turned.imag, axis=0)
    return middle


def total_phase(phase: np.ndarray, pixel_A: float) -> float:
    """Phase (y, x) in rad summed over the particle, in rad Å²: the same for all tilts of a particle."""
    particle = ~find_vacuum(phase, pixel_A)
    return float(phase[particle].sum(dtype=np.float64)) * pixel_A**2


def robust_z(values: np.ndarray, floor: float) -> np.ndarray:
    """Distance of each value (n,) from the median in robust standard deviations, of which one is at least `floor`."""
    away = values - np.median(values)
    return away / max(_MAD_TO_SIGMA * float(np.median(np.abs(away))), floor)
