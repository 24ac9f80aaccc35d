"""The measured patterns of one tilt, checked on entry.

Standard shapes: counts (n, ky, kx) centred (zero frequency at index n // 2), positions_A (n, 2) as (y, x) about
coordinate 0, mask (ky, kx) centred, True where the detector measured.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ptycho.grid import fast_size, resize_centred


@dataclass(frozen=True, eq=False)
class Patterns:
    """Diffraction patterns and where the probe stood for each of them.

    counts: (n, ky, kx) unsigned integers or non-negative floats, electrons, centred.
    positions_A: (n, 2) float64 (y, x) in Å about coordinate 0 of the object.
    pixel_mrad: angle of one detector pixel.
    mask: (ky, kx) bool, True where the detector measured; None means everywhere.
    Raises ValueError when shapes or values do not fit together.
    """

    counts: np.ndarray
    positions_A: np.ndarray
    pixel_mrad: float
    mask: np.ndarray | None = None

    def __post_init__(self) -> None:
        counts, positions = self.counts, np.asarray(self.positions_A, np.float64)
        object.__setattr__(self, "positions_A", positions)
        if counts.ndim != 3 or 0 in counts.shape:
            raise ValueError(f"counts has shape {counts.shape}; expected (n, ky, kx), flatten the scan axes into one.")
        if counts.dtype.kind not in "uif":
            raise ValueError(f"counts has dtype {counts.dtype}; expected electron counts as integers or floats.")
        if positions.shape != (len(counts), 2):
            raise ValueError(
                f"positions_A has shape {positions.shape}; expected ({len(counts)}, 2), one row (y, x) per pattern."
            )
        if not np.isfinite(positions).all():
            raise ValueError("positions_A holds values that are not finite; expected Å about coordinate 0.")
        if not (math.isfinite(self.pixel_mrad) and self.pixel_mrad > 0):
            raise ValueError(f"pixel_mrad is {self.pixel_mrad}; expected the positive angle of one detector pixel.")
        self._check_values()

    def _check_values(self) -> None:
        lowest, total = self.counts.min(), self.counts.sum(dtype=np.float64)
        if not lowest >= 0 or not math.isfinite(total):
            raise ValueError(
                f"counts holds values that are negative or not finite (lowest {lowest}); subtract no background from "
                "them, and mask dead pixels instead."
            )
        if total == 0:
            raise ValueError("counts is zero everywhere; expected measured electrons.")
        if self.mask is not None and (self.mask.shape != self.counts.shape[1:] or self.mask.dtype != bool):
            raise ValueError(
                f"mask is {self.mask.dtype} of shape {self.mask.shape}; expected bool of {self.counts.shape[1:]}, "
                "True where the detector measured."
            )

    @property
    def detector_shape(self) -> tuple[int, int]:
        """Detector pixels (ky, kx)."""
        return self.counts.shape[1], self.counts.shape[2]


def window_size(patterns: Patterns, detector: str = "auto") -> int:
    """Side in pixels of the square the patterns are brought to: the detector's longer side for "full", the nearest size
    with fast transforms for "auto"."""
    return window_side(patterns.detector_shape, detector)


def window_side(detector_shape: tuple[int, int], detector: str = "auto") -> int:
    """`window_size` from the detector's pixels (ky, kx) alone."""
    longer = max(detector_shape)
    return longer if detector == "full" else fast_size(longer)


def fit_detector(patterns: Patterns, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray | None]:
    """Counts in their own dtype and mask, cropped or padded to `shape`, zero frequency moved to [0, 0].

    Padded pixels were not measured: they are masked out. The mask is None when every pixel counts.
    """
    mask = np.ones(patterns.detector_shape, bool) if patterns.mask is None else patterns.mask
    mask = np.fft.ifftshift(resize_centred(mask, shape))
    counts = patterns.counts
    if shape != patterns.detector_shape:
        counts = resize_centred(counts, shape)
    counts = np.fft.ifftshift(counts, axes=(1, 2))
    return counts, None if mask.all() else mask
