"""The silica network: coordination, density, distances and angles of the shipped box, and the generator behind it."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial import cKDTree

from pyaet.simulate import silica
from pyaet.simulate.silica import Silica, shipped_silica
from pyaet.simulate.specimen import silica_cluster


def pairs_of(box: Silica, reach_A: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs (m, 2), distances (m,) and number of Si in each pair."""
    tree = cKDTree(box.positions_A, boxsize=np.full(3, box.box_A))
    pairs = tree.query_pairs(reach_A, output_type="ndarray")
    step = np.subtract(*box.positions_A[pairs.T])
    step -= box.box_A * np.rint(step / box.box_A)
    is_si = np.array(box.symbols) == "Si"
    return pairs, np.linalg.norm(step, axis=1), is_si[pairs].sum(axis=1)


def angles_deg(box: Silica, centre: str) -> np.ndarray:
    """All angles between the bonds of the `centre` atoms."""
    pairs, _, si = pairs_of(box, 2.0)
    bonds = pairs[si == 1]
    found = []
    for i in np.flatnonzero(np.array(box.symbols) == centre):
        others = bonds[(bonds == i).any(axis=1)].sum(axis=1) - i
        step = box.positions_A[others] - box.positions_A[i]
        step -= box.box_A * np.rint(step / box.box_A)
        step /= np.linalg.norm(step, axis=1, keepdims=True)
        found.append((step @ step.T)[np.triu_indices(len(step), 1)])
    return np.degrees(np.arccos(np.concatenate(found)))


def coordination(box: Silica) -> tuple[set[int], set[int]]:
    pairs, _, si = pairs_of(box, 2.0)
    number = np.bincount(pairs[si == 1].ravel(), minlength=len(box.symbols))
    is_si = np.array(box.symbols) == "Si"
    return set(number[is_si].tolist()), set(number[~is_si].tolist())


def test_shipped_box_is_silica() -> None:
    box = shipped_silica()
    assert box.symbols.count("O") == 2 * box.symbols.count("Si") == 1280
    assert coordination(box) == ({4}, {2})
    grams = box.symbols.count("Si") * 60.0843 / 6.02214076e23
    assert grams / (box.box_A * 1e-8) ** 3 == pytest.approx(2.20, abs=0.005)
    _, distance, si = pairs_of(box, 3.2)
    bonds = distance[(si == 1) & (distance < 2.0)]
    assert bonds.mean() == pytest.approx(1.61, abs=0.005)
    assert np.abs(bonds - 1.61).max() < 0.05
    assert distance[(si == 1) & (distance >= 2.0)].min() > 2.7
    assert distance[si == 0].min() > 2.2
    assert distance[si == 2].min() > 2.6


def test_shipped_box_has_stiff_tetrahedra_and_soft_bridges() -> None:
    box = shipped_silica()
    tetrahedra, bridges = angles_deg(box, "Si"), angles_deg(box, "O")
    assert tetrahedra.mean() == pytest.approx(109.47, abs=0.5)
    assert tetrahedra.std() < 8
    assert bridges.mean() == pytest.approx(149, abs=5)
    assert 10 < bridges.std() < 20


def test_shipped_box_is_no_crystal() -> None:
    """No plane wave that fits the box orders the Si; the diamond lattice it came from reaches S = 640."""
    box = shipped_silica()
    sites = box.positions_A[np.array(box.symbols) == "Si"]
    m = np.stack(np.meshgrid(*[np.arange(-10, 11)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    m = m[(m**2).sum(axis=1) > 0]
    structure = np.abs(np.exp(2j * np.pi / box.box_A * sites @ m.T).sum(axis=0)) ** 2 / len(sites)
    assert structure.max() < 30


def test_generator_is_deterministic_and_four_fold() -> None:
    boxes = [silica.amorphous_silica((2, 2, 2), np.random.default_rng(5), attempts=20) for _ in range(2)]
    np.testing.assert_array_equal(boxes[0].positions_A, boxes[1].positions_A)
    assert coordination(boxes[0]) == ({4}, {2})
    other = silica.amorphous_silica((2, 2, 2), np.random.default_rng(6), attempts=20)
    assert not np.allclose(boxes[0].positions_A, other.positions_A)


def test_network_forces_are_the_slope_of_the_energy() -> None:
    from pyaet.simulate import network

    rng = np.random.default_rng(3)
    grown = network.amorphous_network((2, 2, 2), 0.022, rng, attempts=2)
    sites, everyone = grown.sites_A + rng.normal(0, 0.1, grown.sites_A.shape), np.arange(64)
    near, count = network._candidates(sites, grown.box_A, everyone)

    def energy(at: np.ndarray, force: np.ndarray) -> float:
        given = grown.neighbours, grown.box_A, everyone, everyone, everyone, near, count
        return network._energy(at, *given, force)

    force, direction, spare = np.zeros((64, 3)), rng.normal(size=(64, 3)), np.zeros((64, 3))
    energy(sites, force)
    slope = (energy(sites + 1e-5 * direction, spare) - energy(sites - 1e-5 * direction, spare)) / 2e-5
    assert slope == pytest.approx(-(force * direction).sum(), rel=1e-6)


def test_switches_keep_every_site_four_fold_and_free_of_triangles() -> None:
    from pyaet.simulate.network import amorphous_network

    grown = amorphous_network((2, 2, 3), 0.022, np.random.default_rng(1), scramble=3.0, attempts=5)
    adjacency = np.zeros((96, 96), dtype=int)
    for site, row in enumerate(grown.neighbours):
        assert len(set(row.tolist()) - {site}) == 4
        adjacency[site, row] = 1
    np.testing.assert_array_equal(adjacency, adjacency.T)
    assert np.trace(adjacency @ adjacency @ adjacency) == 0


def test_spring_forces_are_the_slope_of_the_energy() -> None:
    rng = np.random.default_rng(2)
    positions = rng.uniform(0, 8, (12, 3))
    pairs = np.array([[i, j] for i in range(12) for j in range(i)])
    springs = silica._Springs(pairs, rng.uniform(1, 4, 66), rng.uniform(1, 9, 66), rng.random(66) < 0.5)
    direction = rng.normal(size=36)
    _, gradient = silica._energy(positions.ravel(), springs, 8.0)
    ends = [silica._energy(positions.ravel() + sign * 1e-6 * direction, springs, 8.0)[0] for sign in (1, -1)]
    assert (ends[0] - ends[1]) / 2e-6 == pytest.approx(gradient @ direction, rel=1e-6)


def test_cluster_is_a_ball_without_loose_atoms() -> None:
    positions, symbols = silica_cluster(13.0, seed=4)
    assert np.linalg.norm(positions, axis=1).max() <= 6.5
    assert 60 <= len(symbols) <= 90
    is_si = np.array(symbols) == "Si"
    distance = np.linalg.norm(positions[is_si][:, None] - positions[~is_si], axis=-1)
    assert (distance.min(axis=0) < 1.67).all()
    assert (distance.min(axis=1) < 1.67).all()
    again, _ = silica_cluster(13.0, seed=4)
    np.testing.assert_array_equal(positions, again)
    other, _ = silica_cluster(13.0, seed=5)
    assert len(other) != len(positions) or not np.allclose(other, positions)


def test_cluster_has_the_density_of_the_box() -> None:
    positions, _ = silica_cluster(28.0, seed=0)
    assert len(positions) / (4 / 3 * np.pi * 14**3) == pytest.approx(3 * 0.02205, rel=0.03)


@pytest.mark.parametrize("diameter_A", [0.0, -3.0, 31.0, float("nan")])
def test_cluster_of_impossible_size(diameter_A: float) -> None:
    with pytest.raises(ValueError, match="expected more than 0 and at most"):
        silica_cluster(diameter_A, seed=0)
