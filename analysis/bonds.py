"""Which atoms are bonded: pairs of named elements within a distance, across the faces of a periodic box too.

A rule is either `d ≤ D` (a cut at the first minimum of g(r)) or `|d − D| ≤ T` (a window about a bond length). A pair
of atoms is bonded where any rule says so.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .atoms import Atoms, atomic_number
from .cell import Cell, Pairs, pairs_within
from .network import Network
from .pdf import first_minimum, pair_distribution

ANY = "any"

_SAME_PLACE_A = 1e-3

_NUMBER = r"\s*([+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)\s*"
_RULE = re.compile(rf"\s*(?:(any)|([A-Za-z]+)\s*-\s*([A-Za-z]+))\s*:{_NUMBER}(?:±{_NUMBER})?")


@dataclass(frozen=True)
class BondRule:
    """Pairs of elements `a` and `b` (both "any" = all pairs) are bonded at distances d ≤ D, or |d − D| ≤ T.

    distance_A is D; tolerance_A is T, None for the first kind. ValueError for an unknown element, "any" paired with an
    element, a distance that is not positive, or a negative tolerance.
    """

    a: str
    b: str
    distance_A: float
    tolerance_A: float | None = None

    def __post_init__(self) -> None:
        if (self.a == ANY) != (self.b == ANY):
            raise ValueError(f"bond rule pairs {self.a!r} with {self.b!r}; 'any' stands for both partners or for none")
        if self.a != ANY:
            atomic_number(self.a)
            atomic_number(self.b)
        if not 0 < self.distance_A < np.inf:
            raise ValueError(f"bond distance is {self.distance_A} Å; expected a positive number")
        if self.tolerance_A is not None and not 0 <= self.tolerance_A < np.inf:
            raise ValueError(f"bond tolerance is {self.tolerance_A} Å; expected a number >= 0, or none for d <= D")

    @classmethod
    def parse(cls, text: str, tolerance_A: float | None = None) -> BondRule:
        """The rule written as "Si-O:2.2", "any:1.66" or, with a tolerance of its own, "any:1.66±0.15".

        ValueError for any other form.
        """
        form = _RULE.fullmatch(text)
        if form is None:
            raise ValueError(f"bond rule {text!r} is not understood; write A-B:D as in Si-O:2.2, or any:D, with D in Å")
        everything, a, b, distance, tolerance = form.groups()
        return cls(everything or a, everything or b, float(distance), float(tolerance) if tolerance else tolerance_A)

    @property
    def reach_A(self) -> float:
        """The longest bond the rule allows, Å."""
        return self.distance_A + (self.tolerance_A or 0.0)

    @property
    def limits_A(self) -> tuple[float, ...]:
        """Distances at which bonds begin or end, Å."""
        ends = (self.reach_A,) if self.tolerance_A is None else (self.distance_A - self.tolerance_A, self.reach_A)
        return tuple(end for end in ends if end > 0)

    def binds(self, a: str, b: str) -> bool:
        """Whether the rule is for this pair of elements."""
        return self.a == ANY or {self.a, self.b} == {a, b}

    def allows(self, distance_A: ArrayLike) -> NDArray[np.bool_]:
        """Which distances are those of a bond."""
        distance = np.asarray(distance_A, np.float64)
        if self.tolerance_A is None:
            return distance <= self.distance_A
        return np.abs(distance - self.distance_A) <= self.tolerance_A

    def __str__(self) -> str:
        pair = ANY if self.a == ANY else f"{self.a}-{self.b}"
        window = "" if self.tolerance_A is None else f"±{self.tolerance_A!r}"
        return f"{pair}:{self.distance_A!r}{window}"


def bonds(
    positions_A: ArrayLike, symbols: Sequence[str], rules: Iterable[BondRule], cell: Cell | None = None
) -> Network:
    """The network of bonded atoms.

    positions_A: (n, 3) in Å; symbols: n element symbols; rules: a pair is bonded where any of them says so; cell: the box,
    where the model is periodic. ValueError where two atoms stand in the same place (nearer than 0.001 Å): such a list is
    doubled, not bonded; and where a rule bonds hundreds of atoms to each.
    """
    atoms = Atoms(np.asarray(positions_A), tuple(symbols))
    rules = tuple(rules)
    reach = max((rule.reach_A for rule in rules), default=0.0)
    if len(atoms) == 0 or not rules:
        return Network(len(atoms), np.zeros((0, 2), dtype=np.int64))
    pairs = pairs_within(atoms.positions_A, reach, cell)
    distance = pairs.distance_A
    _refuse_doubled(pairs, distance)
    numbers = atoms.numbers[np.column_stack([pairs.first, pairs.second])]
    bonded = np.zeros(len(distance), dtype=bool)
    for rule in rules:
        bonded |= _obeys(rule, numbers, distance)
    chosen = pairs.select(bonded)
    return Network(len(atoms), np.column_stack([chosen.first, chosen.second]), chosen.shift)


def default_rules(
    positions_A: ArrayLike, symbols: Sequence[str], cell: Cell | None = None, *, pairs: str = "unlike"
) -> tuple[BondRule, ...]:
    """Pairs of elements nearer than the first minimum of their measured g(r).

    positions_A: (n, 3) in Å; symbols: n element symbols; cell: a periodic box; pairs: "unlike", which are like pairs where
    there is one element, or "all". A pair of elements that has no minimum to be found (too few atoms) gets no rule. Distances
    are rounded to 0.01 Å. ValueError where two atoms stand in the same place.
    """
    if pairs not in ("unlike", "all"):
        raise ValueError(f"pairs is {pairs!r}; expected 'unlike' or 'all'")
    if len(symbols) < (2 if cell is None else 1):
        return ()
    close = pairs_within(np.asarray(positions_A, np.float64), _SAME_PLACE_A, cell)
    _refuse_doubled(close, close.distance_A)
    measured = pair_distribution(positions_A, symbols, r_max_A=6.0, cell=cell)
    every = pairs == "all" or len(measured.g) == 1
    found = {pair: first_minimum(measured.r_A, g) for pair, g in measured.g.items() if every or pair[0] != pair[1]}
    return tuple(BondRule(a, b, round(cut, 2)) for (a, b), cut in found.items() if cut is not None)


def homopolar_rules(rules: Iterable[BondRule]) -> tuple[BondRule, ...]:
    """Rules for the defects that `rules` between unlike elements leave out: like pairs as near as that element's bonds."""
    longest: dict[str, float] = {}
    for rule in rules:
        if rule.a != rule.b:
            for element in (rule.a, rule.b):
                longest[element] = max(rule.reach_A, longest.get(element, 0.0))
    return tuple(BondRule(element, element, reach) for element, reach in sorted(longest.items()))


def _obeys(rule: BondRule, numbers: NDArray[np.int64], distance: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which pairs, given their atomic numbers (m, 2) and distances (m,), the rule bonds."""
    near = rule.allows(distance)
    if rule.a == ANY:
        return near
    wanted = sorted((atomic_number(rule.a), atomic_number(rule.b)))
    return near & (np.sort(numbers, axis=1) == wanted).all(axis=1)


def _refuse_doubled(pairs: Pairs, distance: NDArray[np.float64]) -> None:
    doubled = np.flatnonzero(distance < _SAME_PLACE_A)
    if doubled.size:
        a, b = pairs.first[doubled[0]], pairs.second[doubled[0]]
        raise ValueError(
            f"atoms {a} and {b} stand in the same place ({doubled.size} such pairs); remove the doubles first"
        )
