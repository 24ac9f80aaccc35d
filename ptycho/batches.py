"""Which patterns share an update.

Random groups sample the whole object at each update; compact groups of neighbouring positions see nearly the same part of
it, so that a least-squares step fits all of them (Odstrčil et al., doi:10.1364/OE.26.003108).
"""

from __future__ import annotations

import numpy as np


def make_batches(positions: np.ndarray, size: int | None, batching: str, rng: np.random.Generator) -> list[np.ndarray]:
    """Groups of at most `size` pattern numbers, every pattern once, in random order; None puts all in one group."""
    n = len(positions)
    if size is None or size >= n:
        return [np.arange(n)]
    if batching == "random":
        return np.array_split(rng.permutation(n), -(-n // size))
    groups = _bisect(np.arange(n), positions, size, rng)
    return [groups[i] for i in rng.permutation(len(groups))]


def _bisect(ids: np.ndarray, positions: np.ndarray, size: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Halve along a randomly turned longest direction until every group is small enough."""
    if len(ids) <= size:
        return [ids]
    p = positions[ids] - positions[ids].mean(0)
    spread, directions = np.linalg.eigh(p.T @ p)
    angle = rng.uniform(-0.4, 0.4) + np.arctan2(*directions[:, int(np.argmax(spread))])
    order = ids[np.argsort(p @ np.array([np.sin(angle), np.cos(angle)]), kind="stable")]
    parts = -(-len(ids) // size)
    cut = round(len(ids) * (parts // 2) / parts)
    return _bisect(order[:cut], positions, size, rng) + _bisect(order[cut:], positions, size, rng)
