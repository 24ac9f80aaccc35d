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
    from .network import Network
    from .pdf import PairDistribution, first_minimum, pair_distribution
    from .refine import Refined, refine
    from .rings import RingList, alternating_share, rings, size_histogram
    from .trace import Peaks, trace

_MODULE_OF = {
    "Atoms": "atoms",
    "BondRule": "bonds",
    "bonds": "bonds",
    "default_rules": "bonds",
    "homopolar_rules": "bonds",
    "Cell": "cell",
    "Classified": "classify",
    "classify": "classify",
    "Comparison": "compare",
    "compare": "compare",
    "Network": "network",
    "PairDistribution": "pdf",
    "first_minimum": "pdf",
    "pair_distribution": "pdf",
    "Refined": "refine",
    "refine": "refine",
    "RingList": "rings",
    "alternating_share": "rings",
    "rings": "rings",
    "size_histogram": "rings",
    "Peaks": "trace",
    "trace": "trace",
}

__all__ = [
    "Atoms",
    "BondRule",
    "Cell",
    "Classified",
    "Comparison",
    "Network",
    "PairDistribution",
    "Peaks",
    "Refined",
    "RingList",
    "alternating_share",
    "bonds",
    "classify",
    "compare",
    "default_rules",
    "first_minimum",
    "homopolar_rules",
    "pair_distribution",
    "refine",
    "rings",
    "size_histogram",
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
