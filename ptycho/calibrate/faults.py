"""Patterns and detector pixels that cannot be believed.

A pattern with values that are no counts is left out. A pixel is judged by its mean over the scan against the 24 pixels
around it: hot if it is far above the level that a quarter of them reach, dead if it is far below the level that three
quarters reach, both beyond the counting error. On either side of an edge, however sharp, more than a quarter of the
neighbours share the pixel's own level, so that the border of the bright-field disk is left alone. Dead rows and columns are
gaps in the sums over them. A pixel that piles up at its highest value is saturated.

Standard shapes: counts (n, ky, kx), mask (ky, kx) True where good, kept (n,) True where good.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from ptycho.calibrate.blocks import blocks, project
from ptycho.calibrate.invalid import left_out, pixels_named, without_invalid
from ptycho.findings import Finding

_SIGMAS = 7.0
_HOT, _DEAD = 1.6, 0.4
_EMPTY, _SHARP = 0.1, 0.65
_LEAST_NEIGHBOURS = 6
_WIDEST_GAP_PX = 10
_BLANK, _GARBAGE = 0.1, 10.0
_LEAST_FULL_WELL = 32
_LEAST_PILED_UP = 10
_MOST_SATURATED = 0.5


@dataclass(frozen=True, eq=False)
class Repaired:
    """What is left to believe.

    counts: (n, ky, kx) in their dtype, values that are no counts set to 0; the given array when there are none.
    mask: (ky, kx) bool, True = good pixel. kept: (n,) bool, True = good pattern.
    mean: (ky, kx) float64 over the good patterns. totals: (n,) float64 electrons on the good pixels.
    """

    counts: np.ndarray
    mask: np.ndarray
    kept: np.ndarray
    mean: np.ndarray
    totals: np.ndarray
    findings: tuple[Finding, ...]


def repair(counts: np.ndarray, mask: np.ndarray | None = None) -> Repaired:
    """Find the patterns and pixels of counts (n, ky, kx) that cannot be believed; NaN, ±inf and negative values may occur.

    mask (ky, kx): pixels known to be good; the others are left out from the start.
    Raises ValueError when no pattern or no pixel is left.
    """
    known = np.ones(counts.shape[1:], bool) if mask is None else mask
    counts, kept, valid, findings = without_invalid(counts, known)
    raw = project(counts, valid[..., None])[:, 0]
    kept = kept & ~left_out(
        "garbage_patterns", kept & (raw > _GARBAGE * _median(raw, kept)), "far too bright", findings
    )
    mean, variance, highest = _statistics(counts, kept)
    mask = valid & _believable(mean, variance, int(kept.sum()), valid, findings)
    mask &= ~_saturated(counts, mean, highest, mask, findings)
    if not (mask.any() and kept.any()):
        raise ValueError("counts holds no pattern or no pixel that could be believed; expected measured electrons.")
    totals = project(counts, mask[..., None])[:, 0]
    usual = _median(totals, kept)
    blank = kept & (totals < _BLANK * usual) & (totals < usual - _SIGMAS * np.sqrt(usual))
    good = kept & ~left_out("blank_patterns", blank, "blank", findings)
    if blank.any():
        mean = (mean * kept.sum() - counts[blank].sum(0, dtype=np.float64)) / good.sum()
    return Repaired(counts, mask, good, mean, totals, tuple(findings))


def _median(values: np.ndarray, where: np.ndarray) -> float:
    return float(np.median(values[where])) if where.any() else 0.0


def _statistics(counts: np.ndarray, kept: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean, variance and highest value (ky, kx) over the good patterns."""
    total, square, highest = (np.zeros(counts.shape[1:]) for _ in range(3))
    for part in blocks(counts):
        block = counts[part][kept[part]].astype(np.float32)
        if len(block):
            total += block.sum(0)
            square += np.einsum("iyx,iyx->yx", block, block)
            np.maximum(highest, block.max(0), out=highest)
    n = max(int(kept.sum()), 1)
    return total / n, np.maximum(square / n - (total / n) ** 2, 0), highest


def _believable(
    mean: np.ndarray, variance: np.ndarray, n: int, valid: np.ndarray, findings: list[Finding]
) -> np.ndarray:
    """Pixels (ky, kx) that are neither hot nor dead."""
    bright = valid & (mean > _median(mean, valid))
    gain = float(np.median(variance[bright] / mean[bright])) if bright.any() else 1.0
    lines = valid & _dead_lines(_filled(mean, valid & ~_hot(mean, valid, n, gain)), n, gain)
    hot = _hot(mean, valid & ~lines, n, gain)
    dead = _dead(mean, valid & ~lines & ~hot, n, gain)
    for code, pixels, sentence in (
        ("hot_pixels", hot, "far above the pixels around"),
        ("dead_pixels", dead, "far below the pixels around"),
        ("dead_lines", lines, "in rows or columns without counts"),
    ):
        if pixels.any():
            share = 100 * pixels.mean()
            findings.append(Finding(code, f"{pixels_named(pixels)} ({share:.2g} %) {sentence}; masked."))
    return ~(hot | dead | lines)


def _hot(mean: np.ndarray, good: np.ndarray, n: int, gain: float) -> np.ndarray:
    """Pixels far above the level that a quarter of their good neighbours reach."""
    hot = np.zeros(mean.shape, bool)
    for _ in range(2):
        level = _neighbours(mean, good & ~hot)[0]
        hot |= good & (mean > _HOT * level + _SIGMAS * _error(level, n, gain))
    return hot


def _dead(mean: np.ndarray, good: np.ndarray, n: int, gain: float) -> np.ndarray:
    """Pixels far below the level that three quarters of their good neighbours reach."""
    dead = np.zeros(mean.shape, bool)
    for _ in range(2):
        level = _neighbours(mean, good & ~dead)[1]
        dead |= good & (mean < np.minimum(_DEAD * level, level - _SIGMAS * _error(level, n, gain)))
    return dead


def _error(mean: np.ndarray, n: int, gain: float) -> np.ndarray:
    """Counting error of a mean over n patterns; one more quantum so that empty surroundings have one too."""
    return np.sqrt(gain * (mean + gain / n) / n)


def _neighbours(mean: np.ndarray, good: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Levels (ky, kx) that a quarter and three quarters of the good ones of the 24 pixels around each reach."""
    padded = np.pad(np.where(good, mean, np.nan), 2, constant_values=np.nan)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (5, 5)).reshape(*mean.shape, 25)
    ordered = np.sort(np.delete(windows, 12, axis=-1), axis=-1)
    count = np.isfinite(ordered).sum(-1)
    alone = count < _LEAST_NEIGHBOURS
    upper, lower = (
        np.take_along_axis(ordered, np.clip(rank, 0, 23)[..., None], -1)[..., 0]
        for rank in (count - count // 4, count // 4 - 1)
    )
    return np.where(alone, mean, upper), np.where(alone, mean, lower)


def _filled(mean: np.ndarray, good: np.ndarray) -> np.ndarray:
    return np.where(good, mean, ndimage.median_filter(mean, 5, mode="nearest"))


def _dead_lines(mean: np.ndarray, n: int, gain: float) -> np.ndarray:
    """Rows and columns (ky, kx) whose sum falls into a gap of up to 10 px between, or at the border beside, counting ones."""
    out = np.zeros(mean.shape, bool)
    for axis in (0, 1):
        out |= np.expand_dims(_gaps(mean.sum(1 - axis), n, gain), 1 - axis)
    return out


def _gaps(profile: np.ndarray, n: int, gain: float) -> np.ndarray:
    counting = np.flatnonzero(profile > 0)
    if not len(counting):
        return np.zeros(len(profile), bool)
    ends = profile[counting[0]], profile[counting[-1]]
    padded = np.pad(profile, _WIDEST_GAP_PX, constant_values=(ends,))
    closed = ndimage.grey_closing(padded, size=_WIDEST_GAP_PX + 1)[_WIDEST_GAP_PX:-_WIDEST_GAP_PX]
    low = profile < np.minimum(_EMPTY * closed, closed - _SIGMAS * _error(closed, n, gain))
    runs, count = ndimage.label(low)
    for run in range(1, count + 1):
        at = np.flatnonzero(runs == run)
        low[at] = _sharp(profile[: at[0]][::-1]) and _sharp(profile[at[-1] + 1 :])
    return low


def _sharp(beside: np.ndarray) -> bool:
    """Whether the sums beside a gap, going away from it, stand at their level at once, unlike at the border of a disk."""
    return not len(beside) or bool(beside[0] > _SHARP * beside[:4].max())


def _saturated(
    counts: np.ndarray, mean: np.ndarray, highest: np.ndarray, mask: np.ndarray, findings: list[Finding]
) -> np.ndarray:
    """Pixels that reach the highest value of all more often than the values just below it."""
    top = highest[mask].max(initial=0)
    if top < _LEAST_FULL_WELL:
        return np.zeros(mask.shape, bool)
    at, near = (np.zeros(mask.shape, int) for _ in range(2))
    candidates = mask & (highest >= top)
    for part in blocks(counts):
        block = counts[part][:, candidates]
        at[candidates] += (block >= top).sum(0)
        near[candidates] += ((block < top) & (block >= 0.97 * top - 1)).sum(0)
    if at.sum() < max(_LEAST_PILED_UP, near.sum()):
        return np.zeros(mask.shape, bool)
    candidates &= at > _LEAST_PILED_UP / 4
    said = f"{pixels_named(candidates)} pile up at their highest value of {top:g} ({at.sum()} times): saturated"
    bright = mask & (mean > 0.5 * np.quantile(mean[mask], 0.99))
    if candidates.sum() > _MOST_SATURATED * bright.sum():
        sentence = f"{said}. They are most of the bright-field disk and were kept; take the tilt again with less beam."
        findings.append(Finding("saturated_pixels", sentence, severe=True))
        return np.zeros(mask.shape, bool)
    findings.append(Finding("saturated_pixels", f"{said}, masked."))
    return candidates
