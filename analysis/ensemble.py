"""Error bars of statistics: what the errors of coordinates and elements make of them.

Atoms are drawn anew from the covariance of their positions and the probability of their names. Measured atoms already are
one such draw from the true ones, so the mean of draws is not the truth: it is about as far from the measured statistic as
that is from the true one, in the same direction. Bands here account for that.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .atoms import Atoms
from .likely import LikelyBonds
from .names import doubts, numbered
from .network import Network
from .unfold import INSIDE, Band

Array = NDArray[np.float64]

DRAWS = 32
VANISHED = 1.5
"""Limits of what vanishes in all draws are so many times as far from the best estimate as that is from the measured number."""


def draws(atoms: Atoms, count: int, rng: np.random.Generator) -> Iterator[Atoms]:
    """`count` models that the data allow as well: positions from their covariance, elements by their probability.

    An atom of unknown covariance stays, one of unknown probability keeps its name. A wrong name is that of the element next
    to it in brightness, the lighter and the heavier with equal probability where there are both. Names are drawn as true atoms
    got theirs: the probability of an atom is that its name is right, and elements of which there are few are named wrong more often.
    """
    root = _roots(atoms.covariance_A2)
    elements = atoms.elements
    kind, sure = numbered(atoms)
    confused = _confused(kind, sure, elements)
    for _ in range(count):
        moved = atoms.positions_A + np.einsum("aij,aj->ai", root, rng.normal(size=(len(atoms), 3)))
        names = _renamed(kind, confused, rng)
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
    doi:10.1080/01621459.1994.10476871). Limits are as far from it, and from the geometric series through the three, as the
    spread of the draws says, and farther where noise shrinks the statistic, since what is left of it scatters less. What a draw
    lacks, or has as nan, is left out. With fewer than two draws there is no band.
    """
    own = _arrays(statistic(atoms))
    levels: list[list[dict[str, Array]]] = [[], [], []]
    for one in draws(atoms, count, rng):
        two = next(draws(one, 1, rng))
        for level, found in zip(levels, (own, statistic(one), statistic(two)), strict=True):
            level.append(_arrays(found))
    return {name: _moved_back(value, value, *_stacked(name, value, levels)) for name, value in own.items()}


def network_bands(
    atoms: Atoms,
    likely: LikelyBonds,
    statistic: Callable[[Atoms, Network], Mapping[str, ArrayLike]],
    rng: np.random.Generator,
    named: Sequence[Atoms] | None = None,
) -> dict[str, Band]:
    """95 % bands of whatever `statistic` computes of atoms and their bonds, by name, numbers or arrays of fixed shape.

    named: for each draw of `likely` the atoms with names that may be right, where that is in doubt by more than their probabilities.

    The atoms as they are, with the bonds of a draw of `likely`, stand for S of `band_of`; atoms drawn anew keep these bonds, but
    for those that another name of an atom breaks or makes. Bonds of draws differ from the likeliest as the true ones may; the
    true ones may also differ from them the other way, so that limits are those of both. Empty with fewer than two draws.
    """
    if len(likely) < 2:
        return {}
    own = _arrays(statistic(atoms, likely.as_measured()))
    starts = {id(one): one for one in named or [atoms]}.values()
    best = [_arrays(statistic(one, likely.likeliest(one.symbols))) for one in starts]
    levels: list[list[dict[str, Array]]] = [[], [], []]
    for k, start in enumerate(named or [atoms] * len(likely)):
        bonds = likely.drawn(k, start.symbols)
        once = next(draws(start, 1, rng))
        for level, model in zip(levels, (start, once, next(draws(once, 1, rng))), strict=True):
            level.append(
                _arrays(statistic(model, bonds if model.symbols == start.symbols else likely.drawn(k, model.symbols)))
            )
    return {
        name: _moved_back(value, _mean(_stacked(name, value, [best])[0]), *_stacked(name, value, levels))
        for name, value in own.items()
    }


def _stacked(name: str, like: Array, levels: list[list[dict[str, Array]]]) -> list[Array]:
    """Per level, the values (draws, …) of one statistic, nan where a draw lacks it."""
    unknown = np.full(like.shape, np.nan)
    return [np.array([model.get(name, unknown) for model in level]) for level in levels]


def _arrays(values: Mapping[str, ArrayLike]) -> dict[str, Array]:
    return {name: np.asarray(value, dtype=np.float64) for name, value in values.items()}


def _mean(values: Array) -> Array:
    """Mean of draws (draws, …), nan of what all of them lack."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        mean: Array = np.nanmean(values, axis=0)
    return mean


def _moved_back(value: Array, likeliest: Array, starts: Array, once: Array, twice: Array) -> Band:
    """The band of a statistic: as measured, of the likeliest bonds, and of draws before and after their atoms are moved once and twice."""
    from scipy.stats import t

    if len(once) < 2:
        return Band(value, value, value, value)
    start, first, second = map(_mean, (starts, once, twice))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # what all draws lack is nan in the end
        # What hardly ever happens in draws shows in draws of those.
        spread = np.nanmax([np.nanstd(level, axis=0, ddof=1) for level in (starts, once, twice)], axis=0)
    change = first - start
    left = np.divide(second - first, change, out=np.ones_like(change), where=np.abs(change) > spread / 2)
    left = np.clip(left, 0, 1)
    # Student's t: the spread of a few draws, and their means, are themselves uncertain.
    far = float(t.ppf((1 + INSIDE) / 2, len(once) - 1)) * np.sqrt(1 + 3 / len(once))
    half = far * (3 - 3 * left + left**2) * spread
    parabola = second - 3 * first + 2 * start
    # A change without spread is that of the few that no draw keeps.
    half = np.where(spread == 0, VANISHED * np.abs(parabola), half)
    series = -change / np.maximum(left, 0.5)
    other = 2 * likeliest - start
    low = np.fmin(start, other) + np.minimum(parabola, series) - half
    high = np.fmax(start, other) + np.maximum(parabola, series) + half
    return Band(value, start + parabola, low, high)


def _roots(covariance: Array) -> Array:
    """Matrices L (n, 3, 3) with L Lᵀ the covariance; zero where it is not known."""
    known = np.asarray(np.isfinite(covariance).all(axis=(1, 2)))
    values, vectors = np.linalg.eigh(np.where(known[:, None, None], covariance, 0.0))
    return vectors * np.sqrt(np.maximum(values, 0.0))[:, None, :]


def _confused(kind: NDArray[np.int64], sure: Array, elements: Sequence[str]) -> Array:
    """Probabilities (n, 2) that a true atom of this kind gets the name of the lighter, and of the heavier element next to it.

    Doubts turned about: of all true atoms of an element, as many get a name as there are doubts whether atoms of that name are
    rather this element; who gets it is who is in doubt himself.
    """
    doubt = doubts(kind, sure, elements)
    named = np.bincount(kind, minlength=len(elements))
    lighter, heavier = (np.bincount(kind, weights=column, minlength=len(elements)) for column in doubt.T)
    gets_lighter, gets_heavier = np.append(0.0, heavier[:-1]), np.append(lighter[1:], 0.0)
    true = np.maximum(named - lighter - heavier + gets_lighter + gets_heavier, 1e-9)
    chances = []
    for column, doubted, gets in zip(doubt.T, (lighter, heavier), (gets_lighter, gets_heavier), strict=True):
        own = np.divide(column, doubted[kind], out=1 / named[kind], where=doubted[kind] > 0)
        chances.append(np.minimum(own * (named * gets / true)[kind], 1))
    both = np.stack(chances, axis=1)
    return both / np.maximum(both.sum(axis=1), 1)[:, None]


def _renamed(kind: NDArray[np.int64], confused: Array, rng: np.random.Generator) -> NDArray[np.int64]:
    lot = rng.random(len(kind))
    return kind - (lot < confused[:, 0]) + (lot > 1 - confused[:, 1])
