"""Bond-orientational order: how the directions of an atom's bonds are spread over the sphere.

    q_lm(i) = mean over the bonds of i of Y_lm(direction),    q_l² = 4π/(2l+1) Σ_m |q_lm|²
    w_l = Σ_{m1+m2+m3=0} (l l l; m1 m2 m3) q_lm1 q_lm2 q_lm3 / (Σ_m |q_lm|²)^(3/2)

P. J. Steinhardt, D. R. Nelson & M. Ronchetti, Phys. Rev. B 28, 784 (1983), doi:10.1103/PhysRevB.28.784. Averaged over
an atom and its neighbours: W. Lechner & C. Dellago, J. Chem. Phys. 129, 114707 (2008), doi:10.1063/1.2977970.
Neighbours are the bonds of the network, so the values depend on what was called a bond.

          q4      q6      w4      w6
    fcc   0.191   0.575  −0.159  −0.013
    hcp   0.097   0.485   0.134  −0.012
    bcc   0.036   0.511   0.159   0.013   (14 neighbours)
    sc    0.764   0.354   0.159   0.013
    icosahedron  0  0.663    –   −0.170
"""

from __future__ import annotations

from fractions import Fraction
from functools import cache
from math import factorial, prod, sqrt

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..cell import Cell
from ..network import Network
from .ends import Array, Ends, bond_vectors, chosen, ends_of

Complex = NDArray[np.complex128]

MOST_L = 16
"""The highest l that is computed; beyond it nothing is known to be told by it."""
_CHUNK = 100_000


def bond_order(
    network: Network,
    positions_A: ArrayLike,
    cell: Cell | None = None,
    l: int = 6,
    averaged: bool = False,
    of: ArrayLike | None = None,
) -> Array:
    """Steinhardt's q_l of every atom, (n,), in 0..1; nan for atoms without a bond and those outside `of`.

    positions_A: (n, 3) in Å; cell: the box of a periodic network; l: 1 … 16; averaged: q_lm is the mean over an atom
    and its neighbours; of: mask (n,), all if None. ValueError for inputs that do not fit the network, or another l.
    """
    q = _moments(network, positions_A, cell, l, averaged)
    return np.where(chosen(of, network.n_atoms), np.sqrt(4 * np.pi / (2 * l + 1) * _power(q)), np.nan)


def bond_order_w(
    network: Network,
    positions_A: ArrayLike,
    cell: Cell | None = None,
    l: int = 6,
    averaged: bool = False,
    of: ArrayLike | None = None,
) -> Array:
    """The third-order invariant w_l of every atom, (n,), normalised; nan where q_l is nan or zero. 0 for odd l.

    Arguments are those of `bond_order`.
    """
    q = _moments(network, positions_A, cell, l, averaged)
    power = _power(q)
    power[power < 1e-14] = np.nan
    third = np.concatenate([_third(q[k : k + _CHUNK]) for k in range(0, max(len(q), 1), _CHUNK)])
    return np.where(chosen(of, network.n_atoms), third / power**1.5, np.nan)


def solid_bonds(
    network: Network,
    positions_A: ArrayLike,
    cell: Cell | None = None,
    *,
    l: int = 6,
    threshold: float = 0.7,
    of: ArrayLike | None = None,
) -> Array:
    """Number of bonds of every atom, (n,), to neighbours whose surroundings are turned alike; nan outside `of`.

    A bond i-j counts where Re Σ_m q_lm(i) q_lm(j)* > threshold · |q_l(i)| |q_l(j)|. In a crystal nearly all bonds do,
    in a liquid or glass few; seven of twelve make an atom crystalline. P. R. ten Wolde, M. J. Ruiz-Montero & D.
    Frenkel, Phys. Rev. Lett. 75, 2714 (1995), doi:10.1103/PhysRevLett.75.2714. The neighbours need not be in `of`.
    """
    q = _moments(network, positions_A, cell, l, False)
    one, other = network.pairs.T
    size = np.sqrt(_power(q))
    like = _product(q, one, other) > threshold * size[one] * size[other]
    count = np.bincount(network.pairs[like].ravel(), minlength=network.n_atoms)
    return np.where(chosen(of, network.n_atoms), count, np.nan)


def _moments(network: Network, positions_A: ArrayLike, cell: Cell | None, l: int, averaged: bool) -> Complex:
    """q_lm of every atom for m = 0 … l, (n, l + 1); nan for atoms without a bond."""
    if not 1 <= l <= MOST_L:
        raise ValueError(f"l is {l}; expected a whole number from 1 to {MOST_L}")
    vectors, ends = bond_vectors(network, positions_A, cell), ends_of(network)
    turned = np.where(ends.sign > 0, 1, (-1) ** l)
    q = np.empty((network.n_atoms, l + 1), np.complex128)
    for m, harmonic in enumerate(_harmonics(vectors, l)):
        q[:, m] = _sums(ends, turned * harmonic[ends.bond])
    q /= np.maximum(network.degree, 1)[:, None]
    q[network.degree == 0] = np.nan
    return _averaged(q, ends) if averaged else q


def _harmonics(vectors: Array, l: int) -> list[Complex]:
    """Spherical harmonics Y_lm, m = 0 … l, of the directions of vectors (k, 3)."""
    x, y, z = vectors.T / np.linalg.norm(vectors, axis=1)
    legendre = np.polynomial.Legendre.basis(l)
    scale = [np.sqrt((2 * l + 1) / (4 * np.pi) * factorial(l - m) / factorial(l + m)) for m in range(l + 1)]
    return [scale[m] * (-1) ** m * (x + 1j * y) ** m * legendre.deriv(m)(z) for m in range(l + 1)]


def _sums(ends: Ends, values: Complex) -> Complex:
    """Sum of the values (2m,) of the ends of each atom, (n,)."""
    n = len(ends.start) - 1
    real, imaginary = (np.bincount(ends.origin, part, minlength=n) for part in (values.real, values.imag))
    return real + 1j * imaginary


def _averaged(q: Complex, ends: Ends) -> Complex:
    """Mean over each atom and its neighbours."""
    number = 1 + np.diff(ends.start)
    return np.column_stack([(one + _sums(ends, one[ends.to])) / number for one in q.T])


def _power(q: Complex) -> Array:
    """Σ_m |q_lm|² over all m from −l to l, (n,)."""
    squares = q.real**2 + q.imag**2
    return squares[:, 0] + 2 * squares[:, 1:].sum(axis=1)


def _product(q: Complex, one: NDArray[np.int64], other: NDArray[np.int64]) -> Array:
    """Re Σ_m q_lm(one) q_lm(other)* over all m, (k,)."""
    total = np.zeros(len(one))
    for m, column in enumerate(q.T):
        total += (1 if m == 0 else 2) * (column[one] * column[other].conj()).real
    return total


def _third(q: Complex) -> Array:
    """Σ (l l l; m1 m2 m3) q_lm1 q_lm2 q_lm3 over m1 + m2 + m3 = 0, (n,)."""
    l = q.shape[1] - 1
    turned = [(-1) ** m * q[:, m].conj() for m in range(l, 0, -1)]
    every = [*turned, *q.T]
    total = np.zeros(len(q))
    for m1, m2, factor in _wigner(l):
        total += factor * (every[m1 + l] * every[m2 + l] * every[l - m1 - m2]).real
    return total


@cache
def _wigner(l: int) -> tuple[tuple[int, int, float], ...]:
    """Wigner's 3j symbols (l l l; m1 m2 −m1−m2) that are not zero."""
    both = [(m1, m2) for m1 in range(-l, l + 1) for m2 in range(max(-l, -l - m1), min(l, l - m1) + 1)]
    return tuple((m1, m2, value) for m1, m2 in both if (value := _three_j(l, m1, m2)))


def _three_j(l: int, m1: int, m2: int) -> float:
    """The symbol (l l l; m1 m2 −m1−m2) by Racah's formula, summed in exact fractions."""
    total = Fraction(0)
    for k in range(max(0, -m1, m2), min(l, l - m1, l + m2) + 1):
        parts = (k, k + m1, k - m2, l - k, l - m1 - k, l + m2 - k)
        total += Fraction((-1) ** k, prod(factorial(part) for part in parts))
    size = prod(factorial(l + m) * factorial(l - m) for m in (m1, m2, m1 + m2))
    return (-1) ** (m1 + m2) * float(total) * sqrt(size) * sqrt(factorial(l) ** 3 / factorial(3 * l + 1))
