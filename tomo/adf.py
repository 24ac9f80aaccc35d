"""Annular dark-field counts to projections: noise, optional denoising, background, electrons.

    projection = (image − background) / gain,      negative values kept: clipping them would bias every sum.

Without a denoiser the noise stays in the projections, white and unbiased, which is what the reconstruction and a
likelihood want. The background is what the image would show without the particle, detector offset included.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from tomo.background import (
    Smoothing,
    check_masks,
    constant_backgrounds,
    is_uneven,
    laplace_background,
    particle_mask,
)
from tomo.denoise import METHODS, Progress
from tomo.denoise import denoise as remove_noise
from tomo.noise import Noise, as_stack, estimate_noise, estimate_noises

_BACKGROUNDS = ("auto", "laplace", "none")
_NOISES = ("series", "image")
_MASKS: dict[str, Smoothing] = {"otsu": "gaussian", "edge_preserving": "edge_preserving"}


@dataclass(frozen=True)
class Conditioned:
    """Projections and how they came about.

    projections : float32 (n, y, x) in electrons per pixel, background taken off. masks : bool (n, y, x), True on the
    particle and its margin. gain : (n,) counts per electron. read_noise : (n,) rms in counts. backgrounds : float32
    (n, y, x) in electrons per pixel, what was taken off.
    """

    projections: np.ndarray
    masks: np.ndarray
    gain: np.ndarray
    read_noise: np.ndarray
    backgrounds: np.ndarray


def condition_adf(
    images: np.ndarray,
    *,
    gain: float | Literal["auto"] = "auto",
    read_noise: float | Literal["auto"] = "auto",
    noise: Literal["series", "image"] = "series",
    background: float | Literal["auto", "laplace", "none"] = "auto",
    denoise: Literal["none", "wavelet", "nlm", "bm3d"] = "none",
    denoise_strength: float = 1.0,
    mask: np.ndarray | Literal["otsu", "edge_preserving"] = "otsu",
    progress: Progress | None = None,
    threads: int | None = None,
) -> Conditioned:
    """Return the projections of an ADF tilt series.

    images : (n, y, x), counts of the detector, particle brighter than its surroundings.
    gain : counts per electron; read_noise : rms in counts; "auto" estimates them, as noise says from the whole series or
        from each image (`estimate_noises`).
    background : in counts; "auto" takes the level of the surroundings (`constant_backgrounds`) or, where these
        are uneven, the Laplace solution (`laplace_background`), as "laplace" always does; "none" takes nothing off.
    denoise : see `tomo.denoise`; "none" gives the most accurate tomograms at low dose. denoise_strength : what is taken
        for noise, in units of the noise; less than 1 leaves some of it and keeps weak atoms.
    mask : (y, x) or (n, y, x), True on the particle; "otsu" and "edge_preserving" find it in each image by Otsu's threshold,
        behind a Gaussian or an edge-preserving smoothing (`particle_mask`).
    progress : called with (images done, images, nan). threads : images worked on at once; None for all cores.

    Raises ValueError for arguments that do not fit and images without particle or surroundings; ImportError for
    "bm3d" without the package.
    """
    stack = as_stack(images)
    if np.ndim(images) != 3:
        raise ValueError(f"images has shape {np.shape(images)}; expected a tilt series (n, y, x)")
    _check_options(background, denoise, noise)
    noises = _noises(stack, gain, read_noise, noise)
    masks = _masks(stack, mask)
    clean = remove_noise(stack, noises, denoise, strength=denoise_strength, progress=progress, threads=threads)
    # From the noisy images: a denoiser pulls faint surroundings towards the particle.
    backgrounds = _backgrounds(stack, masks, background)
    gains, read_noises = (np.array([getattr(one, name) for one in noises]) for name in ("gain", "read_noise"))
    each = gains[:, None, None]
    projections = ((clean - backgrounds) / each).astype(np.float32)
    return Conditioned(projections, masks, gains, read_noises, (backgrounds / each).astype(np.float32))


def _check_options(background: float | str, method: str, noise: str) -> None:
    if isinstance(background, str) and background not in _BACKGROUNDS:
        raise ValueError(f"background is '{background}'; expected a number of counts or {', '.join(_BACKGROUNDS)}")
    if not isinstance(background, str) and not np.isfinite(background):
        raise ValueError(f"background is {background}; expected a finite number of counts")
    if method not in METHODS:
        raise ValueError(f"denoise is '{method}'; expected one of {', '.join(METHODS)}")
    if noise not in _NOISES:
        raise ValueError(f"noise is '{noise}'; expected one of {', '.join(_NOISES)}")


def _noises(stack: np.ndarray, gain: float | str, read_noise: float | str, of: str) -> list[Noise]:
    """Return the noise of each image."""
    for name, value in (("gain", gain), ("read_noise", read_noise)):
        if isinstance(value, str) and value != "auto":
            raise ValueError(f"{name} is '{value}'; expected a number or 'auto'")
    if not isinstance(gain, str) and not isinstance(read_noise, str):
        return [Noise(float(gain), float(read_noise))] * len(stack)
    known = None if isinstance(gain, str) else float(gain)
    found = estimate_noises(stack, gain=known) if of == "image" else [estimate_noise(stack, gain=known)] * len(stack)
    return found if isinstance(read_noise, str) else [Noise(n.gain, float(read_noise), n.offset) for n in found]


def _masks(stack: np.ndarray, mask: np.ndarray | str) -> np.ndarray:
    if isinstance(mask, str):
        if mask not in _MASKS:
            raise ValueError(f"mask is '{mask}'; expected an array or one of {', '.join(_MASKS)}")
        masks = np.stack([particle_mask(image, smoothing=_MASKS[mask]) for image in stack])
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
