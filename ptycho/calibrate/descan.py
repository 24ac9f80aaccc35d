"""How the bright-field disk moves over the scan, and patterns rolled to its centre.

The border of the disk is fitted in the mean patterns of parts of the scan; its centre is an affine function of position.

Standard shapes: counts (n, ky, kx), mask (ky, kx) True = good, positions_A (n, 2) (y, x), centres (n, 2) in px.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ptycho.calibrate.blocks import blocks, grouped_means
from ptycho.calibrate.disk import Disk, Edge, centred_grid

_PARTS, _LEAST_PARTS = 5, 6
_LEAST_ELECTRONS = 2000
_BAND_PX = 6.0
_LEAST_RANGE_PX = 0.5


@dataclass(frozen=True, eq=False)
class Descan:
    """Centre (y, x) in px = offset + slopes @ (position − mean position): offset_px (2,), slopes_px_per_A (2, 2), mean_A (2,),
    and the largest movement over the scan with its standard deviation in px."""

    offset_px: np.ndarray
    slopes_px_per_A: np.ndarray
    mean_A: np.ndarray
    range_px: float
    range_sigma_px: float

    @property
    def significant(self) -> bool:
        """Whether the disk moves by more than half a pixel and by more than 4 standard deviations."""
        return self.range_px > max(_LEAST_RANGE_PX, 4 * self.range_sigma_px)

    def centres_px(self, positions_A: np.ndarray) -> np.ndarray:
        """Centre of each pattern: (n, 2) (y, x)."""
        return self.offset_px + (positions_A - self.mean_A) @ self.slopes_px_per_A.T


def measure_descan(
    counts: np.ndarray, mask: np.ndarray, kept: np.ndarray, positions_A: np.ndarray, disk: Disk
) -> Descan | None:
    """Movement of the disk over the scan from the mean patterns of 5 × 5 parts of it; None when it cannot be told.

    counts (n, ky, kx), mask (ky, kx) True = good, kept (n,) True = good, positions_A (n, 2).
    """
    labels = _parts(positions_A, kept)
    members = np.bincount(labels[labels >= 0])
    window = _window(mask.shape, disk)
    means = grouped_means(counts, labels, window)
    y, x = (a[window] for a in centred_grid(mask.shape))
    near = mask[window] & (np.abs(np.hypot(y - disk.centre_px[0], x - disk.centre_px[1]) - disk.radius_px) < _BAND_PX)
    inside = near & (np.hypot(y - disk.centre_px[0], x - disk.centre_px[1]) < disk.radius_px - 1)
    rows = []
    for group in range(len(members)):
        mean = means[group]
        if mean.sum() * members[group] < _LEAST_ELECTRONS:
            continue
        edge = Edge(y[near], x[near], mean[near], disk.radius_px, int(members[group]))
        start = [*disk.centre_px, disk.radius_px, disk.edge_px, *disk.ellipticity, mean[inside].mean(), 0.0, 0.0, 0.0]
        p, covariance = edge.fit(start, [0, 1, 6, 7, 8, 9])
        rows.append((*positions_A[labels == group].mean(0), *p[:2], *np.sqrt(np.diag(covariance)[:2])))
    return _affine(np.array(rows), positions_A[kept]) if len(rows) >= _LEAST_PARTS else None


def _parts(positions_A: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """Part 0, 1, … of the scan each pattern belongs to: (n,) int, −1 for patterns that are left out."""
    lowest, highest = positions_A.min(0), positions_A.max(0)
    cell = np.floor(_PARTS * (positions_A - lowest) / np.maximum(highest - lowest, 1e-9) * (1 - 1e-9)).astype(int)
    labels = np.full(len(kept), -1)
    labels[kept] = np.unique(cell[kept] @ [_PARTS, 1], return_inverse=True)[1]
    return labels


def _window(shape: tuple[int, int], disk: Disk) -> tuple[slice, slice]:
    """Rectangle of the detector around the disk with a margin."""
    reach = disk.radius_px + 10
    low = [max(0, int(n // 2 + c - reach)) for n, c in zip(shape, disk.centre_px, strict=True)]
    high = [min(n, int(n // 2 + c + reach) + 2) for n, c in zip(shape, disk.centre_px, strict=True)]
    return slice(low[0], high[0]), slice(low[1], high[1])


def _affine(rows: np.ndarray, positions_A: np.ndarray) -> Descan:
    """Weighted affine fit through (y, x, centre y, centre x, σ y, σ x) of each part, stray parts weighted down."""
    mean = positions_A.mean(0)
    basis = np.column_stack([np.ones(len(rows)), rows[:, :2] - mean])
    coefficients, covariances = [], []
    for axis in (0, 1):
        value, sigma = rows[:, 2 + axis], np.maximum(rows[:, 4 + axis], 1e-3)
        for _ in range(3):
            fit, covariance = _weighted(basis, value, sigma)
            residual = np.abs(value - basis @ fit) / sigma
            scale = max(1.4826 * float(np.median(residual)), 1.0)
            sigma = np.maximum(rows[:, 4 + axis], 1e-3) * scale * np.maximum(residual / (3 * scale), 1.0)
        coefficients.append(fit)
        covariances.append(covariance)
    slopes = np.array([c[1:] for c in coefficients])
    arms = positions_A - mean
    moved = arms @ slopes.T
    far = int(np.argmax((moved**2).sum(1)))
    variance = sum(float(arms[far] @ c[1:, 1:] @ arms[far]) for c in covariances)
    offset = np.array([c[0] for c in coefficients])
    return Descan(offset, slopes, mean, 2 * float(np.hypot(*moved[far])), 2 * float(np.sqrt(variance)))


def _weighted(basis: np.ndarray, value: np.ndarray, sigma: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    scaled = basis / sigma[:, None]
    covariance = np.linalg.inv(scaled.T @ scaled)
    return covariance @ (scaled.T @ (value / sigma)), covariance


def centred(
    counts: np.ndarray, mask: np.ndarray, centres_px: np.ndarray, kept: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Patterns rolled by whole pixels so that `centres_px` (n, 2) come to index n // 2, and their common mask (ky, kx).

    Only patterns with `kept` (n,) are returned, in the dtype of `counts`. Negative values are set to 0, and so are pixels that
    are masked or that come from outside the detector in any pattern; these are masked. The mask (ky, kx) is True where the
    detector measured.
    """
    chosen = np.arange(len(counts)) if kept is None else np.flatnonzero(kept)
    shifts = -np.rint(centres_px).astype(int)[chosen]
    unique, index = np.unique(shifts, axis=0, return_inverse=True)
    common = np.logical_and.reduce([_moved(mask, shift) for shift in unique])
    out = np.empty((len(chosen), *mask.shape), counts.dtype)
    for part in blocks(out):
        block, which = counts[chosen[part]], index.reshape(-1)[part]
        for k in np.unique(which):
            out[part][which == k] = np.roll(block[which == k], unique[k], (1, 2))
        if counts.dtype.kind != "u":
            np.maximum(out[part], 0, out=out[part])
        out[part][:, ~common] = 0
    return out, common


def _moved(mask: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """Mask after a roll; what comes in from the other side is False."""
    moved = np.roll(mask, shift, (0, 1))
    for axis, by in enumerate(shift.tolist()):
        outside = [slice(None), slice(None)]
        outside[axis] = slice(0, by) if by > 0 else slice(mask.shape[axis] + by, None)
        moved[tuple(outside)] = False
    return moved
