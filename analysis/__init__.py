"""From a volume to atoms, and from atoms to the topology of their network.

    from analysis import trace, classify, refine, bonds, rings, compare, Atoms

Names are loaded on first use, so that `import analysis` costs next to nothing.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .atoms import Atoms
    from .bands import angle_bands, dihedral_bands, length_bands, pair_bands
    from .bonds import BondRule, bonds, default_rules, homopolar_rules
    from .cell import Cell
    from .classify import Classified, classify
    from .compare import Comparison, compare
    from .defects import Defects, defects, formers_of, linked, q_n
    from .ensemble import band_of, draws, network_bands
    from .likely import LikelyBonds, likely_bonds
    from .names import PossibleNames, likely_names, possible_names
    from .network import Network
    from .order import (
        MOTIFS,
        StructureFactor,
        VoronoiCells,
        bond_angles,
        bond_lengths,
        bond_order,
        bond_order_w,
        debye,
        dihedral_angles,
        faber_ziman_weights,
        motifs,
        pentagon_share,
        scattering_factor,
        solid_bonds,
        structure_factor,
        voronoi,
        warren_cowley,
    )
    from .pdf import PairDistribution, first_minimum, pair_distribution
    from .refine import Refined, refine
    from .rings import (
        RingList,
        RingShapes,
        RingStatistics,
        alternating_share,
        coordination_sequences,
        former_sizes,
        ring_shapes,
        ring_statistics,
        rings,
        size_histogram,
    )
    from .surface import surface_atoms
    from .trace import Peaks, trace
    from .unfold import Band

_MODULE_OF = {
    "Atoms": "atoms",
    "Band": "unfold",
    "BondRule": "bonds",
    "Cell": "cell",
    "Classified": "classify",
    "Comparison": "compare",
    "Defects": "defects",
    "LikelyBonds": "likely",
    "PossibleNames": "names",
    "MOTIFS": "order",
    "Network": "network",
    "PairDistribution": "pdf",
    "Peaks": "trace",
    "Refined": "refine",
    "RingList": "rings",
    "RingShapes": "rings",
    "RingStatistics": "rings",
    "StructureFactor": "order",
    "VoronoiCells": "order",
    "alternating_share": "rings",
    "angle_bands": "bands",
    "band_of": "ensemble",
    "bond_angles": "order",
    "bond_lengths": "order",
    "bond_order": "order",
    "bond_order_w": "order",
    "bonds": "bonds",
    "classify": "classify",
    "compare": "compare",
    "coordination_sequences": "rings",
    "debye": "order",
    "default_rules": "bonds",
    "defects": "defects",
    "dihedral_angles": "order",
    "dihedral_bands": "bands",
    "draws": "ensemble",
    "faber_ziman_weights": "order",
    "first_minimum": "pdf",
    "former_sizes": "rings",
    "formers_of": "defects",
    "homopolar_rules": "bonds",
    "length_bands": "bands",
    "likely_bonds": "likely",
    "likely_names": "names",
    "linked": "defects",
    "motifs": "order",
    "network_bands": "ensemble",
    "pair_bands": "bands",
    "pair_distribution": "pdf",
    "pentagon_share": "order",
    "possible_names": "names",
    "q_n": "defects",
    "refine": "refine",
    "ring_shapes": "rings",
    "ring_statistics": "rings",
    "rings": "rings",
    "scattering_factor": "order",
    "size_histogram": "rings",
    "solid_bonds": "order",
    "structure_factor": "order",
    "surface_atoms": "surface",
    "trace": "trace",
    "voronoi": "order",
    "warren_cowley": "order",
}

__all__ = [
    "MOTIFS",
    "Atoms",
    "Band",
    "BondRule",
    "Cell",
    "Classified",
    "Comparison",
    "Defects",
    "LikelyBonds",
    "Network",
    "PairDistribution",
    "Peaks",
    "PossibleNames",
    "Refined",
    "RingList",
    "RingShapes",
    "RingStatistics",
    "StructureFactor",
    "VoronoiCells",
    "alternating_share",
    "angle_bands",
    "band_of",
    "bond_angles",
    "bond_lengths",
    "bond_order",
    "bond_order_w",
    "bonds",
    "classify",
    "compare",
    "coordination_sequences",
    "debye",
    "default_rules",
    "defects",
    "dihedral_angles",
    "dihedral_bands",
    "draws",
    "faber_ziman_weights",
    "first_minimum",
    "former_sizes",
    "formers_of",
    "homopolar_rules",
    "length_bands",
    "likely_bonds",
    "likely_names",
    "linked",
    "motifs",
    "network_bands",
    "pair_bands",
    "pair_distribution",
    "pentagon_share",
    "possible_names",
    "q_n",
    "refine",
    "ring_shapes",
    "ring_statistics",
    "rings",
    "scattering_factor",
    "size_histogram",
    "solid_bonds",
    "structure_factor",
    "surface_atoms",
    "trace",
    "voronoi",
    "warren_cowley",
]


class _Package(ModuleType):
    """A package in which a public function keeps its name although a submodule bears the same one.

    Importing `analysis.rings` would bind the submodule over the function `analysis.rings`; here it does not. The
    submodule's contents are reached by `from analysis.rings import ...`.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _MODULE_OF and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'analysis' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
