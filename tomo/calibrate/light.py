"""Scale and background of every image, by linear least squares against the image that the points make.

    image_t ≈ scale_t · model_t + background_t

What is not to be refined stays, but for one factor common to all scales: the points have no brightness of their own.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Images = NDArray[np.floating]


def fitted(
    images: Images, weights: Images, model: Images, scales: Array, backgrounds: Array, free: tuple[bool, bool]
) -> tuple[Array, Array]:
    """Scales and backgrounds (n,) of images (n, y, x) with inverse variances as weights; free: whether each is refined."""
    moments = np.array([_moments(*each) for each in zip(images, weights, model, strict=True)])
    mm, m, one, mi, i = moments.T
    if free[1]:
        square, product = mm - m**2 / one, mi - m * i / one
    else:
        square, product = mm, mi - m * backgrounds
    best = product / square if free[0] else scales * (scales * product).sum() / (scales**2 * square).sum()
    return best, (i - best * m) / one if free[1] else backgrounds


def errors(
    images: Images,
    weights: Images,
    model: Images,
    scales: Array,
    backgrounds: Array,
    free: tuple[bool, bool],
    block_px: int,
) -> tuple[Array, Array]:
    """Standard deviations (n,) of the scales and backgrounds, from the scatter of what is left, summed over blocks of pixels."""
    of_scale, of_background = np.zeros(len(images)), np.zeros(len(images))
    for t, (image, weight, seen) in enumerate(zip(images, weights, model, strict=True)):
        mm, m, one, _, _ = _moments(image, weight, seen)
        pull = weight * (scales[t] * seen + backgrounds[t] - image)
        flat, bright = (m / one if free[1] else 0.0), (m / mm if free[0] else 0.0)
        if free[0]:
            of_scale[t] = _scatter(pull * (seen - flat), block_px) / (mm - flat * m)
        if free[1]:
            of_background[t] = _scatter(pull * (1 - bright * seen), block_px) / (one - bright * m)
    return of_scale, of_background


def _moments(image: Images, weight: Images, model: Images) -> tuple[float, float, float, float, float]:
    """Weighted sums of model², model, 1, model · image and image."""
    w, m, i = (part.ravel().astype(np.float64) for part in (weight, model, image))
    wm = w * m
    return float(wm @ m), float(wm.sum()), float(w.sum()), float(wm @ i), float(w @ i)


def _scatter(pulls: Images, block_px: int) -> float:
    """Root of the summed squares of the sums over blocks: neighbouring pixels share what the points leave over."""
    sums = np.add.reduceat(pulls.astype(np.float64), np.arange(0, pulls.shape[0], block_px), axis=0)
    sums = np.add.reduceat(sums, np.arange(0, pulls.shape[1], block_px), axis=1)
    return float(np.sqrt(np.square(sums).sum()))
