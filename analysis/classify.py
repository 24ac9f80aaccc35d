"""Candidates to elements: which maxima are atoms, and of which kind.

The integrated intensity of a candidate is the integral of the volume over a sphere of half the minimum distance.
k-means on it starts a one-dimensional Gaussian mixture: one component per element and, where the data call for it,
one of non-atoms. (Where the volume was held positive its noise is skewed, and the mixture is one of square roots.)
Maxima of the empty part of the volume show what intensity mere noise reaches; the non-atom component is held near
them, so that it can have no members when there is nothing to reject. Where the noise is not known from there, or what
lies between the atoms is not like it, one to three non-atom components must earn their place: by the Bayesian
information criterion and by a clear gap below the lightest element. A model in which an element outshines a lighter one
by more or less than their atomic numbers allow is taken only when there is no other.

Source: k-means on integrated intensities with a non-atom class, Liao et al., Nature (2026),
doi:10.1038/s41586-025-09857-4; separation of two components, Ashman et al. (1994), doi:10.1086/117248.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

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
MOST_CLUTTER = 3
"""What lies between atoms is not one Gaussian: at most so many components describe it."""
WIDEST_GAPS = 4
EXPONENTS = (0.3, 2.5)
"""Intensities grow with the atomic number to a power between these."""
ALIKE = 2.5
"""No element's spread differs from their geometric mean by more than this factor."""


@dataclass(frozen=True, eq=False)
class Mixture:
    """One-dimensional Gaussian mixture, components by increasing mean, the first `non_atoms` of no element.

    A share of 0 means a component nobody belongs to.
    """

    share: Array
    mean: Array
    sigma: Array
    log_likelihood: float
    parameters: int
    non_atoms: int = 0

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
    mixture = fit_mixture(
        scaled[peaks.inside],
        scaled[~peaks.inside],
        len(names),
        rng,
        faint=FAINT**power,
        ratios=brightness_ratios(names, power),
    )
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
    values: Array,
    noise: Array,
    elements: int,
    rng: np.random.Generator,
    *,
    faint: float = FAINT,
    ratios: Sequence[tuple[float, float]] = (),
) -> Mixture:
    """The mixture of `elements` components and perhaps non-atoms that explains the `values` (n,) of candidates best.

    noise: (m,) intensities of maxima in the empty part; fewer than 30 are ignored. ratios: least and largest brightness
    of each element in units of the next lighter one. Models are compared by the Bayesian information criterion;
    non-atoms unlike the noise count only with a clear gap to the lightest element and a mean below `faint` times its.
    """
    distinct = len(np.unique(values))
    if distinct < elements:
        raise ValueError(
            f"elements names {elements} kinds but the candidates have {distinct} distinct intensities; "
            "name fewer elements or trace more candidates"
        )
    level = _noise_level(noise, values)
    models = [_mixture(values, k_means(values, elements, rng), 0)] if level is None else []
    if level is not None:
        models += _anchored(values, *level, elements, rng)
    for non_atoms in range(1, min(MOST_CLUTTER, distinct - elements) + 1):
        for centres in _starts(values, non_atoms, elements, rng):
            free = _mixture(values, centres, non_atoms)
            models += [free] if _is_apart(free, faint) else []
    if level is not None:
        models = [model for model in models if model.mean[model.non_atoms] > level[0] + ABOVE_NOISE * level[1]]
    if not models:
        raise ValueError("every candidate looks like the noise outside the particle; no atom was found in the volume")
    plausible = [model for model in models if _is_plausible(model, ratios)]
    return min(plausible or models, key=lambda model: model.criterion(len(values)))


def _starts(values: Array, non_atoms: int, elements: int, rng: np.random.Generator) -> list[Array]:
    """Centres to start from: of all values together, and of those below and above each of their widest gaps.

    Clutter can outnumber the atoms so far that k-means of everything spends all its clusters on clutter.
    """
    ordered = np.unique(values)
    starts = [k_means(values, non_atoms + elements, rng)]
    for gap in np.argsort(-np.diff(ordered))[:WIDEST_GAPS]:
        if gap + 1 >= non_atoms and len(ordered) - gap - 1 >= elements:
            low, high = values[values <= ordered[gap]], values[values > ordered[gap]]
            starts.append(np.concatenate([k_means(low, non_atoms, rng), k_means(high, elements, rng)]))
    return starts


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
    return [_mixture(values, np.concatenate([[centre], k_means(part, elements, rng)]), 1, limits) for part in starts]


def _is_apart(mixture: Mixture, faint: float) -> bool:
    """Whether the brightest non-atom component is far below the lightest element: a clear gap, and faint beside it."""
    below, above = mixture.non_atoms - 1, mixture.non_atoms
    gap = (
        np.sqrt(2) * (mixture.mean[above] - mixture.mean[below]) / np.hypot(mixture.sigma[below], mixture.sigma[above])
    )
    return bool(gap > CLEAR_GAP and mixture.mean[below] < faint * mixture.mean[above])


def _is_plausible(mixture: Mixture, ratios: Sequence[tuple[float, float]]) -> bool:
    """Whether each element outshines the next lighter one by as much as their atomic numbers allow."""
    means = mixture.mean[mixture.non_atoms :]
    pairs = zip(means, means[1:], ratios, strict=False)
    return all(light > 0 and least <= heavy / light <= most for light, heavy, (least, most) in pairs)


def brightness_ratios(names: Sequence[str], power: float = 1.0) -> list[tuple[float, float]]:
    """Least and largest ratio of the intensities, to the given power, of each element and the next lighter one.

    Intensities go as Z^p: p is about 0.6 to 1 for phases and 1.5 to 2 for annular dark field.
    """
    charges = [atomic_number(name) for name in names]
    steps = [heavy / light for light, heavy in itertools.pairwise(charges)]
    least, most = EXPONENTS
    return [(step ** (least * power), step ** (most * power)) for step in steps]


def _mixture(
    values: Array,
    centres: Array,
    non_atoms: int,
    limits: tuple[float, float, float, float] | None = None,
    iterations: int = 500,
) -> Mixture:
    """Gaussian mixture by expectation maximisation from the k-means `centres`, the first `non_atoms` of no element.

    limits = (least mean, largest mean, least sigma, largest sigma) of the first component.
    """
    floor = max(1e-3 * float(np.std(values)), 1e-9 * float(np.abs(values).max()), 1e-300)
    owner = np.searchsorted((centres[1:] + centres[:-1]) / 2, values)
    member = np.eye(len(centres))[owner]
    mixture, before = _maximise(values, member, centres, non_atoms, limits, floor), -np.inf
    for _ in range(iterations):
        density = mixture.density(values)
        total = np.maximum(density.sum(axis=1), 1e-300)
        likelihood = float(np.log(total).sum())
        if likelihood - before < 1e-3:
            break
        before = likelihood
        mixture = _maximise(values, density / total[:, None], mixture.mean, non_atoms, limits, floor)
    return replace(mixture, log_likelihood=likelihood)


def _maximise(
    values: Array,
    member: Array,
    old: Array,
    non_atoms: int,
    limits: tuple[float, float, float, float] | None,
    floor: float,
) -> Mixture:
    """Shares, means and sigmas from the memberships (n, components), within their limits."""
    weight = member.sum(axis=0)
    mean = np.where(weight > 1e-9, (member * values[:, None]).sum(axis=0) / np.maximum(weight, 1e-9), old)
    if limits is not None:
        mean[0] = np.clip(mean[0], limits[0], limits[1])
    variance = (member * (values[:, None] - mean) ** 2).sum(axis=0) / np.maximum(weight, 1e-9)
    sigma = np.maximum(np.sqrt(variance), floor)
    common = np.exp(np.average(np.log(sigma[non_atoms:]), weights=weight[non_atoms:] + 1e-9))
    sigma[non_atoms:] = np.clip(sigma[non_atoms:], common / ALIKE, common * ALIKE)
    if limits is not None:
        sigma[0] = np.clip(sigma[0], max(limits[2], floor), limits[3])
    return Mixture(weight / weight.sum(), mean, sigma, np.nan, 3 * len(mean) - 1, non_atoms)


def _named(
    peaks: Peaks, names: tuple[str, ...], values: Array, mixture: Mixture, power: float, radius: float
) -> Classified:
    """Classes by the boundaries where neighbouring components are equally likely; probabilities from the mixture."""
    non_atoms = mixture.non_atoms
    between = [_crossing(mixture, k) for k in range(max(non_atoms - 1, 0), len(mixture.mean) - 1)]
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
    _warn_of_missing(names, symbols, mixture, values[peaks.inside] ** power, power)
    atoms = Atoms(peaks.positions_A[atom], symbols, values[atom], unknown, np.clip(probability, 0, 1))
    centres = mixture.mean[non_atoms:] ** (1 / power)
    limits = np.where(np.isfinite(boundaries), np.abs(boundaries) ** (1 / power) * np.sign(boundaries), -np.inf)
    rejects = peaks.select(rejected)
    return Classified(atoms, atom, rejects, names, values, ~peaks.inside, limits, centres, mixture, power, radius)


def _crossing(mixture: Mixture, k: int) -> float:
    """Where between the means of components k and k + 1 the second becomes the likelier."""
    grid = np.linspace(mixture.mean[k], mixture.mean[k + 1], 2001)
    density = mixture.density(grid)
    lower = density[:, : k + 1].sum(axis=1) if k < mixture.non_atoms else density[:, k]
    above = np.flatnonzero(density[:, k + 1] > lower)
    return float(grid[above[0]]) if len(above) else float(grid[-1])


def _warn_of_missing(
    names: tuple[str, ...], symbols: tuple[str, ...], mixture: Mixture, values: Array, power: float
) -> None:
    """Say so when an element got no atom, or when one class fewer would describe the intensities as well."""
    for name in sorted(set(names) - set(symbols)):
        log.warning("no atom was named %s; is it in the specimen?", name)
    last = mixture.non_atoms
    for k in range(last, len(mixture.mean) - 1):
        light, heavy = names[k - last : k - last + 2]
        merged = _mixture(values, np.delete(mixture.mean, k), last)
        if merged.criterion(len(values)) < _mixture(values, mixture.mean, last).criterion(len(values)):
            log.warning("the intensities do not tell %s from %s; their names are a guess", light, heavy)
    for light, heavy, limits in zip(names, names[1:], brightness_ratios(names, power), strict=False):
        pair = replace(mixture, mean=mixture.mean[[last + names.index(light), last + names.index(heavy)]], non_atoms=0)
        if not _is_plausible(pair, [limits]):
            ratio = (pair.mean[1] / pair.mean[0]) ** (1 / power)
            log.warning(
                "%s is %.2g times as bright as %s, which their charges do not explain; are the elements right?",
                heavy,
                ratio,
                light,
            )
