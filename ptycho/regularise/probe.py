"""Regularisers of the probe.

Probe and object are known only up to a common shift: a probe moved by s with the object moved by s, or with all positions
moved by −s, gives the same patterns. Whoever centres the probe has to take the shift to the other side, so it is returned.
Incoherent modes are known only up to a unitary rotation among them; the orthogonal ones, strongest first, stand for all.

Standard shapes: probe (mode, y, x) complex, coordinate 0 at index n // 2.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from ptycho.grid import Array, fft2, ifft2, irfft2, library_of, rfft2
from ptycho.regularise.schedule import PROBE_KINDS, Regulariser, active


def regularise_probe(
    probe: Array,
    regularisers: Sequence[Regulariser],
    iteration: int,
    *,
    pixel_A: float,
    electrons: float | None = None,
) -> tuple[Array, Array]:
    """Probe after those of its regularisers that act at `iteration`, in the order given, and how far it was moved.

    probe: (mode, y, x) complex64 or complex128, left as it is. electrons: total power for "probe_power" where the
    regulariser names none. Returns the probe and the shift (2,) as (y, x) in px by which "probe_centre" moved it, zero
    without it, on the device of the probe: move the potential by it (`shifted`), or subtract it from the positions. Kinds
    of the object are passed over. Raises ValueError when the probe is not of that shape or its power is not known.
    """
    if probe.ndim != 3 or probe.dtype.kind != "c":
        raise ValueError(f"probe is {probe.dtype} of shape {probe.shape}; expected complex (mode, y, x).")
    shift = library_of(probe).zeros(2, probe.real.dtype)
    for r in regularisers:
        if r.kind not in PROBE_KINDS or not active(r, iteration):
            continue
        if r.kind == "probe_centre":
            move = -r.weight * centroid_px(probe)
            probe, shift = shifted(probe, move), shift + move
        else:
            probe = _apply(probe, r, float(pixel_A), electrons)
    return probe, shift


def _apply(probe: Array, r: Regulariser, pixel_A: float, electrons: float | None) -> Array:
    if r.kind == "orthogonal":
        return orthogonalise(probe)
    if r.kind == "probe_support":
        return _support(probe, r, pixel_A)
    if r.kind == "probe_aperture":
        return _aperture(probe, r, pixel_A)
    if r.kind == "probe_smooth":
        return _smooth(probe, r, pixel_A)
    return _power(probe, r, electrons)


def orthogonalising_rotation(probe: Array) -> Array:
    """Unitary (mode, mode) complex128 whose product with the modes makes them orthogonal, strongest first.

    Its rows are the eigenvectors of the Gram matrix ⟨P_m, P_n⟩: the left singular vectors of the modes as a matrix. What
    else lives in the space of the modes (momenta, derivatives) has to be rotated by it too. Orthogonal modes in order
    are left as they are: of the free phases those are taken that make the diagonal real and not negative.
    """
    xp = library_of(probe)
    modes = probe.reshape(len(probe), -1).astype("complex128")
    vectors = xp.linalg.eigh(modes @ modes.conj().T)[1][:, ::-1]
    rotation = vectors.conj().T
    diagonal = xp.diagonal(rotation)
    size = xp.abs(diagonal)
    phase = xp.where(size > 0, diagonal.conj() / xp.where(size > 0, size, 1), 1)
    return phase[:, None] * rotation


def orthogonalise(probe: Array) -> Array:
    """Orthogonal modes (mode, y, x), strongest first, with the same Σ_mode |P|² at every pixel (doi:10.1038/nature11806)."""
    if len(probe) == 1:
        return probe
    rotation = orthogonalising_rotation(probe).astype(probe.dtype)
    return (rotation @ probe.reshape(len(probe), -1)).reshape(probe.shape)


def centroid_px(probe: Array) -> Array:
    """Centroid (2,) as (y, x) in px of Σ_mode |P|² about coordinate 0, on the torus of the window.

    It is the phase of the first Fourier harmonic of the intensity: for an intensity that is small against the window the
    usual centroid, and unlike that one it moves with the probe when tails leave the window on one side and enter on the
    other.
    """
    xp = library_of(probe)
    intensity = (xp.abs(probe) ** 2).sum(0)
    centre = []
    for axis, n in enumerate(intensity.shape):
        profile = intensity.sum(1 - axis)
        angle = (2 * math.pi / n) * (xp.arange(n, dtype=profile.dtype) - n // 2)
        centre.append(
            xp.arctan2((profile * xp.sin(angle)).sum(), (profile * xp.cos(angle)).sum()) * (n / (2 * math.pi))
        )
    return xp.stack(centre)


def shifted(a: Array, shift_px: Array) -> Array:
    """Images (..., y, x), real or complex, moved by shift_px (2,) as (y, x): a'(r) = a(r − shift), periodic."""
    xp = library_of(a)
    y, x = a.shape[-2:]
    move = xp.asarray(shift_px)
    real = a.dtype.kind == "f"
    k_x = xp.fft.rfftfreq(x) if real else xp.fft.fftfreq(x)
    ramp = xp.exp(-2j * math.pi * (xp.fft.fftfreq(y)[:, None] * move[0] + k_x[None, :] * move[1]))
    if real:
        return irfft2((rfft2(a) * ramp).astype(_complex_of(a)), (y, x)).astype(a.dtype)
    return ifft2((fft2(a.copy()) * ramp).astype(a.dtype))


def _complex_of(a: Array) -> str:
    return "complex64" if a.dtype == "float32" else "complex128"


def _disk(distance: Array, radius: float, edge: float) -> Array:
    """1 within the radius, then a quarter wave of cos² down to 0 at radius·(1 + edge)."""
    xp = library_of(distance)
    if edge == 0:
        return (distance <= radius).astype(distance.dtype)
    return xp.cos(0.5 * math.pi * xp.clip((distance - radius) / (edge * radius), 0, 1)) ** 2 * (
        distance < radius * (1 + edge)
    )


def _support(probe: Array, r: Regulariser, pixel_A: float) -> Array:
    xp = library_of(probe)
    offsets = []
    for n, centre in zip(probe.shape[1:], centroid_px(probe), strict=True):
        at = xp.arange(n, dtype=probe.real.dtype) - n // 2 - centre
        offsets.append((at + n / 2) % n - n / 2)
    distance = xp.hypot(offsets[0][:, None], offsets[1][None, :]) * pixel_A
    return probe * (1 - r.weight * (1 - _disk(distance, r.number("radius_A"), r.number("edge"))))


def _aperture(probe: Array, r: Regulariser, pixel_A: float) -> Array:
    xp = library_of(probe)
    ky, kx = (xp.fft.fftfreq(n, pixel_A) for n in probe.shape[1:])
    distance = xp.hypot(ky[:, None], kx[None, :]).astype(probe.real.dtype)
    spectrum = fft2(probe.copy())
    spectrum *= 1 - r.weight * (1 - _disk(distance, r.number("radius_per_A"), r.number("edge")))
    return ifft2(spectrum)


def _smooth(probe: Array, r: Regulariser, pixel_A: float) -> Array:
    """The amplitude is blurred on the periodic grid of frequencies, whose step is 1 / (n · pixel)."""
    xp = library_of(probe)
    spectrum = fft2(probe.copy())
    amplitude = xp.abs(spectrum)
    y, x = probe.shape[1:]
    # The transform variable of a grid of frequencies is a length: n · pixel times cycles per sample.
    length2 = (xp.fft.fftfreq(y)[:, None] * (y * pixel_A)) ** 2 + (xp.fft.rfftfreq(x)[None, :] * (x * pixel_A)) ** 2
    kernel = xp.exp(-2 * (math.pi * r.number("sigma_per_A")) ** 2 * length2).astype(amplitude.dtype)
    smooth = xp.maximum(irfft2(rfft2(amplitude) * (1 - r.weight * (1 - kernel)), (y, x)), 0)
    limits = xp.finfo(amplitude.dtype)
    floor = xp.maximum(100 * float(limits.eps) * amplitude.max(), float(limits.tiny))
    spectrum *= xp.where(amplitude > floor, smooth / xp.maximum(amplitude, floor), 1)
    before, after = ((a**2).sum((1, 2), keepdims=True) for a in (amplitude, xp.abs(spectrum)))
    spectrum *= xp.sqrt(before / xp.where(after > 0, after, 1))
    return ifft2(spectrum)


def _power(probe: Array, r: Regulariser, electrons: float | None) -> Array:
    target = electrons if r.electrons is None else r.electrons
    if target is None:
        raise ValueError('electrons is not known for "probe_power"; expected electrons per pattern in the regulariser.')
    xp = library_of(probe)
    power = (xp.abs(probe) ** 2).sum()
    return probe * (1 + r.weight * (xp.sqrt(float(target) / power) - 1))
