"""What 4D-STEM and ADF series share: checked atoms and angles, the tilted specimen, a generator for every tilt."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from tomo.geometry import rotation

Progress = Callable[[int, int, float], None]
Angles = tuple[float, float, float]


def checked_atoms(positions_A: np.ndarray, symbols: Sequence[str]) -> np.ndarray:
    """Return positions as float64 (n, 3); raises `ValueError` unless there is one symbol for each."""
    positions_A = np.asarray(positions_A, dtype=np.float64)
    if positions_A.ndim != 2 or positions_A.shape[1] != 3 or not len(positions_A):
        raise ValueError(f"positions_A has shape {positions_A.shape}; expected (n, 3) as (x, y, z) in Å, n at least 1")
    if not np.isfinite(positions_A).all():
        raise ValueError("positions_A holds a value that is not finite; every atom needs a place")
    if len(symbols) != len(positions_A):
        raise ValueError(f"symbols has {len(symbols)} entries for {len(positions_A)} atoms; expected one per atom")
    return positions_A


def checked_angles(angles_deg: np.ndarray) -> list[Angles]:
    """Return the rows (φ, θ, ψ) of `angles_deg` (n, 3); raises `ValueError` on a wrong shape or a repeated tilt."""
    angles = np.asarray(angles_deg, dtype=np.float64)
    if angles.ndim != 2 or angles.shape[1] != 3 or not np.isfinite(angles).all():
        raise ValueError(f"angles_deg has shape {angles.shape}; expected (n, 3) finite Euler angles (φ, θ, ψ)")
    rows: list[Angles] = [(float(phi), float(theta), float(psi)) for phi, theta, psi in angles]
    if len(set(rows)) < len(rows):
        raise ValueError("angles_deg holds the same tilt twice; expected each tilt once")
    return rows


def tilted(positions_A: np.ndarray, angles_deg: Sequence[float]) -> np.ndarray:
    """Return where the atoms (n, 3) are seen at one tilt (φ, θ, ψ)."""
    return positions_A @ rotation(np.asarray([angles_deg], dtype=np.float64))[0].T


def tilt_rng(seed: int, angles_deg: Angles) -> np.random.Generator:
    """Return the generator of one tilt, made of the seed and the angles alone: a longer series keeps its first tilts."""
    return np.random.default_rng([seed, *(round(angle * 1e4) % 2**32 for angle in angles_deg)])
