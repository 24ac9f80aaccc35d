"""Atoms as a value: where each one is, which element, and how sure we are of both.

Standard shapes: positions (n, 3) in Å as (x, y, z); every other quantity has one entry per atom. An entry nobody has
measured is nan, never zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .cell import Cell

UNKNOWN = "X"
"""Symbol of an atom whose element is not known."""

_PERIODIC_TABLE = """
H He Li Be B C N O F Ne Na Mg Al Si P S Cl Ar K Ca Sc Ti V Cr Mn Fe Co Ni Cu Zn Ga Ge As Se Br Kr Rb Sr Y Zr Nb Mo Tc Ru
Rh Pd Ag Cd In Sn Sb Te I Xe Cs Ba La Ce Pr Nd Pm Sm Eu Gd Tb Dy Ho Er Tm Yb Lu Hf Ta W Re Os Ir Pt Au Hg Tl Pb Bi Po At
Rn Fr Ra Ac Th Pa U Np Pu Am Cm Bk Cf Es Fm Md No Lr Rf Db Sg Bh Hs Mt Ds Rg Cn Nh Fl Mc Lv Ts Og
"""
FARTHEST_A = 1e7
"""Coordinates beyond this are not in Å."""
SYMBOLS: tuple[str, ...] = (UNKNOWN, *_PERIODIC_TABLE.split())
"""Element symbols in order of atomic number; entry 0 stands for an unknown element."""

_NUMBER_OF = {symbol: number for number, symbol in enumerate(SYMBOLS)}


def atomic_number(symbol: str) -> int:
    """Atomic number of an element symbol, 0 for the unknown `X`; ValueError for anything else."""
    if symbol not in _NUMBER_OF:
        raise ValueError(f"{symbol!r} is not an element symbol; write it as in the periodic table, for example 'Si'")
    return _NUMBER_OF[symbol]


def positions(value: ArrayLike, name: str = "positions_A") -> NDArray[np.float64]:
    """`value` as float64 (n, 3) rows of x, y, z in Å; ValueError naming `name` for another shape or a non-finite entry."""
    try:
        array = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} does not hold numbers ({error}); expected (n, 3), one row x, y, z per atom") from None
    if array.size == 0 and array.ndim <= 2:
        return np.zeros((0, 3))
    if array.ndim != 2 or array.shape[1] != 3:
        raise ValueError(f"{name} has shape {array.shape}; expected (n, 3), one row x, y, z in Å per atom")
    bad = np.flatnonzero(~np.isfinite(array).all(axis=1))
    if bad.size:
        raise ValueError(f"{name} of atom {bad[0]} is {array[bad[0]]}; every coordinate must be a finite number")
    far = np.flatnonzero((np.abs(array) > FARTHEST_A).any(axis=1))
    if far.size:
        raise ValueError(
            f"{name} of atom {far[0]} is {array[far[0]]}; expected coordinates in Å, up to {FARTHEST_A:.0e}"
        )
    return array


def check_symbols(value: Sequence[str], n: int, name: str = "symbols") -> tuple[str, ...]:
    """`value` as a tuple of `n` element symbols; ValueError naming `name` for a wrong count or an unknown symbol."""
    symbols = tuple(str(symbol) for symbol in value)
    if len(symbols) != n:
        raise ValueError(f"{name} has {len(symbols)} entries for {n} atoms; expected one element symbol per atom")
    for symbol in sorted(set(symbols)):
        atomic_number(symbol)
    return symbols


def _per_atom(value: ArrayLike | None, n: int, name: str) -> NDArray[np.float64]:
    """`value` as float64 (n,), all nan when it is None."""
    if value is None:
        return np.full(n, np.nan)
    array = np.asarray(value, dtype=np.float64)
    if array.shape != (n,):
        raise ValueError(f"{name} has shape {array.shape}; expected ({n},), one number per atom (nan = unknown)")
    return array


def _covariance(value: ArrayLike | None, sigma_A: NDArray[np.float64]) -> NDArray[np.float64]:
    """`value` as float64 (n, 3, 3), that of `sigma_A` when it is None."""
    if value is None:
        with np.errstate(invalid="ignore"):  # infinite ones are refused
            return sigma_A[:, None, None] ** 2 * np.eye(3)
    array = np.asarray(value, dtype=np.float64)
    if array.shape != (len(sigma_A), 3, 3):
        raise ValueError(f"covariance_A2 has shape {array.shape}; expected ({len(sigma_A)}, 3, 3), Å², one per atom")
    known = np.flatnonzero(np.isfinite(array).all(axis=(1, 2)))
    values = np.linalg.eigvalsh(array[known])
    wrong = np.flatnonzero(values[:, 0] < -1e-6 * np.maximum(values[:, 2], 1e-12))
    if wrong.size:
        raise ValueError(
            f"covariance_A2 of atom {known[wrong[0]]} has the variance {values[wrong[0], 0]:g} along an axis; "
            "a variance cannot be negative"
        )
    return array


@dataclass(frozen=True, eq=False)
class Atoms:
    """Positions, elements and their certainties; one entry per atom in every field.

    positions_A: float64 (n, 3), rows x, y, z in Å. symbols: n element symbols, "X" = unknown.
    intensity: (n,) integrated intensity in the units of the volume or images it came from.
    sigma_A: (n,) one standard deviation of the position per axis, in Å. species_probability: (n,) in 0..1.
    covariance_A2: (n, 3, 3) of the position, Å²; where left out it is that of sigma_A, the same along all axes.
    These are nan where unknown, and may be left out. cell: the box of a periodic model, None for a free particle.
    ValueError for shapes that do not fit, positions that are not finite, negative or infinite sigmas, or probabilities outside 0..1.
    """

    positions_A: NDArray[np.float64]
    symbols: tuple[str, ...]
    intensity: NDArray[np.float64] = None  # type: ignore[assignment]
    sigma_A: NDArray[np.float64] = None  # type: ignore[assignment]
    species_probability: NDArray[np.float64] = None  # type: ignore[assignment]
    covariance_A2: NDArray[np.float64] = None  # type: ignore[assignment]
    cell: Cell | None = None

    def __post_init__(self) -> None:
        put = object.__setattr__
        put(self, "positions_A", positions(self.positions_A))
        n = len(self.positions_A)
        put(self, "symbols", check_symbols(self.symbols, n))
        for name in ("intensity", "sigma_A", "species_probability"):
            put(self, name, _per_atom(getattr(self, name), n, name))
        put(self, "covariance_A2", _covariance(self.covariance_A2, self.sigma_A))
        if (self.sigma_A < 0).any():
            raise ValueError(f"sigma_A holds {np.nanmin(self.sigma_A)}; a standard deviation cannot be negative")
        if np.isinf(self.sigma_A).any() or np.isinf(self.covariance_A2).any():
            raise ValueError(
                "sigma_A or covariance_A2 is infinite for an atom; expected a finite number, or nan = unknown"
            )
        if ((self.species_probability < 0) | (self.species_probability > 1)).any():
            raise ValueError("species_probability has an entry outside 0..1; expected a probability per atom")

    def __len__(self) -> int:
        return len(self.symbols)

    @property
    def elements(self) -> tuple[str, ...]:
        """The distinct element symbols, lightest first."""
        return tuple(sorted(set(self.symbols), key=atomic_number))

    @property
    def numbers(self) -> NDArray[np.int64]:
        """Atomic number of every atom, (n,), 0 = unknown."""
        return np.array([_NUMBER_OF[symbol] for symbol in self.symbols], dtype=np.int64)

    def select(self, keep: ArrayLike) -> Atoms:
        """The atoms that a boolean mask (n,) or an integer index array picks, in that order."""
        chosen = np.arange(len(self))[np.asarray(keep)]
        return Atoms(
            self.positions_A[chosen],
            tuple(self.symbols[i] for i in chosen),
            self.intensity[chosen],
            self.sigma_A[chosen],
            self.species_probability[chosen],
            self.covariance_A2[chosen],
            self.cell,
        )
