"""Rings: known networks by hand, a second implementation on random graphs, the published lists ring for ring."""

from __future__ import annotations

from itertools import combinations

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis import (
    BondRule,
    Cell,
    Network,
    alternating_share,
    bonds,
    former_sizes,
    ring_shapes,
    ring_statistics,
    rings,
    size_histogram,
)

DEFINITIONS = ["primitive", "king", "guttman", "mcb"]


def of_pairs(n: int, pairs, **options) -> list[tuple[int, ...]]:
    return list(rings(Network(n, np.array(pairs, dtype=int).reshape(-1, 2)), **options))


def of_graph(graph: nx.Graph, **options) -> list[tuple[int, ...]]:
    graph = nx.convert_node_labels_to_integers(graph)
    return list(rings(graph, **options))


def canonical(ring) -> tuple[int, ...]:
    """Smallest first, second < last: by trying all readings, unlike the search itself."""
    n = len(ring)
    return min(tuple(ring[(start + step * k) % n] for k in range(n)) for start in range(n) for step in (1, -1))


def brute_force(graph: nx.Graph, definition: str, max_size: int) -> set[tuple[int, ...]]:
    """The definitions word by word on all simple cycles."""
    cycles = [canonical(cycle) for cycle in nx.simple_cycles(graph, length_bound=max_size)]
    if definition == "primitive":
        distance = dict(nx.all_pairs_shortest_path_length(graph))
        return {
            ring
            for ring in cycles
            if all(
                distance[ring[i]][ring[j]] == min(j - i, len(ring) - j + i)
                for i, j in combinations(range(len(ring)), 2)
            )
        }
    size = 3 if definition == "king" else 2
    shortest: dict[tuple[int, ...], list[tuple[int, ...]]] = {}
    for ring in sorted(cycles, key=len):
        for i in range(len(ring)):
            part = tuple(ring[(i + k) % len(ring)] for k in range(size))
            known = shortest.setdefault(min(part, part[::-1]), [])
            if not known or len(known[0]) == len(ring):
                known.append(ring)
    return {ring for group in shortest.values() for ring in group}


@st.composite
def graphs(draw) -> nx.Graph:
    n = draw(st.integers(3, 11))
    pairs = list(combinations(range(n), 2))
    chosen = draw(st.lists(st.sampled_from(pairs), min_size=2, max_size=2 * n, unique=True))
    graph = nx.Graph(chosen)
    graph.add_nodes_from(range(n))
    return graph


@settings(max_examples=150, deadline=None)
@given(graph=graphs(), definition=st.sampled_from(["primitive", "king", "guttman"]), max_size=st.integers(3, 11))
def test_random_graphs_against_all_simple_cycles(graph, definition, max_size):
    found = of_pairs(len(graph), graph.edges, definition=definition, max_size=max_size)
    assert len(set(found)) == len(found)
    assert set(found) == brute_force(graph, definition, max_size)


@settings(max_examples=100, deadline=None)
@given(graph=graphs())
def test_minimum_cycle_basis_has_the_sizes_of_networkx(graph):
    found = of_pairs(len(graph), graph.edges, definition="mcb")
    assert sorted(map(len, found)) == sorted(map(len, nx.minimum_cycle_basis(graph)))


def test_larger_sparse_graphs_against_all_simple_cycles():
    """Long rings in networks of 80 atoms."""
    for seed in range(4):
        graph = nx.random_regular_graph(3, 80, seed=seed)
        assert set(of_graph(graph, max_size=13)) == brute_force(graph, "primitive", 13)


@settings(max_examples=50, deadline=None)
@given(graph=graphs(), seed=st.integers(0, 1000))
def test_numbering_of_atoms_does_not_matter(graph, seed):
    order = np.random.default_rng(seed).permutation(len(graph))
    edges = np.array(graph.edges).reshape(-1, 2)
    found = of_pairs(len(graph), edges)
    renamed = of_pairs(len(graph), order[edges])
    assert {canonical([int(order[a]) for a in ring]) for ring in found} == set(renamed)


@pytest.mark.parametrize("definition", DEFINITIONS)
@pytest.mark.parametrize("size", [3, 4, 5, 6, 17, 18, 23, 24])
def test_a_single_ring_odd_or_even(definition, size):
    assert of_graph(nx.cycle_graph(size), definition=definition) == [tuple(range(size))]
    assert of_graph(nx.cycle_graph(size), definition=definition, max_size=size) == [tuple(range(size))]
    if size > 3:
        assert of_graph(nx.cycle_graph(size), definition=definition, max_size=size - 1) == []


@pytest.mark.parametrize(("definition", "expected"), [
    ("primitive", {4: 6, 6: 4}), ("king", {4: 6}), ("guttman", {4: 6}), ("mcb", {4: 5}),
])  # fmt: skip
def test_cube(definition, expected):
    """Six faces; the four hexagons about the space diagonals are shortest-path rings too."""
    assert size_histogram(of_graph(nx.hypercube_graph(3), definition=definition)) == expected


@pytest.mark.parametrize("definition", ["king", "guttman"])
def test_buckminsterfullerene_faces(definition):
    assert size_histogram(of_graph(buckyball(), definition=definition)) == {5: 12, 6: 20}


def test_buckminsterfullerene_primitive_rings():
    """12 pentagons, 20 hexagons, and the belts of 18 atoms that go all the way round the cage."""
    found = of_graph(buckyball(), max_size=30)
    assert size_histogram(found) == {5: 12, 6: 20, 18: 10}
    assert len(of_graph(buckyball(), definition="mcb")) == 90 - 60 + 1


def buckyball() -> nx.Graph:
    """Truncated icosahedron: the corner of face pair (a, b) at a is joined to (b, a) and to its neighbours about a."""
    ico = nx.icosahedral_graph()
    graph = nx.Graph(((a, b), (b, a)) for a, b in ico.edges)
    graph.add_edges_from(((a, b), (a, c)) for a in ico for b, c in combinations(ico[a], 2) if ico.has_edge(b, c))
    return graph


@pytest.mark.parametrize("definition", ["primitive", "guttman"])
def test_graphite_sheet_has_only_its_hexagons(definition):
    assert size_histogram(of_graph(nx.hexagonal_lattice_graph(5, 6), definition=definition)) == {6: 30}


@pytest.mark.parametrize("definition", ["primitive", "king", "guttman"])
def test_diamond_has_only_six_rings_twelve_through_each_inner_atom(definition):
    fcc = np.array([[0, 0, 0], [0, 2, 2], [2, 0, 2], [2, 2, 0]])
    cells = np.stack(np.meshgrid(*[np.arange(4)] * 3, indexing="ij"), -1).reshape(-1, 1, 3) * 4
    positions = np.concatenate([(cells + fcc).reshape(-1, 3), (cells + fcc + 1).reshape(-1, 3)]).astype(float)
    pairs = bonds(positions, ["C"] * len(positions), [BondRule("C", "C", 1.8)])
    found = rings(pairs, definition=definition, max_size=10 if definition == "king" else 24)
    inner = int(np.argmin(np.linalg.norm(positions - positions.mean(axis=0), axis=1)))
    through = [ring for ring in found if inner in ring]
    if definition == "king":
        through = [ring for ring in through if len(ring) == 6]
    else:
        assert set(size_histogram(found)) == {6}
    assert len(through) == 12


def test_no_rings_without_cycles():
    for definition in DEFINITIONS:
        assert of_pairs(0, [], definition=definition) == []
        assert of_pairs(1, [], definition=definition) == []
        assert of_graph(nx.balanced_tree(2, 4), definition=definition) == []


def test_dangling_atoms_and_repeated_bonds_change_nothing():
    pairs = [(9, 2), (2, 5), (5, 9), (9, 5), (5, 7), (7, 3)]
    assert of_pairs(12, pairs) == [(2, 5, 9)]


def test_canonical_and_sorted_by_size():
    graph = nx.compose(nx.cycle_graph([5, 1, 4, 0]), nx.cycle_graph([9, 7, 8]))
    assert of_pairs(10, graph.edges) == [(7, 8, 9), (0, 4, 1, 5)]


def test_sizes_outside_the_range_are_left_out_but_still_count_as_shortcuts():
    square_with_diagonal = [(0, 1), (1, 2), (2, 3), (3, 0), (0, 2)]
    assert of_pairs(4, square_with_diagonal) == [(0, 1, 2), (0, 2, 3)]
    assert of_pairs(4, square_with_diagonal, min_size=4) == []


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"definition": "rings"}, "expected one of primitive, king, guttman, mcb"),
        ({"min_size": 2}, "3 <= min_size <= max_size"),
        ({"max_size": 5, "min_size": 6}, "3 <= min_size <= max_size"),
        ({"bonds": [(0, 4)]}, "names no atom"),
        ({"bonds": [(-1, 0)]}, "names no atom"),
        ({"bonds": [(1, 1)]}, "joins an atom to itself"),
        ({"bonds": [(0, 1, 2)]}, "two atoms per bond"),
        ({"bonds": [(0.0, 1.0)]}, "expected integers"),
    ],
)
def test_what_does_not_fit_is_said(change, sentence):
    with pytest.raises(ValueError, match=sentence):
        rings(Network(4, np.array(change.pop("bonds", [(0, 1)]))), **change)


def test_alternating_share():
    found = [(0, 1, 2, 3), (0, 1, 3, 2), (0, 1, 2)]
    share = alternating_share(found, ["Si", "O", "Si", "O"])
    assert share == {3: 0.0, 4: 0.5}
    assert alternating_share([], []) == {}


@pytest.fixture(scope="module")
def published(shared):
    from scipy.io import loadmat

    return {
        path.stem.removeprefix("Rings_Model_aSiO2_Dose"): loadmat(path)
        for path in (shared / "sio2_rings").glob("*.mat")
    }


def published_network(file, which: str) -> tuple[Network, set[tuple[int, ...]]]:
    """Bonds in the window |d - 1.66 Å| <= delta, and stored rings of the truth or the model."""
    name, delta, stored = {
        "truth": ("ref_pos_all", "delta_ref", "cycles_sort_ref"),
        "model": ("atom_pos_all", "delta", "cycles_sort_model"),
    }[which]
    positions = file[name].T
    pairs = bonds(positions, ["X"] * len(positions), [BondRule("any", "any", 1.66, float(file[delta][0, 0]))])
    return pairs, {tuple(int(a) - 1 for a in ring.ravel()) for ring in file[stored][:, 0]}


@pytest.mark.parametrize(
    ("name", "which", "count"),
    [
        ("1p6e3_multislice_cov35pm_S1p0N1000", "truth", 4418),
        ("1p6e3_multislice_cov35pm_S1p0N1000", "model", 3695),
        ("1p6e4_multislice_cov35pm_S1p0N1000", "model", 3867),
        ("1p6e3_single_slice_cov35pm_S2p0N1000", "model", 1870),
        ("1p6e4_single_slice_cov35pm_S1p0N1000", "model", 2717),
    ],
)
def test_published_lists_ring_for_ring(published, name, which, count):
    pairs, stored = published_network(published[name], which)
    assert len(stored) == count
    assert set(rings(pairs, min_size=6, max_size=18)) == stored


@pytest.mark.parametrize(
    ("definition", "max_size", "expected"),
    [
        ("primitive", 24, {6: 181, 8: 608, 10: 999, 12: 1048, 14: 883, 16: 465, 18: 234, 20: 83, 22: 44, 24: 8}),
        ("king", 18, {6: 181, 8: 616, 10: 1156, 12: 1781, 14: 2096, 16: 1242, 18: 349}),
        ("guttman", 18, {6: 181, 8: 608, 10: 978, 12: 714, 14: 186, 16: 27, 18: 6}),
        ("mcb", 24, {6: 181, 8: 585, 10: 820, 12: 573, 14: 191, 16: 20, 18: 5, 20: 1}),
    ],
)
def test_published_glass_by_every_definition(published, definition, max_size, expected):
    pairs, _ = published_network(published["1p6e3_multislice_cov35pm_S1p0N1000"], "truth")
    assert len(pairs) == 10071
    assert size_histogram(rings(pairs, definition=definition, max_size=max_size)) == expected


@pytest.mark.parametrize(
    ("name", "headline"),
    [("1p6e3_single_slice_cov35pm_S2p0N1000", 0.3382), ("1p6e3_multislice_cov35pm_S1p0N1000", 0.8063)],
)
def test_published_alternating_shares(published, name, headline):
    """The published 80.6 % and 33.8 % are the mean over even sizes 6-18 of the share of alternating rings."""
    file = published[name]
    pairs, _ = published_network(file, "model")
    codes = file["atoms_type_all"].ravel()
    symbols = ["O" if code == codes.min() else "Si" for code in codes]
    share = alternating_share(rings(pairs, min_size=6, max_size=18), symbols)
    assert np.mean([share[size] for size in range(6, 19, 2)]) == pytest.approx(headline, abs=5e-5)


@pytest.mark.parametrize(
    ("name", "matched"), [("1p6e4_multislice_cov35pm_S1p0N1000", 1.0), ("1p6e3_multislice_cov35pm_S1p0N1000", 0.73)]
)
def test_unlike_bonds_recover_the_rings_of_the_published_truth(published, name, matched):
    """Rings of 6-18 of the published model, its atoms matched to true ones of the right element within 0.5 Å."""
    from scipy.spatial import cKDTree

    file = published[name]
    known, model = file["ref_pos_all"].T, file["atom_pos_all"].T
    codes, true_codes = file["atoms_type_all"].ravel(), file["Ref_Type"].ravel()
    symbols, true_symbols = (np.where(c == c.min(), "O", "Si") for c in (codes, true_codes))
    distance, nearest = cKDTree(known).query(model)
    fits = (distance < 0.5) & (true_symbols[nearest] == symbols)
    truth = set(rings(bonds(known, true_symbols, [BondRule("Si", "O", 2.2)]), min_size=6, max_size=18))
    found = rings(bonds(model, symbols, [BondRule("Si", "O", 2.2)]), min_size=6, max_size=18)
    named = {canonical([int(nearest[a]) for a in ring]) for ring in found if fits[list(ring)].all()}
    assert len(truth) == 4427
    assert len(named & truth) >= matched * len(truth)


def test_agreement_with_matscipy_on_random_networks():
    """Twenty random periodic networks of 120 atoms; matscipy counts shortest-path rings up to max length − 1."""
    pytest.importorskip("matscipy")
    from ase import Atoms as AseAtoms
    from matscipy.neighbours import neighbour_list
    from matscipy.rings import ring_statistics

    for seed in range(20):
        rng = np.random.default_rng(seed)
        box = 9.0 + rng.random(3)
        atoms = AseAtoms("C120", positions=rng.random((120, 3)) * box, cell=box, pbc=True)
        reach = 1.75
        assert len(neighbour_list("i", atoms, reach)) > 120
        other = ring_statistics(atoms, reach, maxlength=13)
        network = bonds(atoms.positions, ["C"] * 120, [BondRule("C", "C", reach)], Cell(atoms.cell.array))
        assert rings(network, max_size=12).sizes == {n: int(c) for n, c in enumerate(other) if c and n <= 12}


def test_a_network_goes_to_networkx_and_back(rng):
    network = bonds(rng.random((40, 3)) * 5, ["C"] * 40, [BondRule("C", "C", 1.6)], Cell(np.eye(3) * 5))
    graph = network.to_networkx()
    again = Network.from_networkx(graph)
    assert graph.number_of_edges() == len(network)
    np.testing.assert_array_equal(again.pairs, network.pairs)
    np.testing.assert_array_equal(again.shifts, network.shifts)
    assert rings(graph) == rings(network)
    with pytest.raises(ValueError, match="convert_node_labels_to_integers"):
        rings(nx.Graph([("a", "b")]))


def test_what_a_long_chain_holds_is_told_at_once():
    """A million atoms in a line: no rings, whatever has to be stripped from both ends."""
    n = 1_000_000
    chain = Network(n, np.column_stack([np.arange(n - 1), np.arange(1, n)]))
    for definition in DEFINITIONS:
        assert len(rings(chain, definition=definition)) == 0


def test_a_list_of_rings_is_a_sequence():
    found = rings(nx.compose(nx.cycle_graph([0, 1, 2]), nx.cycle_graph([2, 3, 4, 5])))
    assert list(found) == [(0, 1, 2), (2, 3, 4, 5)] == found[:]
    assert (len(found), found[-1], found[0]) == (2, (2, 3, 4, 5), (0, 1, 2))
    assert found.of_sizes(4, 9) == [(2, 3, 4, 5)]
    with pytest.raises(IndexError, match="ring 2 of 2"):
        found[2]


def test_statistics_of_two_rings_that_share_an_atom():
    """A triangle and a square at atom 2, and an atom apart."""
    graph = nx.compose(nx.cycle_graph([0, 1, 2]), nx.cycle_graph([2, 3, 4, 5]))
    graph.add_node(6)
    told = ring_statistics(rings(graph), 7)
    assert told.count == {3: 1, 4: 1}
    assert told.r_n == pytest.approx({3: 1 / 7, 4: 1 / 7})
    assert told.p_n == pytest.approx({3: 3 / 7, 4: 4 / 7})
    assert told.p_min == pytest.approx({3: 1, 4: 3 / 4})
    assert told.p_max == pytest.approx({3: 2 / 3, 4: 1})
    only = ring_statistics(rings(graph), 7, of=np.arange(7) < 3)
    assert only.p_n == pytest.approx({3: 1, 4: 1 / 3})
    assert only.r_n == pytest.approx({3: 1 / 3, 4: 1 / 12})


def test_shapes_of_a_flat_and_of_a_folded_ring():
    angle = np.arange(6) * np.pi / 3
    flat = np.column_stack([2 * np.cos(angle), 2 * np.sin(angle), 0 * angle])
    folded = flat * [1, 0.5, 1] + np.array([0, 0, 0.3]) * np.array([1, -1, 1, -1, 1, -1])[:, None]
    ring = rings(nx.cycle_graph(6))
    one, other = ring_shapes(ring, flat), ring_shapes(ring, folded)
    assert (one.out_of_plane_A[0], one.roundness[0], one.radius_A[0]) == pytest.approx((0, 1, 2))
    assert other.out_of_plane_A[0] == pytest.approx(0.3)
    assert other.roundness[0] == pytest.approx(0.5)


def test_rings_by_network_formers():
    graph = nx.cycle_graph(8)
    assert former_sizes(rings(graph), ["Si", "O"] * 4, "Si") == {4: 1}
    assert former_sizes(rings(nx.path_graph(3)), ["Si", "O", "Si"], "Si") == {}
