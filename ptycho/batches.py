"""Which patterns share an update.

Random groups sample the whole object at each update; compact groups of neighbouring positions see nearly the same part of
it, so that a least-squares step fits all of them (Odstrčil et al., doi:10.1364/OE.26.003108); sparse groups are spread evenly
over the field, so that their patterns overlap as little as their number allows and see all of it alike.
"""

from __future__ import annotations

import numpy as np

_TURN_RAD = 0.4
"""Cuts of compact groups are turned by up to this at random, so that no two passes have the same groups."""


def make_batches(positions: np.ndarray, size: int | None, batching: str, rng: np.random.Generator) -> list[np.ndarray]:
    """Groups of at most `size` pattern numbers, every pattern once, in random order; None puts all in one group."""
    n = len(positions)
    if size is None or size >= n:
        return [np.arange(n)]
    if batching == "random":
        return np.array_split(rng.permutation(n), -(-n // size))
    if batching == "sparse":
        groups = _stride(positions, -(-n // size), rng)
    else:
        groups = _bisect(np.arange(n), positions, size, rng)
    return [groups[i] for i in rng.permutation(len(groups))]


def _bisect(ids: np.ndarray, positions: np.ndarray, size: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Halve along a randomly turned longest direction until every group is small enough."""
    if len(ids) <= size:
        return [ids]
    p = positions[ids] - positions[ids].mean(0)
    spread, directions = np.linalg.eigh(p.T @ p)
    angle = rng.uniform(-_TURN_RAD, _TURN_RAD) + np.arctan2(*directions[:, int(np.argmax(spread))])
    order = ids[np.argsort(p @ np.array([np.sin(angle), np.cos(angle)]), kind="stable")]
    parts = -(-len(ids) // size)
    cut = round(len(ids) * (parts // 2) / parts)
    return _bisect(order[:cut], positions, size, rng) + _bisect(order[cut:], positions, size, rng)


def _stride(positions: np.ndarray, count: int, rng: np.random.Generator) -> list[np.ndarray]:
    """`count` groups: of each cell of `count` neighbours one goes to every group, the one at the same place in its cell.

    The cells come from bisection, and so does the order inside them; at each level all cells are cut at once.
    """
    n = len(positions)
    angle = rng.uniform(-np.pi, np.pi)
    y, x = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) @ positions.T
    order, starts = np.arange(n), np.array([0])
    while len(starts) < n:
        sizes = np.diff(np.append(starts, n))
        cell = np.repeat(np.arange(len(starts)), sizes)
        spans = [np.maximum.reduceat(a[order], starts) - np.minimum.reduceat(a[order], starts) for a in (y, x)]
        along = np.where((spans[0] >= spans[1])[cell], y[order], x[order])
        order = order[np.lexsort((along, cell))]
        # Cells that hold more than `count` stay whole multiples of it, so that each later one has exactly so many.
        unit = np.where(sizes > count, count, 1)
        cuts = starts + unit * np.maximum(sizes // unit // 2, 1)
        starts = np.union1d(starts, cuts[sizes > 1])
    return [order[g::count] for g in range(count)]
