"""Local and medium-range order of a model: angles, bond order, Voronoi cells, chemical order, scattering."""

from __future__ import annotations

from .angles import AngleList, angles_of, bond_angles, dihedral_angles
from .short_range import warren_cowley
from .steinhardt import bond_order, bond_order_w, solid_bonds
from .voronoi import MOTIFS, VoronoiCells, motifs, pentagon_share, voronoi

__all__ = [
    "MOTIFS",
    "AngleList",
    "VoronoiCells",
    "angles_of",
    "bond_angles",
    "bond_order",
    "bond_order_w",
    "dihedral_angles",
    "motifs",
    "pentagon_share",
    "solid_bonds",
    "voronoi",
    "warren_cowley",
]
