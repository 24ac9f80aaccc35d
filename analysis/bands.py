"""Error bars of histograms: distances, bond lengths and bond angles as they were before noise, with 95 % bands.

Each statistic counts members (pairs of atoms, bonds, angles) by bins. Two draws on top of each other show how
errors move members between bins, from the measured atoms and from atoms moved once; `unfold` does the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement

import numpy as np
from numpy.typing import NDArray

from .atoms import Atoms
from .cell import Pairs, pairs_in_chunks
from .ensemble import draws
from .likely import pair_kinds
from .network import Network
from .pdf import Pair, PairDistribution
from .unfold import Band, unfold

Array = NDArray[np.float64]
Ints = NDArray[np.int64]
Mask = NDArray[np.bool_] | None

MOST_MEMBERS = 1_500_000
"""More pairs than this are not followed; a random choice of them tells how pairs move."""

MOST_CHAINS = 100_000
"""More chains of four atoms than this are not followed."""
FINER = 4
"""Bins within one of a histogram of lengths or angles, over which members are followed."""


@dataclass(frozen=True, eq=False)
class Binned:
    """Counts of a kind of members over bins of equal width: edges (n + 1,), and a band of n counts."""

    edges: Array
    counts: Band


def pair_bands(atoms: Atoms, pairs: PairDistribution, rng: np.random.Generator, count: int = 8) -> dict[Pair, Band]:
    """Bands of g(r) per pair of elements, on the bins of `pairs`, which is that of the same atoms."""
    kinds = list(combinations_with_replacement(atoms.elements, 2))
    n_bins, width = len(pairs.r_A), float(pairs.r_A[1] - pairs.r_A[0])
    sigma = float(np.sqrt(np.nanmax(np.append(atoms.covariance_A2[:, [0, 1, 2], [0, 1, 2]], 0.0))))
    followed = min(1.0, MOST_MEMBERS / max(sum(int(count.sum()) for count in pairs.counts.values()), 1))
    near = _some_pairs(atoms, n_bins * width + 6 * sigma, followed, rng)
    label = _pair_label(atoms.elements, near, n_bins, width)
    outside = len(kinds) * n_bins
    beyond = round((label(atoms) == outside).sum() / followed)
    measured = np.append(np.concatenate([pairs.counts[kind] for kind in kinds]), beyond)
    whole = _unfolded(atoms, label, outside + 1, rng, count, measured, runs=[n_bins] * len(kinds) + [1])
    found = {}
    for k, kind in enumerate(kinds):
        part = whole.part(slice(k * n_bins, (k + 1) * n_bins))
        found[kind] = part.scaled(
            np.divide(1, pairs.expected[kind], out=np.zeros(n_bins), where=pairs.expected[kind] > 0)
        )
    return found


def _some_pairs(atoms: Atoms, reach_A: float, share: float, rng: np.random.Generator) -> Pairs:
    """A random `share` of the pairs up to `reach_A` apart."""
    chunks = pairs_in_chunks(atoms.positions_A, reach_A, atoms.cell)
    parts = [part.select(rng.random(len(part.first)) < share) if share < 1 else part for part in chunks]
    names = ("first", "second", "shift", "vector_A")
    return Pairs(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def length_bands(
    atoms: Atoms, network: Network, rng: np.random.Generator, *, bin_A: float = 0.02, count: int = 16, of: Mask = None
) -> dict[str, Binned]:
    """Bands of the histogram of bond lengths per pair of elements, as "O-Si"; of: mask (n,), one end of a bond is in it."""
    names = np.array(atoms.symbols)
    counted = slice(None) if of is None else np.flatnonzero(of[network.pairs].any(axis=1))
    kinds = np.array(["-".join(sorted(pair)) for pair in names[network.pairs[counted]].tolist()])

    def lengths(model: Atoms) -> Array:
        return np.linalg.norm(_vectors(network, model)[counted], axis=1)

    return _by_kind(atoms, kinds, lengths, bin_A, rng, count)


def angle_bands(
    atoms: Atoms, network: Network, rng: np.random.Generator, *, bin_deg: float = 2.0, count: int = 16, of: Mask = None
) -> dict[str, Binned]:
    """Bands of the histogram of bond angles, as "O-Si-O", the middle atom in the middle; of: mask (n,) of middle atoms."""
    from .order.angles import angles_of, between_deg

    legs = angles_of(network, of)
    names = np.array(atoms.symbols)
    ends = np.sort(names[legs.atoms[:, [0, 2]]], axis=1)
    middle = names[legs.atoms[:, 1]]
    kinds = np.array([f"{a}-{m}-{b}" for (a, b), m in zip(ends.tolist(), middle.tolist(), strict=True)])

    def angles(model: Atoms) -> Array:
        towards = legs.signs[..., None] * _vectors(network, model)[legs.bonds]
        return between_deg(towards[:, 0], towards[:, 1])

    return _by_kind(atoms, kinds, angles, bin_deg, rng, count)


def dihedral_bands(
    atoms: Atoms, network: Network, rng: np.random.Generator, edges_deg: Array, *, count: int = 16, of: Mask = None
) -> dict[str, Band]:
    """Bands of the histogram of dihedral angles per chain, as "O-Si-O-Si"; see `order.dihedral_angles`.

    edges_deg: (n + 1,) of equal bins from −180 to 180. of: mask (n,) of atoms in the middle. Of very many chains a random choice
    tells how all of them move.
    """
    from .order.angles import Chains, chains_of, dihedral_angles

    bins = len(edges_deg) - 1
    fine = bins * FINER
    angles = dihedral_angles(network, atoms.positions_A, atoms.symbols, atoms.cell, of)
    chains = chains_of(network, atoms.symbols, of)
    found = {}
    for kind, every in chains.items():
        some = every.select(rng.permutation(len(every))[:MOST_CHAINS])

        def label(model: Atoms, some: Chains = some) -> Ints:
            angle = some.angles_deg(_vectors(network, model))
            place = np.clip(np.nan_to_num(angle + 180) * fine / 360, 0, fine - 1).astype(np.int64)
            return np.where(np.isfinite(angle), place, fine)

        own = angles.get(kind, np.zeros(0))
        measured = np.bincount(np.clip((own + 180) * fine / 360, 0, fine - 1).astype(np.int64), minlength=fine)
        measured = np.concatenate([measured, [len(every) - len(own)], np.zeros(FINER - 1, np.int64)])
        band = _unfolded(atoms, label, fine + FINER, rng, count, measured, finer=FINER, runs=[fine, FINER], around=True)
        found[kind] = band.part(slice(bins))
    return found


def _together(drawn: NDArray[np.int64], alone: Array) -> float:
    """How many times (≥ 1) counts of draws (draws, n) vary more than those of members that move each on its own, `alone` (n,)."""
    varied = alone > 5
    if len(drawn) < 2 or not varied.any():
        return 1.0
    return max(float((np.var(drawn[:, varied], axis=0, ddof=1) / alone[varied]).mean()), 1.0)


def _vectors(network: Network, model: Atoms) -> Array:
    return network.vectors_A(model.positions_A, None if model.cell is None else model.cell.vectors_A)


def _pair_label(elements: tuple[str, ...], near: Pairs, n_bins: int, width: float) -> Callable[[Atoms], Ints]:
    """What bin each of the pairs is in: kind of pair times bin, one bin for all beyond the last."""
    rank = {symbol: k for k, symbol in enumerate(elements)}
    number = pair_kinds(len(elements))

    def label(model: Atoms) -> Ints:
        kind = np.array([rank[symbol] for symbol in model.symbols])
        shift = 0 if model.cell is None else near.shift @ model.cell.vectors_A
        along = model.positions_A[near.second] + shift - model.positions_A[near.first]
        bins = (np.sqrt((along**2).sum(axis=1)) / width).astype(np.int64)
        return np.where(
            bins < n_bins, number[kind[near.first], kind[near.second]] * n_bins + bins, int(number.max() + 1) * n_bins
        )

    return label


def _unfolded(
    atoms: Atoms,
    label: Callable[[Atoms], Ints],
    labels: int,
    rng: np.random.Generator,
    count: int,
    measured: Ints,
    finer: int = 1,
    runs: Sequence[int] | None = None,
    around: bool = False,
) -> Band:
    """Band of the counts, from how members go from bin to bin in draws of the atoms, and on in draws of those.

    finer, runs, around: see `unfold`.
    """
    from scipy.sparse import coo_array, csr_array

    steps = [csr_array((labels, labels), dtype=np.float64) for _ in range(2)]
    histograms = []
    own = label(atoms)
    for model in draws(atoms, count, rng):
        one = label(model)
        two = label(next(draws(model, 1, rng)))
        histograms.append(np.bincount(one, minlength=labels))
        for k, (begin, end) in enumerate(((own, one), (one, two))):
            steps[k] = steps[k] + coo_array((np.ones(len(end)), (end, begin)), shape=(labels, labels)).tocsr()
    drawn = [np.maximum(np.asarray(step.sum(axis=0)).ravel(), 1) for step in steps]
    moves = steps[0] + steps[1]
    share = moves / (drawn[0] + drawn[1])
    alone = (share - share.power(2)) @ np.bincount(own, minlength=labels)
    together = _together(np.array(histograms), alone)
    return unfold(measured, moves, rng, together, finer, runs, around)


def _by_kind(
    atoms: Atoms, kinds: NDArray[np.str_], value: Callable[[Atoms], Array], least: float, rng: np.random.Generator, count: int
) -> dict[str, Binned]:  # fmt: skip
    """Bands of the histogram of a value of every member, one histogram per kind of member.

    Bins are `least` wide, or as many times as it takes to be no narrower than the error of a value: finer ones tell nothing.
    Where in a bin members are does tell where they go, so that they are followed over `FINER` bins in each.
    """
    own = value(atoms)
    error = np.abs(value(next(draws(atoms, 1, rng))) - own) if count else np.zeros(len(own))
    found = {}
    for kind in np.unique(kinds).tolist():
        mine = kinds == kind
        width = least * max(1, int(np.ceil(1.48 * np.median(error[mine]) / least)))
        low, high = (int(f(own[mine]) / width) for f in (np.min, np.max))
        margin = max(3, int(0.3 * (high - low)))
        first, n_bins = low - margin, high - low + 1 + 2 * margin

        def label(
            model: Atoms, mine: NDArray[np.bool_] = mine, width: float = width, first: int = first, n: int = n_bins
        ) -> Ints:
            return np.clip((value(model)[mine] * FINER / width).astype(np.int64) - first * FINER, 0, n * FINER - 1)

        measured = np.bincount(label(atoms), minlength=n_bins * FINER)
        band = _unfolded(atoms, label, n_bins * FINER, rng, count, measured, finer=FINER)
        found[kind] = Binned((first + np.arange(n_bins + 1, dtype=np.float64)) * width, band)
    return found
