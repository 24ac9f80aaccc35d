"""Counts that may lie on disk or be large are read by blocks; only one block at a time is turned into floats.

Standard shapes: counts (n, ky, kx), weights (ky, kx, m), projections (n, m).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

_BLOCK_BYTES = 4 << 20


def blocks(counts: np.ndarray) -> Iterator[slice]:
    """Slices of the first axis whose patterns take about 4 MB as float32."""
    size = max(1, _BLOCK_BYTES // (4 * counts[0].size))
    for start in range(0, len(counts), size):
        yield slice(start, min(start + size, len(counts)))


def project(counts: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Σ_k counts(i, k) weights(k, m): float64 (n, m); only the rectangle of the detector with weights is read."""
    used = np.asarray(weights.any(-1))
    rows, columns = (slice(*_extent(np.asarray(used.any(axis)))) for axis in (1, 0))
    matrix = np.ascontiguousarray(weights[rows, columns].reshape(-1, weights.shape[-1]), np.float32)
    out = np.empty((len(counts), weights.shape[-1]))
    for part in blocks(counts):
        window = counts[part, rows, columns].astype(np.float32)
        out[part] = window.reshape(len(window), -1) @ matrix
    return out


def grouped_means(counts: np.ndarray, labels: np.ndarray, window: tuple[slice, slice]) -> np.ndarray:
    """Mean patterns of the groups 0, 1, … of `labels` (n,), −1 = none, inside a window: float64 (group, y, x)."""
    groups = int(labels.max()) + 1
    total = 0.0
    for part in blocks(counts):
        inside = counts[part, window[0], window[1]].astype(np.float32)
        member = (labels[part] == np.arange(groups)[:, None]).astype(np.float32)
        total = total + (member @ inside.reshape(len(inside), -1)).astype(np.float64).reshape(groups, *inside.shape[1:])
    members = np.bincount(labels[labels >= 0], minlength=groups)
    return total / np.maximum(members, 1)[:, None, None]


def _extent(used: np.ndarray) -> tuple[int, int]:
    at = np.flatnonzero(used)
    return (int(at[0]), int(at[-1]) + 1) if len(at) else (0, 0)
