"""Particles to simulate: spheres of amorphous silica cut from the shipped network."""

from __future__ import annotations

import itertools

import numpy as np
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from pyaet.simulate.silica import Silica, shipped_silica

BOND_A = 2.0
"""Longer than any Si-O bond of the network, shorter than any other Si-O distance."""


def silica_cluster(diameter_A: float, seed: int) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return a sphere of amorphous silica about coordinate 0, cut at a random place and turned at random by `seed`.

    The positions are (n, 3) as (x, y, z) in Å and come with their n element symbols. Atoms left without a bond are
    dropped; the stoichiometry is as it falls. Raises `ValueError` when the diameter is not positive, exceeds the edge
    of the box (30.7 Å), where the particle would repeat itself, or holds no bond.
    """
    box = shipped_silica()
    if not 0 < diameter_A <= box.box_A:
        raise ValueError(f"diameter_A is {diameter_A:g}; expected more than 0 and at most {box.box_A:.4g} Å")
    rng = np.random.default_rng(seed)
    positions, symbols = _sphere(box, rng.random(3) * box.box_A, diameter_A / 2)
    positions = positions @ Rotation.random(rng=rng).as_matrix().T
    keep = _bonded(positions, symbols)
    if not keep.any():
        raise ValueError(
            f"diameter_A is {diameter_A:g}, too small to hold a bond with seed {seed}; expected 5 Å or more"
        )
    return positions[keep], tuple(symbols[keep].tolist())


def _sphere(box: Silica, centre_A: np.ndarray, radius_A: float) -> tuple[np.ndarray, np.ndarray]:
    """Atoms of the periodic box within `radius_A` of `centre_A`, relative to it."""
    shifts = np.array(list(itertools.product((-1, 0, 1), repeat=3))) * box.box_A
    images = (box.positions_A - centre_A + shifts[:, None]).reshape(-1, 3)
    inside = (images**2).sum(axis=1) <= radius_A**2
    return images[inside], np.tile(np.array(box.symbols), len(shifts))[inside]


def _bonded(positions_A: np.ndarray, symbols: np.ndarray) -> np.ndarray:
    """Mask of the atoms that have at least one Si-O bond."""
    keep = np.zeros(len(symbols), dtype=bool)
    if len(symbols):
        pairs = cKDTree(positions_A).query_pairs(BOND_A, output_type="ndarray")
        unlike = symbols[pairs[:, 0]] != symbols[pairs[:, 1]]
        keep[pairs[unlike]] = True
    return keep
