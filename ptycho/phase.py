"""From the complex object to the projected phase of the particle in vacuum.

A ptychographic phase is known up to a constant and a ramp. Both are fitted outside the particle and subtracted, so that the
result is proportional to the projected potential, zero in vacuum.

Standard shapes: object (slice, y, x) complex, phase (y, x) float32, index n // 2 at coordinate 0.
"""

from __future__ import annotations

import logging

import numpy as np
from scipy import ndimage

from ptycho.grid import centred_slice
from ptycho.result import Result

log = logging.getLogger(__name__)

_SMOOTHING_A = 1.0
_GROWTH_A = 1.5
_LEAST_VACUUM = 0.03


def phase_projection(
    object_: Result | np.ndarray,
    pixel_A: float | None = None,
    positions_A: np.ndarray | None = None,
    *,
    vacuum_radius_A: float | None = None,
) -> np.ndarray:
    """Unwrapped phase summed over the slices, cropped to the scanned field, vacuum at zero: float32 (y, x) in rad.

    object_: a Result, or complex (slice, y, x) or (y, x) centred at index n // 2; then pixel_A and positions_A (n, 2) as
        (y, x) are needed. The crop reaches as far as the outermost position on either side of coordinate 0, odd in size.
    vacuum_radius_A: everything farther than this from coordinate 0 is vacuum; None finds the particle by its phase.
    Raises ValueError when the field holds no vacuum.
    """
    if isinstance(object_, Result):
        return phase_projection(object_.object, object_.pixel_A, object_.positions_A, vacuum_radius_A=vacuum_radius_A)
    if pixel_A is None or positions_A is None:
        raise ValueError("pixel_A and positions_A are missing; expected both beside an object array.")
    slices = object_.reshape(-1, *object_.shape[-2:])
    reach = np.floor(np.abs(np.asarray(positions_A)).max(0) / pixel_A).astype(int)
    shape = tuple(min(2 * r + 1, n - 1 + n % 2) for r, n in zip(reach.tolist(), slices.shape[-2:], strict=True))
    field = tuple(centred_slice(n, m) for n, m in zip(slices.shape[-2:], shape, strict=True))
    phase = np.stack([unwrapped(s[field]) for s in slices]).sum(0, dtype=np.float64)
    return (phase - vacuum_plane(phase, pixel_A, vacuum_radius_A)).astype(np.float32)


def unwrapped(object_: np.ndarray) -> np.ndarray:
    """Phase (y, x) of one slice without jumps of 2π, near zero where the object's mean phase is."""
    mean = object_.mean()
    phase = np.angle(object_ * np.conj(mean) / max(abs(mean), 1e-30))
    if max(np.abs(np.diff(phase, axis=a)).max(initial=0.0) for a in (0, 1)) > np.pi:
        from skimage.restoration import unwrap_phase

        phase = unwrap_phase(phase)
        phase -= 2 * np.pi * np.round(np.median(phase) / (2 * np.pi))
    return phase + np.angle(mean)


def vacuum_plane(phase: np.ndarray, pixel_A: float, vacuum_radius_A: float | None = None) -> np.ndarray:
    """Constant and ramp (y, x) of the phase in vacuum, fitted so that a tenth of stray values does no harm."""
    y, x = np.meshgrid(*((np.arange(n) - n // 2) * pixel_A for n in phase.shape), indexing="ij")
    if vacuum_radius_A is not None:
        vacuum = np.hypot(y, x) > vacuum_radius_A
        if vacuum.mean() < _LEAST_VACUUM:
            raise ValueError(
                f"vacuum_radius_A is {vacuum_radius_A} Å; the scanned field reaches {y.max():.1f} × {x.max():.1f} Å and holds "
                "no vacuum outside it, give a smaller radius."
            )
        return _robust_plane(phase, y, x, vacuum)
    plane = np.full(phase.shape, np.median(phase))
    for _ in range(3):
        plane = _robust_plane(phase, y, x, find_vacuum(phase - plane, pixel_A))
    return plane


def find_vacuum(phase: np.ndarray, pixel_A: float) -> np.ndarray:
    """True outside the particle: Otsu's threshold on the smoothed phase, the particle grown by 1.5 Å."""
    smooth = ndimage.gaussian_filter(phase, _SMOOTHING_A / pixel_A, mode="nearest")
    particle = ndimage.binary_fill_holes(smooth > _otsu(smooth))
    vacuum = ndimage.distance_transform_edt(~particle) * pixel_A > _GROWTH_A
    if vacuum.mean() < _LEAST_VACUUM:
        log.warning("the particle fills the scanned field: the lowest tenth of the phase is taken for vacuum")
        vacuum = smooth <= np.quantile(smooth, 0.1)
    return vacuum


def _otsu(values: np.ndarray, bins: int = 256) -> float:
    """Threshold that separates two classes best (Otsu, doi:10.1109/TSMC.1979.4310076)."""
    weight, edges = np.histogram(values, bins)
    centre = 0.5 * (edges[1:] + edges[:-1])
    below = np.cumsum(weight)
    mass = np.cumsum(weight * centre)
    above = below[-1] - below
    between = (mass[-1] * below / below[-1] - mass) ** 2 / np.maximum(below * above, 1)
    return float(centre[np.argmax(between)])


def _robust_plane(phase: np.ndarray, y: np.ndarray, x: np.ndarray, where: np.ndarray) -> np.ndarray:
    """Least squares plane through phase[where], refitted without values beyond 3 robust deviations."""
    basis = np.stack([np.ones(phase.shape), y, x], axis=-1)
    keep = where
    for _ in range(4):
        coefficients = np.linalg.lstsq(basis[keep], phase[keep], rcond=None)[0]
        residual = phase - basis @ coefficients
        spread = 1.4826 * np.median(np.abs(residual[keep]))
        keep = where & (np.abs(residual) <= 3 * spread + 1e-12)
    return basis @ coefficients
