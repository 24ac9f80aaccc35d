"""Denoising of counted images: stabilise the variance, remove white noise of known deviation, go back unbiased.

The deviation is 1 at many electrons and what the transform really leaves (`noise_left`) at few; a denoiser told of more
than there is erases weak atoms.

On the tomograms measured for this package a denoiser costs accuracy at low dose (weak atoms vanish image by image);
it serves the eye, and those who follow the published method with BM3D (Dabov et al., doi:10.1109/TIP.2007.901238).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from scipy import ndimage

from tomo.noise import Noise, as_stack, noise_left, stabilise, unstabilise

Progress = Callable[[int, int, float], None]
RemoveNoise = Callable[[np.ndarray, float], np.ndarray]
METHODS = ("none", "wavelet", "nlm", "bm3d")
_GIVEN_BACK_PX = 8.0


def denoise(
    images: np.ndarray,
    noise: Noise | Sequence[Noise],
    method: str,
    *,
    strength: float = 1.0,
    progress: Progress | None = None,
    threads: int | None = None,
) -> np.ndarray:
    """Return the images (n, y, x) or (y, x) in counts, float32, with their noise removed.

    noise : of all images, or one for each. method : "none", "wavelet" (shift-invariant BayesShrink), "nlm" (non-local
    means) or "bm3d" (an optional package). strength : standard deviation of what is taken for noise, in units of the noise.
    threads : images worked on at once; None for all cores ("bm3d" has its own). Raises ValueError for an unknown method, a strength
    that is not positive or noises of another number, and ImportError where bm3d is asked for and not installed.
    """
    if method not in METHODS:
        raise ValueError(f"denoise is '{method}'; expected one of {', '.join(METHODS)}")
    if not (np.isfinite(strength) and strength > 0):
        raise ValueError(f"strength is {strength}; expected a positive number, 1 for the noise itself")
    stack = as_stack(images)
    noises = [noise] * len(stack) if isinstance(noise, Noise) else list(noise)
    if len(noises) != len(stack):
        raise ValueError(f"noise has {len(noises)} entries; expected one for each of the {len(stack)} images")
    if method == "none":
        return np.asarray(images, dtype=np.float32)
    remove_noise = _METHODS[method]()

    def clean(image: np.ndarray, own: Noise) -> np.ndarray:
        smooth = unstabilise(remove_noise(stabilise(image, own), strength * noise_left(image, own)), own)
        # Averages of unlike patches are biased by some percent at an electron per pixel; what was lost over lengths
        # where the image itself has little noise is given back.
        return (smooth + ndimage.gaussian_filter(image - smooth, _GIVEN_BACK_PX)).astype(np.float32)

    result = np.empty(stack.shape, np.float32)
    # bm3d has threads of its own, one set per process, and aborts when it is entered twice.
    at_once = 1 if method == "bm3d" else threads or os.cpu_count()
    with ThreadPoolExecutor(at_once) as pool:
        for i, image in enumerate(pool.map(clean, stack, noises)):
            result[i] = image
            if progress:
                progress(i + 1, len(stack), float("nan"))
    return result.reshape(np.shape(images))


def _wavelet() -> RemoveNoise:
    from skimage.restoration import denoise_wavelet

    # Averaging over shifts removes the blocks of a decimated transform; these eight, no two in one row or column, do
    # as well as all 64 shifts of three levels.
    shifts = [(i, 3 * i % 8) for i in range(8)]

    def remove_noise(image: np.ndarray, sigma: float) -> np.ndarray:
        levels = max(1, min(3, int(np.log2(min(image.shape) / 5))))
        total = np.zeros_like(image)
        for dy, dx in shifts:
            shifted = np.roll(image, (dy, dx), axis=(0, 1))
            clean = denoise_wavelet(shifted, sigma=sigma, wavelet="db3", method="BayesShrink", wavelet_levels=levels)
            total += np.roll(clean, (-dy, -dx), axis=(0, 1))
        return total / len(shifts)

    return remove_noise


def _nlm() -> RemoveNoise:
    from skimage.restoration import denoise_nl_means

    def remove_noise(image: np.ndarray, sigma: float) -> np.ndarray:
        return denoise_nl_means(image, patch_size=7, patch_distance=9, h=0.6 * sigma, sigma=sigma, fast_mode=True)

    return remove_noise


def _bm3d() -> RemoveNoise:
    try:
        from bm3d import bm3d
    except ImportError:
        raise ImportError("denoise='bm3d' needs the bm3d package: pip install pyaet[bm3d]") from None

    def remove_noise(image: np.ndarray, sigma: float) -> np.ndarray:
        return bm3d(image, sigma_psd=sigma)

    return remove_noise


_METHODS: dict[str, Callable[[], RemoveNoise]] = {
    "wavelet": _wavelet,
    "nlm": _nlm,
    "bm3d": _bm3d,
}
