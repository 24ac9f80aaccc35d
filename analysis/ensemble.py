"""Error bars of statistics: what the errors of coordinates and elements make of them.

Atoms are drawn anew from the covariance of their positions and the probability of their names. Measured atoms already are
one such draw from the true ones, so the mean of draws is not the truth: it is about as far from the measured statistic as
that is from the true one, in the same direction. Bands here account for that.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .atoms import Atoms
from .unfold import INSIDE, Band

Array = NDArray[np.float64]

DRAWS = 32


def draws(atoms: Atoms, count: int, rng: np.random.Generator) -> Iterator[Atoms]:
    """`count` models that the data allow as well: positions from their covariance, elements by their probability.

    An atom of unknown covariance stays, one of unknown probability keeps its name. A wrong name is that of the element next
    to it in brightness, the lighter and the heavier with equal probability where there are both.
    """
    root = _roots(atoms.covariance_A2)
    elements = atoms.elements
    rank = {symbol: k for k, symbol in enumerate(elements)}
    kind = np.array([rank[symbol] for symbol in atoms.symbols])
    sure = np.where(np.isfinite(atoms.species_probability), atoms.species_probability, 1.0)
    for _ in range(count):
        moved = atoms.positions_A + np.einsum("aij,aj->ai", root, rng.normal(size=(len(atoms), 3)))
        names = _renamed(kind, sure, len(elements), rng)
        yield replace(atoms, positions_A=moved, symbols=tuple(elements[k] for k in names))


def uncertain(atoms: Atoms) -> bool:
    """Whether anything is known about the errors of the atoms."""
    doubted = atoms.species_probability < 1
    return bool(np.any(np.isfinite(atoms.covariance_A2).all(axis=(1, 2))) or np.any(doubted))


def band_of(
    atoms: Atoms, statistic: Callable[[Atoms], Mapping[str, ArrayLike]], rng: np.random.Generator, count: int = DRAWS
) -> dict[str, Band]:
    """95 % bands of whatever `statistic` computes of atoms, by name, numbers or arrays of fixed shape.

    With S of the atoms as they are, M₁ the mean over draws and M₂ that over draws of draws, the best estimate is
    3 S − 3 M₁ + M₂: the parabola through the three, one step back (J. R. Cook & L. A. Stefanski 1994,
    doi:10.1080/01621459.1994.10476871). Limits are as far from it as the spread of the draws says, and farther where noise
    shrinks the statistic, since what is left of it scatters less. What a draw lacks, or has as nan, is left out. With fewer
    than two draws there is no band.
    """
    own = _arrays(statistic(atoms))
    once, twice = [], []
    for one in draws(atoms, count, rng):
        once.append(_arrays(statistic(one)))
        twice.append(_arrays(statistic(next(draws(one, 1, rng)))))
    unknown = {name: np.full(value.shape, np.nan) for name, value in own.items()}
    return {
        name: _moved_back(value, *(np.array([(unknown | model)[name] for model in level]) for level in (once, twice)))
        for name, value in own.items()
    }


def _arrays(values: Mapping[str, ArrayLike]) -> dict[str, Array]:
    return {name: np.asarray(value, dtype=np.float64) for name, value in values.items()}


def _moved_back(value: Array, once: Array, twice: Array) -> Band:
    from scipy.stats import t

    if len(once) < 2:
        return Band(value, value, value, value)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # what all draws lack is nan in the end
        first, second = np.nanmean(once, axis=0), np.nanmean(twice, axis=0)
        # What hardly ever happens in draws shows in draws of those.
        spread = np.maximum(np.nanstd(once, axis=0, ddof=1), np.nanstd(twice, axis=0, ddof=1))
    change = first - value
    left = np.divide(second - first, change, out=np.ones_like(change), where=np.abs(change) > spread / 2)
    left = np.clip(left, 0, 1)
    # Student's t: the spread of a few draws, and their means, are themselves uncertain.
    far = float(t.ppf((1 + INSIDE) / 2, len(once) - 1)) * np.sqrt(1 + 3 / len(once))
    half = far * (3 - 3 * left + left**2) * spread
    best = 3 * value - 3 * first + second
    return Band(value, best, best - half, best + half)


def _roots(covariance: Array) -> Array:
    """Matrices L (n, 3, 3) with L Lᵀ the covariance; zero where it is not known."""
    known = np.asarray(np.isfinite(covariance).all(axis=(1, 2)))
    values, vectors = np.linalg.eigh(np.where(known[:, None, None], covariance, 0.0))
    return vectors * np.sqrt(np.maximum(values, 0.0))[:, None, :]


def _renamed(kind: NDArray[np.int64], sure: Array, elements: int, rng: np.random.Generator) -> NDArray[np.int64]:
    wrong = (rng.random(len(kind)) >= sure) & (elements > 1)
    step = np.where(rng.random(len(kind)) < 0.5, 1, -1)
    step = np.where(kind == 0, 1, np.where(kind == elements - 1, -1, step))
    return np.where(wrong, kind + step, kind)
