"""From traced atoms to atoms of maximum likelihood: light and optics, positions, the search, and all of it once more."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from analysis.atoms import Atoms
from analysis.likelihood.model import Model, State, library_of
from analysis.likelihood.naming import faint_on_line, renamed_by_brightness
from analysis.likelihood.nuisance import first_width, fit_defocus, fit_light, fit_shifts, fit_widths, unnarrowed
from analysis.likelihood.places import fit_places
from analysis.likelihood.psf import Optics, Spread
from analysis.likelihood.result import Fitted, renamed, summed_up
from analysis.likelihood.search import searched
from analysis.uncertainty import available_threads

log = logging.getLogger(__name__)

Array = NDArray[np.float64]
Progress = Callable[[int, int, float], None]

STEPS_FIRST, STEPS_SEARCH, STEPS_LAST = 20, 8, 60
LAST_ROUNDS = 2
LITTLE_WORTH, LITTLE_WORTH_OF_ATOM = 6.0, 3e-3
"""Log-likelihood: a round of the search that is worth no more than this, or so much for every atom there is, is the last."""
LEAST_DEFOCUS_A = 2.0
START_WIDTH_A, WIDEST_A = 0.37, 0.6
SCATTERING = 1.7
"""Dark-field intensity grows about as this power of the atomic number: a start for the brightness of the elements."""


@dataclass(frozen=True)
class Free:
    """What is fitted beside positions, backgrounds and the brightness of the elements."""

    defocus: bool = True
    widths: bool = True
    shifts: bool = True
    scales: bool = True


def fit_counts(
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
    free: Free = Free(),
    rounds: int = 10,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Fitted:
    """Fit atoms to electrons counted (n, y, x), rotations (n, 3, 3); a point r is seen at R r.

    The array of the counts decides the device, numpy or cupy: images are made and compared there, atoms are searched for on the CPU.

    atoms: where to begin. elements: those that occur, lightest first. min_distance_A: no two atoms are much nearer.
    optics: of the probe; without, an atom's image is a Gaussian whose width is fitted. ground: background in electrons, a number
    or (n, y, x); a factor for each tilt is fitted. shifts_px: (n, 2) as (x, y), where each tilt sees the origin; scales: (n,),
    how bright it is. rounds: most rounds of the search for atoms to add and drop, before the optics are fitted and after; 0 for none.
    progress(done, most, deviance per pixel) is told of each step. Of three elements or more, those too faint to be measured are as
    bright as the power of the atomic number says that the others are on.
    Raises ValueError for shapes that do not fit, values that are not finite or negative, no atoms, elements that are not named.
    """
    names = tuple(elements)
    model = model_of(atoms, counts, rotations, pixel_A, ground, optics, threads)
    state = _start(model, atoms, names, shifts_px, scales)
    start_px = state.shifts_px
    most = STEPS_FIRST + LAST_ROUNDS * (rounds * STEPS_SEARCH + STEPS_LAST)
    trail: list[float] = []

    def told(misfit: float) -> None:
        trail.append(misfit)
        if progress is not None:
            progress(min(len(trail), most), most, 2 * misfit / model.counts.size)

    if optics is None and free.widths:
        model, state = first_width(model, state)
    model, state = _light(model, renamed_by_brightness(model, state, names), names)
    state, _ = fit_places(model, renamed(model, state, min_distance_A), STEPS_FIRST, min_distance_A, told)
    added, dropped = 0, 0
    for _ in range(LAST_ROUNDS):
        for _ in range(rounds):
            state, change = searched(model, state, min_distance_A)
            if not len(state.element):
                raise ValueError(
                    "no atom adds to the likelihood of the counts: they do not show these atoms; check angles, pixel_A and the element."
                )
            added, dropped = added + change.added, dropped + change.dropped
            model, state = _light(model, state, names)
            state, _ = fit_places(model, renamed(model, state, min_distance_A), STEPS_SEARCH, min_distance_A, told)
            log.info("search: %d added, %d dropped, log-likelihood + %.0f", change.added, change.dropped, change.gain)
            if change.worth <= max(LITTLE_WORTH, LITTLE_WORTH_OF_ATOM * len(state.element)):
                break
        model, state = _light(model, _optics(model, state, free), names, scales=free.scales)
        state = fit_shifts(model, state, start_px) if free.shifts else state
        state, _ = fit_places(model, renamed(model, state, min_distance_A), STEPS_LAST, min_distance_A, told)
    return summed_up(model, state, names, min_distance_A, added, dropped, trail)


def _light(model: Model, state: State, elements: tuple[str, ...], *, scales: bool = False) -> tuple[Model, State]:
    """The glow of the atoms, and fitted light, faint elements on the line of the clear ones."""
    model = model.glowing(state)
    return model, faint_on_line(model, fit_light(model, state, scales=scales), elements)


def _optics(model: Model, state: State, free: Free) -> State:
    state = fit_defocus(model, state) if free.defocus else state
    return unnarrowed(model, fit_widths(model, state)) if free.widths else state


def model_of(
    atoms: Atoms,
    counts: ArrayLike,
    rotations: ArrayLike,
    pixel_A: float,
    ground: ArrayLike | float,
    optics: Optics | None,
    threads: int | None,
) -> Model:
    """The checked input of `fit_counts` as a model."""
    xp = library_of(counts)
    electrons, turned = xp.asarray(counts, np.float64), np.asarray(rotations, np.float64)
    if not len(atoms):
        raise ValueError("atoms is empty; expected at least one atom to begin with.")
    if electrons.ndim != 3 or 0 in electrons.shape or turned.shape != (len(electrons), 3, 3):
        raise ValueError(
            f"counts have shape {electrons.shape} and rotations {turned.shape}; expected (n, y, x) and (n, 3, 3)."
        )
    if not xp.isfinite(electrons).all():
        raise ValueError("counts hold values that are not finite; mend those pixels first.")
    if electrons.min() < 0:
        raise ValueError(
            f"counts go down to {electrons.min():.4g}; expected electrons counted, zero or more, without any background taken off."
        )
    if not (np.isfinite(pixel_A) and pixel_A > 0):
        raise ValueError(f"pixel_A is {pixel_A}; expected the edge of a pixel in Å, a positive number.")
    level: Any = xp.asarray(ground, np.float64)
    if level.ndim and level.shape != electrons.shape:
        raise ValueError(f"ground has shape {level.shape}; expected a number or {electrons.shape}.")
    if not xp.isfinite(level).all() or level.min() < 0 or not level.max() > 0:
        raise ValueError(
            "ground is not finite, negative or all zero; expected electrons, the level beside the particle."
        )
    spread = Spread.of(optics, float(pixel_A), WIDEST_A)
    return Model(
        electrons,
        turned,
        float(pixel_A),
        spread,
        level if level.ndim else float(level),
        available_threads() if threads is None else threads,
    )


def _start(
    model: Model, atoms: Atoms, elements: tuple[str, ...], shifts_px: ArrayLike | None, scales: ArrayLike | None
) -> State:
    from analysis.atoms import atomic_number

    unknown = sorted(set(atoms.symbols) - set(elements))
    if unknown or not elements:
        raise ValueError(f"atoms hold {', '.join(unknown)}; expected only the elements {', '.join(elements)}.")
    n, kinds = len(model.counts), len(elements)
    element = np.array([elements.index(symbol) for symbol in atoms.symbols])
    power = np.array([atomic_number(symbol) for symbol in elements], float) ** SCATTERING
    share = np.ones(n) if scales is None else np.asarray(scales, np.float64)
    shifts = np.zeros((n, 2)) if shifts_px is None else np.asarray(shifts_px, np.float64)
    if share.shape != (n,) or shifts.shape != (n, 2) or not (share > 0).all() or not np.isfinite(shifts).all():
        raise ValueError(
            f"scales have shape {share.shape} and shifts_px {shifts.shape}; expected ({n},), all positive, and ({n}, 2)."
        )
    light = max(float((model.counts - model.ground).sum()) / n, 1e-3 * model.counts.size / n)
    amplitudes = power * light / power[element].sum()
    # A defocus fitted while atoms are missing or displaced would blur what could show them: it begins near zero.
    return State(
        atoms.positions_A.copy(), element, amplitudes, np.full(kinds, START_WIDTH_A), share / share.mean(), shifts,
        np.full(n, LEAST_DEFOCUS_A), np.ones(n),
    )  # fmt: skip
