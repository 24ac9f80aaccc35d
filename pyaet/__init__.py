"""pyaet: atomic electron tomography of amorphous matter, from raw tilt series to atoms, elements and rings.

    plan = pyaet.load_plan("plan.toml")
    summary = pyaet.run_plan(plan, "run")

The command `pyaet` does the same and more; the engines behind it are the packages `ptycho`, `tomo` and `analysis`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pyaet.plan import Plan, load_plan
    from pyaet.run import run_plan

__version__ = "0.1.0"
__all__ = ["Plan", "__version__", "load_plan", "run_plan"]

_MODULE_OF = {"Plan": "pyaet.plan", "load_plan": "pyaet.plan", "run_plan": "pyaet.run"}


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'pyaet' has no attribute {name!r}")
    from pyaet.rooms import foreign_room

    if fault := foreign_room():
        raise ImportError(fault)
    return getattr(importlib.import_module(_MODULE_OF[name]), name)
