"""Pair distribution function of a free-standing particle, whole and per pair of elements.

g(r) is the histogram of pair distances over the histogram expected of the same atoms strewn at random through a ball:

    g_ab(r) = n_ab(r) / (N_ab · 4πr² dr / V · γ(r)),   γ(r) = 1 − 3r/4R + r³/16R³,   V = 4πR³/3

N_ab is the number of pairs of elements a and b, γ the share of pairs that the ball's surface does not cut off
(A. Guinier & G. Fournet, Small-Angle Scattering of X-Rays, Wiley 1955), R = √(5/3) × radius of gyration. So g tends to 1
at large r for a particle that is roughly round; for a slab or a rod the trend at large r is off, the place of peaks and
minima is not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .atoms import Atoms

Pair = tuple[str, str]


@dataclass(frozen=True, eq=False)
class PairDistribution:
    """g(r) of a particle.

    r_A: centres of the bins (n,), Å. total: g of all pairs (n,). g: that of each pair of elements, lighter first.
    counts: number of pairs in each bin (n,), per pair of elements. radius_A: that of the ball compared with.
    """

    r_A: NDArray[np.float64]
    total: NDArray[np.float64]
    g: dict[Pair, NDArray[np.float64]]
    counts: dict[Pair, NDArray[np.int64]]
    radius_A: float


def pair_distribution(
    positions_A: ArrayLike, symbols: Sequence[str], *, r_max_A: float = 10.0, bin_A: float = 0.02
) -> PairDistribution:
    """Pair distribution g(r) up to `r_max_A` of a free-standing particle, in bins of `bin_A`.

    positions_A: (n, 3) in Å. symbols: n element symbols. ValueError for fewer than two atoms, atoms all in one place,
    or lengths that are not positive.
    """
    atoms = Atoms(np.asarray(positions_A), tuple(symbols))
    if len(atoms) < 2:
        raise ValueError(f"a pair distribution needs at least two atoms; {len(atoms)} given")
    if not 0 < bin_A <= r_max_A:
        raise ValueError(f"bin_A is {bin_A} and r_max_A is {r_max_A}; expected 0 < bin_A <= r_max_A")
    radius = _ball_radius(atoms.positions_A)
    n_bins = round(r_max_A / bin_A)
    edges = np.arange(n_bins + 1, dtype=np.float64) * bin_A
    ideal = _ideal_share(edges, radius)
    index = {symbol: k for k, symbol in enumerate(atoms.elements)}
    of_atom = np.array([index[symbol] for symbol in atoms.symbols])
    histograms = _histograms(atoms.positions_A, of_atom, len(index), edges)
    number = np.bincount(of_atom)
    partial, counts = {}, {}
    for a, b in combinations_with_replacement(atoms.elements, 2):
        i, j = index[a], index[b]
        n_pairs = number[i] * number[j] if i != j else number[i] * (number[i] - 1) // 2
        counts[a, b] = histograms[i, j]
        partial[a, b] = _ratio(histograms[i, j], n_pairs * ideal)
    n = len(atoms)
    total = _ratio(histograms.sum(axis=(0, 1)), n * (n - 1) / 2 * ideal)
    return PairDistribution((edges[1:] + edges[:-1]) / 2, total, partial, counts, radius)


def first_minimum(
    r_A: NDArray[np.float64], g: NDArray[np.float64], *, smooth_A: float = 0.1, reach: float = 1.6
) -> float | None:
    """Distance in Å of the first minimum of `g` beyond its first peak; None where g has no pairs to tell by.

    r_A: equally spaced (n,); g: (n,). g is smoothed by a Gaussian of `smooth_A`. The first peak is the first one of at
    least 0.4 of the highest; the minimum is looked for between it and `reach` times its distance (second neighbours of
    any dense or tetrahedral packing lie at 1.4-1.73 bond lengths or beyond). Where g stays at its minimum over an
    interval, its middle is taken.
    """
    smooth = _smoothed(np.asarray(g, dtype=np.float64), smooth_A / (r_A[1] - r_A[0]))
    rising = np.diff(smooth) > 0
    peaks = 1 + np.flatnonzero(rising[:-1] & ~rising[1:])
    peaks = peaks[smooth[peaks] >= 0.4 * smooth.max()]
    if len(peaks) == 0:
        return None
    peak = int(peaks[0])
    end = int(np.searchsorted(r_A, reach * r_A[peak]))
    behind = smooth[peak:end]
    if end <= peak + 1 or end > len(r_A):
        return None
    low = np.flatnonzero(behind <= behind.min() + 1e-9 * smooth[peak])
    gaps = np.flatnonzero(np.diff(low) > 1)
    run = low[: gaps[0] + 1] if gaps.size else low
    return float(r_A[peak + run].mean())


def _smoothed(values: NDArray[np.float64], sigma: float) -> NDArray[np.float64]:
    """Convolution with a Gaussian of `sigma` bins, cut at three sigma so that an empty gap stays empty."""
    reach = int(np.ceil(3 * sigma))
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    return np.convolve(np.pad(values, reach), kernel / kernel.sum(), mode="valid")


def _ball_radius(positions: NDArray[np.float64]) -> float:
    """Radius of the homogeneous ball with the same radius of gyration."""
    spread = float(positions.var(axis=0).sum())
    if spread == 0:
        raise ValueError(
            "positions_A holds the same place for every atom; a pair distribution needs an extended particle"
        )
    return float(np.sqrt(5 / 3 * spread))


def _ideal_share(edges: NDArray[np.float64], radius: float) -> NDArray[np.float64]:
    """Share of the pairs of random points in a ball that falls in each bin of distance."""
    x = np.minimum(edges / (2 * radius), 1.0)
    return np.diff(8 * x**3 - 9 * x**4 + 2 * x**6)


def _ratio(counts: NDArray[np.int64], expected: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.divide(counts, expected, out=np.zeros(len(counts)), where=expected > 0)


def _histograms(
    positions: NDArray[np.float64], element: NDArray[np.int64], n_elements: int, edges: NDArray[np.float64]
) -> NDArray[np.int64]:
    """Pair distances per pair of elements (element, element, bin), upper triangle filled."""
    from scipy.spatial import cKDTree

    tree = cKDTree(positions)
    pairs = tree.query_pairs(edges[-1], output_type="ndarray")
    distance = np.linalg.norm(positions[pairs[:, 0]] - positions[pairs[:, 1]], axis=1)
    bins = np.minimum((distance / edges[1]).astype(np.int64), len(edges) - 2)
    kinds = np.sort(element[pairs], axis=1)
    flat = (kinds[:, 0] * n_elements + kinds[:, 1]) * (len(edges) - 1) + bins
    size = n_elements * n_elements * (len(edges) - 1)
    return np.bincount(flat, minlength=size).reshape(n_elements, n_elements, -1)
