"""Values that are no counts: NaN, infinities, negative numbers.

A pixel that holds them in nearly every pattern was marked as bad by the camera's software; any other pattern that holds
them is left out. Negative values all over come from a background that was subtracted.

Standard shapes: counts (n, ky, kx), known and valid (ky, kx), kept (n,).
"""

from __future__ import annotations

import numpy as np

from ptycho.calibrate.blocks import blocks
from ptycho.findings import Finding

_BAD_PIXEL = 0.9
_SUBTRACTED = 0.1
_NAMED = 6


def without_invalid(counts: np.ndarray, known: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[Finding]]:
    """Counts with values that are no counts set to 0 (the given array when there are none), the patterns `kept` (n,) and
    pixels `valid` (ky, kx) that held none, and what is to be said; pixels outside `known` (ky, kx) do not matter."""
    findings: list[Finding] = []
    kept = np.ones(len(counts), bool)
    wrong = _invalid_per_pixel(counts)
    if wrong is None:
        return counts, kept, known, findings
    valid = known & (wrong < _BAD_PIXEL * len(counts))
    if (known & ~valid).any():
        sentence = f"{pixels_named(known & ~valid)} without counts (NaN, infinite or negative); masked."
        findings.append(Finding("invalid_pixels", sentence))
    clean, below = np.array(counts), np.zeros(len(counts), bool)
    for part in blocks(counts):
        block = clean[part]
        infinite, negative = ~np.isfinite(block), block < 0
        kept[part] = ~(infinite & valid).any((1, 2))
        below[part] = (negative & valid).any((1, 2))
        block[infinite | negative] = 0
    if below.mean() > _SUBTRACTED:
        sentence = (
            f"{100 * below.mean():.0f} % of the patterns hold negative values: a background was subtracted from them. "
            "Negative values were set to 0, which biases low counts; give the raw counts."
        )
        findings.append(Finding("negative_counts", sentence, severe=True))
    else:
        kept &= ~below
    left_out("invalid_patterns", ~kept, "not all counts (NaN, infinite or negative values)", findings)
    return clean, kept, valid, findings


def _invalid_per_pixel(counts: np.ndarray) -> np.ndarray | None:
    """How many patterns hold no count there: (ky, kx), None when all hold counts everywhere."""
    if counts.dtype.kind == "u":
        return None
    wrong = np.zeros(counts.shape[1:], int)
    for part in blocks(counts):
        block = counts[part]
        wrong += (~(np.isfinite(block) & (block >= 0))).sum(0)
    return wrong if wrong.any() else None


def left_out(code: str, wrong: np.ndarray, what: str, findings: list[Finding]) -> np.ndarray:
    """Say which patterns (n,) are left out, by their index; returns `wrong`."""
    if wrong.any():
        at = np.flatnonzero(wrong)
        names = ", ".join(map(str, at[:_NAMED])) + (", …" if len(at) > _NAMED else "")
        subject = f"pattern {names} is" if len(at) == 1 else f"{len(at)} patterns are"
        where = "" if len(at) == 1 else f" ({names})"
        findings.append(Finding(code, f"{subject} {what}{where}; left out."))
    return wrong


def pixels_named(pixels: np.ndarray) -> str:
    """How many pixels (ky, kx) are True, in words."""
    count = int(pixels.sum())
    return "1 pixel" if count == 1 else f"{count} pixels"
