"""Local and medium-range order of a model: angles, bond order, Voronoi cells, chemical order, scattering."""

from __future__ import annotations

from .angles import AngleList, angles_of, bond_angles, dihedral_angles

__all__ = ["AngleList", "angles_of", "bond_angles", "dihedral_angles"]
