"""What the patterns themselves say about the illumination.

The mean of all patterns shows the aperture of the probe. Its edge is never the ideal step: sampling, the detector's point
spread and the aperture itself soften it, and an edge that is off by a fraction of a pixel puts the misfit into the object
as a halo at the border of the scanned field. The measured edge replaces the ideal one.
"""

from __future__ import annotations

import numpy as np

_BAND_PX = 2.5
_BIN_PX = 0.25
_PLATEAU = 0.85
_LEAST_CONTRAST = 0.5


def measured_aperture(mean_pattern: np.ndarray, radius_px: float, mask: np.ndarray | None = None) -> np.ndarray:
    """Amplitude (ky, kx) of the aperture, 1 inside and 0 outside, its edge read off the mean pattern.

    mean_pattern: counts (ky, kx), zero frequency at [0, 0]. radius_px: radius of the bright-field disk in detector
    pixels. mask: (ky, kx) bool, True where the detector measured; None means everywhere. The edge is the azimuthal mean
    within 2.5 pixels of the radius, between the plateau inside and the scattered background just outside; the amplitude
    is the square root of that share. A pattern without a clear disk of this radius gives the ideal edge, one pixel wide.
    """
    ky, kx = (np.fft.fftfreq(n) * n for n in mean_pattern.shape)
    radius = np.hypot(ky[:, None], kx[None, :])
    ideal = np.clip(radius_px - radius + 0.5, 0.0, 1.0)
    measured = np.ones(radius.shape, bool) if mask is None else mask
    inside = measured & (radius < _PLATEAU * radius_px)
    beyond = measured & (radius > radius_px + _BAND_PX) & (radius < radius_px + 2 * _BAND_PX)
    if not (inside.any() and beyond.any()):
        return np.sqrt(ideal)
    plateau, background = mean_pattern[inside].mean(), mean_pattern[beyond].mean()
    if plateau <= 0 or plateau - background < _LEAST_CONTRAST * plateau:
        return np.sqrt(ideal)
    band = np.abs(radius - radius_px) <= _BAND_PX
    seen = band & measured
    bins = np.round((radius[seen] - radius_px + _BAND_PX) / _BIN_PX).astype(int)
    members = np.bincount(bins)
    at, level = (
        np.bincount(bins, values)[members > 0] / members[members > 0] for values in (radius[seen], mean_pattern[seen])
    )
    share = np.interp(radius, at, (level - background) / (plateau - background), left=1.0, right=0.0)
    return np.sqrt(np.clip(np.where(band, share, ideal), 0.0, 1.0))
