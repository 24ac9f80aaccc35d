"""Bond-orientational order: the published values of crystals, rotations, and another implementation."""

from __future__ import annotations

import numpy as np
import pytest

from analysis import BondRule, Cell, Network, bonds
from analysis.order import bond_order, bond_order_w, solid_bonds

GOLDEN = (1 + 5**0.5) / 2
CRYSTALS = {
    "fcc": (np.array([[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]]), np.eye(3), 0.75, 12),
    "hcp": (
        np.array([[0, 0, 0], [1 / 3, 1 / 3, 0.5]]),
        np.array([[1, 0, 0], [0.5, 0.75**0.5, 0], [0, 0, (8 / 3) ** 0.5]]),
        1.1,
        12,
    ),
    "bcc": (np.array([[0, 0, 0], [0.5, 0.5, 0.5]]), np.eye(3), 1.1, 14),
    "sc": (np.zeros((1, 3)), np.eye(3), 1.1, 6),
}
PUBLISHED = {
    "fcc": (0.1909, 0.5745, -0.1593, -0.0132),
    "hcp": (0.0972, 0.4848, 0.1341, -0.0124),
    "bcc": (0.0364, 0.5107, 0.1593, 0.0132),
    "sc": (0.7638, 0.3536, 0.1593, 0.0132),
}


def icosahedron() -> tuple[Network, np.ndarray]:
    corners = [np.roll([0, a, b * GOLDEN], k) for k in range(3) for a in (-1, 1) for b in (-1, 1)]
    return Network(13, np.array([[0, k] for k in range(1, 13)])), np.array([[0, 0, 0], *corners], float)


def crystal(name: str) -> tuple[Network, np.ndarray, Cell]:
    inside, edges, cut, number = CRYSTALS[name]
    cell, at = Cell(edges), inside @ edges
    network = bonds(at, ["Cu"] * len(at), [BondRule("any", "any", cut)], cell)
    assert (network.degree == number).all()
    return network, at, cell


@pytest.mark.parametrize("name", PUBLISHED)
@pytest.mark.parametrize("averaged", [False, True])
def test_crystals_have_their_published_order(name, averaged):
    network, at, cell = crystal(name)
    values = [f(network, at, cell, l, averaged) for f in (bond_order, bond_order_w) for l in (4, 6)]
    for found, expected in zip(values, PUBLISHED[name], strict=True):
        np.testing.assert_allclose(found, expected, atol=6e-5)
    np.testing.assert_array_equal(solid_bonds(network, at, cell), network.degree)


def test_the_middle_of_an_icosahedron():
    network, at = icosahedron()
    assert bond_order(network, at, l=4)[0] == pytest.approx(0, abs=1e-12)
    assert bond_order(network, at, l=6)[0] == pytest.approx(0.6633, abs=5e-5)
    assert bond_order_w(network, at, l=6)[0] == pytest.approx(-0.1698, abs=5e-5)
    assert np.isnan(bond_order_w(network, at, l=4)[0])


def test_order_does_not_change_as_the_particle_turns(rng):
    at = rng.normal(size=(60, 3)) * 3
    turn, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    turn *= np.linalg.det(turn)
    network = bonds(at, ["Cu"] * 60, [BondRule("any", "any", 2.5)])
    for f in (bond_order, bond_order_w):
        for l in (2, 5, 8, 16):
            np.testing.assert_allclose(f(network, at, l=l), f(network, at @ turn.T, l=l), atol=1e-9)
    np.testing.assert_allclose(bond_order_w(network, at, l=5)[network.degree > 0], 0, atol=1e-12)


@pytest.mark.parametrize("l", [3, 4, 6, 8])
def test_agrees_with_freud_on_a_random_box(rng, l):
    freud = pytest.importorskip("freud")
    at, cell = rng.random((300, 3)) * 10, Cell(np.eye(3) * 10)
    network = bonds(at, ["Cu"] * 300, [BondRule("any", "any", 2.0)], cell)
    apart = network.vectors_A(at, cell.vectors_A)
    first, second = np.concatenate([network.pairs, network.pairs[:, ::-1]]).T
    order = np.lexsort((second, first))
    vectors = np.concatenate([apart, -apart])[order]
    near = freud.locality.NeighborList.from_arrays(300, 300, first[order], second[order], vectors)
    system = (freud.box.Box.cube(10), at - 5)
    for averaged in (False, True):
        theirs = freud.order.Steinhardt(l, average=averaged).compute(system, neighbors=near).particle_order
        np.testing.assert_allclose(bond_order(network, at, cell, l, averaged), theirs, atol=2e-5)
        if l % 2 == 0:
            steinhardt = freud.order.Steinhardt(l, average=averaged, wl=True, wl_normalize=True)
            theirs = steinhardt.compute(system, neighbors=near).particle_order
            np.testing.assert_allclose(bond_order_w(network, at, cell, l, averaged), theirs, atol=2e-4)
    if l == 6:
        solid = freud.order.SolidLiquid(6, q_threshold=0.7, solid_threshold=6).compute(system, neighbors=near)
        np.testing.assert_array_equal(solid_bonds(network, at, cell), solid.num_connections)


def test_lonely_atoms_and_those_outside_the_mask_are_not_told():
    network, at = icosahedron()
    network, at = Network(14, network.pairs), np.vstack([at, [9, 9, 9]])
    assert np.isnan(bond_order(network, at)[13]) and np.isnan(bond_order_w(network, at)[13])
    assert solid_bonds(network, at)[13] == 0
    of = np.arange(14) == 0
    for f in (bond_order, bond_order_w, solid_bonds):
        assert np.isfinite(f(network, at, of=of)).tolist() == of.tolist()
    none = Network(0, np.zeros((0, 2), int))
    assert bond_order(none, np.zeros((0, 3))).shape == bond_order_w(none, np.zeros((0, 3))).shape == (0,)


def test_an_l_that_is_not_computed_is_refused():
    network, at = icosahedron()
    with pytest.raises(ValueError, match="l is 0"):
        bond_order(network, at, l=0)
