"""Pair distribution function of a particle or of a periodic box, whole and per pair of elements.

g(r) is the histogram of pair distances over the histogram expected of the same atoms strewn at random through the same
body:

    g_ab(r) = n_ab(r) / (N_ab · 4πr² dr / V · γ(r))

N_ab is the number of pairs of elements a and b, γ the share of pairs that the body's surface does not cut off: 1 in a
periodic box, and for a ball of radius R γ = 1 − 3r/4R + r³/16R³ (A. Guinier & G. Fournet, Small-Angle Scattering of
X-Rays, Wiley 1955). A particle is taken for the homogeneous ellipsoid with the same second moments. So g tends to 1 at
large r for a particle that is roughly an ellipsoid; the place of peaks and minima does not depend on it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .atoms import Atoms
from .cell import Cell
from .pair_counts import count_pairs

Pair = tuple[str, str]


@dataclass(frozen=True, eq=False)
class PairDistribution:
    """g(r) of a particle.

    r_A: centres of the bins (n,), Å. total: g of all pairs (n,). g: that of each pair of elements, lighter first.
    counts: number of pairs in each bin (n,), per pair of elements. expected: that number for atoms strewn at random.
    """

    r_A: NDArray[np.float64]
    total: NDArray[np.float64]
    g: dict[Pair, NDArray[np.float64]]
    counts: dict[Pair, NDArray[np.int64]]
    expected: dict[Pair, NDArray[np.float64]]


def pair_distribution(
    positions_A: ArrayLike,
    symbols: Sequence[str],
    *,
    r_max_A: float = 10.0,
    bin_A: float = 0.02,
    cell: Cell | None = None,
) -> PairDistribution:
    """Pair distribution g(r) up to `r_max_A` of a particle, or of a periodic box, in bins of `bin_A`.

    positions_A: (n, 3) in Å. symbols: n element symbols. cell: the box, where the model repeats; a sheet or a wire is
    compared with one that has no surface, so that its g falls off at large r. ValueError for a particle of fewer than two atoms, or
    all in one place, or lengths that are not positive.
    """
    atoms = Atoms(np.asarray(positions_A), tuple(symbols))
    periodic = cell is not None and any(cell.periodic)
    if len(atoms) < (1 if periodic else 2):
        raise ValueError(f"a pair distribution needs at least two atoms; {len(atoms)} given")
    if not 0 < bin_A <= r_max_A:
        raise ValueError(f"bin_A is {bin_A} and r_max_A is {r_max_A}; expected 0 < bin_A <= r_max_A")
    n_bins = round(r_max_A / bin_A)
    edges = np.arange(n_bins + 1, dtype=np.float64) * bin_A
    if periodic:
        ideal, own = np.diff(4 / 3 * np.pi * edges**3) / occupied_A3(atoms.positions_A, cell), 0
    else:
        ideal, own = _ideal_share(edges, semi_axes(atoms.positions_A)), 1
    index = {symbol: k for k, symbol in enumerate(atoms.elements)}
    of_atom = np.array([index[symbol] for symbol in atoms.symbols])
    histograms = count_pairs(atoms.positions_A, of_atom, len(index), bin_A, n_bins, cell)
    number = np.bincount(of_atom)
    partial, counts, expected = {}, {}, {}
    for a, b in combinations_with_replacement(atoms.elements, 2):
        i, j = index[a], index[b]
        n_pairs = number[i] * number[j] if i != j else number[i] * (number[i] - own) / 2
        counts[a, b] = histograms[i, j]
        expected[a, b] = n_pairs * ideal
        partial[a, b] = _ratio(histograms[i, j], expected[a, b])
    n = len(atoms)
    total = _ratio(histograms.sum(axis=(0, 1)), n * (n - own) / 2 * ideal)
    return PairDistribution((edges[1:] + edges[:-1]) / 2, total, partial, counts, expected)


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


def occupied_A3(positions_A: NDArray[np.float64], cell: Cell | None) -> float:
    """Volume in Å³ of the box, of the ellipsoid of `semi_axes`, or of the part of a box that a sheet or a wire takes up.

    Along an edge that does not repeat the atoms take up the distance between the outermost, at least 3 Å.
    """
    if cell is None or not any(cell.periodic):
        return float(4 / 3 * np.pi * semi_axes(positions_A).prod())
    taken = np.ptp(positions_A @ np.linalg.inv(cell.vectors_A), axis=0)
    share = np.where(cell.periodic, 1.0, np.maximum(taken, 3 / cell.heights_A))
    return float(cell.volume_A3 * share.prod())


def semi_axes(positions_A: NDArray[np.float64]) -> NDArray[np.float64]:
    """Half axes (3,) in Å of the homogeneous ellipsoid with the same second moments, longest first.

    A flat or thin particle is at least 1 Å thick. ValueError where all atoms stand in the same place.
    """
    spread = np.linalg.eigvalsh(np.cov(positions_A.T, bias=True))[::-1]
    if not spread[0] > 0:
        raise ValueError(
            "positions_A holds the same place for every atom; a pair distribution needs an extended particle"
        )
    return np.maximum(np.sqrt(5 * np.maximum(spread, 0)), min(0.5, np.sqrt(5 * spread[0])))


def _ideal_share(edges: NDArray[np.float64], axes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Share of the pairs of random points in an ellipsoid that falls in each bin of distance.

    Along a direction u an ellipsoid is a ball stretched by 1/|(uₓ/a, u_y/b, u_z/c)|; the mean over directions is taken of
    the ball's distribution function of distances, times the ratio of the volumes cubed away.
    """
    stretch = 1 / np.linalg.norm(_directions() / axes, axis=1)
    share = len(stretch) * edges**3 - 9 / 16 * edges**4 * (1 / stretch).sum() + edges**6 / 32 * (stretch**-3).sum()
    beyond = edges > 2 * stretch.min()  # where some directions are through
    share[beyond] = 0
    for length in stretch:
        x = np.minimum(edges[beyond] / (2 * length), 1.0)
        share[beyond] += (8 * x**3 - 9 * x**4 + 2 * x**6) * length**3
    return np.diff(share / len(stretch) / axes.prod())


def _directions(count: int = 400) -> NDArray[np.float64]:
    """Unit vectors (count, 3) spread evenly over the sphere, on a spiral of the golden angle."""
    k = np.arange(count) + 0.5
    z, angle = 1 - 2 * k / count, np.pi * (1 + 5**0.5) * k
    ring = np.sqrt(1 - z * z)
    return np.column_stack([ring * np.cos(angle), ring * np.sin(angle), z])


def _ratio(counts: NDArray[np.int64], expected: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.divide(counts, expected, out=np.zeros(len(counts)), where=expected > 0)
