"""One-dimensional Gaussian mixtures of intensities: one component per element, and those of what is no atom.

k-means starts the mixture, expectation maximisation finishes it, the Bayesian information criterion chooses among models.
Sources: k-means on integrated intensities with a non-atom class, Liao et al., Nature (2026),
doi:10.1038/s41586-025-09857-4; separation of two components, Ashman et al. (1994), doi:10.1086/117248.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .atoms import atomic_number

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
    models = [fit_components(values, k_means(values, elements, rng), 0)] if level is None else []
    if level is not None:
        models += _anchored(values, *level, elements, rng)
    for non_atoms in range(1, min(MOST_CLUTTER, distinct - elements) + 1):
        for centres in _starts(values, non_atoms, elements, rng):
            free = fit_components(values, centres, non_atoms)
            models += [free] if _is_apart(free, faint) else []
    if level is not None:
        models = [model for model in models if model.mean[model.non_atoms] > level[0] + ABOVE_NOISE * level[1]]
    if not models:
        raise ValueError("every candidate looks like the noise outside the particle; no atom was found in the volume")
    plausible = [model for model in models if is_plausible(model, ratios)]
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
    return [
        fit_components(values, np.concatenate([[centre], k_means(part, elements, rng)]), 1, limits) for part in starts
    ]


def _is_apart(mixture: Mixture, faint: float) -> bool:
    """Whether the brightest non-atom component is far below the lightest element: a clear gap, and faint beside it."""
    below, above = mixture.non_atoms - 1, mixture.non_atoms
    gap = (
        np.sqrt(2) * (mixture.mean[above] - mixture.mean[below]) / np.hypot(mixture.sigma[below], mixture.sigma[above])
    )
    return bool(gap > CLEAR_GAP and mixture.mean[below] < faint * mixture.mean[above])


def is_plausible(mixture: Mixture, ratios: Sequence[tuple[float, float]]) -> bool:
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


def fit_components(
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
