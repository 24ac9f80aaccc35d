"""Fourier shell correlation: how far two volumes of the same particle agree, frequency by frequency.

    FSC(q) = Re Σ F G* / √(Σ |F|² Σ |G|²),      sums over the shell |k| = q, or over the part of it near a direction

Volumes of two halves of the data share the particle and not the noise. Their resolution is 1 / q where FSC falls below 0.143: the
volume of all data then correlates to 1/2 with the truth (Rosenthal and Henderson, doi:10.1016/j.jmb.2003.07.013). A mask
keeps empty space out, but correlates by itself: what it does is seen on volumes of random phases under the same mask, and
taken off (Chen et al., doi:10.1016/j.ultramic.2013.06.004).

Volumes are (z, y, x) of cubic voxels; frequencies are in cycles per voxel.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tomo.arrays import library_of
from tomo.descent import on_host
from tomo.wedge import near_planes

THRESHOLD = 0.143
FINEST_VX = 2.0
"""No detail is finer than two voxels."""

CONE_DEG = 25.0
"""Frequencies within so many degrees of an axis count as along it."""

PARTS = ("all", "x", "y", "z")

FACE_COVERED = 0.3

_STILL_ALIKE = 0.8
"""Phases are made random behind the last shell in which the volumes agree as well as this: amorphous matter scatters little
between its rings, so that the curve dips there and rises again."""

_FEWEST = 10
"""Shells with fewer frequencies say nothing."""

_AVERAGED = 3
"""Shells whose mean has to lie below the threshold: a single one does by chance."""


@dataclass(frozen=True, eq=False)
class Resolution:
    """Where a curve falls below the threshold: voxels (nan where it never lies above), and in words what is special."""

    voxels: float
    note: str = ""


@dataclass(frozen=True, eq=False)
class ShellCorrelation:
    """Curves over frequency (shells,) in cycles per voxel.

    fsc: for "all" and along "x", "y" and "z" the correlation (shells,), corrected for the mask. masked: of all directions as it is
    under the mask; random: what the mask alone does, 0 where nobody asked. points: frequencies in each shell.
    """

    frequency: NDArray[np.float64]
    fsc: dict[str, NDArray[np.float64]]
    masked: NDArray[np.float64]
    random: NDArray[np.float64]
    points: NDArray[np.int64]


def shell_correlation(
    first: Any,
    second: Any,
    *,
    mask: Any | None = None,
    rng: np.random.Generator | None = None,
    beams: NDArray[np.float64] | None = None,
) -> ShellCorrelation:
    """FSC of two volumes (z, y, x) under a soft mask (z, y, x) of 0 to 1, everywhere when None.

    beams: (n, 3) as (x, y, z), of the tilts; frequencies far from all their planes then count as not agreeing at all: in a missing
    wedge both halves are filled by the same positivity, not by data. The arrays decide the device. rng: random phases to correct
    for the mask with, no correction when None.
    Raises ValueError where shapes do not fit or the mask is empty.
    """
    if first.shape != second.shape or first.ndim != 3 or (mask is not None and mask.shape != first.shape):
        raise ValueError(
            f"volumes have shape {first.shape} and {second.shape}, the mask {getattr(mask, 'shape', None)}; "
            "expected one shape (z, y, x)."
        )
    xp = library_of(first)
    mask = xp.ones(first.shape, xp.float32) if mask is None else mask
    if not bool(mask.any()):
        raise ValueError("the mask is empty; expected a particle in it, 1 inside and 0 outside.")
    box = _box(mask)
    mask, pair = mask[box], [xp.asarray(v[box], xp.float32) for v in (first, second)]
    shells = _Shells(mask.shape, xp, beams)
    curves = shells.curves(*(_spectrum(v, mask) for v in pair))
    random = np.zeros(len(shells.frequency))
    if rng is not None:
        start = _behind_last(curves["all"], _STILL_ALIKE)
        noise = shells.curves(*(_spectrum(shells.scrambled(v, start, rng), mask) for v in pair))["all"]
        # The shell at which phases become random holds a share of both kinds.
        later = np.arange(len(shells.frequency)) >= start + 2
        random = np.where(later, np.clip(np.nan_to_num(noise), 0, 0.99), 0.0)
    corrected = {part: (curve - random) / (1 - random) for part, curve in curves.items()}
    return ShellCorrelation(shells.frequency, corrected, curves["all"], random, shells.points)


def resolution_of(frequency: NDArray[np.float64], fsc: NDArray[np.float64]) -> Resolution:
    """Where a curve (shells,) falls below the threshold, in voxels and never finer than two."""
    known = ~np.isnan(fsc)
    q, curve = frequency[known], fsc[known]
    mean = np.array([curve[i : i + _AVERAGED].mean() for i in range(len(curve))])
    if not len(curve) or mean[0] < THRESHOLD:
        return Resolution(math.nan, f"not reached: the halves agree to less than {THRESHOLD} from the first shell on")
    below = np.flatnonzero((mean < THRESHOLD) & (curve < THRESHOLD))
    if not len(below):
        return Resolution(FINEST_VX, f"never falls below {THRESHOLD}: the voxels limit the resolution")
    k = int(below[0])
    at = np.interp(-THRESHOLD, -curve[k - 1 : k + 1], q[k - 1 : k + 1])
    return Resolution(max(float(1 / at), FINEST_VX))


def particle_mask(volume: Any) -> tuple[Any, float]:
    """A soft mask float32 (z, y, x) of what stands out of a volume, and the diameter in voxels of a ball as large.

    The volume is blurred over 1/25 of its width and parted in two by Otsu's threshold (doi:10.1109/TSMC.1979.4310076); the
    edge falls from 1 to 0 outside of that. Raises ValueError for a volume without contrast.
    """
    from skimage.filters import threshold_otsu

    xp, sigma = library_of(volume), max(volume.shape) / 25
    smooth = _blurred(xp.asarray(volume, xp.float32), sigma)
    if not float(smooth.max()) > float(smooth.min()):
        raise ValueError("the volume holds one value only; expected a particle on empty ground.")
    inside = smooth > float(threshold_otsu(on_host(smooth)))
    soft = xp.clip(2 * _blurred(xp.asarray(inside, xp.float32), sigma / 2), 0, 1)
    soft[soft < 1e-3] = 0
    return soft, float(np.cbrt(6 * int(inside.sum()) / np.pi))


def fills_the_frame(mask: Any) -> bool:
    """Whether a mask (z, y, x) covers much of the outer faces of its volume, as that of mere background does."""
    faces = [mask[0], mask[-1], mask[:, 0], mask[:, -1], mask[:, :, 0], mask[:, :, -1]]
    return max(float((face > 0.5).mean()) for face in faces) > FACE_COVERED


class _Shells:
    """The frequencies of a real transform of the given shape, by shell and by direction."""

    def __init__(self, shape: tuple[int, ...], xp: Any, beams: NDArray[np.float64] | None) -> None:
        self.xp, self.shape, side = xp, shape, max(shape)
        kz, ky = (xp.fft.fftfreq(n).astype(xp.float32) * side for n in shape[:2])
        along = {"z": kz[:, None, None], "y": ky[:, None], "x": xp.fft.rfftfreq(shape[2]).astype(xp.float32) * side}
        radius = xp.sqrt(sum(k**2 for k in along.values()))
        count = side // 2
        shell = xp.minimum(xp.rint(radius).astype(xp.int32), count + 1)
        near = math.cos(math.radians(CONE_DEG))
        cones = {axis: xp.where(xp.abs(k) >= near * radius, shell, 0) for axis, k in along.items()}
        self._shell, self._parts, self._count = shell, {"all": shell, **cones}, count
        self.frequency = np.arange(1, count + 1) / side
        self.points = self._sums(shell)
        self._measured = None if beams is None else self._near(kz, ky, along["x"], beams)

    def curves(self, F: Any, G: Any) -> dict[str, NDArray[np.float64]]:
        """Correlation of two spectra (shells,), of all directions and along the axes; nan where too few frequencies lie."""
        product = (F * G.conj()).real
        if self._measured is not None:
            product *= self._measured
        terms = (product, F.real**2 + F.imag**2, G.real**2 + G.imag**2)
        out = {}
        for part, shell in self._parts.items():
            both, power_f, power_g = (self._sums(shell, term) for term in terms)
            with np.errstate(divide="ignore", invalid="ignore"):
                out[part] = np.where(self._sums(shell) < _FEWEST, np.nan, both / np.sqrt(power_f * power_g))
        return out

    def scrambled(self, volume: Any, start: int, rng: np.random.Generator) -> Any:
        """The volume with random phases from shell `start` on, its power as before."""
        xp = self.xp
        phase = xp.asarray(rng.random(self._shell.shape, np.float32)) * (2 * np.pi)
        turn = xp.where(self._shell > start, xp.exp(1j * phase), 1)
        return xp.fft.irfftn(xp.fft.rfftn(volume) * turn, s=self.shape, axes=(0, 1, 2))

    def _near(self, kz: Any, ky: Any, kx: Any, beams: NDArray[np.float64]) -> Any:
        """Which frequencies some tilt measured, as numbers, plane by plane of kz."""
        plane = [np.stack(np.broadcast_arrays(on_host(kx), on_host(ky)[:, None], z), axis=-1) for z in on_host(kz)]
        return self.xp.asarray(np.stack([near_planes(k, beams) for k in plane]).astype(np.float32))

    def _sums(self, shell: Any, values: Any | None = None) -> NDArray[Any]:
        """Sums of values over each shell, without values the number of frequencies."""
        weights = None if values is None else values.ravel()
        return on_host(self.xp.bincount(shell.ravel(), weights=weights, minlength=self._count + 2))[1 : self._count + 1]


def _behind_last(curve: NDArray[np.float64], value: float) -> int:
    above = np.flatnonzero(curve >= value)
    return int(above[-1]) + 1 if len(above) else 0


def _spectrum(volume: Any, mask: Any) -> Any:
    """Transform of a volume under a mask, its mean there taken off so that the mask's own shape does not count."""
    xp = library_of(volume)
    return xp.fft.rfftn((volume - (volume * mask).sum() / mask.sum()) * mask)


def _box(mask: Any) -> tuple[slice, ...]:
    """The smallest box with all of a mask, one voxel of margin where there is one."""
    edges = []
    for axis in range(3):
        held = np.flatnonzero(on_host(mask.any(axis=tuple({0, 1, 2} - {axis}))))
        edges.append(slice(max(int(held[0]) - 1, 0), int(held[-1]) + 2))
    return tuple(edges)


def _blurred(volume: Any, sigma: float) -> Any:
    """Gaussian blur by sigma voxels, periodic."""
    xp = library_of(volume)
    spectrum = xp.fft.rfftn(volume)
    z, y = (xp.fft.fftfreq(n) for n in volume.shape[:2])
    x = xp.fft.rfftfreq(volume.shape[2])
    for k in (z[:, None, None], y[:, None], x):
        spectrum *= xp.exp(-2 * (np.pi * sigma * k) ** 2)
    return xp.fft.irfftn(spectrum, s=volume.shape, axes=(0, 1, 2))
