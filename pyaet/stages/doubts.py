"""What speaks against a refined model, in plain words: its counts, its two halves, its brightness, its distances."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from analysis.atoms import Atoms

if TYPE_CHECKING:
    from analysis.likelihood import Fitted, Halves
    from pyaet.plan import Input

UNEXPLAINED, STRAY = 1.1, 1.05
"""Mean deviance per pixel over that of Poisson counts, of the whole series and of one tilt beyond the others', which is doubted."""
DISAGREE, TWICE = 0.9, 2.0
"""Share of atoms that both halves find, and factor on what noise explains, from which on they are doubted."""
UNEVEN = 2.0
"""Rms of the brightness of atoms about that of their element, in standard deviations."""
BRIGHTER = (0.8, 2.5)
"""Powers of the ratio of atomic numbers between which the ratio of brightness lies."""
BOND = (0.87, 1.3)
"""Nearest neighbours over the sum of their covalent radii, the median of a particle."""
TOUCHING, CROWDED = 1.02, 0.25
"""Up to this many minimum distances apart two atoms touch; of the atoms, the share that may."""
SHELL, STRETCHED, BEYOND_CHANCE = 1.25, 0.02, 25.0
"""Bonds reach this many times the nearest neighbours' distance; share by which they are longer one way than another, and chi-squared
(5 degrees of freedom), from which on that is doubted."""
FEWEST_BONDS = 30
BARELY = 2.0
"""Median gain in log-likelihood of the atoms of an element, in units of the least asked for, below which it is doubted."""


def of_optics(source: Input | None) -> list[str]:
    """Of a plan that does not say what the probe was."""
    if source is None or (source.energy_eV is not None and source.semiangle_mrad is not None):
        return []
    return [
        "every atom is fitted as a Gaussian, because the plan does not state the probe: with input.energy_eV and input.semiangle_mrad "
        "(and c30_A) atoms look as the microscope shows them, and are placed better"
    ]


def of_fit(found: Fitted, angles_deg: np.ndarray) -> list[str]:
    """Of counts that the atoms do not explain, tilts that stray, and elements that their brightness belies."""
    said = []
    if found.misfit.mean() > UNEXPLAINED:
        said.append(
            f"the atoms do not explain the counts: {found.misfit.mean():.3g} times the deviance that electrons scatter by; wrong elements, "
            "angles, a minimum distance too large, or images that are not what they are said to be"
        )
    count, named = _strays(found.misfit, angles_deg)
    if count:
        said.append(
            f"{count} tilts are explained worse than the others, number {named}: look at them, or leave them out"
        )
    return said + _of_brightness(found) + _of_gains(found)


def _strays(deviance: np.ndarray, angles_deg: np.ndarray) -> tuple[int, str]:
    """How many tilts stand out by their deviance (n,), and the first eight by number and angle."""
    stray = np.flatnonzero(deviance > np.median(deviance) * STRAY)
    return len(stray), ", ".join(f"{k} ({angles_deg[k, 1]:+.4g}°)" for k in stray[:8])


def _of_brightness(found: Fitted) -> list[str]:
    from analysis.atoms import atomic_number

    said = []
    names = np.array(found.atoms.symbols)
    for symbol in found.amplitudes:
        off = found.brightness_z[names == symbol]
        rms = float(np.sqrt((off**2).mean())) if off.size else 0.0
        if rms > UNEVEN:
            said.append(
                f"the brightness of the {symbol} atoms scatters {rms:.1f} times as much as counting explains: another element may be "
                "missing from specimen.elements, or tilts are wrong"
            )
    present = [symbol for symbol in found.amplitudes if (names == symbol).any()]
    for light, heavy in pairwise(present):
        charges = atomic_number(heavy) / atomic_number(light)
        ratio = found.amplitudes[heavy] / found.amplitudes[light]
        low, high = (charges**power for power in BRIGHTER)
        if not low <= ratio <= high:
            said.append(
                f"{heavy} atoms are {ratio:.2f} times as bright as {light} atoms, where {low:.2f} to {high:.2f} times is expected: "
                "one of the elements is wrong or not in the particle"
            )
    return said


def _of_gains(found: Fitted) -> list[str]:
    names, said = np.array(found.atoms.symbols), []
    for symbol in found.amplitudes:
        gains = found.worth[names == symbol]
        least = found.believed[symbol]
        if gains.size and np.median(gains) < BARELY * least:
            said.append(
                f"the {gains.size} {symbol} atoms are hardly worth believing: half of them add less than {np.median(gains):.1f} to the "
                f"log-likelihood of the counts, where {least:.1f} is the least; the element may not be in the particle, or the dose is "
                "too low to show it"
            )
    return said


def of_halves(halves: Halves, angles_deg: np.ndarray) -> list[str]:
    """Of two halves of the series that find different atoms, or do not predict each other."""
    said = []
    if halves.agreement < DISAGREE:
        consistent = halves.excess <= TWICE and halves.distance_ratio <= TWICE
        said.append(
            f"two halves of the series share only {halves.agreement:.0%} of their atoms: "
            + (
                "half of the tilts are too few at this dose to find them all; what both find agrees as counting explains"
                if consistent
                else "tilts contradict each other (wrong angles, input.axes, damage, drift)"
            )
        )
    if halves.distance_ratio > TWICE:
        said.append(
            f"the atoms of two halves of the series lie {halves.distance_ratio:.1f} times as far apart as their error bars state: "
            "tilts contradict each other, and the error bars are too small"
        )
    if halves.excess > TWICE:
        said.append(
            f"atoms of one half of the series predict the other half {halves.excess:.1f} times worse than noise explains: atoms are "
            "missing or false, or tilts contradict each other"
        )
    count, named = _strays(halves.held_out, angles_deg)
    if count:
        said.append(f"{count} tilts are not predicted by the other half of the series, number {named}")
    return said


def of_distances(atoms: Atoms, min_distance_A: float) -> list[str]:
    """Of nearest neighbours that no bond of these elements has, or that crowd at the minimum distance."""
    from ase.data import atomic_numbers, covalent_radii
    from scipy.spatial import cKDTree

    if len(atoms) < 2:
        return []
    distance, index = (column[:, 1] for column in cKDTree(atoms.positions_A).query(atoms.positions_A, 2))
    radius = np.array([covalent_radii[atomic_numbers[symbol]] for symbol in atoms.symbols])
    ratio = float(np.median(distance / (radius + radius[index])))
    said = []
    if not BOND[0] <= ratio <= BOND[1]:
        said.append(
            f"nearest neighbours are {np.median(distance):.2f} Å apart, {ratio:.2f} times the sum of the covalent radii: "
            "wrong elements, a wrong pixel size, or atoms missing"
        )
    said += _of_directions(atoms.positions_A, radius, SHELL * ratio)
    crowded = float((distance < TOUCHING * min_distance_A).mean())
    if crowded > CROWDED:
        said.append(
            f"{crowded:.0%} of the atoms are as near to another as specimen.min_distance_A = {min_distance_A:g} allows: it is too large, "
            "or atoms are false"
        )
    return said


def _of_directions(positions_A: np.ndarray, radius_A: np.ndarray, farthest: float) -> list[str]:
    """Of bonds (up to `farthest` times the sum of the radii) that are longer in one direction than in another."""
    from scipy.spatial import cKDTree

    one, other = cKDTree(positions_A).query_pairs(2 * farthest * radius_A.max(), output_type="ndarray").T
    between = positions_A[one] - positions_A[other]
    length_A = np.linalg.norm(between, axis=1)
    ratio = length_A / (radius_A[one] + radius_A[other])
    bonds = (ratio > 0) & (ratio < farthest)
    if bonds.sum() < FEWEST_BONDS:
        return []
    stretch, chi2, longest = strain(between[bonds] / length_A[bonds, None], np.log(ratio[bonds]))
    if stretch < STRETCHED or chi2 < BEYOND_CHANCE:
        return []
    return [
        f"bonds along ({', '.join(f'{c:.2f}' for c in longest)}) are {stretch:.1%} longer than across, beyond chance (chi-squared "
        f"{chi2:.0f} of 5): tilt angles that are off together (a wrong step, part of the series mislabelled), or unequal pixels, shear all "
        "atoms, and no count tells; a wide missing wedge or a lattice that is not cubic does so as well"
    ]


def strain(directions: np.ndarray, log_length: np.ndarray) -> tuple[float, float, np.ndarray]:
    """How much longer bonds are along one direction than across, chi-squared of it, and that direction (3,).

    Logarithms of lengths (n,) are fitted by n·E n along unit vectors n (n, 3), E symmetric; what all directions share does not count.
    """
    x, y, z = directions.T
    terms = np.column_stack([x * x, y * y, z * z, 2 * x * y, 2 * x * z, 2 * y * z])
    inverse = np.linalg.pinv(terms.T @ terms)
    found = inverse @ (terms.T @ log_length)
    variance = ((log_length - terms @ found) ** 2).sum() / max(len(log_length) - 6, 1)
    free = np.eye(6)
    free[:3, :3] -= 1 / 3
    found = free @ found
    chi2 = float(found @ np.linalg.pinv(free @ inverse @ free) @ found / max(variance, 1e-12))
    values, vectors = np.linalg.eigh(found[np.array([[0, 3, 4], [3, 1, 5], [4, 5, 2]])])
    return float(values[2] - values[0]), chi2, vectors[:, 2]
