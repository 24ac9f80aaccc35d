"""Do two halves of a tilt series tell of the same atoms?

Every other tilt goes into either half, and each half is fitted as the whole was: from the same traced atoms on, but searched and
refined with its own counts alone. What both find is real unless both begin with the same error; what one finds alone is doubtful. How far
the pairs lie apart tests the error bars, and how well the atoms of one half predict the counts of the other tests the model:
counts that no fit has seen (cross-validation; Brünger, Nature 355, 472 (1992), doi:10.1038/355472a0).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from analysis.atoms import Atoms
from analysis.compare import compare
from analysis.likelihood.fit import Free, Progress, fit_counts, model_of
from analysis.likelihood.model import State, library_of
from analysis.likelihood.psf import Optics
from analysis.likelihood.result import Fitted, deviance_ratios

Array = NDArray[np.float64]
SAME = 0.5
"""Of the minimum distance: atoms of both halves nearer than this are one."""
FEWEST_TILTS = 6


@dataclass(frozen=True, eq=False)
class Halves:
    """What two fits tell that shared no count.

    found: atoms of either half; pairs: of them (m, 2) the same ones. distance_A: (m,) between them; stated_A: (m,) rms distance that
    the error bars of both state. renamed: pairs of which the halves name two elements. fitted, held_out: (tilts,) deviance per pixel over
    that of Poisson counts, by the atoms of a tilt's own half and of the other. r_work, r_free: Σ|k − λ| / Σk likewise. excess: how
    much more deviance the held-out counts have, over what noise in as many coordinates gives: 1 where the model is right.
    """

    found: tuple[Atoms, Atoms]
    pairs: NDArray[np.int64]
    distance_A: Array
    stated_A: Array
    renamed: int
    fitted: Array
    held_out: Array
    r_work: float
    r_free: float
    excess: float

    @property
    def agreement(self) -> float:
        """Share of the atoms of both halves that have a partner in the other."""
        return 2 * len(self.pairs) / max(sum(map(len, self.found)), 1)

    @property
    def distance_ratio(self) -> float:
        """Rms distance of the pairs over that which their error bars state; NaN without pairs."""
        if not len(self.pairs):
            return float("nan")
        return float(np.sqrt((self.distance_A**2).mean() / (self.stated_A**2).mean()))


def fit_halves(
    atoms: Atoms,
    counts: ArrayLike,
    rotations: ArrayLike,
    pixel_A: float,
    *,
    elements: Sequence[str],
    min_distance_A: float,
    optics: Optics | None = None,
    ground: ArrayLike | float = 1.0,
    shifts_px: ArrayLike | None = None,
    scales: ArrayLike | None = None,
    free: Free | None = None,
    rounds: int = 10,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Halves:
    """Fit every other tilt and the others apart; arguments and shapes as those of `fit_counts`.

    Raises ValueError as `fit_counts` does, and for fewer than 6 tilts.
    """
    electrons, turned = library_of(counts).asarray(counts, np.float64), np.asarray(rotations, np.float64)
    if len(electrons) < FEWEST_TILTS:
        raise ValueError(f"counts hold {len(electrons)} tilts; expected at least {FEWEST_TILTS} to part them in two.")
    parts = [np.arange(first, len(electrons), 2) for first in (0, 1)]
    fits, models = [], []
    for number, part in enumerate(parts):

        def told(done: int, most: int, deviance: float, before: int = number) -> None:
            if progress is not None:
                progress(before * most + done, 2 * most, deviance)

        mine = _of(electrons, part)
        fits.append(
            fit_counts(
                atoms, mine, turned[part], pixel_A, elements=elements, min_distance_A=min_distance_A, optics=optics,
                ground=_of(ground, part), shifts_px=_of(shifts_px, part), scales=_of(scales, part), free=free or Free(), rounds=rounds,
                threads=threads, progress=told,
            )
        )  # fmt: skip
        models.append(model_of(fits[-1].atoms, mine, turned[part], pixel_A, _of(ground, part), optics, threads))
    fitted, held_out = np.zeros(len(electrons)), np.zeros(len(electrons))
    off, off_free, more = 0.0, 0.0, 0.0
    for part, own, other, model in zip(parts, fits, fits[::-1], models, strict=True):
        seen = _seen_by(own, other.atoms, elements)
        predicted = model.glowing(seen).expected(seen)
        fitted[part], held_out[part] = own.misfit, deviance_ratios(model, predicted)
        explained = model.xp.asarray(own.expected)
        off += float(abs(model.counts - explained).sum())
        off_free += float(abs(model.counts - predicted).sum())
        more += 2 * (model.misfit(predicted) - model.misfit(explained))
    total = float(electrons.sum())
    # With as many counts in either half, noise in a coordinate costs half a unit of log-likelihood twice: there and here.
    coordinates = 3 * sum(len(one.atoms) for one in fits)
    return Halves(
        (fits[0].atoms, fits[1].atoms), *_paired(fits, SAME * min_distance_A), fitted, held_out,
        off / total, off_free / total, more / (2 * coordinates),
    )  # fmt: skip


def _of(value: Any, part: NDArray[np.int64]) -> Any:
    """The tilts of a part, of what each tilt has its own of."""
    if value is None or not np.ndim(value):
        return value
    xp = library_of(value)
    return xp.asarray(value)[xp.asarray(part)]


def _seen_by(half: Fitted, atoms: Atoms, elements: Sequence[str]) -> State:
    """Other atoms in the light and optics of a half."""
    return State(
        atoms.positions_A,
        np.array([list(elements).index(symbol) for symbol in atoms.symbols]),
        np.array([half.amplitudes[e] for e in elements]),
        np.array([half.widths_A[e] for e in elements]),
        half.scales,
        half.shifts_px,
        half.defocus_A,
        half.backgrounds,
    )


def _paired(fits: list[Fitted], cutoff_A: float) -> tuple[NDArray[np.int64], Array, Array, int]:
    """Pairs (m, 2), their distances and those stated (m,), and how many are named differently."""
    one, other = fits
    pairs = np.asarray(compare(one.atoms.positions_A, None, other.atoms.positions_A, None, cutoff_A).matches, np.int64)
    first, second = pairs.reshape(-1, 2).T
    distance = np.linalg.norm(one.atoms.positions_A[first] - other.atoms.positions_A[second], axis=1)
    stated = np.sqrt((one.sigma_axes_A[first] ** 2).sum(axis=1) + (other.sigma_axes_A[second] ** 2).sum(axis=1))
    named = sum(one.atoms.symbols[i] != other.atoms.symbols[j] for i, j in zip(first, second, strict=True))
    return pairs.reshape(-1, 2), distance, stated, named
