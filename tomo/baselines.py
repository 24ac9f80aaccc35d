"""Reconstructions to compare with and to start from: filtered back-projection and SIRT.

Filtered back-projection weights every frequency of a projection by its distance from the tilt axis and smears it back:
    f(r) = Σ_t Δθ_t (b_t * h)(R_t r),    h the band-limited ramp (Kak & Slaney, doi:10.1137/1.9780898719277, eq. 3.61).
By the central slice theorem a Gaussian blur of the volume is a Gaussian blur of the projections, and is applied there.
SIRT: x ← max(0, x + C Aᵀ R (b − A x)) with R, C the inverse row and column sums of A (Gregor & Benson,
doi:10.1109/TMI.2008.923696).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tomo.arrays import library_of
from tomo.descent import Descent, Iteration, Progress, Reconstruction, on_host, run
from tomo.geometry import checked_stack
from tomo.resire import checked_images, checked_rules, slabs_of

FILTERS = ("ramp", "hann")
_LEAST_SUM = 1e-3
"""Rows and columns of the projector that sum to less are hardly seen, and are not divided by their sum."""


def fbp(
    projections: Any,
    angles_deg: ArrayLike,
    *,
    filter_: str = "ramp",
    blur_px: float = 0.0,
    depth: int | None = None,
    subvoxels: tuple[int, int, int] = (1, 1, 1),
    memory_bytes: int | None = None,
    threads: int | None = None,
) -> Any:
    """Filtered back-projection of projections (n, y, x) at angles_deg (n, 3) into a float32 volume (z, y, x).

    The tilt axis is y turned by φ in the image. filter_: "ramp", or "hann" for the ramp tapered to zero at the Nyquist
    frequency. blur_px: standard deviation in voxels of a Gaussian blur of the volume. depth: voxels along z, the image
    width when None. memory_bytes: as in `resire`.
    Raises ValueError for arguments that do not fit.
    """
    angles = checked_stack(projections, angles_deg)
    if filter_ not in FILTERS:
        raise ValueError(f"filter_ is {filter_!r}; expected one of {', '.join(FILTERS)}.")
    if not blur_px >= 0.0:
        raise ValueError(f"blur_px is {blur_px}; expected a standard deviation in voxels, zero or more.")
    xp = library_of(projections)
    images = xp.asarray(projections, np.float32)
    slabs = slabs_of(images, angles, memory_bytes, depth=depth, subvoxels=subvoxels, threads=threads)
    spacing = xp.asarray(angular_weights(angles[:, 1]), np.float32)[:, None, None]
    weighted = spacing * _filter(xp, images, angles[:, 0], filter_, blur_px)
    if len(slabs) == 1:
        return xp.ascontiguousarray(slabs[0].T(weighted))
    return np.concatenate([on_host(A.T(weighted)) for A in slabs])


def sirt(
    projections: Any,
    angles_deg: ArrayLike,
    *,
    iterations: int = 50,
    momentum: bool = False,
    positivity: bool = True,
    subvoxels: tuple[int, int, int] = (2, 1, 2),
    depth: int | None = None,
    held_out: ArrayLike | None = None,
    patience: int | None = None,
    memory_bytes: int | None = None,
    progress: Progress | None = None,
    watch: Callable[[Iteration], None] | None = None,
    resume: Mapping[str, NDArray[Any]] | None = None,
    threads: int | None = None,
) -> Reconstruction:
    """Simultaneous iterative reconstruction of projections (n, y, x) at angles_deg (n, 3), in the loop of `resire`.

    All arguments mean what they mean there. Raises ValueError for arguments that do not fit.
    """
    angles = checked_stack(projections, angles_deg)
    rules = checked_rules(iterations, positivity, momentum, None, held_out, patience, len(angles))
    slabs = slabs_of(projections, angles, memory_bytes, depth=depth, subvoxels=subvoxels, threads=threads)
    b, xp = checked_images(projections, slabs[0]), slabs[0].xp
    fitted = xp.zeros(b.shape, b.dtype) + xp.asarray(~rules.held_out, b.dtype)[:, None, None]
    rows = 1 / xp.maximum(sum(A(xp.ones(A.domain_shape, A.dtype)) for A in slabs), _LEAST_SUM)
    columns = (1 / xp.maximum(A.T(fitted), _LEAST_SUM) for A in slabs)
    return run(Descent(slabs, b, rows, columns, rules), None, np.nan, progress, watch, resume)


def angular_weights(theta_deg: NDArray[np.float64]) -> NDArray[np.float64]:
    """Half the angle in radians to the two neighbouring tilts, (n,): the quadrature of back-projection.

    Opposite views tell the same, so angles are taken modulo 180°. A gap wider than twice the median spacing counts as a
    missing wedge, and the tilts at its rim get no share of it. Equal angles share their weight.
    """
    theta, group = np.unique(np.round(np.mod(theta_deg, 180.0), 9), return_inverse=True)
    if len(theta) == 1:
        return np.full(len(theta_deg), np.pi / len(theta_deg))
    gaps = np.diff(theta, append=theta[0] + 180.0)
    gaps = np.where(gaps > 2.0 * np.median(gaps), np.median(gaps), gaps)
    weights = np.deg2rad(gaps + np.roll(gaps, 1)) / 2.0
    return weights[group] / np.bincount(group)[group]


def _filter(xp: Any, images: Any, phi_deg: NDArray[np.float64], filter_: str, blur_px: float) -> Any:
    """Images (n, y, x) with every frequency weighted by its component perpendicular to the tilt axis."""
    ny, nx = images.shape[1:]
    turned = bool((phi_deg != 0.0).any())
    # The ramp reaches as far as the image; without padding its tails would come back in from the other side. With an
    # untilted axis rows do not mix, unless blurred.
    py, px = (2 * ny if turned or blur_px else ny), 2 * nx
    ky, kx = xp.fft.fftfreq(py)[None, :, None], xp.fft.rfftfreq(px)[None, None, :]
    phi = xp.asarray(np.deg2rad(phi_deg))[:, None, None]
    across = xp.abs(kx * xp.cos(phi) + ky * xp.sin(phi)) if turned else kx + 0 * ky
    frequency, ramp = _ramp(px)
    gain = xp.interp(across, xp.asarray(frequency), xp.asarray(ramp))
    if filter_ == "hann":
        gain *= xp.where(across < 0.5, 0.5 + 0.5 * xp.cos(2 * np.pi * across), 0.0)
    gain *= xp.exp(-2.0 * (np.pi * blur_px) ** 2 * (kx**2 + ky**2))
    spectrum = xp.fft.rfft2(images, s=(py, px)) * gain.astype(np.float32)
    return xp.fft.irfft2(spectrum, s=(py, px))[:, :ny, :nx]


def _ramp(length: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Frequencies and response of the ramp whose kernel is 1/4 at 0, −1/(πk)² at odd k, 0 elsewhere.

    Sampling the kernel and not |k| keeps the mean of the reconstruction right for images of finite width.
    """
    k = np.fft.fftfreq(length, 1.0 / length)
    odd = k % 2 == 1
    kernel = np.where(odd, -1.0 / (np.pi * np.where(odd, k, 1.0)) ** 2, 0.0)
    kernel[0] = 0.25
    return np.fft.rfftfreq(length).astype(np.float64), np.fft.rfft(kernel).real.astype(np.float64)
