"""Both metrics: by hand, by brute force, and the published tables to the last digit."""

from __future__ import annotations

import json
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis import compare


def cloud(rng: np.random.Generator, n: int = 60) -> np.ndarray:
    """Points of a distorted simple cubic lattice, about 2 Å apart."""
    grid = np.stack(np.meshgrid(*[np.arange(5)] * 3, indexing="ij"), -1).reshape(-1, 3)[:n]
    return 2.0 * grid + rng.uniform(-0.2, 0.2, (n, 3))


def test_a_shifted_copy_is_perfect(rng):
    truth = cloud(rng)
    names = rng.choice(["Si", "O"], len(truth)).tolist()
    result = compare(truth + np.array([10, -20, 5]), names, truth, names, 1.0).to_dict()
    assert result["strict"] == pytest.approx(
        {"found": 60, "recall": 1, "precision": 1, "f1": 1, "rmsd_pm": 0, "right_element": 1}, abs=1e-9
    )
    assert result["paper"]["matched"] == 60
    assert result["paper"]["rmsd_pm"] == pytest.approx(0, abs=1e-9)


def test_absolute_size_of_the_rmsd():
    """Every atom 0.1 Å off, two along +x and two along -x: 10 pm, and 10 √(4/3) pm by the sample variance."""
    truth = np.array([[0.0, 0, 0], [5, 0, 0], [0, 5, 0], [0, 0, 5]])
    off = np.array([[0.1, 0, 0], [-0.1, 0, 0], [0.1, 0, 0], [-0.1, 0, 0]])
    result = compare(truth + off, None, truth, None, 1.0)
    assert result.strict.rmsd_pm == pytest.approx(10.0)
    assert result.paper.rmsd_pm == pytest.approx(10.0 * np.sqrt(4 / 3))


def test_the_mean_shift_takes_out_what_false_atoms_pull(rng):
    truth = cloud(rng)
    false = np.array([[40.0, 40.0, 40.0]])
    result = compare(np.concatenate([truth + np.array([1, 2, 3]), false]), None, truth, None, 1.5)
    assert result.strict.found == 60
    assert result.strict.precision == pytest.approx(60 / 61)
    assert result.strict.rmsd_pm == pytest.approx(0, abs=1e-6)
    assert result.matches.tolist() == [[i, i] for i in range(60)]


def test_two_model_atoms_on_one_truth_atom_count_twice_in_the_paper_metric_only(rng):
    truth = cloud(rng)
    model = np.concatenate([truth, truth[:1] + np.array([0.3, 0, 0])])
    result = compare(model, None, truth, None, 0.9)
    assert (result.paper.matched, result.strict.found) == (61, 60)
    assert result.strict.precision == pytest.approx(60 / 61)
    assert result.strict.f1 == pytest.approx(120 / 121)
    assert result.matches[0].tolist() == [0, 0]


def test_names_are_counted_per_element(rng):
    truth = cloud(rng)
    names = ["Si"] * 20 + ["O"] * 40
    said = ["O"] * 2 + names[2:]
    result = compare(truth[:-5], said[:-5], truth, names, 1.0)
    assert result.strict.right_element == pytest.approx(53 / 60)
    si, o = result.elements["Si"], result.elements["O"]
    assert list(result.elements) == ["O", "Si"]
    assert (si.truth, si.found, si.right) == (20, 20, 18)
    assert (o.truth, o.found, o.right) == (40, 35, 35)
    assert {name: part.matched for name, part in result.paper.elements.items()} == {"O": 35, "Si": 18}


def test_unknown_names_are_no_names(rng):
    truth = cloud(rng)
    for said in (None, ["X"] * 60):
        result = compare(truth, said, truth, ["Si"] * 60, 1.0)
        assert result.strict.right_element is None
        assert result.elements["Si"].right is None
        assert result.elements["Si"].found == 60
    assert compare(truth, ["Si"] * 60, truth, None, 1.0).elements == {}


def least_cost(model: np.ndarray, truth: np.ndarray, cutoff: float) -> float:
    """Sum of min(d², cutoff²) over the best of all one-to-one pairings, each model atom also allowed none."""
    squared = np.minimum(((model[:, None] - truth[None]) ** 2).sum(-1), cutoff**2)
    padded = np.concatenate([squared, np.full((len(model), len(model)), cutoff**2)], axis=1)
    return min(
        padded[range(len(model)), list(order)].sum() for order in permutations(range(padded.shape[1]), len(model))
    )


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), n=st.integers(1, 4), m=st.integers(1, 4))
def test_strict_pairing_is_the_best_of_all(seed, n, m):
    rng = np.random.default_rng(seed)
    result = compare(rng.uniform(0, 2, (n, 3)), None, rng.uniform(0, 2, (m, 3)), None, 0.9)
    assert len(set(result.matches[:, 0])) == len(set(result.matches[:, 1])) == len(result.matches)
    assert (result.distance_A <= 0.9).all()
    cost = (result.distance_A**2).sum() + (n - len(result.matches)) * 0.81
    assert cost == pytest.approx(least_cost(result.model_A, result.truth_A, 0.9))


def test_nothing_found_and_json(rng):
    truth = cloud(rng)
    for model in (np.zeros((0, 3)), np.array([[0.0, 0, 0]])):
        result = compare(model, None, truth + 0.9, ["Si"] * 60, 1e-6).to_dict()
        assert result["strict"]["found"] == result["paper"]["matched"] == 0
        assert result["strict"]["rmsd_pm"] is None
        assert json.loads(json.dumps(result, allow_nan=False)) == result


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"truth_positions": np.zeros((0, 3))}, "truth_positions holds no atoms"),
        ({"model_positions": np.zeros((3, 4))}, "model_positions has shape"),
        ({"model_symbols": ["Si"]}, "model_symbols has 1 entries"),
        ({"cutoff_A": 0.0}, "cutoff_A is 0.0"),
    ],
)
def test_what_does_not_fit_is_said(change, sentence):
    arguments = {
        "model_positions": np.eye(3),
        "model_symbols": None,
        "truth_positions": np.eye(3),
        "truth_symbols": None,
    }
    with pytest.raises(ValueError, match=sentence):
        compare(**(arguments | {"cutoff_A": 1.0} | change))


def test_twenty_thousand_atoms_take_seconds(rng):
    """Also where the cutoff joins all atoms into one heap of candidates."""
    truth = rng.uniform(0, 70, (20_000, 3))
    model = truth + rng.normal(0, 0.2, truth.shape)
    result = compare(model, None, truth, None, 1.5)
    assert result.strict.recall > 0.99


@pytest.mark.parametrize(
    ("dose", "matched", "paper_pm", "recall", "precision", "strict_pm"),
    [
        ("8p0e3", 199, "28.908", "0.9567", "1.0000", "28.836"),
        ("1p6e4", 208, "17.313", "1.0000", "1.0000", "17.272"),
        ("1p6e5", 208, "4.2386", "1.0000", "1.0000", "4.2284"),
    ],
)
def test_published_silicon_table_to_the_last_digit(shared, dose, matched, paper_pm, recall, precision, strict_pm):
    from scipy.io import loadmat

    model = loadmat(shared / "si208" / f"Model_aSi2nm_FoscCenter_Dose{dose}_cov35pm_BM3D.mat")["temp_model"]
    truth = np.loadtxt(shared / "si208" / "aSi_208atoms_GT.txt", comments="%")[:, 1:]
    result = compare(model[[1, 0, 2]].T * 0.195 / 3, None, truth, ["Si"] * 208, 0.9)
    decimals = len(paper_pm.split(".")[1])
    assert result.paper.matched == matched
    assert f"{result.paper.rmsd_pm:.{decimals}f}" == paper_pm
    assert f"{result.strict.rmsd_pm:.{decimals}f}" == strict_pm
    assert f"{result.strict.recall:.4f}" == recall
    assert f"{result.strict.precision:.4f}" == precision


@pytest.mark.parametrize(
    ("name", "recall", "precision", "right", "si_pm", "o_pm"),
    [
        ("1p6e3_multislice_cov35pm_S1p0N1000", 0.991, 0.985, 0.972, 9.5, 14.2),
        ("1p6e3_single_slice_cov35pm_S2p0N1000", 0.893, 0.983, None, None, None),
        ("1p6e4_multislice_cov35pm_S1p0N1000", 1.000, 0.9999, 1.000, 5.3, 7.6),
        ("1p6e4_single_slice_cov35pm_S1p0N1000", 0.930, 0.983, 0.887, 12.6, 21.8),
    ],
)
def test_published_silica_table_to_the_last_digit(shared, name, recall, precision, right, si_pm, o_pm):
    from scipy.io import loadmat

    file = loadmat(shared / "sio2_rings" / f"Rings_Model_aSiO2_Dose{name}.mat")
    codes = file["atoms_type_all"].ravel()
    said = ["O" if code == codes.min() else "Si" for code in codes]
    names = ["O" if number == 8 else "Si" for number in file["Ref_Type"].ravel()]
    result = compare(file["atom_pos_all"].T, said, file["ref_pos_all"].T, names, 1.0)
    assert round(result.strict.recall, 3) == recall
    assert result.strict.precision == pytest.approx(precision, abs=5.1e-4 if precision < 0.999 else 5e-5)
    if right is None:
        assert round(result.strict.rmsd_pm, 1) == 23.9
    else:
        assert round(result.strict.right_element, 3) == right
        assert (round(result.elements["Si"].rmsd_pm, 1), round(result.elements["O"].rmsd_pm, 1)) == (si_pm, o_pm)
    stored = {"O": file["rmsd_value_O"], "Si": file["rmsd_value_Si"]}
    assert result.paper.rmsd_pm == pytest.approx(float(file["rmsd_value_all"][0, 0]), rel=1e-9)
    for symbol, value in stored.items():
        assert result.paper.elements[symbol].rmsd_pm == pytest.approx(float(value[0, 0]), rel=1e-9)
