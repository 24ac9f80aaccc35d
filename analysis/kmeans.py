"""Candidates to elements by k-means in stages, as in the published method.

1. All candidates together: one class per element and one of non-atoms. The faintest class is one of non-atoms where
   its mean is below 0.4 of that of the lightest element; otherwise there is nothing to reject.
2. What is left, once more: one class per element, no longer drawn aside by what is no atom.
3. Each atom against the means of the elements among its neighbours, again and again until no name changes. Where the
   brightness of an element drifts through the particle, the neighbours know its value here.

Standard shapes: values (n,), positions (n, 3) in Å, kinds (n,) with -1 for a non-atom and the elements from 0, lightest
first. Sources: Liao et al., Nature (2026), doi:10.1038/s41586-025-09857-4; the third stage, Yang et al., Nature 592, 60
(2021), doi:10.1038/s41586-021-03354-0.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.spatial import cKDTree

from .mixture import FAINT, Mixture, k_means

Array = NDArray[np.float64]
Kinds = NDArray[np.int64]

FEWEST_NEIGHBOURS = 5
"""An element with fewer neighbours around an atom is known there by its mean over the whole particle."""
MOST_ROUNDS = 50


def staged_kinds(
    values: Array, positions_A: Array, elements: int, rng: np.random.Generator, *, local_radius_A: float
) -> Kinds:
    """Kind of each candidate from its intensity and that of its neighbours within `local_radius_A`.

    Raises ValueError where the candidates have fewer distinct intensities than there are elements.
    """
    kind = global_kinds(values, elements, rng)
    atom = kind >= 0
    kind[atom] = local_kinds(values[atom], positions_A[atom], kind[atom], elements, local_radius_A)
    return kind


def global_kinds(values: Array, elements: int, rng: np.random.Generator) -> Kinds:
    """The first two stages: kinds (n,) from the intensities (n,) alone; ValueError as `staged_kinds`."""
    distinct = len(np.unique(values))
    if distinct < elements:
        raise ValueError(
            f"elements names {elements} kinds but the candidates have {distinct} distinct intensities; "
            "name fewer elements or trace more candidates"
        )
    rejected = _non_atoms(values, elements, rng) if distinct > elements else np.zeros(len(values), bool)
    kind = np.full(len(values), -1)
    kind[~rejected] = _nearest(values[~rejected], k_means(values[~rejected], elements, rng))
    return kind


def _non_atoms(values: Array, elements: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Which candidates the first stage takes for no atoms."""
    centres = k_means(values, elements + 1, rng)
    if centres[0] >= FAINT * centres[1]:
        return np.zeros(len(values), bool)
    return _nearest(values, centres) == 0


def _nearest(values: Array, centres: Array) -> Kinds:
    return np.searchsorted((centres[1:] + centres[:-1]) / 2, values)


def local_kinds(values: Array, positions_A: Array, kind: Kinds, elements: int, radius_A: float) -> Kinds:
    """The third stage: kinds (n,) of atoms by the nearest of the means of each element among their neighbours.

    An atom does not count for itself. Ends when no name changes, or after 50 rounds.
    """
    near = _neighbours(positions_A, radius_A)
    for _ in range(MOST_ROUNDS):
        member = np.eye(elements)[kind]
        count = near @ member
        whole = (values @ member) / np.maximum(member.sum(axis=0), 1)
        mean = np.where(count >= FEWEST_NEIGHBOURS, (near @ (member * values[:, None])) / np.maximum(count, 1), whole)
        mean[:, member.sum(axis=0) == 0] = np.inf
        changed = np.abs(values[:, None] - mean).argmin(axis=1)
        if np.array_equal(changed, kind):
            break
        kind = changed
    return kind


def _neighbours(positions_A: Array, radius_A: float) -> sparse.csr_matrix:
    """Symmetric matrix (n, n), 1 for each pair of atoms within the radius, 0 on the diagonal."""
    pairs = cKDTree(positions_A).query_pairs(radius_A, output_type="ndarray")
    half = sparse.csr_matrix((np.ones(len(pairs)), tuple(pairs.T)), shape=(len(positions_A),) * 2)
    return (half + half.T).tocsr()


def mixture_of(values: Array, kind: Kinds, elements: int) -> Mixture:
    """Share, mean and spread of the classes (n,) as a mixture, from which follow the probabilities of the names."""
    non_atoms = int((kind < 0).any())
    floor = max(1e-3 * float(np.std(values)), 1e-9 * float(np.abs(values).max()), 1e-300)
    classes = [values[kind == k] for k in range(-non_atoms, elements)]
    parts = [(len(c) / len(values), c.mean(), max(c.std(), floor)) if len(c) else (0.0, np.nan, 1.0) for c in classes]
    share, mean, sigma = np.array(parts).T
    # A class nobody is in stands between its neighbours.
    known = np.isfinite(mean)
    mean = np.interp(np.arange(len(mean)), np.flatnonzero(known), mean[known])
    density = np.log(np.maximum(Mixture(share, mean, sigma, 0.0, 0).density(values).sum(axis=1), 1e-300))
    return Mixture(share, mean, sigma, float(density.sum()), 3 * len(mean) - 1, non_atoms)
