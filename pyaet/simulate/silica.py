"""Amorphous silica: oxygen bridges on a four-fold network, relaxed, and the box that is shipped.

Every bond of a random network (`network.py`) gets an oxygen at its middle, pushed sideways, so every Si has exactly four
O and every O exactly two Si. All atoms then relax at the experimental density under springs between neighbours,

    E = Σ_pairs k/2 (d - d0)²,

Si-O, O-O within a tetrahedron, Si-Si across a bridge, and between all others only where they come too close. Bond
lengths after R. L. Mozzi, B. E. Warren, doi:10.1107/S0021889869006868. The stiff springs hold the tetrahedra, the soft
one leaves the bridges their broad angles. Positions (n, 3) in Å, Si before O, periodic in a cube.

`silica_network.extxyz` is `amorphous_silica((4, 4, 5), numpy.random.default_rng(SHIPPED_SEED))`, rounded to 1e-4 Å.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import as_file, files
from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import minimize
from scipy.spatial import cKDTree

if TYPE_CHECKING:
    from pyaet.simulate.network import Network

SHIPPED_SEED = 2026
DENSITY_G_PER_CM3 = 2.20
MASS_SIO2_G = 60.0843 / 6.02214076e23
# The network pulls its springs a little: the mean Si-O comes out at 1.61 Å.
SI_O, O_O, SI_SI = 1.60, 1.60 * np.sqrt(8 / 3), 3.08
STIFFNESS = {"Si-O": 120.0, "O-O": 20.0, "Si-Si": 2.5, "apart": 8.0}
APART_A = {("Si", "Si"): 4.0, ("Si", "O"): 3.1, ("O", "O"): 2.9}
ROUNDS = 6


@dataclass(frozen=True)
class Silica:
    """A periodic cube of silica: positions (n, 3) in Å within [0, box_A), element symbols, edge of the cube."""

    positions_A: np.ndarray
    symbols: tuple[str, ...]
    box_A: float


@dataclass(frozen=True)
class _Springs:
    """Pairs (m, 2), rest length and stiffness (m,); one-sided ones act only below their rest length."""

    pairs: np.ndarray
    length_A: np.ndarray
    stiffness: np.ndarray
    one_sided: np.ndarray


def shipped_silica() -> Silica:
    """Return the box of 640 Si and 1280 O that comes with pyaet."""
    from pyaet.io.xyz import read_xyz

    with as_file(files("pyaet.simulate") / "silica_network.extxyz") as path:
        table = read_xyz(path)
    return Silica(table.columns["pos"], tuple(table.columns["species"].tolist()), float(table.info["box_A"]))


def amorphous_silica(cells: tuple[int, int, int], rng: np.random.Generator, *, attempts: float = 300.0) -> Silica:
    """Grow a box of 8 SiO2 per diamond cell at 2.20 g/cm³; `attempts` bond switches per Si anneal its network.

    The same generator state gives the same box. Raises `ValueError` when there are fewer than 2 cells along an axis.
    """
    from pyaet.simulate.network import amorphous_network

    sites_per_A3 = DENSITY_G_PER_CM3 / MASS_SIO2_G * 1e-24
    return bridged(amorphous_network(cells, sites_per_A3, rng, attempts=attempts), rng)


def bridged(network: Network, rng: np.random.Generator) -> Silica:
    """Put an oxygen on every bond of the network and relax all atoms."""
    bonds, box_A = network.bonds, network.box_A
    ends = network.sites_A[bonds]
    across = _nearest_image(ends[:, 1] - ends[:, 0], box_A)
    sideways = np.cross(across, rng.normal(size=across.shape))
    sideways *= 0.4 / np.linalg.norm(sideways, axis=1, keepdims=True)
    positions = np.concatenate([network.sites_A, ends[:, 0] + across / 2 + sideways])
    symbols = ("Si",) * len(network.sites_A) + ("O",) * len(bonds)
    relaxed = _relaxed(positions, bonds, np.array(symbols) == "Si", box_A)
    return Silica(relaxed % box_A, symbols, box_A)


def _relaxed(positions: np.ndarray, bonds: np.ndarray, is_si: np.ndarray, box_A: float) -> np.ndarray:
    bonded = _bonded_springs(bonds, int(is_si.sum()))
    for _ in range(ROUNDS):
        springs = _joined(bonded, _apart_springs(positions, bonded.pairs, is_si, box_A))
        found = minimize(
            _energy, positions.ravel(), (springs, box_A), "L-BFGS-B", jac=True, options={"maxiter": 300, "maxcor": 20}
        )
        positions = found.x.reshape(-1, 3)
    return positions


def _bonded_springs(bonds: np.ndarray, n_si: int) -> _Springs:
    oxygen = n_si + np.arange(len(bonds))
    si_o = np.concatenate([np.stack([bonds[:, end], oxygen], axis=1) for end in (0, 1)])
    around = si_o[np.argsort(si_o[:, 0], kind="stable"), 1].reshape(n_si, 4)
    j, k = np.triu_indices(4, 1)
    o_o = np.stack([around[:, j].ravel(), around[:, k].ravel()], axis=1)
    groups = [(si_o, SI_O, "Si-O"), (o_o, O_O, "O-O"), (bonds, SI_SI, "Si-Si")]
    return _Springs(
        np.concatenate([pairs for pairs, _, _ in groups]),
        np.concatenate([np.full(len(pairs), length) for pairs, length, _ in groups]),
        np.concatenate([np.full(len(pairs), STIFFNESS[name]) for pairs, _, name in groups]),
        np.zeros(sum(len(pairs) for pairs, _, _ in groups), dtype=bool),
    )


def _apart_springs(positions: np.ndarray, bonded: np.ndarray, is_si: np.ndarray, box_A: float) -> _Springs:
    """One-sided springs between all pairs that no other spring joins and that are, or may come, too close."""
    near = cKDTree(positions % box_A, boxsize=np.full(3, box_A)).query_pairs(
        max(APART_A.values()) + 0.5, output_type="ndarray"
    )
    n = len(positions)
    code, known = (np.sort(pairs, axis=1) @ [n, 1] for pairs in (near, bonded))
    near = near[np.argsort(code)][~np.isin(np.sort(code), known)]
    lengths = np.array([APART_A["O", "O"], APART_A["Si", "O"], APART_A["Si", "Si"]])[is_si[near].sum(axis=1)]
    return _Springs(near, lengths, np.full(len(near), STIFFNESS["apart"]), np.ones(len(near), dtype=bool))


def _joined(a: _Springs, b: _Springs) -> _Springs:
    return _Springs(*(np.concatenate([getattr(a, f), getattr(b, f)]) for f in _Springs.__dataclass_fields__))


def _energy(flat: np.ndarray, springs: _Springs, box_A: float) -> tuple[float, np.ndarray]:
    """Energy of all springs and its gradient by the flattened positions."""
    positions = flat.reshape(-1, 3)
    first, second = springs.pairs.T
    step = _nearest_image(positions[second] - positions[first], box_A)
    distance = np.sqrt((step**2).sum(axis=1))
    stretch = distance - springs.length_A
    stretch[springs.one_sided & (stretch > 0)] = 0.0
    pull = (springs.stiffness * stretch / distance)[:, None] * step
    gradient = [
        np.bincount(second, pull[:, x], len(positions)) - np.bincount(first, pull[:, x], len(positions))
        for x in range(3)
    ]
    return float(0.5 * (springs.stiffness * stretch**2).sum()), np.stack(gradient, axis=1).ravel()


def _nearest_image(step: np.ndarray, box_A: float) -> np.ndarray:
    return step - box_A * np.rint(step / box_A)
