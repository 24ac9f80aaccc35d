"""Structure factors: sums over pairs, random and crystalline boxes, particles, and the factors of the elements."""

from __future__ import annotations

import numpy as np
import pytest

from analysis import Cell
from analysis.order import debye, faber_ziman_weights, scattering_factor, structure_factor

pytest.importorskip("periodictable")
KINDS = ["xray", "neutron", "electron", "equal"]


def cubes(copies: int, edge: float) -> np.ndarray:
    return np.array(np.meshgrid(*[range(copies)] * 3)).reshape(3, -1).T * edge


@pytest.fixture
def cloud(rng):
    return rng.normal(size=(50, 3)) * 4, ["Si"] * 20 + ["O"] * 30, np.linspace(0, 15, 61)


@pytest.mark.parametrize("kind", KINDS)
def test_debye_is_the_sum_over_all_pairs(cloud, kind):
    at, symbols, q = cloud
    apart = np.linalg.norm(at[:, None] - at, axis=2)
    factor = np.array([scattering_factor(symbol, q, kind) for symbol in symbols])
    wave = np.sinc(q[:, None, None] * apart / np.pi) - np.eye(50)
    expected = 1 + np.einsum("ik,kij,jk->k", factor, wave, factor) / 50 / factor.mean(axis=0) ** 2
    found = debye(at, symbols, q, kind)
    np.testing.assert_allclose(found.total, expected, atol=2e-3)
    silicon = np.array(symbols) == "Si"
    like = 1 + wave[:, silicon][:, :, silicon].sum(axis=(1, 2)) * 50 / 20**2
    unlike = 1 + wave[:, silicon][:, :, ~silicon].sum(axis=(1, 2)) * 50 / 20 / 30
    np.testing.assert_allclose(found.partial["Si", "Si"], like, atol=4e-3)
    np.testing.assert_allclose(found.partial["O", "Si"], unlike, atol=4e-3)


def test_debye_agrees_with_freud(cloud):
    freud = pytest.importorskip("freud")
    at, symbols, _ = cloud
    theirs = freud.diffraction.StaticStructureFactorDebye(61, 15.0, 0).compute((freud.box.Box.cube(1000), at))
    np.testing.assert_allclose(debye(at, symbols, theirs.k_values, "equal").total, theirs.S_k, atol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_weights_add_up_to_one_everywhere(kind):
    q = np.linspace(0, 30, 50)
    weight = faber_ziman_weights(["Zr"] * 3 + ["Cu"] * 5 + ["Al"], q, kind)
    assert list(weight) == [(a, b) for i, a in enumerate(["Al", "Cu", "Zr"]) for b in ["Al", "Cu", "Zr"][i:]]
    np.testing.assert_allclose(sum(weight.values()), 1)


def test_a_crystal_is_the_sum_over_its_shells():
    """Simple cubic, edge 2.51 Å: all pairs of a shell are at one distance, which no bin may shift."""
    edge, reach, q = 2.51, 12.0, np.linspace(0.5, 18, 71)
    cell = Cell(np.eye(3) * edge * 10)
    found = structure_factor(cubes(10, edge), ["Cu"] * 1000, q, weights="equal", cell=cell, r_max_A=reach)
    steps = np.array(np.meshgrid(*[range(-5, 6)] * 3)).reshape(3, -1).T * edge
    apart = np.linalg.norm(steps, axis=1)
    shells = apart[(apart > 0) & (apart < reach)]
    r = np.linspace(0, reach, 240_001)

    def wave(r: np.ndarray) -> np.ndarray:
        return np.sinc(np.multiply.outer(q, r) / np.pi) * np.sinc(r / reach)

    uniform = [np.trapezoid(4 * np.pi / edge**3 * r**2 * np.sinc(one * r / np.pi) * np.sinc(r / reach), r) for one in q]
    np.testing.assert_allclose(found.total, 1 + wave(shells).sum(axis=1) - uniform, atol=0.03)


@pytest.mark.parametrize("window", [True, False])
def test_a_random_box_has_s_of_one(rng, window):
    at = rng.random((2000, 3)) * 24
    q = np.linspace(2.5, 20, 100)
    found = structure_factor(at, ["Si", "O"] * 1000, q, cell=Cell(np.eye(3) * 24), window=window)
    np.testing.assert_allclose(found.total, 1, atol=0.12)
    np.testing.assert_allclose(sum(found.weight[pair] * found.partial[pair] for pair in found.weight), found.total)


def test_a_crystal_has_its_bragg_peaks(rng):
    at = cubes(8, 3.0)
    at = at + rng.normal(size=at.shape) * 0.1
    q = np.arange(1.5, 4.0, 0.01)
    s = structure_factor(at, ["Po"] * len(at), q, cell=Cell(np.eye(3) * 24), r_max_A=24.0).total
    peaks = 1 + np.flatnonzero((s[1:-1] > s[:-2]) & (s[1:-1] > s[2:]) & (s[1:-1] > 1.3))
    np.testing.assert_allclose(q[peaks], 2 * np.pi / 3 * np.sqrt([1, 2, 3]), atol=0.03)


def test_the_transform_of_a_single_shell_is_that_of_the_formula():
    at, q = [[0, 0, 0], [2.01, 0, 0]], np.linspace(0, 12, 25)
    cell = Cell(np.eye(3) * 20)
    for window in (True, False):
        found = structure_factor(at, ["Ar", "Ar"], q, cell=cell, r_max_A=8.0, window=window).total
        fine = (np.arange(80_000) + 0.5) * 1e-4
        damped = np.sinc(fine / 8) if window else np.ones(len(fine))
        hole = [(fine**2 * np.sinc(one * fine / np.pi) * damped).sum() * 1e-4 for one in q]
        shell = np.sinc(q * 2.01 / np.pi) * (np.sinc(2.01 / 8) if window else 1)
        np.testing.assert_allclose(found, 1 + shell - 4 * np.pi * 2 / 8000 * np.array(hole), atol=2e-3)


def test_a_particle_agrees_with_debye_beyond_its_shape(rng):
    at = cubes(12, 2.6) - 5.5 * 2.6
    at = at[np.linalg.norm(at, axis=1) < 14] + rng.normal(size=((np.linalg.norm(at, axis=1) < 14).sum(), 3)) * 0.25
    q = np.linspace(2, 10, 161)
    ours, sums = structure_factor(at, ["Cu"] * len(at), q).total, debye(at, ["Cu"] * len(at), q).total
    assert np.corrcoef(ours, sums)[0, 1] > 0.9
    assert np.abs(ours - sums)[q > 5].mean() < 0.1


def test_factors_of_the_elements():
    assert scattering_factor("Si", [0.0])[0] == pytest.approx(14, abs=0.01)
    assert scattering_factor("H", [3.0], "neutron")[0] == pytest.approx(-3.739, abs=0.005)
    # L.-M. Peng et al., Acta Cryst. A 52, 257 (1996): f(0) of silicon 5.83 Å.
    assert scattering_factor("Si", [0.0], "electron")[0] == pytest.approx(5.83, abs=0.1)


def test_bad_input_is_refused():
    at = np.eye(3)
    for kind in KINDS[:3]:
        with pytest.raises(ValueError, match="element 'X'"):
            structure_factor(at, ["X"] * 3, [1.0], weights=kind)
    with pytest.raises(ValueError, match="weights is"):
        debye(at, ["Si"] * 3, [1.0], "muon")
    with pytest.raises(ValueError, match="at all q"):
        debye(at, ["Si"] * 3, [500.0])
    with pytest.raises(ValueError, match="q_per_A"):
        debye(at, ["Si"] * 3, [-1.0])
    with pytest.raises(ValueError, match="at least two atoms"):
        structure_factor(at[:1], ["Si"], [1.0])
    with pytest.raises(ValueError, match="is empty"):
        debye(np.zeros((0, 3)), [], [1.0])
    np.testing.assert_array_equal(debye(at[:1], ["Si"], [1.0, 2.0]).total, 1)
