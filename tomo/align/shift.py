"""Sub-pixel shifts by a phase ramp in Fourier space, on a frame wide enough that nothing wraps around; turns by splines."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

# Beyond the shift itself, for the ripples of a band-limited edge to die out.
MARGIN_PX = 16


def shifted(image: NDArray[np.floating], shift_px: NDArray[np.float64]) -> NDArray[np.floating]:
    """Image (y, x) whose content has moved by shift_px (y, x) towards higher indices; zeros come in at the edges."""
    if not np.any(shift_px):
        return image.copy()
    ny, nx = image.shape
    py, px = (
        fft.next_fast_len(int(n + np.ceil(abs(s)) + MARGIN_PX), real=True)
        for n, s in zip(image.shape, shift_px, strict=True)
    )
    ramp = np.outer(
        np.exp(-2j * np.pi * fft.fftfreq(py) * shift_px[0]), np.exp(-2j * np.pi * fft.rfftfreq(px) * shift_px[1])
    )
    moved = fft.irfft2(fft.rfft2(image.astype(np.float64), s=(py, px)) * ramp, s=(py, px))
    return moved[:ny, :nx].astype(image.dtype)


def turned(image: NDArray[np.generic], angle_deg: float, order: int = 3) -> NDArray[np.generic]:
    """Image (y, x) whose content has turned by angle_deg about index n // 2, x towards y, by splines of the order."""
    c, s = np.cos(np.radians(angle_deg)), np.sin(np.radians(angle_deg))
    back = np.array([[c, -s], [s, c]])
    half = np.array(image.shape) // 2
    return np.asarray(ndimage.affine_transform(image, back, half - back @ half, order=order, mode="nearest"))
