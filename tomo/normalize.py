"""Background and total intensity of every tilt, with standard errors, from the images alone.

The particle is what stands clear of the noise in the mean of all images, brought together by their centres of mass: one
outline serves all tilts, because one drawn in each noisy image would move with its noise. The rim beyond it gives the
background, the inside the mass Σ (image − background); a particle inside the field has the same mass at every tilt.
Noise is measured per pixel by second differences along both axes, which see white noise fully and the far smoother
image hardly at all (Immerkær 1996, doi:10.1006/cviu.1996.0060); it needs no model of the detector.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

log = logging.getLogger(__name__)

# What stands this many standard deviations, and this share of the peak, above the surroundings is particle.
CLEAR_OF_NOISE = 5.0
CLEAR_OF_PEAK = 0.05
# Share of pixels without which a rim tells nothing about the background.
SMALLEST_RIM = 0.02
PLACING_ROUNDS = 10
# Parts of the outline smaller than this share of the largest are noise.
SPECK = 0.05
SECOND_DIFFERENCE = np.outer([1.0, -2.0, 1.0], [1.0, -2.0, 1.0]) / 6.0


@dataclass(frozen=True)
class Measured:
    """Values (n,) with their standard errors (n,)."""

    value: NDArray[np.float64]
    error: NDArray[np.float64]


def smoothing_px(image_shape: tuple[int, ...]) -> float:
    """Blur in px at which outlines are sought: 1/64 of the shorter side, at least 1.5."""
    return max(1.5, min(image_shape[-2:]) / 64)


def particle_masks(images: NDArray[np.floating]) -> NDArray[np.bool_]:
    """The outline of the mean particle, placed on the particle of each image: bool (n, y, x)."""
    place = np.zeros((len(images), 2), np.int64)
    for _ in range(PLACING_ROUNDS):
        mean = np.mean([_placed(image, -p) for image, p in zip(images, place, strict=True)], axis=0)
        outline = particle_mask(mean)
        masks = np.stack([_placed(outline, p) for p in place])
        moved = np.stack([_whole_centre(image, mask) for image, mask in zip(images, masks, strict=True)])
        if (moved == place).all():
            break
        place = moved
    return masks


def particle_mask(image: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Pixels (y, x) of the particle and of a margin of twice the smoothing round it; all of them if none stands out."""
    blur = smoothing_px(image.shape)
    smooth = ndimage.gaussian_filter(np.asarray(image, np.float64), blur, mode="reflect")
    dark = smooth[smooth <= _otsu(smooth)]
    level = np.median(dark)
    # From the darker half, because the brighter one holds the flanks of the particle.
    noise = 1.4826 * np.median(level - dark[dark <= level])
    threshold = level + max(CLEAR_OF_NOISE * noise, CLEAR_OF_PEAK * (np.percentile(smooth, 99.5) - level))
    bright = _without_specks(ndimage.binary_fill_holes(smooth > threshold))
    return grown(bright, 2.0 * blur) if bright.any() else np.ones(image.shape, np.bool_)


def grown(mask: NDArray[np.bool_], radius_px: float) -> NDArray[np.bool_]:
    """All pixels nearer than radius_px to the mask."""
    return ndimage.distance_transform_edt(~mask) <= radius_px


def noise_variance(images: NDArray[np.floating]) -> NDArray[np.float64]:
    """Unbiased, very rough variance of the noise of every pixel of images (n, y, x), to be summed over many pixels."""
    return np.stack([ndimage.convolve(np.asarray(image, np.float64), SECOND_DIFFERENCE) ** 2 for image in images])


def backgrounds(images: NDArray[np.floating], masks: NDArray[np.bool_]) -> Measured:
    """Mean of each image (n, y, x) beyond its particle mask (n, y, x); zero where hardly any rim is left."""
    values, errors = np.zeros(len(images)), np.zeros(len(images))
    for i, (image, mask) in enumerate(zip(images, masks, strict=True)):
        rim = image[~grown(mask, 2.0 * smoothing_px(image.shape))]
        if rim.size < SMALLEST_RIM * image.size:
            log.warning("tilt %d: the particle fills the image, no rim to take the background from; none subtracted", i)
            continue
        values[i], errors[i] = rim.mean(dtype=np.float64), rim.std(dtype=np.float64) / np.sqrt(rim.size)
    return Measured(values, errors)


def masses(images: NDArray[np.floating], masks: NDArray[np.bool_], background_error: NDArray[np.float64]) -> Measured:
    """Sum of each background-free image (n, y, x) over its mask; the error holds noise and background."""
    value = np.array([image[mask].sum(dtype=np.float64) for image, mask in zip(images, masks, strict=True)])
    variance = np.where(masks, noise_variance(images), 0.0).sum(axis=(1, 2))
    return Measured(value, np.sqrt(variance + (background_error * masks.sum(axis=(1, 2))) ** 2))


def settled(
    measured: Measured, basis: NDArray[np.float64], expected: NDArray[np.float64] | float = 0.0
) -> NDArray[np.float64]:
    """Values (n,) freed of as much of their own measurement noise as the series reveals.

    basis (n, m) spans what may vary smoothly along the series. When the values agree with the expected ones within
    their errors, the expected ones are returned: data that need no correction get none. Otherwise the fit of the
    basis is kept and each rest is shrunk by v / (v + error²), v being the variance of the rests in excess of their
    errors (empirical Bayes; Efron & Morris 1973, doi:10.2307/2284155). Large true deviations stay whole.
    """
    n, rank = len(basis), int(np.linalg.matrix_rank(basis))
    if n < rank + 3 or not (measured.error > 0).all():
        return measured.value
    deviation = measured.value - expected
    if is_noise(deviation / measured.error, n):
        return measured.value - deviation
    weight = 1.0 / measured.error[:, None]
    fit = basis @ np.linalg.lstsq(basis * weight, measured.value * weight[:, 0], rcond=None)[0]
    rest = measured.value - fit
    if is_noise(rest / measured.error, n - rank):
        return fit
    excess = max((rest**2).sum() / (n - rank) - (measured.error**2).mean(), 0.0)
    return fit + rest * excess / (excess + measured.error**2)


def _without_specks(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The connected parts of a mask that are not tiny beside the largest one."""
    labels, _ = ndimage.label(mask)
    area = np.bincount(labels.ravel())
    area[0] = 0
    return (area > SPECK * area.max())[labels]


def _placed(image: NDArray[Any], shift: NDArray[np.int64]) -> NDArray[Any]:
    """Image (y, x) moved by whole pixels (y, x); what comes in repeats the edge, so that a background has no step."""
    return ndimage.shift(image, shift, order=0, mode="nearest", prefilter=False)


def _whole_centre(image: NDArray[np.floating], mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Pixel (y, x) about coordinate 0 nearest to the centre of mass within the mask, above the background beyond it."""
    background = image[~mask].mean(dtype=np.float64) if not mask.all() else 0.0
    clear = np.where(mask, image - background, 0.0)
    if not clear.sum() > 0:
        return np.zeros(2, np.int64)
    centre = [(clear.sum(axis=1 - axis) * (np.arange(n) - n // 2)).sum() for axis, n in enumerate(image.shape)]
    half = np.array(image.shape) // 2
    return np.rint(np.clip(np.array(centre) / clear.sum(), -half, half)).astype(np.int64)


def is_noise(normalised: NDArray[np.float64], freedom: int) -> bool:
    """Whether the sum of squares lies within two standard deviations of what unit noise gives."""
    return bool((normalised**2).sum() < freedom + 2.0 * np.sqrt(2.0 * freedom))


def _otsu(values: NDArray[np.float64]) -> float:
    """Threshold that maximises the variance between the two classes (Otsu 1979, doi:10.1109/TSMC.1979.4310076)."""
    count, edges = np.histogram(values, 256)
    centre = (edges[1:] + edges[:-1]) / 2
    below = np.cumsum(count)[:-1]
    above = values.size - below
    mass = np.cumsum(count * centre)
    gap = mass[:-1] / np.maximum(below, 1) - (mass[-1] - mass[:-1]) / np.maximum(above, 1)
    return float(edges[1:-1][np.argmax(below * above * gap**2)])
