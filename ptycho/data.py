"""The measured patterns of one tilt, checked on entry, and their way into the engine.

Counts may be any array with NumPy indexing: an ndarray, a memory map, or a dataset that reads its rows from a file. They are
read in blocks, never copied whole on the CPU; a GPU keeps them in their own dtype when they fit and is fed in chunks when not.

Standard shapes: counts (n, ky, kx) centred (zero frequency at index n // 2), positions_A (n, 2) as (y, x) about
coordinate 0, mask (ky, kx) centred, True where the detector measured.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ptycho.grid import Array, fast_size, resize_centred

BLOCK_BYTES = 32 << 20


@dataclass(frozen=True, eq=False)
class Patterns:
    """Diffraction patterns and where the probe stood for each of them.

    counts: (n, ky, kx) unsigned integers or non-negative floats, electrons, centred; ndarray, memory map or the like.
    positions_A: (n, 2) float64 (y, x) in Å about coordinate 0 of the object.
    pixel_mrad: angle of one detector pixel.
    mask: (ky, kx) bool, True where the detector measured; None means everywhere.
    tilts_mrad: (n, 2) tilt (y, x) of the specimen against the beam at each position, on top of `Settings.tilt_mrad`.
    scales: (n,) dose of each pattern relative to the mean; None means the same for all.
    Raises ValueError when shapes or values do not fit together.
    """

    counts: Any
    positions_A: np.ndarray
    pixel_mrad: float
    mask: np.ndarray | None = None
    tilts_mrad: np.ndarray | None = None
    scales: np.ndarray | None = None
    mean: np.ndarray = field(init=False, repr=False)
    """Mean pattern (ky, kx), float64, centred; zero where the mask is False."""

    def __post_init__(self) -> None:
        counts, positions = self.counts, np.asarray(self.positions_A, np.float64)
        object.__setattr__(self, "positions_A", positions)
        if len(counts.shape) != 3 or 0 in counts.shape:
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
        self._check_beside()
        object.__setattr__(self, "mean", self._mean())

    def _check_beside(self) -> None:
        n, detector = len(self.counts), self.detector_shape
        if self.mask is not None and (self.mask.shape != detector or self.mask.dtype != bool):
            raise ValueError(
                f"mask is {self.mask.dtype} of shape {self.mask.shape}; expected bool of {detector}, "
                "True where the detector measured."
            )
        for name, shape in (("tilts_mrad", (n, 2)), ("scales", (n,))):
            value = getattr(self, name)
            if value is not None and (np.shape(value) != shape or not np.isfinite(value).all()):
                raise ValueError(f"{name} has shape {np.shape(value)}; expected finite numbers of shape {shape}.")
        if self.scales is not None and not np.min(self.scales) > 0:
            raise ValueError(f"scales reaches {np.min(self.scales):g}; expected positive doses relative to the mean.")

    def _mean(self) -> np.ndarray:
        total, lowest = np.zeros(self.detector_shape), 0.0
        for rows in blocks(self.counts):
            block = np.asarray(self.counts[rows])
            if self.mask is not None:
                block = np.where(self.mask, block, 0)
            lowest = min(lowest, block.min())
            total += block.sum(0, dtype=np.float64)
        if not lowest >= 0 or not np.isfinite(total).all():
            raise ValueError(
                f"counts holds values that are negative or not finite (lowest {lowest:g}); subtract no background from "
                "them, leave broken patterns out and mask dead pixels instead."
            )
        if not total.any():
            raise ValueError("counts is zero everywhere; expected measured electrons.")
        return total / len(self.counts)

    def subset(self, ids: np.ndarray) -> Patterns:
        """The patterns `ids` alone."""
        tilts, scales = (None if a is None else np.asarray(a)[ids] for a in (self.tilts_mrad, self.scales))
        return replace(
            self, counts=self.counts[ids], positions_A=self.positions_A[ids], tilts_mrad=tilts, scales=scales
        )

    @property
    def detector_shape(self) -> tuple[int, int]:
        """Detector pixels (ky, kx)."""
        return self.counts.shape[1], self.counts.shape[2]


def blocks(counts: Any, size_bytes: int = BLOCK_BYTES) -> Iterator[slice]:
    """Rows of a stack (n, ...) in pieces of about `size_bytes`."""
    each = max(1, math.prod(counts.shape[1:]) * counts.dtype.itemsize)
    step = max(1, size_bytes // each)
    for start in range(0, len(counts), step):
        yield slice(start, min(start + step, len(counts)))


def window_size(patterns: Patterns, detector: str | int = "auto") -> int:
    """Side in pixels of the square the patterns are brought to: the detector's longer side for "full", the nearest size
    with fast transforms for "auto", or a number of pixels."""
    return window_side(patterns.detector_shape, detector)


def window_side(detector_shape: tuple[int, int], detector: str | int = "auto") -> int:
    """`window_size` from the detector's pixels (ky, kx) alone."""
    if not isinstance(detector, str):
        return detector
    longer = max(detector_shape)
    return longer if detector == "full" else fast_size(longer)


def on_window(image: np.ndarray, side: int) -> np.ndarray:
    """Centred detector images (..., ky, kx) cropped or zero-padded to the window, zero frequency moved to [0, 0]."""
    if image.shape[-2:] != (side, side):
        image = resize_centred(image, (side, side))
    return np.fft.ifftshift(image, axes=(-2, -1))


class Counts:
    """Patterns on the window of the waves (pattern, ky, kx), zero frequency at [0, 0], a chunk at a time, in their dtype."""

    def __init__(self, patterns: Patterns, side: int, xp: Any = np, device_bytes: int | None = None) -> None:
        self._source, self._side, self._xp = patterns.counts, side, xp
        mask = np.ones(patterns.detector_shape, bool) if patterns.mask is None else patterns.mask
        mask = on_window(mask, side)
        self.mask: Array | None = None if mask.all() else xp.asarray(mask)
        self.mean: np.ndarray = on_window(patterns.mean, side)
        size = len(self._source) * side**2 * self._source.dtype.itemsize
        self._resident: Array | None = None
        if xp is not np and (device_bytes is None or size <= device_bytes):
            self._resident = xp.empty((len(self._source), side, side), self._source.dtype)
            for rows in blocks(self._source):
                self._resident[rows] = xp.asarray(on_window(np.asarray(self._source[rows]), side))

    def __len__(self) -> int:
        return len(self._source)

    @property
    def window(self) -> tuple[int, int]:
        """Size (ky, kx) of the waves."""
        return self._side, self._side

    def take(self, ids: np.ndarray) -> Array:
        """The patterns `ids`."""
        rows = as_slice(ids)
        if self._resident is not None:
            return self._resident[rows]
        block = on_window(np.asarray(self._source[rows]), self._side)
        return block if self._xp is np else self._xp.asarray(block)


def as_slice(ids: np.ndarray) -> np.ndarray | slice:
    """A slice where the numbers are consecutive: it makes a view where an index would make a copy."""
    first, last = int(ids[0]), int(ids[-1])
    if last - first + 1 == len(ids) and bool((np.diff(ids) == 1).all()):
        return slice(first, last + 1)
    return ids
