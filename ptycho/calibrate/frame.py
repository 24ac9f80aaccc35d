"""The frame of the scan against that of the detector, from the deflection of the beam.

The centre of mass of a pattern follows the gradient of the projected potential, however strong it is: in the right frame
its curl vanishes (Lazić, Bosch and Lazar, doi:10.1016/j.ultramic.2015.10.011). In Fourier space the energy along the turned
frequency M q is Σ_q w |M q̂ · v_q|², a quadratic form in the cosine and sine of the rotation: its larger eigenvalue gives the
rotation within 180°, for each hand of the frame. The phase that integrates the field is positive where the specimen
scatters into the dark field, which settles the half turn.

Standard shapes: field (n, 2) (y, x), q (2, ny, nx) as (y, x) in 1/Å, kept (n,) True = good.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from ptycho.calibrate.blocks import project
from ptycho.calibrate.disk import centred_grid
from ptycho.calibrate.overlap import frame_matrix, half_plane, spectra_of_scan


@dataclass(frozen=True)
class Frame:
    """Rotation of the scan's vectors from +x towards +y into the detector's frame after y and x are exchanged if
    `transposed`; sigma, and how many standard deviations decide the hand and the half turn."""

    rotation_deg: float
    rotation_sigma_deg: float
    transposed: bool
    handed_sigmas: float
    sign_sigmas: float


def centre_of_mass(counts: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Mean position (n, 2) (y, x) in px about index n // 2 of the electrons of counts (n, ky, kx) on good pixels."""
    y, x = centred_grid(mask.shape)
    moments = project(counts, np.where(mask[..., None], np.stack([y, x, np.ones(y.shape)], -1), 0.0))
    return moments[:, :2] / np.maximum(moments[:, 2:], 1.0)


def measure_frame(field: np.ndarray, dark: np.ndarray, kept: np.ndarray, q: np.ndarray) -> Frame:
    """Rotation and hand of the frame in which the centre of mass `field` (n, 2) has the least curl.

    dark (n,): electrons in the dark field. q (2, ny, nx): frequencies of the scan in 1/Å.
    """
    shape = (q.shape[1], q.shape[2])
    spectra = spectra_of_scan(np.column_stack([field, dark]), shape, kept)
    chosen = half_plane(q, np.inf)
    v, shade, q = spectra[chosen][:, :2], spectra[chosen][:, 2], q[:, chosen]
    weight, noise = _weight((np.abs(v) ** 2).sum(1), np.hypot(*q))
    fits = [_turn(v, q, weight, noise, transposed) for transposed in (False, True)]
    best, other = sorted(fits, key=lambda fit: -fit[2].sum())
    gain = best[2] - other[2]
    transposed = best is fits[1]
    direction = frame_matrix(best[0], transposed) @ q
    phase = -1j * weight * (direction[0] * v[:, 0] + direction[1] * v[:, 1]) / (q**2).sum(0)
    outer = np.abs(shade[np.hypot(*q) >= np.median(np.hypot(*q))]) ** 2
    error = math.sqrt(0.5 * float((np.abs(phase) ** 2).sum() * np.median(outer)) / math.log(2))
    sign = float((phase.conj() * shade).real.sum()) / max(error, 1e-30)
    rotation = best[0] if sign >= 0 else best[0] + 180
    handed = float(gain.sum() / max(np.linalg.norm(gain - gain.mean()), 1e-30))
    return Frame((rotation + 180) % 360 - 180, best[1], transposed, handed, abs(sign))


def _weight(power: np.ndarray, length: np.ndarray) -> tuple[np.ndarray, float]:
    """Share of the power at each |q| that is above the noise at high frequencies, and that noise."""
    noise = float(np.mean(power[length >= np.quantile(length, 0.7)]))
    ring = np.rint(length / length.min()).astype(int)
    mean = np.bincount(ring, power) / np.maximum(np.bincount(ring), 1)
    return np.maximum(1 - 1.2 * noise / np.maximum(mean, 1e-30), 0)[ring], noise


def _turn(
    v: np.ndarray, q: np.ndarray, weight: np.ndarray, noise: float, transposed: bool
) -> tuple[float, float, np.ndarray]:
    """Rotation within ±90°, its sigma, and the weighted energy of each frequency along the turned direction."""
    unit = (q[::-1] if transposed else q) / np.hypot(*q)
    along = unit[0] * v[:, 0] + unit[1] * v[:, 1]
    across = unit[1] * v[:, 0] - unit[0] * v[:, 1]
    mixed = float((weight * (along.conj() * across).real).sum())
    form = np.array([[(weight * np.abs(along) ** 2).sum(), mixed], [mixed, (weight * np.abs(across) ** 2).sum()]])
    values, vectors = np.linalg.eigh(form)
    c, s = vectors[:, 1] * (1 if vectors[0, 1] >= 0 else -1)
    turned = c * along + s * across
    slope = 2 * weight * (turned.conj() * (c * across - s * along)).real
    # The scatter found, or the one that noise alone must give: few frequencies may scatter too little by chance.
    scatter = max(float(np.linalg.norm(slope)), math.sqrt(noise) * float(np.linalg.norm(weight * np.abs(turned))))
    sigma = scatter / max(2 * float(values[1] - values[0]), 1e-30)
    return math.degrees(math.atan2(s, c)), math.degrees(sigma), weight * np.abs(turned) ** 2


def to_scan_frame(image: np.ndarray, rotation_deg: float, transposed: bool) -> np.ndarray:
    """Image (y, x) of the detector's frame resampled into that of the scan: out(r) = image(M r), r about index n // 2.

    M exchanges y and x if `transposed`, then turns by rotation_deg from +x towards +y. Cubic spline, the border's values are
    continued outside; the shape is kept, its axes exchanged if `transposed`. Real images only.
    """
    if rotation_deg == 0:
        return image.T.copy() if transposed else image.copy()
    shape = image.shape[::-1] if transposed else image.shape
    matrix = frame_matrix(rotation_deg, transposed)
    offset = np.array([n // 2 for n in image.shape]) - matrix @ np.array([n // 2 for n in shape])
    return ndimage.affine_transform(image, matrix, offset, output_shape=shape, order=3, mode="nearest")
