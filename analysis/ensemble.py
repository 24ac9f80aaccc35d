"""Error bars of statistics: what the errors of coordinates and elements make of them.

Atoms are drawn anew from the covariance of their positions and the probability of their names. Measured atoms already are
one such draw from the true ones, so the mean of draws is not the truth: it is as far from the measured statistic as that
is from the true one, in the same direction. Bands here account for that.
"""

from __future__ import annotations

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

    With S of the atoms as they are and mean M and quantiles of the draws: best estimate 2 S − M, and limits as far from it
    as the quantiles of the draws are from M, widened where noise shrinks the statistic, since what is left of it scatters
    less. nan in a draw leaves that draw out.
    """
    own = {name: np.asarray(value, dtype=np.float64) for name, value in statistic(atoms).items()}
    drawn: dict[str, list[Array]] = {name: [] for name in own}
    for one in draws(atoms, count, rng):
        for name, value in statistic(one).items():
            drawn[name].append(np.asarray(value, dtype=np.float64))
    return {name: _reflected(value, np.array(drawn[name])) for name, value in own.items()}


def _reflected(value: Array, drawn: Array) -> Band:
    if not len(drawn):
        return Band(value, value, value, value)
    mean = np.nanmean(drawn, axis=0)
    best = 2 * value - mean
    spread = np.nanquantile(drawn, [(1 - INSIDE) / 2, (1 + INSIDE) / 2], axis=0) - mean
    ratio = np.divide(mean, value, out=np.ones_like(mean), where=np.abs(value) > 1e-12)
    wider = 2 - np.clip(ratio, 0, 1)
    # The mean over a few draws is itself uncertain, and the quantiles of few draws are too near to each other.
    wider = wider * (1 + 2 / len(drawn))
    return Band(value, best, best - spread[1] * wider, best - spread[0] * wider)


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
