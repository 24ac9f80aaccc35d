"""Defocus, astigmatism, rotation and handedness of the scan from the images in the bright-field disk.

Every point of the disk sees the specimen along its own direction: its image is shifted by C λk in the frame of the
detector. `Overlap.energy` measures how well a hypothesis explains all of them; it is searched over a grid at low
frequencies, for both hands of the frame, and refined by Newton's method. Turning the scan by 180° and reversing the
defocus only reverses the sign of the phase: of the two, the one is right whose phase is positive where the specimen
scatters into the dark field.

Standard deviations are those of a maximum likelihood estimate whose model need not hold: H⁻¹ J H⁻¹ with H the curvature
and J the scatter of the gradients over the frequencies (White, doi:10.2307/1912526).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from scipy import optimize

from ptycho.calibrate.overlap import Illumination, Overlap

_COARSE = 0.28
_REACH = 12.0
_CANDIDATES, _FINALISTS = 3, 2
_LEAST_SIGMAS = 5.0
_DEFOCUS_MODEL_ERROR = 0.02
_ROTATION_MODEL_ERROR_DEG = 0.1


@dataclass(frozen=True)
class Parallax:
    """What the images in the disk say, with standard deviations.

    handed_sigmas: how many standard deviations the given hand explains more than the other.
    sign_sigmas: how many decide for this against (−defocus, rotation + 180°).
    """

    illumination: Illumination
    defocus_sigma_A: float
    rotation_sigma_deg: float
    astigmatism_sigma_A: float
    handed_sigmas: float
    sign_sigmas: float


def measure_parallax(overlap: Overlap, stated_defocus_A: float) -> Parallax | None:
    """Illumination that explains the disk best, searched within 12 depths of field and 2.5 times the stated defocus.

    None when neither hand of the frame explains significantly more than the other: then nothing can be told.
    """
    right, left = (_search(overlap, stated_defocus_A, transposed) for transposed in (False, True))
    best, other = (right, left) if right[0] >= left[0] else (left, right)
    gain = overlap.energy(best[1]) - overlap.energy(other[1])
    handed = float(gain.sum() / max(np.linalg.norm(gain - gain.mean()), 1e-30))
    if handed < _LEAST_SIGMAS:
        return None
    return _refine(overlap, best[1], handed)


def _search(overlap: Overlap, stated_A: float, transposed: bool) -> tuple[float, Illumination]:
    """Energy and best defocus and rotation for one hand of the frame; rotations within ±90° are enough."""
    reach = max(_REACH, 2.5 * abs(stated_A) / overlap.depth_of_field_A)
    coarse = overlap.low(min(_COARSE, 5.0 / reach))
    grid = [Illumination(defocus, turn, transposed) for defocus, turn in _grid(coarse, reach)]
    energies = np.array([coarse.energy(at).sum() for at in grid])
    starts = [grid[i] for i in _peaks(grid, energies, overlap.depth_of_field_A)]
    starts += [Illumination(sign * stated_A, 0.0, transposed) for sign in (1, -1)]
    middle = overlap.low(2 * _COARSE)
    climbed = sorted((_climb(coarse, start) for start in starts), key=lambda pair: -pair[0])
    refined = [_climb(middle, start) for _, start in climbed[:_FINALISTS]]
    return _climb(overlap, max(refined, key=lambda pair: pair[0])[1])


def _grid(coarse: Overlap, reach: float) -> list[tuple[float, float]]:
    """Defocus in Å and rotation in degrees, so close that the phase at the rim changes by some two radians from one to
    the next."""
    highest = float(np.hypot(*coarse.q).max()) / coarse.radius
    step = 0.35 / highest
    out = []
    for depth in (np.arange(-math.ceil(reach / step), math.ceil(reach / step) + 1) * step).tolist():
        turns = max(6, math.ceil(math.pi * 2 * math.pi * abs(depth) * highest / 2.5))
        out += [(depth * coarse.depth_of_field_A, -90 + 180 * t / turns) for t in range(turns)]
    return out


def _peaks(grid: list[Illumination], energies: np.ndarray, depth_A: float) -> list[int]:
    """The best points of the grid that are not beside a better one."""
    chosen: list[int] = []
    for i in np.argsort(-energies).tolist():
        apart = all(
            abs(grid[i].defocus_A - grid[j].defocus_A) > 1.5 * depth_A
            or abs((grid[i].rotation_deg - grid[j].rotation_deg + 90) % 180 - 90) > 15
            for j in chosen
        )
        if apart:
            chosen.append(i)
        if len(chosen) == _CANDIDATES:
            break
    return chosen


def _climb(overlap: Overlap, start: Illumination) -> tuple[float, Illumination]:
    """Nearest maximum over defocus and rotation (Nelder and Mead, doi:10.1093/comjnl/7.4.308)."""
    steps = _steps(overlap, start)

    def at(p: np.ndarray) -> Illumination:
        return _moved(start, np.array([p[0] * steps[0], 0, 0, p[1] * steps[3]]))

    def loss(p: np.ndarray) -> float:
        return -float(overlap.energy(at(p)).sum())

    simplex = np.array([[-2.0, -1.5], [2.0, -1.5], [0.0, 2.0]])
    found = optimize.minimize(
        loss,
        np.zeros(2),
        method="Nelder-Mead",
        options={"initial_simplex": simplex, "xatol": 0.2, "fatol": 0.5, "maxfev": 40},
    )
    return -float(found.fun), at(found.x)


def _steps(overlap: Overlap, at: Illumination) -> np.ndarray:
    """Changes of (defocus, astigmatism a, b, rotation) that turn the phase at the rim by some tenths of a radian."""
    highest = float(np.median(np.hypot(*overlap.q))) / overlap.radius
    depth = 0.06 / highest
    turn = math.degrees(min(0.08, depth / max(abs(at.defocus_A) / overlap.depth_of_field_A, 1e-3)))
    return np.array([*(3 * [depth * overlap.depth_of_field_A]), turn])


def _moved(at: Illumination, change: np.ndarray) -> Illumination:
    a, b = at.astigmatism_A
    return replace(
        at,
        defocus_A=at.defocus_A + float(change[0]),
        astigmatism_A=(a + float(change[1]), b + float(change[2])),
        rotation_deg=at.rotation_deg + float(change[3]),
    )


def _refine(overlap: Overlap, at: Illumination, handed: float) -> Parallax:
    """Newton's method for defocus, astigmatism and rotation, their errors, and the sign."""
    steps = _steps(overlap, at)
    for _ in range(3):
        gradients, curvature = _derivatives(overlap, at, steps)
        move = np.linalg.solve(_definite(curvature), gradients.sum(1))
        at = _moved(at, np.clip(move, -3, 3) * steps)
    sigma = _sigmas(*_derivatives(overlap, at, steps)) * steps
    sign = overlap.positivity(at)
    return Parallax(
        at if sign >= 0 else opposite(at),
        float(np.hypot(sigma[0], _DEFOCUS_MODEL_ERROR * max(abs(at.defocus_A), overlap.depth_of_field_A))),
        float(np.hypot(sigma[3], _ROTATION_MODEL_ERROR_DEG)),
        float(np.hypot(*sigma[1:3]) / math.sqrt(2)),
        handed,
        abs(sign),
    )


def opposite(at: Illumination) -> Illumination:
    """The other illumination that gives the same patterns but for the sign of the phase."""
    a, b = at.astigmatism_A
    return replace(at, defocus_A=-at.defocus_A, astigmatism_A=(-a, -b), rotation_deg=at.rotation_deg % 360 - 180)


def _derivatives(overlap: Overlap, at: Illumination, steps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Gradient of each frequency's energy (parameter, q) and minus the curvature of their sum, in units of the steps."""

    def energy(change: np.ndarray) -> np.ndarray:
        return overlap.energy(_moved(at, change))

    unit = np.diag(steps)
    centre = energy(0 * steps).sum()
    plus, minus = ([energy(sign * u) for u in unit] for sign in (1, -1))
    gradients = np.array([0.5 * (p - m) for p, m in zip(plus, minus, strict=True)])
    second = [float(p.sum() + m.sum() - 2 * centre) for p, m in zip(plus, minus, strict=True)]
    curvature = np.diag(second)
    for i in range(len(unit)):
        for j in range(i):
            mixed = energy(unit[i] + unit[j]).sum() + energy(-unit[i] - unit[j]).sum() - 2 * centre
            curvature[i, j] = curvature[j, i] = 0.5 * (mixed - second[i] - second[j])
    return gradients, -curvature


def _definite(curvature: np.ndarray) -> np.ndarray:
    """Nearest matrix whose eigenvalues are at least a thousandth of the largest."""
    values, vectors = np.linalg.eigh(curvature)
    return (vectors * np.maximum(values, 1e-3 * np.abs(values).max())) @ vectors.T


def _sigmas(gradients: np.ndarray, curvature: np.ndarray) -> np.ndarray:
    centred = gradients - gradients.mean(1, keepdims=True)
    inverse = np.linalg.inv(_definite(curvature))
    return np.sqrt(np.diag(inverse @ (centred @ centred.T) @ inverse))
