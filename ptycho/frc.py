"""Resolution from two independent halves of the data: the Fourier ring correlation.

The correlation c of two reconstructions over a ring of spatial frequencies is SNR / (SNR + 1) with SNR that of one half, so
that all data together have 2c / (1 + c); structure is told from noise up to where c falls below the half-bit curve (van Heel
and Schatz, doi:10.1016/j.jsb.2005.05.009).

Two ways to halve. `thinned_halves` gives every electron to one half or the other by the throw of a coin: a Poisson count
becomes two independent Poisson counts of half the mean, exactly, and both halves keep every position, hence the same
overlap and the same reconstruction problem at half the dose. It is the choice for counted electrons, above all for wide
probes at low dose. `half_sets` gives whole patterns to the halves, like the fields of a chess board: right for any detector,
also where noise of read-out or gain makes the values no Poisson counts, but each half has twice the area per position; where
the overlap is scarce it tells what half the positions can do, not what all of them do. What both halves share (a wrong
probe, a wrong frame, a prior) raises the correlation: it measures reproducibility.

Standard shapes: images (y, x) real, rings (r,).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from scipy.spatial import cKDTree

from ptycho.data import Patterns

_NEIGHBOURS = 8
_FIRST_RING = 3
"""Rings inside this one hold what is left of ramps and are not asked for the resolution."""
_CHUNK = 512


@dataclass(frozen=True, eq=False)
class RingCorrelation:
    """Agreement of two images by spatial frequency.

    frequency_per_A: (r,) middle of each ring in 1/Å. correlation: (r,) of the two images. full: (r,) 2c / (1 + c), of
    all data. half_bit: (r,) threshold for `correlation`. points: (r,) independent Fourier coefficients of each ring.
    resolution_A: 1 / the frequency at which the correlation first falls below the threshold, two pixels where it never does.
    shift_A: (y, x) by which the second image was moved to lie on the first.
    """

    frequency_per_A: np.ndarray
    correlation: np.ndarray
    full: np.ndarray
    half_bit: np.ndarray
    points: np.ndarray
    resolution_A: float
    shift_A: tuple[float, float]


def ring_correlation(a: np.ndarray, b: np.ndarray, pixel_A: float, *, register: bool = True) -> RingCorrelation:
    """Fourier ring correlation of two real images (y, x) of the same field, such as projected phases of two halves.

    register: lay b on a first, to a fraction of a pixel. A plane is removed from both and the border tapered (Hann); the
    rings are one frequency step of the shorter side wide and reach up to half a cycle per pixel.
    Raises ValueError when the shapes differ, the images are too small, or one of them is constant.
    """
    if a.shape != b.shape or a.ndim != 2 or min(a.shape) < 4 * _FIRST_RING:
        raise ValueError(
            f"the images have shapes {a.shape} and {b.shape}; expected two of one shape, at least {4 * _FIRST_RING} pixels wide."
        )
    if not (np.ptp(a) > 0 and np.ptp(b) > 0):
        raise ValueError("an image is constant or not finite; expected two reconstructions.")
    whole = _whole_shift(a, b) if register else (0, 0)
    a, b = _common(a, b, whole)
    cross, power_a, power_b, share = _spectra(a, b)
    shift = np.zeros(2)
    if register:
        shift = _fraction(cross)
        cross = cross * _ramp(cross.shape, shift)
    ring, rings = _rings(a.shape)

    def total(values: np.ndarray) -> np.ndarray:
        return np.bincount(ring, values.ravel(), rings)[1:rings]

    correlation = total(cross.real) / np.sqrt(total(power_a) * total(power_b))
    points = np.maximum(0.5 * share * total(np.ones(a.shape)), 1)
    root = np.sqrt(points)
    half_bit = (0.2071 + 1.9102 / root) / (1.2071 + 0.9102 / root)
    frequency = np.arange(1, rings) / (min(a.shape) * pixel_A)
    return RingCorrelation(
        frequency,
        correlation,
        2 * correlation / np.maximum(1 + correlation, 1e-6),
        half_bit,
        points,
        _resolution(frequency, correlation - half_bit, pixel_A),
        (float(shift[0] + whole[0]) * pixel_A, float(shift[1] + whole[1]) * pixel_A),
    )


def thinned_halves(counts: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Two independent halves of Poisson counts, every electron in one of them, in the dtype of `counts`.

    Raises ValueError when a count is not a whole number: a gain must be divided out before.
    """
    if counts.dtype.kind not in "uif":
        raise ValueError(f"counts has dtype {counts.dtype}; expected electron counts.")
    first = np.empty_like(counts)
    for i in range(0, len(counts), _CHUNK):
        chunk = counts[i : i + _CHUNK]
        whole = chunk.astype(np.int64)
        if (whole != chunk).any() or (whole < 0).any():
            raise ValueError(
                "counts holds values that are not whole electrons; divide by the counts of one electron and round, or halve by "
                "positions."
            )
        first[i : i + _CHUNK] = rng.binomial(whole, 0.5)
    return first, counts - first


def half_sets(positions_A: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of the patterns in two halves that both cover the field evenly: neighbours belong to different halves.

    positions_A: (n, 2) in any order, on a grid or not. A square grid becomes a chess board however it is turned.
    """
    n = len(positions_A)
    if n < 2:
        raise ValueError(f"positions_A holds {n} positions; expected at least two to halve.")
    distance, near = cKDTree(positions_A).query(positions_A, k=min(_NEIGHBOURS + 1, n))
    closest = np.median(distance[:, 1])
    weight = np.exp(-((distance / max(closest, 1e-12)) ** 2))
    side, pull = np.zeros(n), np.zeros(n)
    for start in np.argsort(positions_A @ np.array([1.0, 1e-3]), kind="stable").tolist():
        front = [start] if side[start] == 0 else []
        while front:
            following: list[int] = []
            for i in front:
                if side[i] == 0:
                    side[i] = -1.0 if pull[i] > 0 else 1.0
                    np.add.at(pull, near[i, 1:], weight[i, 1:] * side[i])
                    following.extend(near[i, 1:5].tolist())
            front = [i for i in following if side[i] == 0]
    return np.flatnonzero(side > 0), np.flatnonzero(side < 0)


def split(
    patterns: Patterns, rng: np.random.Generator, by: Literal["electrons", "positions"] = "electrons"
) -> tuple[Patterns, Patterns]:
    """The patterns halved by `thinned_halves` or by `half_sets`, to be reconstructed apart."""
    if by == "positions":
        a, b = half_sets(patterns.positions_A)
        return patterns.subset(a), patterns.subset(b)
    if by != "electrons":
        raise ValueError(f'by is "{by}"; expected "electrons" or "positions".')
    first, second = thinned_halves(patterns.counts, rng)
    return replace(patterns, counts=first), replace(patterns, counts=second)


def _tapered(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Image without its plane, times a Hann window; and the window."""
    y, x = (np.linspace(-1, 1, n) for n in image.shape)
    basis = np.stack(np.broadcast_arrays(1.0, y[:, None], x[None]), -1).reshape(-1, 3)
    flat = image.reshape(-1).astype(np.float64)
    plane = basis @ np.linalg.lstsq(basis, flat, rcond=None)[0]
    window = np.hanning(len(y) + 2)[1:-1, None] * np.hanning(len(x) + 2)[None, 1:-1]
    return (flat - plane).reshape(image.shape) * window, window


def _spectra(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """conj(A) B, |A|², |B|², and the share of the coefficients along a ring that the window leaves independent."""
    (ta, window), (tb, _) = _tapered(a), _tapered(b)
    fa, fb = np.fft.fft2(ta), np.fft.fft2(tb)
    share = (window**2).sum() / np.sqrt(window.size * (window**4).sum())
    return fa.conj() * fb, np.abs(fa) ** 2, np.abs(fb) ** 2, float(share)


def _whole_shift(a: np.ndarray, b: np.ndarray) -> tuple[int, int]:
    """Pixels (y, x), at most a quarter of the field, by which b must move."""
    score = np.fft.fftshift(np.fft.ifft2(_spectra(a, b)[0].conj()).real)
    y, x = (slice(n // 2 - n // 4, n // 2 + n // 4 + 1) for n in a.shape)
    peak = np.unravel_index(int(np.argmax(score[y, x])), score[y, x].shape)
    return int(peak[0]) - a.shape[0] // 4, int(peak[1]) - a.shape[1] // 4


def _common(a: np.ndarray, b: np.ndarray, shift: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """The parts of a and of b that overlap once b has moved by whole pixels."""
    ours = tuple(slice(max(s, 0), n + min(s, 0)) for s, n in zip(shift, a.shape, strict=True))
    theirs = tuple(slice(max(-s, 0), n + min(-s, 0)) for s, n in zip(shift, a.shape, strict=True))
    return a[ours], b[theirs]


def _fraction(cross: np.ndarray) -> np.ndarray:
    """Fraction of a pixel (y, x) by which b must still move: Newton's method on the correlation of the two images."""
    k = [2 * np.pi * np.fft.fftfreq(n) for n in cross.shape]
    shift = np.zeros(2)
    for _ in range(8):
        turned = cross * _ramp(cross.shape, shift)
        wave, push = turned.real, turned.imag
        gradient = np.array([(push * k[0][:, None]).sum(), (push * k[1][None]).sum()])
        mixed = (wave * k[0][:, None] * k[1][None]).sum()
        curvature = np.array([[(wave * k[0][:, None] ** 2).sum(), mixed], [mixed, (wave * k[1][None] ** 2).sum()]])
        if np.linalg.eigvalsh(curvature).min() <= 0:
            break
        shift = np.clip(shift + np.linalg.solve(curvature, gradient), -1, 1)
    return shift


def _ramp(shape: tuple[int, ...], shift: np.ndarray) -> np.ndarray:
    """Multiplier of a spectrum that moves its image by `shift` pixels (y, x)."""
    y, x = (np.exp(-2j * np.pi * np.fft.fftfreq(n) * s) for n, s in zip(shape, shift, strict=True))
    return y[:, None] * x[None]


def _rings(shape: tuple[int, ...]) -> tuple[np.ndarray, int]:
    """Number of the ring of each coefficient, flat; rings beyond half a cycle per pixel are put into the last one."""
    shorter = min(shape)
    y, x = (np.fft.fftfreq(n) * shorter for n in shape)
    rings = shorter // 2
    return np.minimum(np.rint(np.hypot(y[:, None], x[None])).astype(int), rings).ravel(), rings


def _resolution(frequency: np.ndarray, above: np.ndarray, pixel_A: float) -> float:
    """1 / the frequency where `above` first turns negative, between the rings."""
    below = np.flatnonzero(above < 0)
    below = below[below >= _FIRST_RING - 1]
    if len(below) == 0:
        return 2 * pixel_A
    i = int(below[0])
    if i == 0 or above[i - 1] <= 0:
        return float(1 / frequency[i])
    share = above[i - 1] / (above[i - 1] - above[i])
    return float(1 / (frequency[i - 1] + share * (frequency[i] - frequency[i - 1])))
