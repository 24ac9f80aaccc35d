"""Local and medium-range order of a model: angles, bond order, Voronoi cells, chemical order, scattering."""

from __future__ import annotations

from .angles import AngleList, angles_of, bond_angles, bond_lengths, dihedral_angles
from .scattering import StructureFactor, debye, faber_ziman_weights, scattering_factor, structure_factor
from .short_range import warren_cowley
from .steinhardt import bond_order, bond_order_w, solid_bonds
from .voronoi import MOTIFS, VoronoiCells, motifs, pentagon_share, voronoi

__all__ = [
    "MOTIFS",
    "AngleList",
    "StructureFactor",
    "VoronoiCells",
    "angles_of",
    "bond_angles",
    "bond_lengths",
    "bond_order",
    "bond_order_w",
    "debye",
    "dihedral_angles",
    "faber_ziman_weights",
    "motifs",
    "pentagon_share",
    "scattering_factor",
    "solid_bonds",
    "structure_factor",
    "voronoi",
    "warren_cowley",
]
