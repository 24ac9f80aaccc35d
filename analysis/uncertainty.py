"""Error bars of refined atoms: the noise measured from the residual, carried to the positions by Fisher information.

With images b = m(θ) + noise of variance v, the information on an atom is F = Σ (∂m/∂θ)(∂m/∂θ)ᵀ / v over all pixels of
all tilts, and F⁻¹ bounds the covariance from below (Cramér and Rao). Only the block of each atom is inverted; that
its neighbours are not known either is added to second order (1 % in silicon, 4 % in silica). Whether v tells the
whole story is measured too: the scores Σ (∂m/∂θ)(b − m)/v of the single tilts must scatter as F says. Correlated noise
or a wrong model makes them scatter more, and the covariance is raised by that factor.

Standard shapes: projected positions (tilt, atom, 2) in pixels as (x, y); images (tilt, y, x).
Source: Kay, Fundamentals of Statistical Signal Processing I (1993), ch. 3; scores clustered by tilt: Liang and Zeger
(1986), doi:10.1093/biomet/73.1.13.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from analysis.compiled import compiled

Array = NDArray[np.float64]

REACH = 5.0
"""Half-size, in standard deviations, of the box in which an atom's image is computed; it is cut at 4e-6 of its peak."""


@dataclass(frozen=True)
class NoiseModel:
    """Variance of a pixel: gain × expected signal + floor, in squared units of the images."""

    gain: float
    floor: float

    def variance(self, signal: Array) -> Array:
        """Variance at the expected `signal`, background excluded; negative signal counts as none."""
        return self.gain * np.maximum(signal, 0.0) + self.floor


def measure_noise(residual: Array, signal: Array, weights: Array | None, *, shot: bool) -> NoiseModel:
    """Noise that explains the squared `residual` (n, y, x), regressed on the `signal` where shot noise is allowed.

    Weighted least squares of residual² on (signal, 1), each pixel by 1/variance² since var(residual²) = 2 variance²;
    a negative gain is set to zero. weights: zero where a pixel does not count.
    """
    used = np.ones(residual.shape, bool) if weights is None else weights > 0
    squares = residual[used] ** 2
    noise = NoiseModel(0.0, max(float(squares.mean()), 1e-300))
    if not shot:
        return noise
    expected = np.maximum(signal[used], 0.0)
    for _ in range(5):
        weight = 1 / noise.variance(expected) ** 2
        weight /= weight.sum()
        mean_x, mean_y = float(weight @ expected), float(weight @ squares)
        spread = float(weight @ (expected - mean_x) ** 2)
        gain = max(float(weight @ ((expected - mean_x) * (squares - mean_y))) / max(spread, 1e-300), 0.0)
        noise = NoiseModel(gain, max(mean_y - gain * mean_x, 1e-3 * mean_y, 1e-300))
    return noise


def available_threads() -> int:
    """CPU cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def share_out(kernel: Callable[..., None], count: int, threads: int, *arguments: Any) -> None:
    """Run kernel(first, last, *arguments) over all tilts, or so many pairs, shared out among threads."""
    edges = np.linspace(0, count, max(1, min(4 * threads, count)) + 1 if threads > 1 else 2).astype(int)
    with ThreadPoolExecutor(threads) as pool:
        for job in [pool.submit(kernel, a, b, *arguments) for a, b in pairwise(edges)]:
            job.result()


@compiled
def _scores(  # pragma: no cover - compiled
    first: int, last: int, at: Array, amplitude: Array, sigma: Array, weight: Array, residual: Array, out: Array
) -> None:
    """out[t, a]: Σ w J Jᵀ as xx, xy, xa, yy, ya, aa and Σ w r J as x, y, a, with J = ∂image/∂(x, y, amplitude)."""
    ny, nx = weight.shape[1:]
    for t in range(first, last):
        for a in range(at.shape[1]):
            s, x0, y0 = sigma[a], at[t, a, 0], at[t, a, 1]
            norm = 1 / (2 * np.pi * s * s)
            for y in range(max(0, int(np.ceil(y0 - REACH * s))), min(ny - 1, int(np.floor(y0 + REACH * s))) + 1):
                for x in range(max(0, int(np.ceil(x0 - REACH * s))), min(nx - 1, int(np.floor(x0 + REACH * s))) + 1):
                    dx, dy = x - x0, y - y0
                    g = norm * np.exp(-0.5 * (dx * dx + dy * dy) / (s * s))
                    jx, jy = amplitude[a] * g * dx / (s * s), amplitude[a] * g * dy / (s * s)
                    w = weight[t, y, x]
                    r = w * residual[t, y, x]
                    out[t, a, 0] += w * jx * jx
                    out[t, a, 1] += w * jx * jy
                    out[t, a, 2] += w * jx * g
                    out[t, a, 3] += w * jy * jy
                    out[t, a, 4] += w * jy * g
                    out[t, a, 5] += w * g * g
                    out[t, a, 6] += r * jx
                    out[t, a, 7] += r * jy
                    out[t, a, 8] += r * g


def information(
    at: Array,
    amplitude: Array,
    sigma_px: Array,
    weight: Array,
    residual: Array,
    to_pixels: Array,
    threads: int = 1,
) -> tuple[Array, Array]:
    """Fisher information (n, 4, 4) of every atom's x, y, z (Å) and amplitude, and its scores (n, tilts, 4).

    at: (tilts, n, 2). amplitude, sigma_px: (n,). weight, residual: images (tilts, y, x), weight = 1/variance.
    to_pixels: (tilts, 2, 3), d(pixel x, y)/d(position in Å).
    """
    sums = np.zeros((*at.shape[:2], 9))
    share_out(_scores, len(at), threads, at, amplitude, sigma_px, weight, residual, sums)
    symmetric = sums[..., [0, 1, 2, 1, 3, 4, 2, 4, 5]].reshape(*at.shape[:2], 3, 3)
    chain = np.zeros((len(at), 3, 4))
    chain[:, :2, :3] = to_pixels
    chain[:, 2, 3] = 1
    fisher = np.einsum("tik,taij,tjl->akl", chain, symmetric, chain, optimize=True)
    return fisher, np.einsum("tik,tai->atk", chain, sums[..., 6:])


def covariance(fisher: Array) -> Array:
    """Inverse of every atom's information (n, k, k); nan where the images do not determine the atom."""
    size = fisher.shape[-1]
    scale = np.sqrt(np.maximum(np.einsum("aii->ai", fisher), 1e-300))
    unit = fisher / (scale[:, :, None] * scale[:, None, :])
    sound = np.linalg.eigvalsh(unit)[:, 0] > 1e-9
    inverse = np.linalg.inv(np.where(sound[:, None, None], unit, np.eye(size)))
    inverse = np.where(sound[:, None, None], inverse, np.nan)
    return inverse / (scale[:, :, None] * scale[:, None, :])


@compiled
def _couple(  # pragma: no cover - compiled
    first: int,
    last: int,
    at: Array,
    amplitude: Array,
    sigma: Array,
    weight: Array,
    to_pixels: Array,
    pairs: NDArray[np.int64],
    out: Array,
) -> None:
    """out[p] = F_ij (3, 3) of the pair p = (i, j) of atoms: overlap of their image derivatives, summed over tilts."""
    ny, nx = weight.shape[1:]
    for p in range(first, last):
        i, j = pairs[p]
        s2 = sigma[i] ** 2 + sigma[j] ** 2
        for t in range(len(at)):
            dx, dy = at[t, i, 0] - at[t, j, 0], at[t, i, 1] - at[t, j, 1]
            square = (dx * dx + dy * dy) / s2
            x, y = round((at[t, i, 0] + at[t, j, 0]) / 2), round((at[t, i, 1] + at[t, j, 1]) / 2)
            if square > 25 or x < 0 or y < 0 or x >= nx or y >= ny:
                continue
            c = weight[t, y, x] * amplitude[i] * amplitude[j] * np.exp(-0.5 * square) / (2 * np.pi * s2 * s2)
            xx, xy, yy = c * (1 - dx * dx / s2), -c * dx * dy / s2, c * (1 - dy * dy / s2)
            for k in range(3):
                along_x = xx * to_pixels[t, 0, k] + xy * to_pixels[t, 1, k]
                along_y = xy * to_pixels[t, 0, k] + yy * to_pixels[t, 1, k]
                for m in range(3):
                    out[p, k, m] += along_x * to_pixels[t, 0, m] + along_y * to_pixels[t, 1, m]


def coupled(
    cov: Array,
    positions_A: Array,
    reach_A: float,
    at: Array,
    amplitude: Array,
    sigma_px: Array,
    weight: Array,
    to_pixels: Array,
    threads: int = 1,
) -> Array:
    """Position covariances (n, 3, 3) raised by what the atoms within `reach_A` leave undetermined.

    Second order of the inverse of the whole information matrix about its blocks: C_i + Σ_j C_i F_ij C_j F_ji C_i, where
    F_ij, the overlap of two Gaussians' derivatives, is written in closed form.
    """
    pairs = cKDTree(positions_A).query_pairs(reach_A, output_type="ndarray").astype(np.int64)
    between = np.zeros((len(pairs), 3, 3))
    share_out(_couple, len(pairs), threads, at, amplitude, sigma_px, weight, to_pixels, pairs, between)
    raised = cov.copy()
    for (i, j), f in (((pairs[:, 0], pairs[:, 1]), between), ((pairs[:, 1], pairs[:, 0]), between.transpose(0, 2, 1))):
        half = cov[i] @ f
        np.add.at(raised, i, half @ cov[j] @ half.transpose(0, 2, 1))
    return raised


def inflation(cov: Array, scores: Array) -> float:
    """Factor ≥ 1 by which the covariance (n, k, k) falls short of what the scatter of the scores (n, tilts, k) shows.

    The mean over atoms of tr(F⁻¹ Σ_t g_t g_tᵀ)/k, corrected for the k parameters fitted to two numbers per tilt; 1 when
    the noise is white and the model right.
    """
    sound = np.isfinite(cov).all(axis=(1, 2))
    if not sound.any():
        return 1.0
    size, tilts = cov.shape[-1], scores.shape[1]
    trace = np.einsum("aij,ati,atj->a", cov[sound], scores[sound], scores[sound], optimize=True)
    free = max(1 - size / (2 * tilts), 1 / (2 * tilts))
    return max(float(trace.mean()) / (size * free), 1.0)
