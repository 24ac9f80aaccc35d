"""Poisson-Gaussian noise of detector images: estimation, variance stabilisation, exact unbiased inverse.

A reading is z = gain · Poisson(electrons) + offset + Normal(0, read_noise²), so its variance is a straight line in its
mean. The line is fitted to a whole stack without smoothing the structure away: with a high-pass kernel k (outer
product of fourth differences, Σk² = 1) and r = k * z, m = k² * z,

    E r² = gain · (E m − offset) + read_noise²

holds exactly for any image k does not see. m is itself noisy, which would tilt an ordinary fit; the surroundings of
the window, whose noise is independent, serve as instrument. The idea of the line: Foi et al., IEEE TIP 17, 1737
(2008), doi:10.1109/TIP.2008.2001399. Images are (y, x), stacks (n, y, x), in counts of the detector.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import ndimage, special

logger = logging.getLogger(__name__)

_DIFFERENCE = np.array([1.0, -4.0, 6.0, -4.0, 1.0]) / np.sqrt(70.0)
# Neighbouring r² are correlated; this many of them weigh as one independent sample: (Σ autocorrelation²)², per axis.
_SAMPLES_PER_INDEPENDENT = float(np.sum(np.correlate(_DIFFERENCE, _DIFFERENCE, "full") ** 2) ** 2)
_SURROUNDINGS_PX = 4.0
_INSIDE = np.s_[2:-2, 2:-2]
_OUTLIER = 8.0


@dataclass(frozen=True)
class Noise:
    """Noise of a detector: gain in counts per electron, read noise (rms) and offset in counts."""

    gain: float
    read_noise: float = 0.0
    offset: float = 0.0

    def __post_init__(self) -> None:
        if not (np.isfinite(self.gain) and self.gain > 0):
            raise ValueError(f"gain is {self.gain}; expected counts per electron, a positive number")
        if not (np.isfinite(self.read_noise) and self.read_noise >= 0):
            raise ValueError(f"read_noise is {self.read_noise}; expected an rms in counts, zero or more")

    def variance(self, mean: np.ndarray) -> np.ndarray:
        """Return the variance in counts² of readings with this mean in counts."""
        return self.gain * np.maximum(mean - self.offset, 0) + self.read_noise**2


def estimate_noise(images: np.ndarray, *, gain: float | None = None) -> Noise:
    """Return the noise that the images share.

    images : (n, y, x) or (y, x), counts, at least 16 × 16 pixels. gain : counts per electron where it is known.

    Read noise or an offset is reported only where the data ask for it (by more than two standard errors); a stack
    too flat to show the slope is taken as pure Poisson noise. Integer images with a gain of 1 within errors are
    counted electrons: the gain is then exactly 1. Images without white noise give gain 1 and a warning in the log.
    Raises ValueError for images too small, of negative mean where the gain is needed, or not finite.
    """
    return _estimated(as_stack(images), gain)[0]


def estimate_noises(images: np.ndarray, *, gain: float | None = None) -> list[Noise]:
    """Return the noise of each image on its own, for a detector that drifts from tilt to tilt.

    images : (n, y, x), counts, at least 16 × 16 pixels. gain : counts per electron of all images where it is known.

    One image shows its gain to some percent only. Gains that scatter no more than their standard errors are replaced
    by that of the whole series, others drawn to it by as much of their deviation as their errors explain (empirical
    Bayes, Efron & Morris, doi:10.1080/01621459.1975.10479864). Read noise or offset are what each image then asks for.
    Raises ValueError as `estimate_noise` does.
    """
    stack = as_stack(images)
    gains = np.full(len(stack), gain) if gain is not None else _settled_gains(stack)
    return [_estimated(image[None], float(own))[0] for image, own in zip(stack, gains, strict=True)]


def _settled_gains(stack: np.ndarray) -> np.ndarray:
    """Return the gain (n,) of each image, drawn to that of the series as far as standard errors explain it."""
    common = _estimated(stack, None)[0].gain
    fits = [_estimated(image[None], None) for image in stack]
    gains = np.array([noise.gain for noise, _ in fits])
    error2 = np.array([error for _, error in fits]) ** 2
    known = np.isfinite(error2)
    deviation2 = (gains[known] - common) ** 2
    n = int(known.sum())
    if n < 3 or np.sum(deviation2 / error2[known]) < n + 2 * np.sqrt(2 * n):
        return np.full(len(stack), common)
    excess = max(float(np.mean(deviation2 - error2[known])), 0.0)
    return np.where(known, common + excess / (excess + error2) * (gains - common), common)


def _estimated(stack: np.ndarray, gain: float | None) -> tuple[Noise, float]:
    """Return the noise that a stack shares and the standard error of its gain, infinite where there is no noise."""
    if min(stack.shape[1:]) < 16:
        raise ValueError(f"images has shape {stack.shape}; expected at least 16 × 16 pixels to estimate noise")
    if not _is_white(stack):
        logger.warning("the images hold no white noise (noise-free or resampled?); gain %g, no read noise", gain or 1)
        return Noise(gain or 1.0), np.inf
    residual2, mean, around = (np.concatenate(parts) for parts in zip(*map(_moments, stack), strict=True))
    if gain is not None:
        return _fit_intercept(residual2, mean, Noise(gain)), 0.0
    noise, gain_error = _fit_line(residual2, mean, around)
    near_one = noise == Noise(noise.gain) and abs(noise.gain - 1) < max(0.03, 3 * gain_error)
    # Up to rounding: counts that went through a scaling and back are still counts.
    counted = near_one and all(np.allclose(image, np.rint(image), rtol=0, atol=1e-6) for image in stack)
    return (Noise(1.0) if counted else noise), gain_error


def as_stack(images: np.ndarray) -> np.ndarray:
    """Return images as (n, y, x) after checking that they are real and finite; raise ValueError."""
    stack = np.asarray(images)
    if stack.ndim not in (2, 3) or stack.size == 0 or stack.dtype.kind not in "biuf":
        raise ValueError(f"images has shape {stack.shape} and type {stack.dtype}; expected real (n, y, x) or (y, x)")
    stack = stack[None] if stack.ndim == 2 else stack
    bad = [i for i, image in enumerate(stack) if not np.isfinite(image).all()]
    if bad:
        raise ValueError(f"images holds NaN or infinite values in {len(bad)} image(s), first in image {bad[0]}")
    return stack


def _moments(image: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return r², m and the instrument (mean of the surroundings, the 5 × 5 window left out), flat, borders cut."""
    z = np.asarray(image, dtype=np.float64)
    bell = np.exp(-(np.arange(-2, 3) ** 2) / (2 * _SURROUNDINGS_PX**2)) / (np.sqrt(2 * np.pi) * _SURROUNDINGS_PX)
    around = (ndimage.gaussian_filter(z, _SURROUNDINGS_PX)[_INSIDE] - _filtered(z, bell)) / (1 - bell.sum() ** 2)
    return _filtered(z, _DIFFERENCE).ravel() ** 2, _filtered(z, _DIFFERENCE**2).ravel(), around.ravel()


def _filtered(z: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Return z correlated with the outer product of a kernel of five, where it lies inside the image."""
    return ndimage.correlate1d(ndimage.correlate1d(z, kernel, axis=0), kernel, axis=1)[_INSIDE]


def _is_white(stack: np.ndarray) -> bool:
    """Return whether neighbouring residuals correlate as white noise makes them (−0.8) rather than smooth structure."""
    power, product = 0.0, 0.0
    for image in stack:
        r = _filtered(np.asarray(image, dtype=np.float64), _DIFFERENCE)
        power += float(np.sum(r**2))
        product += float(np.sum(r[1:] * r[:-1]) + np.sum(r[:, 1:] * r[:, :-1])) / 2
    return product < -0.5 * power


def _fit_line(residual2: np.ndarray, mean: np.ndarray, around: np.ndarray) -> tuple[Noise, float]:
    """Fit r² = gain · m + b by weighted instrumental variables; return the noise and the gain's standard error."""
    # The first guess leaves out the largest: one hot pixel in a thousand would hide the noise behind its own square.
    usual = residual2 <= np.quantile(residual2, 0.98)
    expected = np.full_like(around, 4 * residual2[usual].mean())
    for _ in range(4):
        keep = residual2 < _OUTLIER**2 * expected
        r2, m, s, weight = residual2[keep], mean[keep], around[keep], 1 / expected[keep] ** 2
        slope, intercept, errors = _instrumental_fit(r2, m, s, weight)
        if slope <= 2 * errors[0] or abs(intercept) <= 2 * errors[1]:
            slope, intercept = _slope_through_zero(r2, m, weight), 0.0
            errors = (slope * np.sqrt(2 * _SAMPLES_PER_INDEPENDENT / r2.size), 0.0)
        expected = np.maximum(slope * around + intercept, 0.05 * r2.mean())
    offset = max(0.0, -intercept / slope)
    return Noise(slope, float(np.sqrt(max(intercept, 0.0))), offset), errors[0]


def _fit_intercept(residual2: np.ndarray, mean: np.ndarray, noise: Noise) -> Noise:
    """Return the noise with the read noise or the offset that a known gain leaves."""
    rest = residual2 - noise.gain * mean
    intercept = float(rest.mean())
    if abs(intercept) <= 2 * rest.std() * np.sqrt(_SAMPLES_PER_INDEPENDENT / rest.size):
        return noise
    return Noise(noise.gain, float(np.sqrt(max(intercept, 0.0))), max(0.0, -intercept / noise.gain))


def _instrumental_fit(
    r2: np.ndarray, m: np.ndarray, s: np.ndarray, weight: np.ndarray
) -> tuple[float, float, tuple[float, float]]:
    total = weight.sum()
    s_mean, m_mean, r2_mean = (float(np.sum(weight * a) / total) for a in (s, m, r2))
    lever = weight * (s - s_mean)
    spread = float(np.sum(lever * m))
    if spread <= 0:
        return 0.0, r2_mean, (np.inf, np.inf)
    slope = float(np.sum(lever * r2)) / spread
    intercept = r2_mean - slope * m_mean
    error2 = _SAMPLES_PER_INDEPENDENT * (r2 - slope * m - intercept) ** 2
    slope_error = float(np.sqrt(np.sum(lever**2 * error2))) / spread
    intercept_error = float(np.sqrt(np.sum((weight / total - lever * m_mean / spread) ** 2 * error2)))
    return slope, intercept, (slope_error, intercept_error)


def _slope_through_zero(r2: np.ndarray, m: np.ndarray, weight: np.ndarray) -> float:
    mean = float(np.sum(weight * m))
    if mean <= 0:
        raise ValueError("images have a mean below zero, so that no gain fits their noise; give gain and read_noise")
    return float(np.sum(weight * r2)) / mean


def stabilise(images: np.ndarray, noise: Noise) -> np.ndarray:
    """Return images whose noise has standard deviation 1: the generalised Anscombe transform.

    f(z) = 2/gain · √(gain·(z − offset) + 3/8·gain² + read_noise²), zero where the root would be of a negative number.
    Source: Starck, Murtagh & Bijaoui (1998); doi:10.1109/TIP.2012.2202675.
    """
    z = (np.asarray(images, dtype=np.float64) - noise.offset) / noise.gain
    return 2 * np.sqrt(np.maximum(z + 0.375 + (noise.read_noise / noise.gain) ** 2, 0))


def unstabilise(stabilised: np.ndarray, noise: Noise) -> np.ndarray:
    """Return the mean in counts whose stabilised readings average to the given values: the exact unbiased inverse.

    Solves E[f(z) | electrons] = D by a table of the expectation, computed for this noise; below the value of zero
    electrons it is continued as a straight line, so that undershoot is not turned into a positive bias. Source:
    Mäkitalo & Foi, IEEE TIP 22, 91 (2013), doi:10.1109/TIP.2012.2202675.
    """
    values = np.asarray(stabilised, dtype=np.float64)
    sigma = noise.read_noise / noise.gain
    electrons, expected, _ = _table(round(sigma, 6))
    result = np.interp(values, expected, electrons)
    bright = values > expected[-1]
    result[bright] = values[bright] ** 2 / 4 - 0.125 - sigma**2  # the limit of many electrons
    dark = values < expected[0]
    slope = (electrons[1] - electrons[0]) / (expected[1] - expected[0])
    result[dark] = (values[dark] - expected[0]) * slope
    return noise.gain * result + noise.offset


def noise_left(image: np.ndarray, noise: Noise) -> float:
    """Return the standard deviation of the noise in the stabilised image (y, x), the root of its mean variance.

    1 from some three electrons per pixel on, less where there are fewer: 0.85 at one, 0.56 at 0.3. The mean of a pixel
    is that of its neighbourhood.
    """
    around = ndimage.gaussian_filter(np.asarray(image, dtype=np.float64), _SURROUNDINGS_PX)
    electrons, _, variance = _table(round(noise.read_noise / noise.gain, 6))
    mean = np.maximum((around - noise.offset) / noise.gain, 0)
    return float(np.sqrt(np.interp(mean, electrons, variance).mean()))


@lru_cache(maxsize=16)
def _table(sigma: float, brightest: float = 200.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return electrons, mean and variance of f for a gain of 1, summed over Poisson and integrated over normal noise."""
    electrons = np.linspace(0, np.sqrt(brightest), 2000) ** 2
    counts = np.arange(int(brightest + 12 * np.sqrt(brightest)) + 20)
    # Even steps out to 7 standard deviations: Gauss-Hermite would stumble over the kink of the root at zero.
    normal = np.linspace(-7, 7, 1401) if sigma else np.zeros(1)
    density = np.exp(-(normal**2) / 2)
    argument = counts[:, None] + sigma * normal + 0.375 + sigma**2
    root2 = np.maximum(argument, 0)
    of_count, square = 2 * np.sqrt(root2) @ (density / density.sum()), 4 * root2 @ (density / density.sum())
    log_weight = special.xlogy(counts, electrons[:, None]) - electrons[:, None] - special.gammaln(counts + 1)
    weight = np.exp(log_weight)
    mean = weight @ of_count
    return electrons, mean, weight @ square - mean**2
