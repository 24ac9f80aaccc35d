"""Annular dark-field counts to projections: noise, optional denoising, background, electrons.

    projection = (image − background) / gain,      negative values kept: clipping them would bias every sum.

Without a denoiser the noise stays in the projections, white and unbiased, which is what the reconstruction and a
likelihood want. The background is what the image would show without the particle, detector offset included.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from tomo.background import check_masks, constant_backgrounds, is_uneven, laplace_background, particle_mask
from tomo.denoise import METHODS, Progress
from tomo.denoise import denoise as remove_noise
from tomo.noise import Noise, as_stack, estimate_noise

_BACKGROUNDS = ("auto", "laplace", "none")


@dataclass(frozen=True)
class Conditioned:
    """Projections and how they came about.

    projections : float32 (n, y, x) in electrons per pixel, background taken off. masks : bool (n, y, x), True on the
    particle and its margin. gain : counts per electron. read_noise : rms in counts. backgrounds : float32 (n, y, x) in
    electrons per pixel, what was taken off.
    """

    projections: np.ndarray
    masks: np.ndarray
    gain: float
    read_noise: float
    backgrounds: np.ndarray


def condition_adf(
    images: np.ndarray,
    *,
    gain: float | Literal["auto"] = "auto",
    read_noise: float | Literal["auto"] = "auto",
    background: float | Literal["auto", "laplace", "none"] = "auto",
    denoise: Literal["none", "wavelet", "nlm", "bm3d"] = "none",
    mask: np.ndarray | None = None,
    progress: Progress | None = None,
    threads: int | None = None,
) -> Conditioned:
    """Return the projections of an ADF tilt series.

    images : (n, y, x), counts of the detector, particle brighter than its surroundings.
    gain : counts per electron; read_noise : rms in counts; "auto" estimates them from the whole stack.
    background : in counts; "auto" takes the level of the surroundings (`constant_backgrounds`) or, where these
        are uneven, the Laplace solution (`laplace_background`), as "laplace" always does; "none" takes nothing off.
    denoise : see `tomo.denoise`; "none" gives the most accurate tomograms at low dose.
    mask : (y, x) or (n, y, x), True on the particle; None finds it in each image by Otsu's threshold.
    progress : called with (images done, images, nan). threads : images worked on at once; None for all cores.

    Raises ValueError for arguments that do not fit and images without particle or surroundings; ImportError for
    "bm3d" without the package.
    """
    stack = as_stack(images)
    if np.ndim(images) != 3:
        raise ValueError(f"images has shape {np.shape(images)}; expected a tilt series (n, y, x)")
    _check_options(background, denoise)
    noise = _noise(stack, gain, read_noise)
    masks = _masks(stack, mask)
    clean = remove_noise(stack, noise, denoise, progress=progress, threads=threads)
    # From the noisy images: a denoiser pulls faint surroundings towards the particle.
    backgrounds = _backgrounds(stack, masks, background)
    projections = ((clean - backgrounds) / noise.gain).astype(np.float32)
    return Conditioned(projections, masks, noise.gain, noise.read_noise, backgrounds / np.float32(noise.gain))


def _check_options(background: float | str, method: str) -> None:
    if isinstance(background, str) and background not in _BACKGROUNDS:
        raise ValueError(f"background is '{background}'; expected a number of counts or {', '.join(_BACKGROUNDS)}")
    if not isinstance(background, str) and not np.isfinite(background):
        raise ValueError(f"background is {background}; expected a finite number of counts")
    if method not in METHODS:
        raise ValueError(f"denoise is '{method}'; expected one of {', '.join(METHODS)}")


def _noise(stack: np.ndarray, gain: float | str, read_noise: float | str) -> Noise:
    for name, value in (("gain", gain), ("read_noise", read_noise)):
        if isinstance(value, str) and value != "auto":
            raise ValueError(f"{name} is '{value}'; expected a number or 'auto'")
    if not isinstance(gain, str) and not isinstance(read_noise, str):
        return Noise(float(gain), float(read_noise))
    found = estimate_noise(stack, gain=None if isinstance(gain, str) else float(gain))
    return found if isinstance(read_noise, str) else Noise(found.gain, float(read_noise), found.offset)


def _masks(stack: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
    if mask is None:
        masks = np.stack([particle_mask(image) for image in stack])
    else:
        mask = np.asarray(mask)
        if mask.shape not in (stack.shape, stack.shape[1:]):
            raise ValueError(f"mask has shape {mask.shape}; expected {stack.shape[1:]} or {stack.shape}")
        masks = np.array(np.broadcast_to(mask.astype(bool), stack.shape))
    return masks


def _backgrounds(stack: np.ndarray, masks: np.ndarray, background: float | str) -> np.ndarray:
    """Return backgrounds (n, y, x) in counts."""
    if not isinstance(background, str) or background == "none":
        level = 0.0 if isinstance(background, str) else float(background)
        return np.full(stack.shape, level, np.float32)
    check_masks(masks)
    if background == "laplace" or is_uneven(stack, masks):
        pairs = zip(stack, masks, strict=True)
        return np.stack([laplace_background(image, mask).astype(np.float32) for image, mask in pairs])
    levels = constant_backgrounds(stack, masks).astype(np.float32)
    return np.repeat(levels, stack[0].size).reshape(stack.shape)
