"""Diffraction patterns of one tilt to the complex object, its projected phase, the probe and the positions.

    patterns = ptycho.Patterns(counts, positions_A, pixel_mrad)
    result = ptycho.reconstruct(patterns, ptycho.Optics(80e3, 30.0, 180.0), ptycho.Settings(), rng=rng)
    phase = ptycho.phase_projection(result)

Lengths in Å, angles in mrad, energies in eV; arrays are (y, x), stacks (n, y, x); index n // 2 is coordinate 0.
"""

from ptycho.data import Patterns, window_side, window_size
from ptycho.engine import Iteration, reconstruct
from ptycho.findings import Finding
from ptycho.gauge import in_gauge
from ptycho.memory import memory_bytes
from ptycho.optics import Optics, wavelength_A
from ptycho.phase import phase_projection
from ptycho.regularise import Regulariser
from ptycho.result import Diverged, Result
from ptycho.settings import Settings

__all__ = [
    "Diverged",
    "Finding",
    "Iteration",
    "Optics",
    "Patterns",
    "Regulariser",
    "Result",
    "Settings",
    "in_gauge",
    "memory_bytes",
    "phase_projection",
    "reconstruct",
    "wavelength_A",
    "window_side",
    "window_size",
]
