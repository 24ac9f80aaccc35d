"""What the patterns know about each spatial frequency of the object: the curvature of the loss at vacuum.

To first order a phase φ in slice s changes the intensity by Σ_q φ_q exp(2πi q·R) Γ_s(k, q), with
Γ_s(k, q) = P_s*(k) P_s(k − q) − P_s(k) P_s*(k + q) and P_s the probe spectrum in the plane of the slice
(Rodenburg and Bates, doi:10.1098/rsta.1992.0050). Poisson counts then give the Fisher information

    H_st(q) = (positions per pixel) · Σ_k Re(Γ_s* Γ_t) / (Σ|P|² + offset)

and 1 / H is the variance of the noise in φ_q. Its inverse is the natural preconditioner of a gradient, and its ratio to the
expected power of the structure says which frequencies to trust (Wiener). An absorption (|object| = exp(−μ)) has the sum of
the two terms of Γ instead of their difference.

Standard shapes: radii (q,) in detector pixels, information (q, slice, slice), canvas filters (slice, slice, Y, X // 2 + 1).
"""

from __future__ import annotations

import numpy as np

_ATOM_WIDTH_A = 1.4
"""Length in the expected spectrum 1 / (1 + (q·length)²)⁴, close to the squared scattering factors of light elements."""


def vacuum_information(
    planes: np.ndarray,
    weight: np.ndarray,
    absorption: bool = False,
) -> np.ndarray:
    """Fisher information H (q, slice, slice) for q = 0, 1, … detector pixels, mean over the two axes.

    planes: (slice, mode, ky, kx) complex, spectrum of the probe in the plane of each slice, zero frequency at [0, 0];
    weight: (ky, kx) information per electron² of a pixel, 1 / (I + offset) for Poisson counts, × positions per object pixel.
    """
    weight = np.fft.fftshift(weight)
    planes = np.fft.fftshift(planes.astype(np.complex128), axes=(-2, -1))
    slices, n = len(planes), planes.shape[-1]
    intensity = (np.abs(planes[0]) ** 2).sum(0)
    inside = np.nonzero(intensity > 1e-6 * intensity.max())
    weight = weight[inside]
    sign = 1 if absorption else -1
    padded = np.pad(planes, ((0, 0), (0, 0), (n, n), (n, n)))
    out = np.zeros((n, slices, slices))
    for q in range(n):
        for step in ((q, 0), (0, q)):
            gamma = _overlap(planes, padded, inside, step, n, sign)
            out[q] += 0.5 * np.einsum("sk,tk,k->st", gamma.conj(), gamma, weight).real
    return out


def _overlap(planes: np.ndarray, padded: np.ndarray, inside: tuple, step: tuple, n: int, sign: int) -> np.ndarray:
    """Γ (slice, k) summed over modes for the shift `step`."""
    y, x = inside[0] + n, inside[1] + n
    here = planes[..., inside[0], inside[1]]
    before = padded[..., y - step[0], x - step[1]]
    after = padded[..., y + step[0], x + step[1]]
    return (here.conj() * before + sign * here * after.conj()).sum(1)


def expected_spectrum(q_per_A: np.ndarray) -> np.ndarray:
    """Shape of the power spectrum of a projected phase of atoms, 1 at frequency zero."""
    return (1 + (q_per_A * _ATOM_WIDTH_A) ** 2) ** -4.0


def canvas_radii(canvas: tuple[int, int], window: int) -> np.ndarray:
    """|q| of each coefficient of a real transform of the canvas, in detector pixels: (Y, X // 2 + 1)."""
    return window * np.hypot(np.fft.fftfreq(canvas[0])[:, None], np.fft.rfftfreq(canvas[1])[None, :])


def inverse_on_canvas(information: np.ndarray, radii: np.ndarray) -> np.ndarray:
    """(H)⁻¹ interpolated to the canvas: (slice, slice, Y, X // 2 + 1); H (q, slice, slice) must be positive definite."""
    inverse = np.linalg.inv(information)
    q = np.arange(len(inverse))
    slices = inverse.shape[1]
    return np.stack([[np.interp(radii, q, inverse[:, s, t]) for t in range(slices)] for s in range(slices)])


def measured_power(
    phase: np.ndarray, pixel_A: float, information: np.ndarray, shrinkage: np.ndarray, window: int, highest_per_A: float
) -> float:
    """Strength (rad² per coefficient) of `expected_spectrum` in a phase image (y, x), freed of noise and of damping.

    information: (q,) of the summed phase; shrinkage: (q,) factor by which the estimate is damped; frequencies from 15 % to
    55 % of `highest_per_A` are used, where structure is strong and the noise well known.
    """
    taper = np.hanning(phase.shape[0] + 2)[1:-1, None] * np.hanning(phase.shape[1] + 2)[None, 1:-1]
    mean = (phase * taper).sum() / taper.sum()
    power = np.abs(np.fft.fft2((phase - mean) * taper)) ** 2 / (taper**2).sum()
    q = np.hypot(*np.meshgrid(*(np.fft.fftfreq(n) for n in phase.shape), indexing="ij"))
    band = (q / pixel_A > 0.15 * highest_per_A) & (q / pixel_A < 0.55 * highest_per_A)
    bins = np.arange(len(information))
    noise = 1 / np.interp(q[band] * window, bins, information)
    damping = np.interp(q[band] * window, bins, shrinkage)
    if not band.any():
        return 0.0
    return float((power[band] / damping**2 - noise).sum() / expected_spectrum(q[band] / pixel_A).sum())
