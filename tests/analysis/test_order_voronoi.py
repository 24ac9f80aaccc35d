"""Voronoi cells: shapes of crystals and of the icosahedron, volumes, surfaces, and another implementation."""

from __future__ import annotations

import numpy as np
import pytest

from analysis import Cell
from analysis.order import motifs, pentagon_share, voronoi

FCC = np.array([[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]])
BCC = np.array([[0, 0, 0], [0.5, 0.5, 0.5]])
NAME = {"fcc": "fcc or hcp <0,12,0,0>", "bcc": "bcc <0,6,0,8>"}


def lattice(basis: np.ndarray, copies: int) -> np.ndarray:
    steps = np.array(np.meshgrid(*[range(copies)] * 3)).reshape(3, -1).T
    return (basis + steps[:, None]).reshape(-1, 3)


def icosahedron() -> np.ndarray:
    golden = (1 + 5**0.5) / 2
    corners = [np.roll([0, a, b * golden], k) for k in range(3) for a in (-1, 1) for b in (-1, 1)]
    return np.array([[0, 0, 0], *corners], float)


@pytest.mark.parametrize("copies", [1, 2, 5])
@pytest.mark.parametrize(("name", "basis"), [("fcc", FCC), ("bcc", BCC)])
def test_exact_crystals_have_their_polyhedra(name, basis, copies):
    cells = voronoi(lattice(basis, copies), Cell(np.eye(3) * copies))
    assert motifs(cells) == {NAME[name]: len(cells)}
    np.testing.assert_allclose(cells.volume_A3, 1 / len(basis))
    assert cells.closed.all() and pentagon_share(cells) == 0
    assert set(cells.coordination) == {12 if name == "fcc" else 14}


@pytest.mark.parametrize(("name", "basis"), [("fcc", FCC), ("bcc", BCC)])
@pytest.mark.parametrize("sigma", [1e-9, 1e-6, 1e-3, 0.02, 0.03])
def test_crystals_keep_their_polyhedra_as_atoms_move(rng, name, basis, sigma):
    at = lattice(basis, 5)
    cells = voronoi(at + rng.normal(size=at.shape) * sigma, Cell(np.eye(3) * 5))
    assert motifs(cells)[NAME[name]] > 0.95 * len(at)
    assert cells.volume_A3.sum() == pytest.approx(125)


def test_without_a_least_area_fcc_falls_apart(rng):
    at = lattice(FCC, 4)
    cells = voronoi(at + rng.normal(size=at.shape) * 1e-3, Cell(np.eye(3) * 4), least_area=0)
    assert motifs(cells).get(NAME["fcc"], 0) < 0.2 * len(at)
    # Euler: corners where three edges meet give polygons of 6 − 12/f edges on average.
    edges = cells.faces @ np.arange(3, 13)
    np.testing.assert_array_equal(edges, 6 * cells.coordination - 12)


def test_the_middle_of_an_icosahedron_is_a_dodecahedron():
    cells = voronoi(icosahedron())
    assert cells.closed.tolist() == [True] + [False] * 12
    assert cells.index[0].tolist() == [0, 0, 12, 0]
    assert motifs(cells) == {"icosahedron <0,0,12,0>": 1}
    assert pentagon_share(cells) == cells.pentagons[0] == 1
    assert np.isnan(cells.volume_A3[1:]).all() and not cells.faces[1:].any()


def test_volumes_of_a_random_box_add_up_and_agree_with_freud(rng):
    at, edge = rng.random((400, 3)) * 12 + 30, 12.0
    cells = voronoi(at, Cell(np.eye(3) * edge))
    assert cells.volume_A3.sum() == pytest.approx(edge**3)
    freud = pytest.importorskip("freud")
    theirs = freud.locality.Voronoi().compute((freud.box.Box.cube(edge), (at - 36).astype(np.float32)))
    np.testing.assert_allclose(cells.volume_A3, theirs.volumes, rtol=1e-3)
    every = voronoi(at, Cell(np.eye(3) * edge), least_area=0)
    assert every.coordination.sum() == pytest.approx(len(theirs.nlist), rel=0.005)


def test_a_slanted_box_of_few_atoms_has_the_cells_of_many(rng):
    edges = np.array([[3, 0, 0], [1.2, 3, 0], [-1, 0.7, 2.5]])
    at = rng.random((6, 3)) @ edges
    once = voronoi(at, Cell(edges))
    steps = np.array(np.meshgrid(*[range(3)] * 3)).reshape(3, -1).T @ edges
    often = voronoi((steps[:, None] + at).reshape(-1, 3), Cell(edges * 3))
    np.testing.assert_allclose(often.volume_A3, np.tile(once.volume_A3, 27))
    np.testing.assert_array_equal(often.faces, np.tile(once.faces, (27, 1)))


def test_a_crystalline_ball_is_closed_below_its_surface():
    at = lattice(FCC, 10) - 5
    radius = np.linalg.norm(at, axis=1)
    ball, radius = at[radius < 4.3], radius[radius < 4.3]
    cells = voronoi(ball)
    assert cells.closed[radius < 4.3 - 0.9].all() and not cells.closed[radius > 4.3 - 0.4].any()
    assert motifs(cells) == {NAME["fcc"]: cells.closed.sum()}
    np.testing.assert_allclose(cells.volume_A3[cells.closed], 0.25)


def test_a_slab_is_open_at_its_two_sides_only():
    at = lattice(BCC, 6)
    cells = voronoi(at, Cell(np.diag([6, 6, 20.0]), (True, True, False)))
    inner = (at[:, 2] > 0.9) & (at[:, 2] < 4.6)
    assert cells.closed[inner].all() and not cells.closed[(at[:, 2] < 0.1) | (at[:, 2] > 5.4)].any()
    np.testing.assert_allclose(cells.volume_A3[inner], 0.5)


def test_a_mask_and_a_reach():
    cells = voronoi(lattice(FCC, 2), Cell(np.eye(3) * 2))
    assert motifs(cells, np.arange(32) < 5) == {NAME["fcc"]: 5}
    assert np.isnan(pentagon_share(cells, np.zeros(32, bool)))
    assert not voronoi(icosahedron(), reach_A=1.0).closed.any()
    assert voronoi(icosahedron(), reach_A=1.5).closed.sum() == 1


@pytest.mark.parametrize(
    "at",
    [np.zeros((0, 3)), np.zeros((1, 3)), np.eye(3), np.outer(np.arange(9), [1, 2, 3]), lattice(BCC, 3) * [1, 1, 0]],
)
def test_atoms_that_span_no_volume_have_open_cells(at):
    cells = voronoi(at)
    assert not cells.closed.any() and len(cells) == len(at) and not cells.coordination.any()
    assert motifs(cells) == {} and np.isnan(pentagon_share(cells))


def test_a_single_layer_and_a_single_row_have_open_cells():
    layer = lattice(BCC, 3)[::2] * [1, 1, 0]
    for periodic in ((True, True, False), (True, False, False)):
        assert not voronoi(layer[:9], Cell(np.eye(3) * 3, periodic)).closed.any()


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="least_area"):
        voronoi(FCC, least_area=0.5)
    with pytest.raises(ValueError, match="different places"):
        voronoi(np.vstack([FCC, FCC[:1]]), Cell(np.eye(3)))
