"""What is known of every atom after the fit: error bars, what it is worth, which element it is."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from analysis.atoms import Atoms
from analysis.likelihood.model import Model, State, on_host
from analysis.likelihood.naming import doubtful_names
from analysis.likelihood.places import fit_places, information
from analysis.likelihood.psf import STEPS_PER_PX2
from analysis.likelihood.search import Workshop
from analysis.uncertainty import coupled, covariance, inflation

Array = NDArray[np.float64]

COUPLED = 10.0
"""Atoms nearer than this many widths of their images share their uncertainty."""
FIRM = 2.0
"""Times what an atom must add: atoms that add more are there, and their brightness tells which elements there are."""
BOOTSTRAP_STEPS = 25
STRAYED = 9.0
"""Squared error in variances beyond which an atom of the bootstrap went astray, however far."""


@dataclass(frozen=True, eq=False)
class Fitted:
    """Atoms and all else that was fitted.

    atoms: positions in Å, `sigma_A` (rms over the axes), `species_probability` of the element named, `intensity` in electrons.
    sigma_axes_A: (n, 3) along x, y, z. covariance_A2: (n, 3, 3). worth: (n,) log-likelihood that each atom adds; believed: the
    least that an atom of each element must add.
    element_probability: (n, elements), elements in the order given, by the brightness of each atom and by how well all of
    them tell which elements there are. inflation: factor of the variances that the scatter between
    tilts asked for beyond Poisson noise; bootstrap: that by which positions scatter beyond the bound where few counts hold them.
    amplitudes: electrons of each element; widths_A: blur beyond the probe. scales,
    backgrounds, defocus_A: (tilts,); shifts_px: (tilts, 2) as (x, y). misfit: mean deviance per pixel (tilts,) of each tilt
    over what Poisson counts give. brightness_z: (n,) how much brighter than its element each atom would be, in standard deviations.
    expected: λ (tilts, y, x). added, dropped: atoms beside those it began with. trail: half the
    deviance after each step of the fit.
    """

    atoms: Atoms
    sigma_axes_A: Array
    covariance_A2: Array
    worth: Array
    believed: dict[str, float]
    element_probability: Array
    inflation: float
    bootstrap: float
    amplitudes: dict[str, float]
    widths_A: dict[str, float]
    scales: Array
    shifts_px: Array
    backgrounds: Array
    defocus_A: Array
    misfit: Array
    brightness_z: Array
    expected: Array
    added: int
    dropped: int
    trail: Array


def summed_up(
    model: Model,
    state: State,
    elements: tuple[str, ...],
    min_distance_A: float,
    added: int,
    dropped: int,
    trail: list[float],
) -> Fitted:
    """The result of a fit that ended at the state."""
    tables = model.tables(state)
    expected = model.expected(state, tables)
    cov, factor = _inflated(model, state, expected, tables)
    wider = bootstrapped(model, state, expected, cov / factor, min_distance_A)
    cov *= wider
    axes = np.sqrt(np.einsum("aii->ai", cov))
    shop = Workshop(model, state, min_distance_A)
    worths = shop.worths()
    named = np.arange(len(state.element)), state.element
    firm = worths[named] > FIRM * shop.believed[state.element]
    probability = element_probability(worths, state) @ doubtful_names(model, state, elements, firm)
    atoms = Atoms(
        positions_A=state.positions_A,
        symbols=tuple(elements[e] for e in state.element),
        sigma_A=np.sqrt((axes**2).mean(axis=1)),
        species_probability=probability[named],
        intensity=state.amplitudes[state.element],
    )
    return Fitted(
        atoms=atoms,
        sigma_axes_A=axes,
        covariance_A2=cov,
        worth=worths[named],
        believed=dict(zip(elements, map(float, shop.believed), strict=True)),
        element_probability=probability,
        inflation=factor,
        bootstrap=wider,
        amplitudes=dict(zip(elements, map(float, state.amplitudes), strict=True)),
        widths_A=dict(zip(elements, map(float, state.widths_A), strict=True)),
        scales=state.scales,
        shifts_px=state.shifts_px,
        backgrounds=state.backgrounds,
        defocus_A=state.defocus_A,
        misfit=deviance_ratios(model, expected),
        brightness_z=_brightness_z(model, state, expected, tables),
        expected=on_host(expected),
        added=added,
        dropped=dropped,
        trail=np.array(trail),
    )


def _brightness_z(model: Model, state: State, expected: Array, tables: Array) -> Array:
    """Score of the brightness of every atom (n,) over its standard deviation, all else held."""
    score = state.scales @ model.pulls(state, model.counts / expected - 1, tables)[..., 2]
    hold = state.scales**2 @ model.sharpness(state, 1 / expected, tables)[..., 2, 2]
    return np.asarray(score / np.sqrt(np.maximum(hold, 1e-300)))


def position_covariance(model: Model, state: State, expected: Array, tables: Array) -> tuple[Array, Array]:
    """Covariance (n, 3, 3) of every position, with what its neighbours leave undetermined, and without (block by block)."""
    block = covariance(information(model, state, expected, tables)[:, :3, :3])
    width = equal_widths(state, tables)
    whole = coupled(
        block, state.positions_A, COUPLED * model.pixel_A * float(width.max()), model.seen(state),
        state.amplitudes[state.element], width, on_host(1 / expected), model.to_pixels, model.threads,
    )  # fmt: skip
    return whole, block


def bootstrapped(model: Model, state: State, expected: Array, cov: Array, min_distance_A: float) -> float:
    """Factor ≥ 1 by which the variances of positions exceed their bound (atoms, 3, 3).

    The bound is reached where errors are small against the width of an image. How far they are from that is tried on counts drawn
    from the fit itself, whose places are known (parametric bootstrap; Efron 1979, doi:10.1214/aos/1176344552).
    """
    drawn = np.random.default_rng(0).poisson(on_host(expected)).astype(np.float64)
    twin = replace(model, counts=model.xp.asarray(drawn))
    again, _ = fit_places(twin, state, BOOTSTRAP_STEPS, min_distance_A)
    off = again.positions_A - state.positions_A
    sound = np.isfinite(cov).all(axis=(1, 2))
    square = np.einsum("ai,aij,aj->a", off[sound], np.linalg.inv(cov[sound]), off[sound]) / 3
    return max(1.0, float(np.minimum(square, STRAYED).mean())) if square.size else 1.0


def _inflated(model: Model, state: State, expected: Array, tables: Array) -> tuple[Array, float]:
    """The covariance (n, 3, 3) raised by the factor that what the tilts scatter too much asks for, and the factor."""
    whole, block = position_covariance(model, state, expected, tables)
    pulls = model.pulls(state, model.counts / expected - 1, tables)[..., :2]
    factor = inflation(block, np.einsum("tij,tai->atj", model.to_pixels, pulls))
    return factor * whole, factor


def equal_widths(state: State, tables: Array) -> Array:
    """Width in px (n,) of the Gaussian whose slope is as steep as that of the element's mean spread function."""
    entries = tables.mean(axis=0)
    square = np.arange(entries.shape[1]) / STEPS_PER_PX2
    fall = np.gradient(entries, square, axis=1)
    # ∫ (∂P/∂x)² over the plane is 1 / (8 π w⁴) for a Gaussian.
    steep = 4 * np.pi * (fall**2 * square).sum(axis=1) * (square[1] - square[0]) / 2
    return np.asarray((1 / (8 * np.pi * steep)) ** 0.25)[state.element]


def element_probability(worths: Array, state: State) -> Array:
    """Probability (n, elements) of each element for each atom: its likelihood, times how frequent the element is."""
    share = np.bincount(state.element, minlength=worths.shape[1]) + 1.0
    log = worths + np.log(share / share.sum())
    log -= log.max(axis=1, keepdims=True)
    odds = np.exp(log)
    return np.asarray(odds / odds.sum(axis=1, keepdims=True))


def renamed(model: Model, state: State, min_distance_A: float) -> State:
    """Every atom as the element that explains the counts best, all others as they are."""
    if len(state.amplitudes) == 1:
        return state
    shop = Workshop(model, state, min_distance_A)
    worths = shop.worths()
    return replace(state, element=element_probability(worths, state).argmax(axis=1))


def deviance_ratios(model: Model, expected: Array) -> Array:
    """Deviance (tilts,) of the counts over what Poisson counts of the expectation (tilts, y, x) have."""
    return 2 * model.misfits(expected) / _usual_deviance(on_host(expected))


def _usual_deviance(expected: Array) -> Array:
    """Mean deviance (tilts,) summed over the pixels, of Poisson counts of these expectations."""
    grid = np.geomspace(1e-3, 200.0, 400)
    table = np.interp(np.log(np.minimum(expected, 200.0)), np.log(grid), _deviance_of(grid))
    return np.asarray(table.sum(axis=(1, 2)))


def _deviance_of(mean: Array) -> Array:
    """E 2 (λ − k + k log k/λ) for Poisson counts k of mean λ (m,)."""
    from scipy.stats import poisson

    k = np.arange(0, 400)
    term = k * np.log(np.maximum(k, 1)) - k
    chance = poisson.pmf(k, mean[:, None])
    return np.asarray(2 * (chance * (mean[:, None] + term - k * np.log(mean)[:, None])).sum(axis=1))
