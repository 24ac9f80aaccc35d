"""Findings from the object, the probe and the positions."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import numpy as np
from scipy.spatial import ConvexHull, QhullError, cKDTree

from ptycho.diagnose.evidence import Evidence
from ptycho.findings import Finding

_POWER = 1.25
_UNUSED_MODE = 1e-3
_INCOHERENT = 0.35
_BORDER = 0.02
_FAR_BORDER = 0.1
_FRAME = 16
_WRAPS = 1e-3
_AMPLITUDE = 0.1
_FAR_AMPLITUDE = 0.3
_ALIKE = 0.8
_COARSEST_A = 2.5
_OVERLAP = 0.6
_LEAST_OVERLAP = 0.3
_LIMIT_A = 2.0
_ROSE = 5.0


def probe(e: Evidence) -> Iterator[Finding]:
    """Power, modes and the border of the window."""
    if e.probe is None:
        return
    power = (np.abs(e.probe) ** 2).sum((1, 2), dtype=np.float64)
    total = float(power.sum())
    if not (math.isfinite(total) and total > 0):
        yield Finding("probe_vanished", "The probe holds no electrons any more: lower its step or hold it fixed.", True)
        return
    if e.electrons and not 1 / _POWER < total / e.electrons < _POWER:
        yield Finding(
            "probe_power",
            f"The probe holds {total:.4g} electrons, a pattern {e.electrons:.4g}: dose, gain or a given probe do not fit "
            "together.",
            True,
        )
    yield from _modes(np.sort(power)[::-1] / total)
    intensity = (np.abs(e.probe) ** 2).sum(0)
    fy, fx = (max(1, n // _FRAME) for n in intensity.shape)
    border = 1 - float(intensity[fy:-fy, fx:-fx].sum()) / float(intensity.sum())
    if border > _BORDER:
        yield Finding(
            "window_small",
            f"{100 * border:.1f} % of the probe lie at the border of the window of {intensity.shape[0] * e.pixel_A:.0f} Å: finer "
            "detector pixels (a longer camera) or less defocus are needed; the probe wraps around.",
            border > _FAR_BORDER,
        )


def _modes(shares: np.ndarray) -> Iterator[Finding]:
    if len(shares) < 2:
        return
    listed = ", ".join(f"{100 * s:.2g}" for s in shares)
    if shares[-1] < _UNUSED_MODE:
        yield Finding("modes_unused", f"The probe modes hold {listed} % of the electrons: fewer modes say the same.")
    elif shares[0] < _INCOHERENT:
        yield Finding(
            "modes_level",
            f"The probe modes hold {listed} % of the electrons, no mode leads: they may have taken up errors of positions or "
            "noise; fewer modes, or refine the positions.",
        )


def object_(e: Evidence) -> Iterator[Finding]:
    """Amplitude, wrapped phases, negative atoms, slices that are copies of each other."""
    if e.object_ is None:
        return
    amplitude = float(np.abs(e.object_).mean()) if np.isfinite(e.object_).all() else math.nan
    if not math.isfinite(amplitude):
        yield Finding("object_broken", "The object holds values that are not finite: lower the step.", True)
        return
    if abs(amplitude - 1) > _AMPLITUDE:
        yield Finding(
            "amplitude",
            f"The mean amplitude of the object is {amplitude:.2f}, expected 1: the probe holds too "
            f"{'many' if amplitude < 1 else 'few'} electrons, or the specimen absorbs.",
            abs(amplitude - 1) > _FAR_AMPLITUDE,
        )
    phase = np.angle(e.object_ * np.conj(e.object_.mean((1, 2), keepdims=True)))
    steps = [np.abs(np.diff(phase, axis=a)) > np.pi for a in (1, 2)]
    wraps = sum(int(s.sum()) for s in steps) / max(sum(s.size for s in steps), 1)
    if wraps > _WRAPS:
        yield Finding(
            "phase_wraps",
            f"The phase jumps by more than π between neighbouring pixels at {100 * wraps:.1f} % of them: one slice holds too much "
            "of the specimen; use more slices, and unwrap before summing.",
        )
    yield from _slices(phase, e)


def _slices(phase: np.ndarray, e: Evidence) -> Iterator[Finding]:
    """Neighbouring slices that show the same structure."""
    if len(phase) < 2 or not e.slice_A > 0:
        return
    fine = _high_pass(phase, e.pixel_A)
    alike = [_correlation(a, b) for a, b in itertools.pairwise(fine)]
    depth = e.depth_of_field_A
    if np.mean(alike) > _ALIKE:
        yield Finding(
            "slices_alike",
            f"Neighbouring slices {e.slice_A:.3g} Å apart correlate to {np.mean(alike):.2f}; the depth of field λ/α² is {depth:.3g} Å. "
            "They are copies of each other: only their sum means something; use fewer slices, or a wider aperture to "
            "resolve depth.",
        )


def _high_pass(phase: np.ndarray, pixel_A: float) -> np.ndarray:
    """Phase without what is coarser than 2.5 Å, the border tapered."""
    k2 = np.add.outer(*(np.fft.fftfreq(n, pixel_A) ** 2 for n in phase.shape[-2:]))
    taper = np.outer(*(np.hanning(n + 2)[1:-1] for n in phase.shape[-2:]))
    spectrum = np.fft.fft2(phase) * (k2 > _COARSEST_A**-2)
    return np.fft.ifft2(spectrum).real * taper


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    return float((a * b).sum() / max(math.sqrt(float((a * a).sum() * (b * b).sum())), 1e-30))


def scan(e: Evidence) -> Iterator[Finding]:
    """Overlap of neighbouring probes, and what the dose can show."""
    if e.probe is None or e.positions_A is None or len(e.positions_A) < 4 or not np.any(e.probe):
        return
    step = float(np.median(cKDTree(e.positions_A).query(e.positions_A, k=2)[0][:, 1]))
    intensity = (np.abs(e.probe) ** 2).sum(0)
    area = float(intensity.sum() ** 2 / (intensity**2).sum()) * e.pixel_A**2
    diameter = 2 * math.sqrt(area / math.pi)
    overlap = 1 - step / diameter
    if overlap < _OVERLAP:
        yield Finding(
            "overlap",
            f"The scan step of {step:.3g} Å leaves neighbouring probes of {diameter:.3g} Å an overlap of {100 * max(overlap, 0):.0f} %: "
            "smaller steps or more defocus; 60 % and more are safe.",
            overlap < _LEAST_OVERLAP,
        )
    dose = electrons_per_A2(e)
    if e.object_ is None or not dose > 0:
        return
    spread = float(np.angle(e.object_.prod(0) * np.conj(e.object_.prod(0).mean())).std())
    limit = _ROSE / max(spread * math.sqrt(2 * dose), 1e-30)
    if limit > _LIMIT_A:
        yield Finding(
            "low_dose",
            f"With {dose:.3g} e⁻/Å² and phases that vary by {spread:.2g} rad only details coarser than about {limit:.2g} Å stand out of "
            "the noise.",
        )


def electrons_per_A2(e: Evidence) -> float:
    """Electrons on each Å² of the scanned field; nan where it cannot be told."""
    if e.positions_A is None or not e.electrons:
        return math.nan
    try:
        area = float(ConvexHull(e.positions_A).volume)
    except QhullError:
        return math.nan
    return e.electrons * (math.sqrt(len(e.positions_A)) - 1) ** 2 / area
