"""What no reconstruction can be made of, told by arithmetic before any work: scans and lenses that are off by orders of
magnitude, mostly because of a wrong unit."""

from __future__ import annotations

import math

import numpy as np

from ptycho.findings import Finding
from ptycho.optics import Optics

FEWEST_PATTERNS = 4
WIDEST_PROBE = 10.0
"""Diameter of the defocused probe in windows beyond which nothing of it is left in its window."""
TINY_DEFOCUS_A = 1e-3


def check_feasible(positions_A: np.ndarray, pixel_mrad: float, optics: Optics) -> None:
    """Raise ValueError for positions (n, 2) or a defocus that no window of λ / `pixel_mrad` can hold."""
    window_A = optics.wavelength_A / (pixel_mrad * 1e-3)
    _check_field(positions_A, optics)
    _check_overlap(positions_A, window_A)
    _check_probe_width(optics, window_A)


def doubtful_units(optics: Optics) -> tuple[Finding, ...]:
    """Numbers of the lens that are legal and yet most likely given in another unit."""
    if not 0 < abs(optics.defocus_A) < TINY_DEFOCUS_A:
        return ()
    sentence = (
        f"The defocus is stated as {optics.defocus_A:.3g} Å, less than any lens is set to: it looks like metres "
        f"({optics.defocus_A * 1e10:.4g} Å), give it in Å."
    )
    return (Finding("defocus_unit", sentence),)


def _check_field(positions_A: np.ndarray, optics: Optics) -> None:
    n, extent_A = len(positions_A), np.ptp(positions_A, axis=0)
    if n < FEWEST_PATTERNS:
        raise ValueError(
            f"the scan has {n} pattern{'s' * (n != 1)}; expected at least {FEWEST_PATTERNS} at overlapping positions, and "
            "hundreds for an image: give the whole scan."
        )
    if not extent_A.any():
        y, x = positions_A[0]
        raise ValueError(
            f"positions_A is ({y:g}, {x:g}) for all {n} patterns; expected a position (y, x) in Å of its own for each."
        )
    least_A = optics.wavelength_A / (optics.semiangle_mrad * 1e-3)
    if extent_A.max() < least_A:
        raise ValueError(
            f"the scanned field is {extent_A[0]:.3g} × {extent_A[1]:.3g} Å; expected more than {least_A:.3g} Å, twice the finest "
            "detail a probe of this semiangle shows: the step is too small, most likely given in nm where Å are expected."
        )


def _check_overlap(positions_A: np.ndarray, window_A: float) -> None:
    """Windows are squares, so distances are counted along the axes."""
    from scipy.spatial import cKDTree

    step_A = float(np.median(cKDTree(positions_A).query(positions_A, k=2, p=math.inf)[0][:, 1]))
    if step_A >= window_A:
        raise ValueError(
            f"neighbouring positions are {step_A:.4g} Å apart and the probe's window is {window_A:.4g} Å wide, so that no two "
            "patterns overlap; expected steps well inside the probe: check the unit (Å) of step and positions, and pixel_mrad."
        )


def _check_probe_width(optics: Optics, window_A: float) -> None:
    radius_A = abs(optics.defocus_A) * optics.semiangle_mrad * 1e-3
    if 2 * radius_A > WIDEST_PROBE * window_A:
        raise ValueError(
            f"defocus_A is {optics.defocus_A:g}, which spreads the probe to a radius of {radius_A:.3g} Å (defocus × semiangle) in "
            f"a window of {window_A:.4g} Å that cannot hold it; expected at most "
            f"{WIDEST_PROBE * window_A / (2 * optics.semiangle_mrad * 1e-3):.4g} Å: check its unit (Å)."
        )
