"""Error bars of the structure: distances, angles, numbers of bonds and rings as they were before noise, with 95 % bands.

Each statistic counts members (pairs of atoms, angles, atoms, rings) by bins. Two draws on top of each other show how
errors move members between bins, from the measured atoms and from atoms moved once; `unfold` does the rest.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement

import numpy as np
from numpy.typing import NDArray

from .atoms import Atoms
from .cell import Pairs, pairs_in_chunks
from .ensemble import draws
from .network import Network
from .pdf import Pair, PairDistribution
from .rings import RingList
from .unfold import Band, unfold

Array = NDArray[np.float64]
Ints = NDArray[np.int64]
Mask = NDArray[np.bool_] | None

MOST_MEMBERS = 1_500_000
"""More pairs than this are not followed; a random choice of them tells how pairs move."""

FINER = 4
"""Bins within one of a histogram of lengths or angles, over which members are followed."""

POWERS = (1, 3, 5)
"""Powers of the ratio by which errors break less on the way from the truth."""
MOST_BROKEN = 0.3
"""Share of rings that may break in a draw for bands of rings to mean anything."""


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


def degree_bands(
    atoms: Atoms,
    network_of: Callable[[Atoms], Network],
    rng: np.random.Generator,
    *,
    most: int = 16,
    count: int = 16,
    of: Mask = None,
) -> dict[str, Band]:
    """Bands of the number of atoms with 0, 1, … `most` bonds, per element; network_of gives the bonds of a drawn model.

    of: mask (n,) of the atoms that count.
    """
    width = most + 1
    rank = {element: k for k, element in enumerate(atoms.elements)}
    counted = np.ones(len(atoms), bool) if of is None else of

    def label(model: Atoms) -> Ints:
        kind = np.array([rank[symbol] for symbol in model.symbols])
        return (kind * width + np.minimum(network_of(model).degree, most))[counted]

    labels = len(rank) * width
    measured = np.bincount(label(atoms), minlength=labels)
    whole = _unfolded(atoms, label, labels, rng, count, measured, sharper=True, runs=[width] * len(rank))
    return {element: whole.part(slice(k * width, (k + 1) * width)) for element, k in rank.items()}


def ring_bands(
    atoms: Atoms, rings: RingList, rings_of: Callable[[Atoms], RingList], rng: np.random.Generator, *, count: int = 8
) -> dict[int, Band]:
    """Bands of the number of rings per size; rings_of gives the rings of a drawn model.

    Errors of atoms break rings and make false ones; both are counted in draws, and in draws of those. There are none where draws break
    more than `MOST_BROKEN` of the rings: limits of bonds are within the errors then, and most of the true rings are lost already.
    """
    tallies = [_Tally(Counter(), Counter(), Counter()) for _ in range(2)]
    own = _ring_sets(rings)
    drawn = []
    for model in draws(atoms, count, rng):
        one = _ring_sets(rings_of(model))
        drawn.append(one)
        tallies[0].add(own, one)
        tallies[1].add(one, _ring_sets(rings_of(next(draws(model, 1, rng)))))
    sizes = sorted(own.keys() | tallies[0].before.keys() | tallies[0].made.keys())
    measured = np.array([len(own.get(size, ())) for size in sizes])
    before, lost, made = (
        np.array([[getattr(tally, name)[size] for size in sizes] for tally in tallies], np.float64)
        for name in ("before", "lost", "made")
    )
    if lost[0].sum() > MOST_BROKEN * before[0].sum():
        return {}
    share = lost / np.maximum(before, 1)
    totals = np.array([[len(one.get(size, ())) for size in sizes] for one in drawn])
    together = _together(totals, (share[0] - share[0] ** 2) * measured + made[0] / count)
    ways = []
    for power in POWERS:
        broken = share[0] * _sharpened(share[0], share[1]) ** power
        appear = made[0] / count * _sharpened(made[0], made[1]) ** power
        moves = np.vstack([np.diag(1 - broken), broken])
        ways.append(unfold(measured, moves, rng, appear, together, runs=[1] * len(sizes)))
    whole = _spanning(ways)
    return {size: whole.part(slice(k, k + 1)) for k, size in enumerate(sizes)}


@dataclass(frozen=True)
class _Tally:
    """Per size, rings before errors were added, and those lost and made by them."""

    before: Counter[int]
    lost: Counter[int]
    made: Counter[int]

    def add(self, old: dict[int, set[tuple[int, ...]]], new: dict[int, set[tuple[int, ...]]]) -> None:
        for size in old.keys() | new.keys():
            had, has = old.get(size, set()), new.get(size, set())
            self.before[size] += len(had)
            self.lost[size] += len(had - has)
            self.made[size] += len(has - had)


def _sharpened(once: Array, twice: Array) -> Array:
    """Ratio (≤ 1) by which errors broke less on the way from the truth than they do from the atoms, seen one step further on.

    Bonds of measured atoms are nearer to the limit of a bond than true ones, and those of draws nearer still. By the same ratio
    again where the density of distances at the limit is even, by up to its fifth power where the limit is in a wide gap, see `POWERS`.
    """
    return np.minimum(np.divide(once, twice, out=np.ones_like(once), where=twice > 0), 1.0)


def _together(drawn: NDArray[np.int64], alone: Array) -> float:
    """How many times (≥ 1) counts of draws (draws, n) vary more than those of members that move each on its own, `alone` (n,)."""
    varied = alone > 5
    if len(drawn) < 2 or not varied.any():
        return 1.0
    return max(float((np.var(drawn[:, varied], axis=0, ddof=1) / alone[varied]).mean()), 1.0)


def _spanning(ways: list[Band]) -> Band:
    """The middle one of three estimates, with limits as far as those of any."""
    low, high = np.min([way.low for way in ways], axis=0), np.max([way.high for way in ways], axis=0)
    return Band(ways[1].value, ways[1].best, low, high)


def _ring_sets(rings: RingList) -> dict[int, set[tuple[int, ...]]]:
    return {size: set(map(tuple, _keys(rings, size))) for size in rings.tables}


def _keys(rings: RingList, size: int) -> list[list[int]]:
    """Rings of a size as lists of numbers, images told apart."""
    table = rings.tables[size]
    if size not in rings.shift_tables:
        return table.tolist()
    return np.concatenate([table, rings.shift_tables[size].reshape(len(table), -1)], axis=1).tolist()


def _vectors(network: Network, model: Atoms) -> Array:
    return network.vectors_A(model.positions_A, None if model.cell is None else model.cell.vectors_A)


def _pair_label(elements: tuple[str, ...], near: Pairs, n_bins: int, width: float) -> Callable[[Atoms], Ints]:
    """What bin each of the pairs is in: kind of pair times bin, one bin for all beyond the last."""
    rank = {symbol: k for k, symbol in enumerate(elements)}
    number = np.zeros((len(elements),) * 2, np.int64)
    for k, (a, b) in enumerate(combinations_with_replacement(range(len(elements)), 2)):
        number[a, b] = number[b, a] = k

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
    sharper: bool = False,
    finer: int = 1,
    runs: Sequence[int] | None = None,
) -> Band:
    """Band of the counts, from how members go from bin to bin in draws of the atoms, and on in draws of those.

    sharper: members leave a bin by passing a limit, which fewer of the true ones are near to, see `_sharpened`. finer, runs: see `unfold`.
    """
    from scipy.sparse import coo_array, csr_array, diags_array

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
    if not sharper:
        return unfold(measured, moves, rng, None, together, finer, runs)
    left = [1 - step.diagonal() / every for step, every in zip(steps, drawn, strict=True)]
    ratio = _sharpened(left[0], left[1])
    # One draw more that stays: few draws from a bin do not tell that all of its members leave it.
    share = (moves + diags_array(np.ones(labels))) / (drawn[0] + drawn[1] + 1)
    ways = []
    for less in (ratio**power for power in POWERS):
        fewer = share * less + diags_array(1 - less * np.asarray(share.sum(axis=0)).ravel())
        ways.append(unfold(measured, fewer, rng, None, together, finer, runs))
    return _spanning(ways)


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
