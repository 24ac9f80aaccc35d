"""The Poisson loss that counting noise alone leaves.

At the truth a pixel with mean I costs on average E[(n + c) ln((n + c) / (I + c))] with n Poisson of mean I: half a unit where
I is large, less where hardly an electron arrives. Sum and variance over all pixels turn a loss into an absolute goodness
of fit, the deviance test of generalised linear models (McCullagh and Nelder, doi:10.1007/978-1-4899-3242-6).

Standard shapes: intensities of any shape, electrons.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from scipy.special import gammaln, xlogy

_STEP = 0.001
_LARGE = 30.0
_MOST_COUNTS = 110


def poisson_loss(counts: np.ndarray, intensity: np.ndarray, offset: float) -> np.ndarray:
    """(I − n) − (n + c) ln((I + c) / (n + c)) of each pixel: negative log-likelihood above that of a perfect model."""
    data, model = counts + offset, intensity + offset
    return model - data + xlogy(data, data / np.maximum(model, 1e-30))


def expected_loss(intensity: np.ndarray, offset: float) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance of `poisson_loss` of each pixel when `intensity` is the true mean."""
    mean, variance = _table(float(offset))
    index = np.rint(np.sqrt(np.clip(intensity, 0, _LARGE)) / _STEP).astype(np.intp)
    mean, variance = mean[index], variance[index]
    large = intensity > _LARGE
    if large.any():
        mean[large], variance[large] = _expansion(intensity[large], offset)
    return mean, variance


@lru_cache(maxsize=8)
def _table(offset: float) -> tuple[np.ndarray, np.ndarray]:
    """Sums over the Poisson distribution, on a grid uniform in sqrt(I)."""
    intensity = (_STEP * np.arange(int(np.sqrt(_LARGE) / _STEP) + 2)) ** 2
    mean, square = np.zeros_like(intensity), np.zeros_like(intensity)
    for n in range(_MOST_COUNTS):
        probability = np.exp(xlogy(n, intensity) - intensity - gammaln(n + 1))
        loss = poisson_loss(np.array(float(n)), intensity, offset)
        mean += probability * loss
        square += probability * loss**2
    return mean, square - mean**2


def _expansion(intensity: np.ndarray, offset: float) -> tuple[np.ndarray, np.ndarray]:
    """The same for many electrons, from the central moments I, I, 3I² + I of the counts and the derivatives of the loss."""
    i, m = np.asarray(intensity, np.float64), np.asarray(intensity, np.float64) + offset
    fourth, fifth, sixth = 3 * i**2 + i, 10 * i**2 + i, 15 * i**3 + 25 * i**2 + i
    mean = i / (2 * m) - i / (6 * m**2) + fourth / (12 * m**3) - fifth / (20 * m**4) + sixth / (30 * m**5)
    square = fourth / (4 * m**2) - fifth / (6 * m**3) + sixth * (1 / 36 + 1 / 12) / m**4
    return mean, square - mean**2
