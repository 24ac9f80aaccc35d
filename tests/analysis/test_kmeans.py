"""k-means in stages: non-atoms out, elements by all, names by neighbours; better than one pass where elements overlap."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from analysis.classify import classify
from analysis.kmeans import global_kinds, local_kinds, mixture_of, staged_kinds
from analysis.trace import Peaks, trace

LATTICE = np.array(list(product(np.arange(-16, 17, 2.0), repeat=3)))
BALL = LATTICE[np.linalg.norm(LATTICE, axis=1) < 16]


def overlapping(rng, *, drift: float, spread: float):
    """Two elements, 40 % of them 1.4 times as bright; brightness grows along x by `drift` from the centre to the edge."""
    kind = (rng.random(len(BALL)) < 0.4).astype(int)
    values = np.where(kind, 1.4, 1.0) * (1 + drift * BALL[:, 0] / 16) + spread * rng.normal(size=len(BALL))
    return values, kind


@pytest.mark.parametrize(("drift", "spread", "gain"), [(0.2, 0.08, 0.05), (0.4, 0.08, 0.1), (0.4, 0.15, 0.05)])
def test_stages_name_overlapping_elements_better_than_one_pass(rng, drift, spread, gain):
    values, kind = overlapping(rng, drift=drift, spread=spread)
    plain = global_kinds(values, 2, rng)
    staged = staged_kinds(values, BALL, 2, rng, local_radius_A=10.0)
    assert (staged == kind).mean() > (plain == kind).mean() + gain


def test_without_drift_the_neighbours_change_next_to_nothing(rng):
    values, kind = overlapping(rng, drift=0.0, spread=0.08)
    plain = global_kinds(values, 2, rng)
    staged = staged_kinds(values, BALL, 2, rng, local_radius_A=10.0)
    assert (staged == kind).mean() >= (plain == kind).mean() - 0.002
    assert (staged != plain).mean() < 0.01


@pytest.mark.parametrize("elements", [1, 2])
def test_non_atoms_are_rejected_only_where_there_are_some(rng, elements):
    atoms = np.concatenate([rng.normal(mean, 0.05, 300) for mean in (1.0, 1.6)[:elements]])
    clutter = np.abs(rng.normal(0.15, 0.08, 500))
    assert (global_kinds(atoms, elements, rng) >= 0).all()
    kind = global_kinds(np.concatenate([clutter, atoms]), elements, rng)
    assert (kind[:500] < 0).all() and (kind[500:] >= 0).all()
    assert kind[500:].tolist() == np.repeat(np.arange(elements), 300).tolist()


def test_an_atom_far_from_all_others_is_judged_by_the_whole(rng):
    values, kind = overlapping(rng, drift=0.0, spread=0.01)
    positions = np.vstack([BALL, [[500.0, 0.0, 0.0]]])
    found = local_kinds(np.append(values, 1.38), positions, np.append(kind, 0), 2, 10.0)
    assert found[-1] == 1 and (found[:-1] == kind).all()


def test_the_mixture_describes_the_classes():
    values = np.array([0.1, 0.2, 1.0, 1.2, 2.0])
    mixture = mixture_of(values, np.array([-1, -1, 0, 0, 1]), 2)
    assert mixture.non_atoms == 1
    assert mixture.share == pytest.approx([0.4, 0.4, 0.2])
    assert mixture.mean == pytest.approx([0.15, 1.1, 2.0])
    assert mixture.sigma[:2] == pytest.approx([0.05, 0.1])


def specimen(rng):
    """A volume of lattice sites, O and Si at 1 and 2, with noise; what is between them are no atoms."""
    side = np.arange(-4.0, 4.1, 2.0)
    truth = np.array(list(product(side, repeat=3)))
    truth = truth[np.linalg.norm(truth, axis=1) < 4.6] + rng.uniform(-0.15, 0.15, (57, 3))
    kind = rng.permutation(np.arange(len(truth)) % 2)
    axis = 0.35 * (np.arange(44) - 22)
    volume = 0.12 * rng.normal(size=(44, 44, 44))
    for r, k in zip(truth, kind, strict=True):
        x, y, z = (np.exp(-((axis - c) ** 2) / 2 / 0.4**2) for c in r)
        volume += (1 + k) * np.einsum("i,j,k->ijk", z, y, x)
    return volume, truth, kind


def test_classify_by_stages_finds_and_names_the_atoms_of_a_volume(rng):
    volume, truth, kind = specimen(rng)
    peaks = trace(volume, 0.35, min_distance_A=1.5)
    found = classify(volume, 0.35, peaks, ("Si", "O"), rng=rng, method="kmeans")
    gap = np.linalg.norm(found.atoms.positions_A[:, None] - truth, axis=2)
    assert sorted(gap.argmin(axis=1)) == list(range(len(truth))) and gap.min(axis=1).max() < 0.5
    assert [("O", "Si")[k] for k in kind[gap.argmin(axis=1)]] == list(found.atoms.symbols)
    assert len(found.rejected) + len(found.atoms) == peaks.inside.sum()
    assert 0 < found.boundaries[0] < found.centres[0] < found.boundaries[1] < found.centres[1]
    assert (found.atoms.species_probability > 0.9).all()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"method": "em"}, "method is 'em'; expected 'mixture' or 'kmeans'"),
        ({"method": "kmeans", "local_radius_A": 0.0}, "local_radius_A is 0.0; expected the radius of the neighbours"),
        ({"method": "kmeans", "elements": ("O", "Si", "Sn")}, "distinct"),
    ],
)
def test_bad_arguments_are_named(rng, options, says):
    peaks = Peaks(np.array([[0.0, 0, 0], [1.0, 0, 0]]), np.array([2.0, 1.0]), min_distance_A=1.0)
    volume = rng.random((12, 12, 12))
    with pytest.raises(ValueError, match=says):
        classify(volume, 0.5, peaks, options.pop("elements", ("Si",)), rng=rng, **options)
