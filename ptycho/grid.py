"""The Fourier convention and the sampling of detector and object.

One place owns the discrete Fourier transform: unitary ("ortho"), zero frequency at index [0, 0]. Real-space windows carry
coordinate 0 at index n // 2. A detector of n pixels of `pixel_mrad` sees a real-space window of λ / pixel_mrad, so that the
object pixel is λ / (n · pixel_mrad).

Standard shapes: waves (pattern, mode, y, x), detector grids (ky, kx), object (slice, y, x).
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import scipy.fft

Array = Any
"""A numpy or cupy array; the library it is of decides where the work is done."""


def library_of(array: Array) -> Any:
    """numpy or cupy; cupy's arrays do not answer `__array_namespace__`."""
    library = type(array).__module__.partition(".")[0]
    return sys.modules["cupy"] if library == "cupy" else np


def fft2(a: Array, threads: int = 1) -> Array:
    """Unitary transform over the last two axes, real space to frequencies; `a` may be overwritten."""
    if isinstance(a, np.ndarray):
        return scipy.fft.fft2(a, norm="ortho", overwrite_x=True, workers=threads)
    return library_of(a).fft.fft2(a, norm="ortho")


def ifft2(a: Array, threads: int = 1) -> Array:
    """Inverse and adjoint of `fft2`; `a` may be overwritten."""
    if isinstance(a, np.ndarray):
        return scipy.fft.ifft2(a, norm="ortho", overwrite_x=True, workers=threads)
    return library_of(a).fft.ifft2(a, norm="ortho")


def rfft2(a: Array, threads: int = 1) -> Array:
    """Unitary transform of a real array over the last two axes: the half with non-negative kx."""
    if isinstance(a, np.ndarray):
        return scipy.fft.rfft2(a, norm="ortho", workers=threads)
    return library_of(a).fft.rfft2(a, norm="ortho")


def irfft2(a: Array, shape: tuple[int, int], threads: int = 1) -> Array:
    """Inverse of `rfft2` to real images of `shape`."""
    if isinstance(a, np.ndarray):
        return scipy.fft.irfft2(a, s=shape, norm="ortho", workers=threads)
    return library_of(a).fft.irfft2(a, s=shape, norm="ortho")


def to_numpy(a: Array) -> np.ndarray:
    """The same numbers in the memory of the CPU."""
    return a if isinstance(a, np.ndarray) else a.get()


def frequencies(n: int) -> np.ndarray:
    """Frequencies of an n-point transform in cycles per pixel, float64, zero first."""
    return np.fft.fftfreq(n)


def fast_size(n: int, lowest: int = 1) -> int:
    """Size nearest to n, not below `lowest`, that has no prime factor above 5; of two equally near the larger."""
    return min((k for k in range(max(lowest, n // 2), 2 * n + 1) if _smooth(k)), key=lambda k: (abs(k - n), -k))


def _smooth(n: int) -> bool:
    for p in (2, 3, 5):
        while n % p == 0:
            n //= p
    return n == 1


def pixel_A(wavelength_A: float, n: int, pixel_mrad: float) -> float:
    """Real-space pixel in Å of a detector of n pixels of `pixel_mrad`."""
    return wavelength_A / (n * pixel_mrad * 1e-3)


def centred_slice(outer: int, inner: int) -> slice:
    """Window of `inner` samples in an axis of `outer` that keeps index n // 2 on index n // 2."""
    start = outer // 2 - inner // 2
    return slice(start, start + inner)


def resize_centred(a: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Crop or zero-pad the last two axes about index n // 2."""
    out = np.zeros((*a.shape[:-2], *shape), a.dtype)
    common = tuple(min(p, q) for p, q in zip(a.shape[-2:], shape, strict=True))
    source = tuple(centred_slice(p, c) for p, c in zip(a.shape[-2:], common, strict=True))
    target = tuple(centred_slice(q, c) for q, c in zip(shape, common, strict=True))
    out[..., target[0], target[1]] = a[..., source[0], source[1]]
    return out
