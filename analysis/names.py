"""Names of atoms as their neighbours allow them: an oxygen amid four oxygens of glass is a silicon that was taken for one.

Names are told from each atom alone, by brightness. What names the two atoms of a bond have says more: how often pairs of
elements stand so far apart follows from all of them, and the probability of a name from that of the atom alone and from its neighbours,
whose own names are as uncertain. Both are found by turns, as in belief propagation (J. Pearl 1988, doi:10.1016/C2009-0-27609-4).
How far neighbours are to be trusted, the names say themselves, by their pseudo-likelihood (J. Besag 1975, doi:10.2307/2987782): in a
random alloy not at all, and names stay as they are.

A real defect is told from a wrong name by its other bonds: of two like atoms that are bonded each has unlike neighbours besides. An
atom in the place of the other element is taken for wrongly named where its probability allows that. Of many such atoms some may
be real: as many as there are more of them than wrong names expected, and as chance may hide. Where neighbours leave more than a third of
the doubts names stay as they are (`possible_names`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from .atoms import UNKNOWN, Atoms
from .cell import Pairs, pairs_within

Array = NDArray[np.float64]
Ints = NDArray[np.int64]

ROUNDS = 20
SETTLED = 1e-3
"""Change of a probability below which names are settled."""
BINS, FEWEST_IN_BIN = 20, 100
"""Ranges of distance that are told apart, at most, and pairs in each at least."""
RANDOM_PAIRS = 2.0
"""Pairs of random names that are added to those of each range: what was never seen is not impossible."""
PARTS = 8
"""Parts of the atoms; what pairs an atom has is told from those of the other parts, so that its name does not speak for itself."""
TRUST = np.linspace(0, 1, 21)
"""Powers of what neighbours say that are tried."""
KEPT_AFTER = 3
"""Rounds of the same trust after which it stays: it would else come and go with the names that are about to change."""
TINY = 1e-300
LEAST = 1e-9
"""Of doubts in names so much is left at least: bonds are thought of for other names too."""
MOST_LEFT = 1 / 3
"""Share of the doubts that neighbours may leave for their word to be taken."""
SUSPECT = 3.0
"""Times as doubtful as by itself is a name that neighbours contradict."""
BEHIND = 2.0
"""Log-likelihood that full trust, or else none, may fall short of the best by chance (half of χ² at 95 %)."""
FORGIVEN = 0.1
"""Share of the gain by trust that full trust may fall short of the best: atoms whose names are less certain than stated tell against it."""


def doubts(kind: Ints, sure: Array, elements: Sequence[str]) -> Array:
    """Probability (n, 2) that an atom is of the next lighter, and of the next heavier element than its name says.

    kind: (n,) numbers of elements in order of weight; sure: (n,) probability of the name. Nobody is taken for an unknown element,
    nor an atom of it for one that is known.
    """
    known = np.array([element != UNKNOWN for element in elements])[kind]
    lightest = int(UNKNOWN in elements)
    aside = np.stack([kind > lightest, kind < len(elements) - 1], axis=1) * ((1 - sure) * known)[:, None]
    return aside / np.maximum((aside > 0).sum(axis=1), 1)[:, None]


def numbered(atoms: Atoms) -> tuple[Ints, Array]:
    """Number (n,) of each atom's element in `atoms.elements`, and the probability (n,) of its name, 1 where it is not known."""
    rank = {symbol: k for k, symbol in enumerate(atoms.elements)}
    kind = np.array([rank[symbol] for symbol in atoms.symbols], np.int64)
    return kind, np.where(np.isfinite(atoms.species_probability), atoms.species_probability, 1.0)


def likely_names(atoms: Atoms, reach_A: float) -> Atoms:
    """The atoms with the most probable names and their probabilities, by their own and by neighbours up to `reach_A` away.

    An atom of unknown probability keeps its name, and so does one without neighbours. ValueError where there are more than 64
    neighbours per atom.
    """
    kind, sure = numbered(atoms)
    elements = atoms.elements
    if (sure == 1).all() or len(elements) < 2:
        return atoms
    pairs = pairs_within(atoms.positions_A, reach_A, atoms.cell)
    pairs = pairs.select(pairs.first != pairs.second)
    if not len(pairs.first):
        return atoms
    chance = _settled(_alone(kind, sure, elements), pairs)
    lonely = np.bincount(np.concatenate([pairs.first, pairs.second]), minlength=len(kind)) == 0
    own = chance[np.arange(len(kind)), kind]
    best = np.where(lonely | (own >= chance.max(axis=1) * (1 - SETTLED)), kind, chance.argmax(axis=1))
    probability = np.where(best == kind, own, chance.max(axis=1))
    probability = np.where(np.isfinite(atoms.species_probability), probability, atoms.species_probability)
    return replace(atoms, symbols=tuple(elements[k] for k in best), species_probability=probability)


@dataclass(frozen=True, eq=False)
class PossibleNames:
    """Names that atoms may truly have.

    likely: the atoms with their `likely_names`. What doubts neighbours leave is shared among atoms as their own doubts are: wrong
    names that are left come by chance, wherever neighbours contradict names or not.
    symbols: the names they came with; renamed: (n,) indices of the atoms whose names those are not; right: of these, at most so
    many may truly be what they were given for, such as atoms in the place of another element; weight: (n,) odds of that for one beside
    another. Where names stay as given: contradicted: how many of them neighbours doubt, if that is more than probabilities allow;
    instead: the atoms with the names of neighbours, if those are others.
    """

    likely: Atoms
    symbols: tuple[str, ...]
    renamed: Ints
    right: int
    weight: Array
    contradicted: int = 0
    instead: Atoms | None = None

    @classmethod
    def given(cls, atoms: Atoms, contradicted: int = 0, instead: Atoms | None = None) -> PossibleNames:
        """The names that were given, and those of neighbours instead."""
        return cls(atoms, atoms.symbols, np.zeros(0, np.int64), 0, np.zeros(0), contradicted, instead)

    def others(self, draws: int, rng: np.random.Generator) -> list[Atoms]:
        """Per draw, the atoms with names as far from the likely ones as may be right; none where none may."""
        if self.instead is not None:
            return [self.instead] * draws
        return [self.restored(self.right, rng) for _ in range(draws if self.right else 0)]

    def restored(self, count: int, rng: np.random.Generator) -> Atoms:
        """The likely atoms, `count` of the renamed ones by lot back as given."""
        names = np.array(self.likely.symbols)
        back = rng.choice(self.renamed, count, replace=False, p=self.weight / self.weight.sum())
        names[back] = np.array(self.symbols)[back]
        return replace(self.likely, symbols=tuple(names.tolist()))


def possible_names(atoms: Atoms, reach_A: float) -> PossibleNames:
    """The `likely_names` of atoms, and which of those that are not the given ones may be wrong.

    The names stay as given where neighbours leave more than `MOST_LEFT` of the doubts, since they would set about as many wrong as right;
    the ones or the others may be right.
    The more numerous renamed atoms are than wrong names expected by the probabilities, twice the square root of which chance may add,
    the more of them may truly be of the element that was given.
    """
    likely = likely_names(atoms, reach_A)
    doubt = 1 - atoms.species_probability
    expected, left = float(np.nansum(doubt)), float(np.nansum(1 - likely.species_probability))
    by_chance = expected - 2 * np.sqrt(expected), expected + 2 * np.sqrt(expected)
    other = np.array(likely.symbols) != np.array(atoms.symbols)
    doubted = int((other | (1 - likely.species_probability > SUSPECT * doubt)).sum())
    remains = np.where(doubt > 0, np.maximum(doubt * min(left / max(expected, TINY), 1.0), LEAST), doubt)
    likely = replace(likely, species_probability=1 - remains)
    if left >= MOST_LEFT * expected:
        contradicted = doubted if doubted > by_chance[1] else 0
        return PossibleNames.given(atoms, contradicted, likely if other.any() else None)
    renamed = np.flatnonzero(other)
    right = int(np.clip(np.ceil(len(renamed) - by_chance[0]), 0, len(renamed)))
    odds = np.maximum(1 - doubt[renamed], LEAST) / np.maximum(doubt[renamed], LEAST)
    return PossibleNames(likely, atoms.symbols, renamed, right, odds)


def _settled(alone: Array, pairs: Pairs) -> Array:
    """Probabilities (n, elements) of names once neighbours have heard each other, from those of the atoms `alone`."""
    n = len(alone)
    ends, range_of = (pairs.first, pairs.second), _ranges(pairs.distance_A)
    part = np.random.default_rng(n).integers(PARTS, size=n)  # by lot: in a crystal every eighth atom may be of one site
    parts = (part[pairs.first], part[pairs.second])
    chance, trust, unchanged = alone, 0.0, 0
    heard = [np.zeros((len(range_of), alone.shape[1])) for _ in ends]
    ratio = np.ones((alone.shape[1], alone.shape[1], len(range_of)))
    for _ in range(ROUNDS):
        # What an atom tells another leaves out what it heard from that one.
        tells = [
            _normed(np.log(np.maximum(chance[end], TINY)) - trust * said) for end, said in zip(ends, heard, strict=True)
        ]
        excess = _excess(tells, ratio**trust, parts, range_of, chance.mean(axis=0))
        ratio = excess[:, :, parts[0], range_of]
        heard = [
            np.log(np.einsum("abm,mb->ma", ratio, tells[1])),
            np.log(np.einsum("abm,mb->ma", excess[:, :, parts[1], range_of], tells[0])),
        ]
        every = _summed(ends[0], heard[0], n) + _summed(ends[1], heard[1], n)
        told, found = _weighed(alone, every, chance.mean(axis=0), trust if unchanged >= KEPT_AFTER else None)
        unchanged, trust = unchanged + 1 if found == trust else 0, found
        change, chance = np.abs(told - chance).max(), told
        if change < SETTLED:
            break
    return chance


def _normed(logs: Array) -> Array:
    """Probabilities along the last axis from their logarithms, up to a constant."""
    weight = np.exp(logs - logs.max(axis=-1, keepdims=True))
    return weight / weight.sum(axis=-1, keepdims=True)


def _summed(at: Ints, values: Array, n: int) -> Array:
    """Sums (n, columns) of the rows of `values` by the atom each is `at`."""
    return np.stack([np.bincount(at, column, minlength=n) for column in values.T], axis=1)


def _alone(kind: Ints, sure: Array, elements: Sequence[str]) -> Array:
    """Probabilities (n, elements) of each atom's names by itself."""
    lighter, heavier = doubts(kind, sure, elements).T
    rows, chance = np.arange(len(kind)), np.zeros((len(kind), len(elements)))
    chance[rows, np.maximum(kind - 1, 0)] = lighter
    chance[rows, np.minimum(kind + 1, len(elements) - 1)] += heavier
    chance[rows, kind] += 1 - lighter - heavier
    return chance


def _ranges(distance: Array) -> Ints:
    """Number (m,) of the range of distances that each pair is in; ranges hold equally many."""
    count = int(np.clip(len(distance) // FEWEST_IN_BIN, 1, BINS))
    inner = np.quantile(distance, np.arange(1, count) / count)
    return np.searchsorted(inner, distance, side="right").astype(np.int64)


def _excess(tells: list[Array], ratio: Array, parts: tuple[Ints, Ints], range_of: Ints, share: Array) -> Array:
    """How many times more often pairs of elements are than those of random names, without the pairs of a part.

    tells: of the first and of the second atoms, probabilities (m, elements); ratio: (elements, elements, m) as far as known before.
    Returns (elements, elements, parts, ranges).
    """
    elements, ranges = len(share), int(range_of.max()) + 1
    both = np.einsum("ma,mb,abm->abm", *tells, ratio)
    both /= both.sum(axis=(0, 1))
    apart = parts[0] != parts[1]
    number = np.zeros((elements, elements, PARTS, ranges))
    for a, b in np.ndindex(elements, elements):
        weight = both[a, b]
        own = np.bincount(parts[0] * ranges + range_of, weight, minlength=PARTS * ranges)
        own = own + np.bincount(parts[1] * ranges + range_of, np.where(apart, weight, 0), minlength=PARTS * ranges)
        number[a, b] = np.bincount(range_of, weight, minlength=ranges) - own.reshape(PARTS, ranges)
    number = np.maximum(number + number.transpose(1, 0, 2, 3), 0)
    random = (share[:, None] * share)[:, :, None, None]
    return (number + RANDOM_PAIRS * random) / ((number.sum(axis=(0, 1)) + RANDOM_PAIRS) * np.maximum(random, 1e-12))


def _weighed(alone: Array, said: Array, share: Array, kept: float | None) -> tuple[Array, float]:
    """Probabilities (n, elements) of names by the atoms and their neighbours, and how far those are trusted.

    kept: the trust, if it is no longer to be found from how far names bear neighbours out.
    """
    heard = said - said.max(axis=1, keepdims=True)
    trust = _trust(alone, heard, share) if kept is None else kept
    found = alone * np.exp(trust * heard)
    return found / found.sum(axis=1, keepdims=True), trust


def _trust(alone: Array, heard: Array, share: Array) -> float:
    """The power of what neighbours say at which names bear them out best; 1, or else 0, where that is nearly as good."""
    weights = (np.exp(trust * heard) for trust in TRUST)
    likelihood = np.array([np.log((alone * weight).sum(axis=1) / (weight @ share)).sum() for weight in weights])
    gain = float(likelihood.max() - likelihood[0])
    enough = likelihood >= likelihood.max() - max(BEHIND, FORGIVEN * gain)
    return 1.0 if enough[-1] else 0.0 if enough[0] else float(TRUST[likelihood.argmax()])
