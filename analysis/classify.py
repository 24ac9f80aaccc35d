"""Candidates to elements: which maxima are atoms, and of which kind.

The integrated intensity of a candidate is the integral of the volume over a sphere of half the minimum distance.
k-means on it starts a one-dimensional Gaussian mixture: one component per element and, where the data call for it,
one of non-atoms. (Where the volume was held positive its noise is skewed, and the mixture is one of square roots.)
Maxima of the empty part of the volume show what intensity mere noise reaches; the non-atom component is held near
them, so that it can have no members when there is nothing to reject. Where the noise is not known from there, or what
lies between the atoms is not like it, a non-atom class must earn its place: by the Bayesian information criterion and
by a clear gap below the lightest element.

Source: k-means on integrated intensities with a non-atom class, Liao et al., Nature (2026),
doi:10.1038/s41586-025-09857-4; separation of two components, Ashman et al. (1994), doi:10.1086/117248.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from .atoms import Atoms, atomic_number
from .trace import Peaks, check_volume

log = logging.getLogger(__name__)

Array = NDArray[np.float64]

ENOUGH_NOISE = 30
"""Maxima outside the particle below which their mean and spread are not trusted."""
CLEAR_GAP = 3.0
"""Ashman's D = √2 |m1 − m0| / √(s0² + s1²) above which two components are apart beyond doubt (2 = just separate)."""
FAINT = 0.4
"""A free non-atom class is fainter than this share of the lightest element."""
ABOVE_NOISE = 2.0
"""The lightest element is brighter than the noise by more than this many of its spreads."""
ALIKE = 2.5
"""No element's spread differs from their geometric mean by more than this factor."""


@dataclass(frozen=True, eq=False)
class Mixture:
    """One-dimensional Gaussian mixture, components by increasing mean; share 0 means a component nobody belongs to."""

    share: Array
    mean: Array
    sigma: Array
    log_likelihood: float
    parameters: int

    def density(self, x: ArrayLike) -> Array:
        """Density of every component at every x, (..., components)."""
        t = (np.asarray(x, dtype=np.float64)[..., None] - self.mean) / self.sigma
        return self.share * np.exp(-0.5 * t**2) / (self.sigma * np.sqrt(2 * np.pi))

    def criterion(self, count: int) -> float:
        """Bayesian information criterion of the fit to `count` values; the least is the best."""
        return self.parameters * float(np.log(count)) - 2 * self.log_likelihood


@dataclass(frozen=True, eq=False)
class Classified:
    """Atoms with elements, what was rejected, and the histogram's landmarks.

    atoms: strongest maximum first, with `intensity` (units of the volume times Å³) and `species_probability`.
    atom_index: (n_atoms,) which candidate each atom was. rejected: the other candidates inside the particle.
    elements: lightest first. intensity: (n,) of all candidates given, outside ones too. outside: (n,) bool.
    boundaries: intensities between classes, increasing: non-atom | lightest | … | heaviest, as many as there are
    elements; the first is -inf when nothing can be rejected. centres: typical intensity of every element.
    mixture: the fitted components of intensity**power, the non-atom one first when there is one. radius_A: of the
    sphere.
    """

    atoms: Atoms
    atom_index: NDArray[np.int64]
    rejected: Peaks
    elements: tuple[str, ...]
    intensity: Array
    outside: NDArray[np.bool_]
    boundaries: Array
    centres: Array
    mixture: Mixture
    power: float
    radius_A: float

    def density(self, intensity: ArrayLike) -> Array:
        """Fitted probability density per unit of intensity of every component, (..., components), for a histogram."""
        x = np.maximum(np.asarray(intensity, dtype=np.float64), 1e-12 * self.centres[-1] if self.power < 1 else -np.inf)
        return self.mixture.density(x**self.power) * (self.power * x ** (self.power - 1))[..., None]


def classify(
    volume: ArrayLike,
    voxel_A: float,
    peaks: Peaks,
    elements: Sequence[str],
    *,
    rng: np.random.Generator,
    radius_A: float | None = None,
) -> Classified:
    """Name the element of every candidate or reject it, from its integrated intensity in `volume` (z, y, x).

    elements: the symbols that occur, in any order; the heavier is the brighter. radius_A: of the integrated sphere,
    default half of `peaks.min_distance_A`, at least a voxel. rng: starts of the k-means. ValueError when there are no
    candidates, an element is unknown or named twice, or there are more elements than distinct intensities.
    """
    data = check_volume(volume, voxel_A)
    names = _check_elements(elements)
    radius = max(0.5 * peaks.min_distance_A, voxel_A) if radius_A is None else float(radius_A)
    if not (np.isfinite(radius) and radius > 0):
        raise ValueError(
            f"radius_A is {radius_A}; expected the radius of the integrated sphere in Å, a positive number"
        )
    if not peaks.inside.any():
        raise ValueError("peaks holds no candidate inside the particle; lower blur_A or min_distance_A of trace")
    values = integrated_intensity(data, voxel_A, peaks.positions_A, radius)
    power = 1.0 if data.min() < 0 else 0.5
    scaled = values**power
    mixture = fit_mixture(scaled[peaks.inside], scaled[~peaks.inside], len(names), rng, faint=FAINT**power)
    return _named(peaks, names, values, mixture, power, radius)


def _check_elements(elements: Sequence[str]) -> tuple[str, ...]:
    given = (elements,) if isinstance(elements, str) else tuple(elements)
    if not given or len(set(given)) != len(given):
        raise ValueError(f"elements is {given}; expected one or more element symbols, each once")
    if unknown := [symbol for symbol in given if atomic_number(symbol) == 0]:
        raise ValueError(f"elements names {unknown[0]!r}; expected symbols of known elements, for example 'Si'")
    return tuple(sorted(given, key=atomic_number))


def integrated_intensity(volume: NDArray, voxel_A: float, positions_A: Array, radius_A: float) -> Array:
    """Integral (units of the volume × Å³) of the linearly interpolated volume over a sphere at each position (n, 3)."""
    step = min(0.5, radius_A / voxel_A / 2)
    reach = int(np.floor(radius_A / voxel_A / step))
    grid = np.stack(np.meshgrid(*[np.arange(-reach, reach + 1)] * 3, indexing="ij"), axis=-1).reshape(-1, 3) * step
    grid = grid[(grid**2).sum(axis=1) <= (radius_A / voxel_A) ** 2]
    centre = np.array(volume.shape) // 2
    points = np.asarray(positions_A)[:, ::-1] / voxel_A + centre
    total = np.zeros(len(points))
    for offset in grid:
        total += ndimage.map_coordinates(volume, (points + offset).T, order=1, mode="nearest", output=np.float64)
    return total * (4 / 3 * np.pi * radius_A**3) / len(grid)


def k_means(values: Array, clusters: int, rng: np.random.Generator, starts: int = 8) -> Array:
    """Centres, increasing, of the best of `starts` runs of k-means with k-means++ seeding on numbers (n,)."""
    best, best_cost = np.zeros(clusters), np.inf
    for _ in range(starts):
        centres = _lloyd(values, _seeds(values, clusters, rng))
        cost = float(np.min((values[:, None] - centres) ** 2, axis=1).sum())
        if cost < best_cost:
            best, best_cost = centres, cost
    return best


def _seeds(values: Array, clusters: int, rng: np.random.Generator) -> Array:
    """k-means++: each further seed is drawn with probability proportional to its squared distance to the nearest."""
    centres = [rng.choice(values)]
    for _ in range(clusters - 1):
        squared = np.min((values[:, None] - np.array(centres)) ** 2, axis=1)
        centres.append(rng.choice(values, p=squared / squared.sum()))
    return np.sort(centres)


def _lloyd(values: Array, centres: Array, iterations: int = 100) -> Array:
    """Lloyd's iteration; an empty cluster keeps its centre."""
    for _ in range(iterations):
        owner = np.searchsorted((centres[1:] + centres[:-1]) / 2, values)
        count = np.bincount(owner, minlength=len(centres))
        moved = np.where(count, np.bincount(owner, values, len(centres)) / np.maximum(count, 1), centres)
        if np.array_equal(moved, centres):
            break
        centres = moved
    return np.sort(centres)


def fit_mixture(
    values: Array, noise: Array, elements: int, rng: np.random.Generator, *, faint: float = FAINT
) -> Mixture:
    """The mixture of `elements` components and perhaps non-atoms that explains the `values` (n,) of candidates best.

    noise: (m,) intensities of maxima in the empty part; fewer than 30 are ignored. Models are compared by the Bayesian
    information criterion; a non-atom class unlike the noise counts only with a clear gap to the lightest element and a
    mean below `faint` times its.
    """
    distinct = len(np.unique(values))
    if distinct < elements:
        raise ValueError(
            f"elements names {elements} kinds but the candidates have {distinct} distinct intensities; "
            "name fewer elements or trace more candidates"
        )
    level = _noise_level(noise, values)
    models = [_expectation_maximisation(values, k_means(values, elements, rng), None)] if level is None else []
    if level is not None:
        models += _anchored(values, *level, elements, rng)
    if distinct > elements:
        free = _expectation_maximisation(values, k_means(values, elements + 1, rng), (-np.inf, np.inf, 0.0, np.inf))
        models += [free] if _is_apart(free, faint) else []
    if level is not None:
        models = [model for model in models if model.mean[1] > level[0] + ABOVE_NOISE * level[1]]
    if not models:
        raise ValueError("every candidate looks like the noise outside the particle; no atom was found in the volume")
    return min(models, key=lambda model: model.criterion(len(values)))


def _noise_level(noise: Array, values: Array) -> tuple[float, float] | None:
    """Median and robust spread of the intensities of noise, None when there are too few of them."""
    if len(noise) < ENOUGH_NOISE:
        return None
    centre = float(np.median(noise))
    return centre, max(1.4826 * float(np.median(np.abs(noise - centre))), 1e-6 * float(np.ptp(values)), 1e-300)


def _anchored(values: Array, centre: float, spread: float, elements: int, rng: np.random.Generator) -> list[Mixture]:
    """Mixtures whose non-atom component is held near the noise, started with and without the faint candidates."""
    limits = (centre - spread, centre + 3 * spread, 0.5 * spread, 3 * spread)
    bright = values[values > centre + 4 * spread]
    starts = [part for part in (values, bright) if len(np.unique(part)) >= elements]
    return [
        _expectation_maximisation(values, np.concatenate([[centre], k_means(part, elements, rng)]), limits)
        for part in starts
    ]


def _is_apart(mixture: Mixture, faint: float) -> bool:
    """Whether the first component is far below the second: a clear gap, and faint beside it."""
    gap = np.sqrt(2) * (mixture.mean[1] - mixture.mean[0]) / np.hypot(mixture.sigma[0], mixture.sigma[1])
    return bool(gap > CLEAR_GAP and mixture.mean[0] < faint * mixture.mean[1])


def _expectation_maximisation(
    values: Array, centres: Array, noise: tuple[float, float, float, float] | None, iterations: int = 500
) -> Mixture:
    """Gaussian mixture by EM from the k-means `centres`; `noise` limits the first component's mean and sigma.

    noise = (least mean, largest mean, least sigma, largest sigma) of a non-atom component, None when there is none.
    """
    floor = max(1e-3 * float(np.std(values)), 1e-9 * float(np.abs(values).max()), 1e-300)
    owner = np.searchsorted((centres[1:] + centres[:-1]) / 2, values)
    member = np.eye(len(centres))[owner]
    mixture, before = _maximise(values, member, centres, noise, floor), -np.inf
    for _ in range(iterations):
        density = mixture.density(values)
        total = np.maximum(density.sum(axis=1), 1e-300)
        likelihood = float(np.log(total).sum())
        if likelihood - before < 1e-3:
            break
        before = likelihood
        mixture = _maximise(values, density / total[:, None], mixture.mean, noise, floor)
    return Mixture(mixture.share, mixture.mean, mixture.sigma, likelihood, 3 * len(centres) - 1)


def _maximise(
    values: Array, member: Array, old: Array, noise: tuple[float, float, float, float] | None, floor: float
) -> Mixture:
    """Shares, means and sigmas from the memberships (n, components), within their limits."""
    weight = member.sum(axis=0)
    mean = np.where(weight > 1e-9, (member * values[:, None]).sum(axis=0) / np.maximum(weight, 1e-9), old)
    first = 0
    if noise is not None:
        mean[0] = np.clip(mean[0], noise[0], noise[1])
        first = 1
    variance = (member * (values[:, None] - mean) ** 2).sum(axis=0) / np.maximum(weight, 1e-9)
    sigma = np.maximum(np.sqrt(variance), floor)
    common = np.exp(np.average(np.log(sigma[first:]), weights=weight[first:] + 1e-9))
    sigma[first:] = np.clip(sigma[first:], common / ALIKE, common * ALIKE)
    if noise is not None:
        sigma[0] = np.clip(sigma[0], max(noise[2], floor), noise[3])
    return Mixture(weight / weight.sum(), mean, sigma, np.nan, 0)


def _named(
    peaks: Peaks, names: tuple[str, ...], values: Array, mixture: Mixture, power: float, radius: float
) -> Classified:
    """Classes by the boundaries where neighbouring components are equally likely; probabilities from the mixture."""
    non_atoms = len(mixture.mean) - len(names)
    between = [_crossing(mixture, k) for k in range(len(mixture.mean) - 1)]
    boundaries = np.maximum.accumulate(np.array(between if non_atoms else [-np.inf, *between]))
    kind = np.searchsorted(boundaries, values**power, side="right") - 1
    atom = np.flatnonzero(peaks.inside & (kind >= 0))
    if not len(atom):
        raise ValueError("every candidate looks like the noise outside the particle; no atom was found in the volume")
    density = mixture.density(values[atom] ** power)
    chosen = density[np.arange(len(atom)), kind[atom] + non_atoms]
    probability = chosen / np.maximum(density.sum(axis=1), 1e-300)
    counts = {name: int((kind[atom] == k).sum()) for k, name in enumerate(names)}
    rejected = np.flatnonzero(peaks.inside & (kind < 0))
    log.info("atoms %s, rejected %d of %d candidates", counts, len(rejected), int(peaks.inside.sum()))
    unknown = np.full(len(atom), np.nan)
    symbols = tuple(names[k] for k in kind[atom])
    _warn_of_missing(names, symbols, mixture, values[peaks.inside] ** power)
    atoms = Atoms(peaks.positions_A[atom], symbols, values[atom], unknown, np.clip(probability, 0, 1))
    centres = mixture.mean[non_atoms:] ** (1 / power)
    limits = np.where(np.isfinite(boundaries), np.abs(boundaries) ** (1 / power) * np.sign(boundaries), -np.inf)
    rejects = peaks.select(rejected)
    return Classified(atoms, atom, rejects, names, values, ~peaks.inside, limits, centres, mixture, power, radius)


def _crossing(mixture: Mixture, k: int) -> float:
    """Where between the means of components k and k + 1 the second becomes the likelier."""
    grid = np.linspace(mixture.mean[k], mixture.mean[k + 1], 2001)
    density = mixture.density(grid)
    above = np.flatnonzero(density[:, k + 1] > density[:, k])
    return float(grid[above[0]]) if len(above) else float(grid[-1])


def _warn_of_missing(names: tuple[str, ...], symbols: tuple[str, ...], mixture: Mixture, values: Array) -> None:
    """Say so when an element got no atom, or when one class fewer would describe the intensities as well."""
    for name in sorted(set(names) - set(symbols)):
        log.warning("no atom was named %s; is it in the specimen?", name)
    last = len(mixture.mean) - len(names)
    for k in range(last, len(mixture.mean) - 1):
        merged = _expectation_maximisation(values, np.delete(mixture.mean, k), None)
        if merged.criterion(len(values)) < _expectation_maximisation(values, mixture.mean, None).criterion(len(values)):
            light, heavy = names[k - last : k - last + 2]
            log.warning("the intensities do not tell %s from %s; their names are a guess", light, heavy)
