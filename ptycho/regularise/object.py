"""Regularisers of the object as potentials.

Along the beam slices are coupled through the modes of diffusion between layers of given distances with closed ends: the
cosine transform where the distances are equal. Unlike a Fourier transform they do not join the last slice to the first,
and the first mode is the projection, so that what leaves it alone keeps the sum over slices.

Standard shapes: potential (part, state, slice, Y, X) real with part 0 = φ and, for complex objects, part 1 = μ
(object = exp(iφ − μ)); gaps_A (slice − 1,) from each slice to the next.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from ptycho.grid import Array, irfft2, library_of, rfft2
from ptycho.regularise.schedule import OBJECT_KINDS, Regulariser, active
from ptycho.regularise.variation import variation_prox

_BUTTERWORTH_ORDER = 4


@dataclass(frozen=True)
class _Sampling:
    pixel_A: float
    gaps_A: tuple[float, ...]
    step: float


def regularise_object(
    potential: Array,
    regularisers: Sequence[Regulariser],
    iteration: int,
    *,
    pixel_A: float,
    gaps_A: Sequence[float] = (),
    step: float = 1.0,
) -> Array:
    """Potential after those regularisers of the object that act at `iteration`, in the order given.

    potential: (part, state, slice, Y, X) float32 or float64, left as it is. gaps_A: distances in Å from each slice to the
    next. step: length of the solver's step in units of the Newton step, which scales the proximal kinds. Kinds of the probe
    are passed over. Raises ValueError when the potential is not of that shape or gaps_A does not fit its slices.
    """
    sampling = _Sampling(float(pixel_A), tuple(float(g) for g in gaps_A), float(step))
    _check(potential, sampling)
    for regulariser in regularisers:
        if regulariser.kind in OBJECT_KINDS and active(regulariser, iteration):
            potential = _on_parts(_APPLY[regulariser.kind], potential, regulariser, sampling)
    return potential


def _check(potential: Array, sampling: _Sampling) -> None:
    if potential.ndim != 5 or potential.dtype.kind != "f":
        raise ValueError(
            f"potential is {potential.dtype} of shape {potential.shape}; expected real (part, state, slice, Y, X)."
        )
    gaps = sampling.gaps_A
    if len(gaps) != potential.shape[-3] - 1 or not all(g > 0 and math.isfinite(g) for g in gaps):
        raise ValueError(
            f"gaps_A is {gaps} for {potential.shape[-3]} slices; expected the positive distance in Å from each slice to the "
            "next, one less than there are slices."
        )


_Kind = Callable[[Array, Regulariser, _Sampling], Array]


def _on_parts(apply: _Kind, potential: Array, r: Regulariser, sampling: _Sampling) -> Array:
    """Apply to the parts that the regulariser is for, if the object has them."""
    part = {"positivity": "phase", "amplitude": "absorption"}.get(r.kind, r.part)
    if part == "both":
        return apply(potential, r, sampling)
    chosen = slice(0, 1) if part == "phase" else slice(1, 2)
    out = potential.copy()
    out[chosen] = apply(potential[chosen], r, sampling)
    return out


@lru_cache(maxsize=16)
def layer_modes(gaps_A: tuple[float, ...]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Modes of diffusion across layers: (to modes, from modes, eigenvalues in 1/Å², k_z in 1/Å), float64.

    Slice s stands for the thickness t_s up to half way to its neighbours and holds φ_s = t_s ρ_s. The flux between
    neighbours is their difference of ρ over their gap, so that dφ/dτ = −L T⁻¹φ, with L the Laplacian of a chain of
    conductances 1/gap. The matrices have the shapes (mode, slice) and (slice, mode); mode j has j nodes and
    k_z = j / (2 × thickness), the first is a homogeneous specimen with k_z = 0.
    """
    gaps = np.asarray(gaps_A)
    n = len(gaps) + 1
    around = np.concatenate([gaps[:1], gaps, gaps[-1:]])
    root = np.sqrt(0.5 * (around[1:] + around[:-1]))
    difference = np.diff(np.eye(n), axis=0)
    chain = difference.T @ (difference / gaps[:, None])
    values, vectors = np.linalg.eigh(chain / np.outer(root, root))
    k_z = np.arange(n) / (2 * (root**2).sum())
    return vectors.T / root, vectors * root[:, None], np.maximum(values, 0.0), k_z


def _along_z(matrix: np.ndarray, potential: Array) -> Array:
    """Matrix (i, slice) applied along the slices: (part, state, i, Y, X)."""
    xp = library_of(potential)
    *leading, slices, y, x = potential.shape
    flat = potential.reshape(*leading, slices, y * x)
    return (xp.asarray(matrix.astype(potential.dtype)) @ flat).reshape(*leading, len(matrix), y, x)


def _layers(potential: Array, r: Regulariser, sampling: _Sampling) -> Array:
    """V + weight·(K − 1)V with K = exp(−½σ²·diffusion), all entries of K positive."""
    if potential.shape[-3] == 1:
        return potential
    to_modes, from_modes, values, _ = layer_modes(sampling.gaps_A)
    change = np.expm1(-0.5 * r.number("sigma_A") ** 2 * values)
    return potential + _along_z(r.weight * (from_modes * change) @ to_modes, potential)


def _identical(potential: Array, r: Regulariser, sampling: _Sampling) -> Array:
    """Every mode but the homogeneous specimen removed."""
    if potential.shape[-3] == 1:
        return potential
    to_modes, from_modes, *_ = layer_modes(sampling.gaps_A)
    return potential - _along_z(r.weight * from_modes[:, 1:] @ to_modes[1:], potential)


def _kz_filter(potential: Array, r: Regulariser, sampling: _Sampling) -> Array:
    """Only modes with k_z > 0 are touched, so that the projection stays to the last bit of the sums."""
    if potential.shape[-3] == 1:
        return potential
    to_modes, from_modes, _, k_z = layer_modes(sampling.gaps_A)
    xp = library_of(potential)
    spectrum = rfft2(_along_z(to_modes[1:], potential))
    k_r2 = _squared_frequencies(potential, sampling.pixel_A)
    k_z2 = xp.asarray(k_z[1:, None, None].astype(potential.dtype)) ** 2
    slope = math.tan(r.number("angle_mrad") * 1e-3) ** 2
    # atan2 gives π/2 at k_r = 0: the mean of a slice has no depth that patterns could tell.
    spectrum *= (-2 / math.pi * r.weight) * xp.arctan2(k_z2, slope * k_r2)
    return potential + _along_z(from_modes[:, 1:], irfft2(spectrum, potential.shape[-2:]))


def _squared_frequencies(potential: Array, pixel_A: float) -> Array:
    """k_r² in 1/Å² on the half plane (Y, Xr) of `rfft2`."""
    xp = library_of(potential)
    y, x = potential.shape[-2:]
    k2 = xp.fft.fftfreq(y, pixel_A)[:, None] ** 2 + xp.fft.rfftfreq(x, pixel_A)[None, :] ** 2
    return k2.astype(potential.dtype)


def _filter(potential: Array, kernel: Array, weight: float) -> Array:
    """Each slice moved by the share `weight` towards the slice filtered with `kernel` (Y, Xr)."""
    spectrum = rfft2(potential)
    spectrum *= 1 - weight * (1 - kernel)
    return irfft2(spectrum, potential.shape[-2:])


def _blur(potential: Array, r: Regulariser, sampling: _Sampling) -> Array:
    k2 = _squared_frequencies(potential, sampling.pixel_A)
    xp = library_of(potential)
    return _filter(potential, xp.exp(-2 * (math.pi * r.number("sigma_A")) ** 2 * k2), r.weight)


def _lowpass(potential: Array, r: Regulariser, sampling: _Sampling) -> Array:
    k2 = _squared_frequencies(potential, sampling.pixel_A)
    return _filter(potential, 1 / (1 + (k2 / r.number("radius_per_A") ** 2) ** _BUTTERWORTH_ORDER), r.weight)


def _tv(potential: Array, r: Regulariser, sampling: _Sampling) -> Array:
    """Gradients per Å in units of the pixel, so that the result does not depend on the sampling."""
    ratios = [r.number("weight_z") * sampling.pixel_A / gap for gap in sampling.gaps_A]
    return variation_prox(potential, sampling.step * r.weight / sampling.pixel_A, ratios, int(r.number("passes")))


def _level(potential: Array, r: Regulariser) -> Array | float:
    if r.level != "median":
        return r.number("level")
    return library_of(potential).median(potential, axis=(-2, -1), keepdims=True)


def _l1(potential: Array, r: Regulariser, sampling: _Sampling) -> Array:
    """What is beyond the threshold, moved by it towards the level."""
    xp, threshold = library_of(potential), sampling.step * r.weight
    away = potential - _level(potential, r)
    return potential - xp.clip(away, -threshold, threshold)


def _positivity(potential: Array, r: Regulariser, sampling: _Sampling) -> Array:
    xp = library_of(potential)
    return potential + r.weight * xp.maximum(_level(potential, r) - potential, 0)


def _amplitude(potential: Array, r: Regulariser, sampling: _Sampling) -> Array:
    """Absorption of the nearest allowed amplitude; low = 0 sets no upper bound."""
    low, high = r.number("low"), r.number("high")
    inside = library_of(potential).clip(potential, -math.log(high), -math.log(low) if low else math.inf)
    return potential + r.weight * (inside - potential)


_APPLY: dict[str, _Kind] = {
    "layers": _layers,
    "kz_filter": _kz_filter,
    "identical": _identical,
    "tv": _tv,
    "l1": _l1,
    "positivity": _positivity,
    "blur": _blur,
    "lowpass": _lowpass,
    "amplitude": _amplitude,
}
