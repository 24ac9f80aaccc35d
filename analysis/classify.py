"""Candidates to elements: which maxima are atoms, and of which kind.

The integrated intensity of a candidate is the integral of the volume over a sphere of half the minimum distance.
k-means on it starts a one-dimensional Gaussian mixture: one component per element and, where the data call for it,
one of non-atoms. (Where the volume was held positive its noise is skewed, and the mixture is one of square roots.)
Maxima of the empty part of the volume show what intensity mere noise reaches; the non-atom component is held near
them, so that it can have no members when there is nothing to reject. Where the noise is not known from there, or what
lies between the atoms is not like it, one to three non-atom components must earn their place: by the Bayesian
information criterion and by a clear gap below the lightest element. A model in which an element outshines a lighter one
by more or less than their atomic numbers allow is taken only when there is no other.
The published way, k-means in stages (`kmeans`), can be asked for instead.

Source: k-means on integrated intensities with a non-atom class, Liao et al., Nature (2026),
doi:10.1038/s41586-025-09857-4; separation of two components, Ashman et al. (1994), doi:10.1086/117248.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from .atoms import Atoms, atomic_number
from .kmeans import mixture_of, staged_kinds
from .mixture import FAINT, Mixture, brightness_ratios, fit_components, fit_mixture, is_plausible
from .trace import Peaks, check_volume

log = logging.getLogger(__name__)

Array = NDArray[np.float64]


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
    method: Literal["mixture", "kmeans"] = "mixture",
    local_radius_A: float = 10.0,
) -> Classified:
    """Name the element of every candidate or reject it, from its integrated intensity in `volume` (z, y, x).

    elements: the symbols that occur, in any order; the heavier is the brighter. radius_A: of the integrated sphere,
    default half of `peaks.min_distance_A`, at least a voxel. rng: starts of the k-means. method: "mixture", or "kmeans" in
    stages, the last among the neighbours within `local_radius_A`; `boundaries` are then those of the first two. ValueError
    when there are no candidates, an element is unknown or named twice, there are more elements than distinct intensities,
    the method is unknown or a radius is not positive.
    """
    if method not in ("mixture", "kmeans"):
        raise ValueError(f"method is {method!r}; expected 'mixture' or 'kmeans'")
    data = check_volume(volume, voxel_A)
    names = _check_elements(elements)
    radius = max(0.5 * peaks.min_distance_A, voxel_A) if radius_A is None else float(radius_A)
    for name, value, what in (
        ("radius_A", radius, "integrated sphere"),
        ("local_radius_A", local_radius_A, "neighbours"),
    ):
        if not (np.isfinite(value) and value > 0):
            raise ValueError(f"{name} is {value}; expected the radius of the {what} in Å, a positive number")
    if not peaks.inside.any():
        raise ValueError("peaks holds no candidate inside the particle; lower blur_A or min_distance_A of trace")
    values = integrated_intensity(data, voxel_A, peaks.positions_A, radius)
    if method == "kmeans":
        return _by_stages(peaks, names, values, rng, radius, local_radius_A)
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
    boundaries = _boundaries(mixture)
    kind = np.searchsorted(boundaries, values**power, side="right") - 1
    return _named(peaks, names, values, kind, boundaries, mixture, power, radius)


def _by_stages(
    peaks: Peaks, names: tuple[str, ...], values: Array, rng: np.random.Generator, radius: float, local_radius_A: float
) -> Classified:
    """Classes by k-means of the candidates inside the particle; the boundaries lie halfway between their means."""
    inside = peaks.inside
    kind = np.full(len(peaks), -1)
    kind[inside] = staged_kinds(
        values[inside], peaks.positions_A[inside], len(names), rng, local_radius_A=local_radius_A
    )
    mixture = mixture_of(values[inside], kind[inside], len(names))
    between = (mixture.mean[1:] + mixture.mean[:-1]) / 2
    boundaries = between if mixture.non_atoms else np.array([-np.inf, *between])
    return _named(peaks, names, values, kind, boundaries, mixture, 1.0, radius)


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


def _boundaries(mixture: Mixture) -> Array:
    """Where neighbouring components are equally likely, increasing; the first is -inf without non-atoms."""
    between = [_crossing(mixture, k) for k in range(max(mixture.non_atoms - 1, 0), len(mixture.mean) - 1)]
    return np.maximum.accumulate(np.array(between if mixture.non_atoms else [-np.inf, *between]))


def _named(
    peaks: Peaks,
    names: tuple[str, ...],
    values: Array,
    kind: NDArray[np.int64],
    boundaries: Array,
    mixture: Mixture,
    power: float,
    radius: float,
) -> Classified:
    """The candidates by their kinds (n,), -1 for a non-atom; probabilities from the mixture."""
    non_atoms = mixture.non_atoms
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
        merged = fit_components(values, np.delete(mixture.mean, k), last)
        if merged.criterion(len(values)) < fit_components(values, mixture.mean, last).criterion(len(values)):
            log.warning("the intensities do not tell %s from %s; their names are a guess", light, heavy)
    for light, heavy, limits in zip(names, names[1:], brightness_ratios(names, power), strict=False):
        pair = replace(mixture, mean=mixture.mean[[last + names.index(light), last + names.index(heavy)]], non_atoms=0)
        if not is_plausible(pair, [limits]):
            ratio = (pair.mean[1] / pair.mean[0]) ** (1 / power)
            log.warning(
                "%s is %.2g times as bright as %s, which their charges do not explain; are the elements right?",
                heavy,
                ratio,
                light,
            )
