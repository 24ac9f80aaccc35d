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
    from .bonds import BondRule, bonds, default_rules, homopolar_rules
    from .cell import Cell
    from .classify import Classified, classify
    from .compare import Comparison, compare
    from .defects import Defects, defects, formers_of, linked, q_n
    from .network import Network
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

_MODULE_OF = {
    "Atoms": "atoms",
    "BondRule": "bonds",
    "Cell": "cell",
    "Classified": "classify",
    "Comparison": "compare",
    "Defects": "defects",
    "Network": "network",
    "PairDistribution": "pdf",
    "Peaks": "trace",
    "Refined": "refine",
    "RingList": "rings",
    "RingShapes": "rings",
    "RingStatistics": "rings",
    "alternating_share": "rings",
    "bonds": "bonds",
    "classify": "classify",
    "compare": "compare",
    "coordination_sequences": "rings",
    "default_rules": "bonds",
    "defects": "defects",
    "first_minimum": "pdf",
    "former_sizes": "rings",
    "formers_of": "defects",
    "homopolar_rules": "bonds",
    "linked": "defects",
    "pair_distribution": "pdf",
    "q_n": "defects",
    "refine": "refine",
    "ring_shapes": "rings",
    "ring_statistics": "rings",
    "rings": "rings",
    "size_histogram": "rings",
    "surface_atoms": "surface",
    "trace": "trace",
}

__all__ = [
    "Atoms",
    "BondRule",
    "Cell",
    "Classified",
    "Comparison",
    "Defects",
    "Network",
    "PairDistribution",
    "Peaks",
    "Refined",
    "RingList",
    "RingShapes",
    "RingStatistics",
    "alternating_share",
    "bonds",
    "classify",
    "compare",
    "coordination_sequences",
    "default_rules",
    "defects",
    "first_minimum",
    "former_sizes",
    "formers_of",
    "homopolar_rules",
    "linked",
    "pair_distribution",
    "q_n",
    "refine",
    "ring_shapes",
    "ring_statistics",
    "rings",
    "size_histogram",
    "surface_atoms",
    "trace",
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
