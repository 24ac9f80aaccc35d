"""Positions along the tilt axis from the common line.

Summed across the tilt axis, all images of a tilt series about one axis give the same profile: by the central slice
theorem they share the line of frequencies along the axis. Each profile is fitted by the mean of all, moved, scaled
and offset:

    p_t(y) ≈ α m(y) − α d m'(y) + β        (linear least squares for α, β and α d; d is the displacement)

and the mean is formed anew from the moved profiles until nothing moves any more. What channelling does to the centre
of mass it does to the profile too, half as much in the simulations mentioned there.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from tomo.normalize import Measured, is_noise, noise_variance

TOLERANCE_PX = 0.002
MAX_ROUNDS = 30
# Both profiles are blurred alike, which moves neither; the slope of the mean is useless where noise rules.
BLUR_PX = 1.5
CHANNELLING = 0.005


def displacements(images: NDArray[np.floating], masks: NDArray[np.bool_]) -> Measured:
    """Displacement in px along y of each background-free image (n, y, x) from the series' common profile; mean zero."""
    profile, variance = _profiles(images, masks)
    step, error = _fit(profile, variance)
    if is_noise(step / error, len(step)):
        # A search would only find the strongest ripple of the noise.
        return Measured(step - step.mean(), error)
    found = _coarse(profile)
    for _ in range(MAX_ROUNDS):
        moved = np.stack([_moved(line, -d) for line, d in zip(profile, found, strict=True)])
        step, error = _fit(moved, variance)
        step -= (found + step).mean() - found.mean()
        found = found + step
        if np.abs(step).max() < TOLERANCE_PX:
            break
    return Measured(found - found.mean(), error)


def _profiles(
    images: NDArray[np.floating], masks: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sums over x within the columns that hold the particle (n, y), and the variance of their noise (n, y)."""
    columns = np.asarray(masks.any(axis=1))[:, None, :]
    profile = np.where(columns, images, 0.0).sum(axis=2, dtype=np.float64)
    variance = np.where(columns, noise_variance(images), 0.0).sum(axis=2)
    return ndimage.gaussian_filter1d(profile, BLUR_PX, axis=1, mode="nearest"), variance


def _rms_width(profile: NDArray[np.float64]) -> float:
    """Standard deviation in px of a profile (y,) as a distribution of mass."""
    y, mass = np.arange(len(profile)), np.maximum(profile, 0.0)
    mean = (y * mass).sum() / mass.sum()
    return float(np.sqrt(((y - mean) ** 2 * mass).sum() / mass.sum()))


def _coarse(profile: NDArray[np.float64]) -> NDArray[np.float64]:
    """Whole-pixel displacements from the profile nearest to all others, by circular cross-correlation."""
    length = 2 * profile.shape[1]
    spectrum = np.fft.rfft(profile - profile.mean(axis=1, keepdims=True), length, axis=1)
    spectrum /= np.sqrt((np.abs(spectrum) ** 2).sum(axis=1, keepdims=True))
    reference = spectrum[0]
    # The second round compares with the mean of the series instead of with whichever image came first.
    for _ in range(2):
        peak = np.fft.irfft(spectrum * reference.conj(), length, axis=1).argmax(axis=1)
        lag = np.where(peak > length // 2, peak - length, peak).astype(np.float64)
        ramp = np.exp(2j * np.pi * np.arange(spectrum.shape[1]) / length * lag[:, None])
        reference = (spectrum * ramp).mean(axis=0)
    return lag


def _moved(line: NDArray[np.float64], shift_px: float) -> NDArray[np.float64]:
    """A profile whose content has moved by shift_px towards higher indices."""
    return ndimage.shift(line, shift_px, order=3, mode="nearest")


def _fit(
    profile: NDArray[np.float64], variance: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Rest displacements (n,) of profiles (n, y) from their mean, and standard errors."""
    mean = profile.mean(axis=0)
    design = np.stack([mean, np.ones_like(mean), -np.gradient(mean)], axis=1)
    noise = ndimage.gaussian_filter1d(variance.mean(axis=0), 2 * BLUR_PX, mode="nearest")
    weight = 1.0 / np.maximum(noise, 1e-6 * noise.max() + np.finfo(np.float64).tiny)
    solve = np.linalg.pinv((design * weight[:, None]).T @ design) @ (design * weight[:, None]).T
    coefficient = profile @ solve.T
    # Errors of the sums before the blur, brought through the blur and the fit.
    through = ndimage.gaussian_filter1d(solve[2], BLUR_PX, mode="nearest")
    error = np.sqrt((through**2 * variance).sum(axis=1)) / np.abs(coefficient[:, 0])
    return coefficient[:, 2] / coefficient[:, 0], np.hypot(error, CHANNELLING * _rms_width(mean))
