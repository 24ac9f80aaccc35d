"""Bonds as the true atoms may have them: the chance of every pair that its true distance is that of a bond.

Errors carry measured distances across the limits of a bond, mostly outwards where a limit is near a peak. How many true
distances of a kind of pair there are where follows from all measured ones (see `unfold`), and from that and the error of a pair
the chance that its own true distance is within the limits (empirical Bayes: B. Efron 2014, doi:10.1214/13-STS455). Where no
distance is near a limit all chances are 0 or 1, and the bonds are those measured.

Pairs are drawn each on its own. A true network is more regular than such draws, in how many bonds an atom has, so that
it may differ from the likeliest one either as draws do or the other way.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement

import numpy as np
from numpy.typing import NDArray

from .atoms import Atoms
from .bonds import BondRule
from .cell import Pairs, pairs_within
from .network import Network
from .unfold import hidden, raised, steps_of

Array = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

REACH, MARGIN = 5.0, 3.0
"""Errors from a limit up to which measured distances are looked at, and beyond those up to which true ones are thought of."""
FARTHEST_A = 1.5
"""Distances farther than this from all limits are not looked at, however large errors are."""
LARGEST_A = 0.5
"""Distances of larger errors tell nothing of others; they may be anywhere within their own errors."""
BINS = 3
"""Bins per error."""
BACK = 2.0
"""Times, at most, that an estimate is moved back by as much as one of counts drawn from it is off: it is smoother than the truth."""
MOST_UNSURE = 0.05
"""Share of bonds that may differ from draw to draw: nothing can be said of the network where more do."""
_TYPICAL = 5
_AT_ONCE = 100_000


@dataclass(frozen=True, eq=False)
class LikelyBonds:
    """Networks as they may truly be, some of them by lot.

    elements: of the atoms, in order; pairs: m pairs that may be bonded; measured: (m,) which are by their measured distance;
    chance: (kinds, draws, m) of a bond if the pair were of this kind of elements; lot: (draws, m) numbers from 0 to 1, bonded
    are pairs whose number is below their chance.
    """

    symbols: tuple[str, ...]
    elements: tuple[str, ...]
    pairs: Pairs
    measured: Bools
    chance: Array
    lot: Array

    def __len__(self) -> int:
        """How many networks are drawn."""
        return len(self.lot)

    def drawn(self, draw: int, symbols: Sequence[str] | None = None) -> Network:
        """The bonds of one draw; symbols: the names of atoms, if other than measured."""
        return self._bonded(self.lot[draw] < self._chances(symbols or self.symbols)[draw])

    def likeliest(self, symbols: Sequence[str] | None = None) -> Network:
        """The pairs that are bonded more likely than not; symbols: the names of atoms, if other than measured."""
        return self._bonded(self._chances(symbols or self.symbols).mean(axis=0) >= 0.5)

    def as_measured(self) -> Network:
        """The pairs that are bonded by their measured distances."""
        return self._bonded(self.measured)

    @property
    def unsure(self) -> float:
        """Share of bonds that differ from draw to draw."""
        chance = self._chances(self.symbols).mean(axis=0) if len(self) else np.zeros(0)
        return float(2 * (chance * (1 - chance)).sum() / max(chance.sum(), 1))

    def _chances(self, symbols: Sequence[str]) -> Array:
        """Chance (draws, m) of every pair, by the names of its atoms."""
        rank = {symbol: k for k, symbol in enumerate(self.elements)}
        element = np.array([rank[symbol] for symbol in symbols], np.int64)
        kind = pair_kinds(len(rank))[element[self.pairs.first], element[self.pairs.second]]
        return self.chance[kind, :, np.arange(len(kind))].T

    def _bonded(self, chosen: Bools) -> Network:
        pairs = self.pairs.select(chosen)
        return Network(len(self.symbols), np.column_stack([pairs.first, pairs.second]), pairs.shift)


def likely_bonds(atoms: Atoms, rules: Iterable[BondRule], rng: np.random.Generator, count: int = 16) -> LikelyBonds:
    """`count` draws of the bonds that the true atoms behind the measured ones may have by the rules.

    An atom of unknown covariance has no error. Names are those measured, see `LikelyBonds.drawn`.
    """
    rules = tuple(rules)
    known = np.asarray(np.isfinite(atoms.covariance_A2).all(axis=(1, 2)))
    covariance = np.where(known[:, None, None], atoms.covariance_A2, 0.0)
    largest = float(np.sqrt(2 * np.linalg.eigvalsh(covariance)[:, -1].max(initial=0.0)))
    reach = max((rule.reach_A for rule in rules), default=0.0)
    pairs = pairs_within(atoms.positions_A, reach + min(REACH * largest, FARTHEST_A), atoms.cell)
    distance, error = _distances(pairs, covariance)
    kinds = list(combinations_with_replacement(atoms.elements, 2))
    rank = {symbol: k for k, symbol in enumerate(atoms.elements)}
    element = np.array([rank[symbol] for symbol in atoms.symbols], np.int64)
    kind = pair_kinds(len(rank))[element[pairs.first], element[pairs.second]]
    named = not np.any(atoms.species_probability < 1)
    chance = np.zeros((len(kinds), count, len(kind)))
    measured = np.zeros(len(kind), bool)
    for k, (a, b) in enumerate(kinds):
        own = kind == k
        asked = own if named else np.ones(len(kind), bool)
        binding = [rule for rule in rules if rule.binds(a, b)]
        chance[k][:, asked] = _chances(distance[asked], error[asked], own[asked], binding, rng, count)
        measured |= own & _allowed(binding, pairs.distance_A)
    kept = measured | chance.any(axis=(0, 1))
    lot = rng.random((count, kept.sum()))
    return LikelyBonds(atoms.symbols, atoms.elements, pairs.select(kept), measured[kept], chance[..., kept], lot)


def pair_kinds(elements: int) -> Ints:
    """Number of the kind of a pair, by the numbers of its two elements, (elements, elements)."""
    number = np.zeros((elements, elements), np.int64)
    for k, (a, b) in enumerate(combinations_with_replacement(range(elements), 2)):
        number[a, b] = number[b, a] = k
    return number


def _distances(pairs: Pairs, covariance: Array) -> tuple[Array, Array]:
    """Distances and their errors; what errors across a distance add to it on average is taken off. An image moves as its atom does."""
    apart = np.asarray(pairs.first != pairs.second)
    both = np.where(apart[:, None, None], covariance[pairs.first] + covariance[pairs.second], 0.0)
    distance = np.maximum(pairs.distance_A, 1e-9)
    along = pairs.vector_A / distance[:, None]
    variance = np.einsum("ni,nij,nj->n", along, both, along)
    across = np.trace(both, axis1=1, axis2=2) - variance
    return distance - np.clip(across / (2 * distance), 0, distance), np.sqrt(np.maximum(variance, 0))


def _allowed(rules: Iterable[BondRule], distance: Array) -> Bools:
    allowed = np.zeros(len(distance), bool)
    for rule in rules:
        allowed |= rule.allows(distance)
    return allowed


def _chances(
    distance: Array, error: Array, own: Bools, rules: list[BondRule], rng: np.random.Generator, count: int
) -> Array:
    """Chances (count, n) that true distances obey a rule, told from those pairs that are of its `own` kind."""
    chance = np.tile(_allowed(rules, distance).astype(np.float64), (count, 1))
    limits = np.array(sorted({limit for rule in rules for limit in rule.limits_A}))
    if not len(limits) or not count:
        return chance
    vague = error > LARGEST_A
    ends = np.array([0.0, *limits, np.inf])
    inner = _allowed(rules, np.append((ends[1:-1] + ends[:-2]) / 2, 2 * limits[-1]))
    chance[:, vague] = _spread(distance[vague], error[vague], ends)[:, inner].sum(axis=1)
    own = own & ~vague
    near = own & (np.abs(distance[:, None] - limits).min(axis=1) < REACH * error)
    if not near.any():
        return chance
    width = float(np.median(error[near])) / BINS
    reach = min(REACH * float(np.quantile(error[near], 0.95)), FARTHEST_A)
    for part in np.split(limits, np.flatnonzero(np.diff(limits) > 2 * reach) + 1):
        asked = (distance >= part[0] - reach) & (distance < part[-1] + reach) & ~vague
        if not (asked & own).any():
            continue
        bins = _bins_about(part, width, reach * (1 + MARGIN / REACH))
        true = _true_counts(
            distance[asked & own], error[asked & own], bins, (part[0] - reach, part[-1] + reach), rng, count
        )
        bonded = _allowed(rules, (bins[1:] + bins[:-1]) / 2)
        for some in np.array_split(np.flatnonzero(asked), 1 + asked.sum() // _AT_ONCE):
            likelihood = _spread(distance[some], error[some], bins) / np.diff(bins)
            every = likelihood @ true
            share = np.divide(
                likelihood @ (true * bonded[:, None]), every, out=chance[:, some].T.copy(), where=every > 0
            )
            chance[:, some] = share.T
    return chance


def _bins_about(limits: Array, width: float, reach: float) -> Array:
    """Edges of bins about limits, each of which is an edge."""
    steps = width * np.arange(-int(reach / width) - 1, int(reach / width) + 2)
    edges: Array = np.unique(np.round((limits[:, None] + steps).ravel(), 9))
    return edges[edges >= 0]


def _spread(at: Array, error: Array, bins: Array) -> Array:
    """Share (n, bins) of a Gaussian about `at` in each bin; all of it in the one that holds `at` where there is no error."""
    from scipy.special import ndtr

    below: Array = ndtr((bins - at[:, None]) / np.maximum(error, 1e-9)[:, None]).astype(np.float64)
    return below[:, 1:] - below[:, :-1]


def _true_counts(
    distance: Array, error: Array, bins: Array, looked_at: tuple[float, float], rng: np.random.Generator, count: int
) -> Array:
    """How many true distances (bins, count) may be in each bin, as far as the measured ones that are looked at tell.

    Draws differ in how sharp peaks are taken to be, in how far the estimate is moved back, and in how many distances are put
    where the measured ones would not show them.
    """
    from scipy.sparse import csr_array

    centres = (bins[1:] + bins[:-1]) / 2
    seen = (centres >= looked_at[0]) & (centres < looked_at[1])
    typical = np.quantile(error, (np.arange(_TYPICAL) + 0.5) / _TYPICAL)
    moved = np.stack([_spread(centres, np.full(len(centres), one), bins) for one in typical]).mean(axis=0).T
    share = csr_array(np.where(seen[:, None], moved, 0.0))
    measured = np.where(seen, np.histogram(distance, bins)[0], 0).astype(np.float64)
    true = np.zeros((len(measured), count))
    for k, steps in enumerate(steps_of(measured, share, 1.0, rng)):
        some = true[:, k::3]
        best = raised(measured[:, None], share, steps)
        again = raised(rng.poisson(np.tile(share @ best, some.shape[1])).astype(np.float64), share, steps)
        back = np.maximum(best - rng.uniform(0, BACK, some.shape[1]) * (again - best), 0)
        # Bins within an error of each other hide the same distances; a standard deviation of them is half of the limit.
        unseen = share.diagonal() * hidden(measured, best[:, 0], share) / 2
        true[:, k::3] = back + unseen[:, None] * np.abs(rng.normal(size=some.shape[1]))
    return true
