"""The structure stage: presets, rules taken over to the truth, what rings.json holds."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from analysis import Atoms, BondRule, bond_angles, bonds
from pyaet.console import Console
from pyaet.io.errors import InputError
from pyaet.io.structures import write_extxyz
from pyaet.plan import Structure, Truth
from pyaet.stages.context import Context
from pyaet.stages.structure import find_structure, network, with_preset

CONTEXT = Context("cpu", 1, 0, Console(terminal=False), "key")


def polygon(n: int, bond_A: float = 1.66) -> Atoms:
    """A ring of n atoms, O and Si in turn."""
    angle = 2 * np.pi * np.arange(n) / n
    radius = bond_A / (2 * np.sin(np.pi / n))
    places = np.stack([radius * np.cos(angle), radius * np.sin(angle), np.zeros(n)], axis=1)
    return Atoms(places, tuple("O" if i % 2 else "Si" for i in range(n)))


def test_the_preset_is_overridden_by_what_stands_beside_it() -> None:
    plain = with_preset(Structure(preset="liao2026"))
    assert (plain.bonds, plain.tolerance_A, plain.min_size, plain.max_size) == (("any:1.66",), 0.15, 6, 18)
    wider = with_preset(Structure(preset="liao2026", tolerance_A=0.4, max_size=20))
    assert (wider.tolerance_A, wider.min_size, wider.max_size) == (0.4, 6, 20)


@pytest.mark.parametrize(("n", "rings"), [(4, 0), (6, 1), (18, 1), (20, 0)])
def test_the_preset_counts_rings_of_6_to_18(n: int, rings: int) -> None:
    assert len(network(polygon(n), Structure(preset="liao2026")).rings) == rings
    assert len(network(polygon(n), Structure(bonds=("O-Si:1.7",))).rings) == 1


def test_the_truth_is_counted_by_the_same_rules(tmp_path: Path) -> None:
    write_extxyz(tmp_path / "atoms.extxyz", polygon(8))
    write_extxyz(tmp_path / "truth.extxyz", polygon(4))
    settings, truth = Structure(preset="liao2026"), Truth(path=str(tmp_path / "truth.extxyz"))
    told = find_structure(
        tmp_path / "atoms.extxyz", tmp_path / "rings.json", tmp_path / "structure.json", settings, truth, CONTEXT
    )
    written = json.loads((tmp_path / "rings.json").read_text())
    told_in_full = json.loads((tmp_path / "structure.json").read_text())
    assert told["ring_sizes"] == written["sizes"] == {"8": 1}
    assert told["truth_ring_sizes"] == written["truth_sizes"] == {}
    assert sorted(written["rings"][0]) == list(range(8))
    lengths = told_in_full["found"]["bond_lengths_A"]["O-Si"]
    assert sum(lengths["value"]) == 8
    assert (
        lengths["edges"][int(np.argmax(lengths["value"]))]
        <= 1.66
        <= lengths["edges"][int(np.argmax(lengths["value"])) + 1]
    )
    assert told_in_full["reference_name"] == "truth"
    assert told["coordination"] == {"O": 2.0, "Si": 2.0}
    assert written["made_by"] == "key"


def test_a_bond_between_unknown_elements_is_told() -> None:
    with pytest.raises(InputError, match=r"structure: .*'Xy'"):
        network(polygon(6), Structure.model_construct(bonds=("Xy-O:2",), definition="primitive"))


def ball_of_silica() -> Atoms:
    """400 atoms from the silica that comes with the project; all of their Si-O bonds are within 1.66 ± 0.15 Å."""
    from ase.io import read

    with as_file(files("pyaet.simulate") / "silica_network.extxyz") as path:
        whole = read(path)
    inner = np.argsort(np.linalg.norm(whole.positions - whole.positions.mean(axis=0), axis=1))[:400]
    return Atoms(whole.positions[inner], tuple(np.array(whole.get_chemical_symbols())[inner].tolist()))


def found_of(truth: Atoms, sigma_A: float, folder: Path, settings: Structure) -> tuple[dict[str, Any], dict[str, Any]]:
    """The summary and structure.json of atoms moved by errors that their file states."""
    at = truth.positions_A + np.random.default_rng(3).normal(0, sigma_A, truth.positions_A.shape)
    names = [folder / name for name in ("atoms.extxyz", "rings.json", "structure.json")]
    write_extxyz(names[0], replace(truth, positions_A=at, sigma_A=np.full(len(at), sigma_A)))
    summary = find_structure(*names, settings, None, CONTEXT)
    return summary, json.loads(names[2].read_text())["found"]


def test_limits_are_about_the_true_network_where_errors_break_bonds(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    truth, settings = ball_of_silica(), Structure(preset="liao2026", draws=4)
    true = network(truth, settings)
    summary, found = found_of(truth, 0.06, tmp_path, settings)
    assert found["bonds"] == summary["bonds"] < 0.95 * len(true.network)
    assert found["limits"]["bonds"]["low"] <= len(true.network) <= found["limits"]["bonds"]["high"]
    assert f"{found['bonds']} bonds are measured" in caplog.text
    for size, number in true.rings.sizes.items():
        told = found["ring_sizes"][str(size)]
        assert told["low"] <= number <= told["high"]
    assert sum(found["ring_sizes"][size]["value"] for size in ("8", "10", "12")) < 0.8 * sum(
        true.rings.sizes[size] for size in (8, 10, 12)
    )
    full = int((true.network.degree[np.array(truth.symbols) == "Si"] == 4).sum())
    four = {name: values[4] for name, values in found["coordination"]["Si"]["counts"].items()}
    assert four["value"] < 0.9 * full
    assert four["low"] <= full <= four["high"]
    for kind, angles in bond_angles(true.network, truth.positions_A, truth.symbols).items():
        mean = found["bond_angles_deg"][kind]["mean"]
        assert mean["low"] <= angles.mean() <= mean["high"]


def test_limits_are_about_the_true_names_where_neighbours_contradict_them(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    truth, settings = ball_of_silica(), Structure(bonds=("O-Si:2.2", "O-O:2.0"), draws=5)
    true = network(truth, settings)
    inner = np.flatnonzero(true.network.degree >= 2)
    wrong = np.sort(np.random.default_rng(8).choice(inner, len(truth) // 30, replace=False))
    names = np.array(truth.symbols)
    names[wrong] = np.where(names[wrong] == "Si", "O", "Si")
    atoms = replace(truth, symbols=tuple(names.tolist()), species_probability=np.full(len(truth), 0.97))
    summary, found = found_of(atoms, 0.05, tmp_path, settings)
    assert f"the neighbours of {len(wrong)} of {len(truth)} atoms contradict their names" in caplog.text
    assert found["names_by_neighbours"] == {str(k): truth.symbols[k] for k in wrong}
    assert summary["ring_sizes"] == {size: told["value"] for size, told in found["ring_sizes"].items() if told["value"]}
    for size, number in true.rings.sizes.items():
        told = found["ring_sizes"][str(size)]
        assert told["low"] <= number <= told["high"]
    assert sum(told["high"] - told["low"] for told in found["ring_sizes"].values()) < 0.75 * len(true.rings)
    four = {name: values[4] for name, values in found["coordination"]["Si"]["counts"].items()}
    full = int((true.network.degree[np.array(truth.symbols) == "Si"] == 4).sum())
    assert four["value"] < full
    assert four["low"] <= full <= four["high"]
    assert "low" in found["bond_angles_deg"]["O-Si-O"]
    like = found["bond_lengths_A"]["O-O"]
    assert sum(like["value"]) > 5 and sum(like["low"]) == 0


def test_models_drawn_anew_are_told_of_the_same_former() -> None:
    """A silicon of two is bonded once more than each oxygen of a ring; without that bond neither element forms the network."""
    ring = polygon(8)
    extra = Atoms(np.vstack([ring.positions_A, 1.8 * ring.positions_A[:1]]), (*ring.symbols, "O"))
    model = network(extra, Structure(bonds=("O-Si:1.8",)))
    bare = network(ring, Structure(bonds=("O-Si:1.7",)))
    assert model.former == "Si" and bare.former is None
    assert model.again(extra, bonds(extra.positions_A, extra.symbols, [BondRule("O", "Si", 1.7)])).former == "Si"


def test_large_models_are_drawn_fewer_times(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pyaet.stages.describe.MANY_ATOMS", 100)

    def draws(atoms: int, asked: int) -> int:
        ring = replace(polygon(atoms), covariance_A2=np.tile(0.05**2 * np.eye(3), (atoms, 1, 1)))
        return network(ring, Structure(bonds=("O-Si:1.7",), draws=asked)).draws

    assert [draws(atoms, 16) for atoms in (8, 200, 400, 4000)] == [16, 8, 4, 4]
    assert draws(8, 0) == 0
    assert network(polygon(8), Structure(draws=16)).draws == 0


def test_nothing_is_said_of_a_network_that_errors_hide(tmp_path: Path) -> None:
    """A limit amid the peak of the Si-O distances, narrower than the errors: which of them are longer nobody can tell."""
    summary, found = found_of(ball_of_silica(), 0.12, tmp_path, Structure(bonds=("Si-O:1.61",), draws=4))
    assert "leave too many bonds in doubt" in summary["ring_sizes_95"]
    assert not any(path.startswith(("ring_statistics", "coordination")) for path in found["limits"])
    assert set(found["coordination"]["Si"]["counts"]) == {"value"}
    assert "structure_factor.xray" in found["limits"]


def test_bonds_that_wrong_names_break_are_not_put_down_to_errors(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Names by lot: neighbours tell nothing, and the rules bind unlike atoms only."""
    rng = np.random.default_rng(5)
    places = np.stack(np.meshgrid(*[np.arange(7.0) * 2.5] * 3), axis=-1).reshape(-1, 3)
    true = np.where(places.sum(axis=1) / 2.5 % 2 < 1, "Cu", "Au")
    exchanged, wrong = rng.random((2, len(true))) < [[0.12], [0.08]]
    names = np.where(exchanged ^ wrong, np.where(true == "Cu", "Au", "Cu"), true)
    atoms = Atoms(places, tuple(names.tolist()), species_probability=np.full(len(names), 0.92))
    found_of(atoms, 0.05, tmp_path, Structure(bonds=("Au-Cu:3.0",), draws=16))
    assert "wrong names break and make bonds" in caplog.text
    assert "errors of the atoms carry" not in caplog.text


def test_more_contradicted_names_than_probabilities_allow_are_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    truth = ball_of_silica()
    wrong = np.random.default_rng(3).random(len(truth)) < 0.1
    names = np.where(wrong, np.where(np.array(truth.symbols) == "Si", "O", "Si"), np.array(truth.symbols))
    atoms = replace(truth, symbols=tuple(names.tolist()), species_probability=np.full(len(truth), 0.99))
    found_of(atoms, 0.05, tmp_path, Structure(bonds=("O-Si:2.2",), draws=4))
    assert "more than are wrong by their probabilities: atoms are in the places of others" in caplog.text


def test_nothing_is_said_of_a_network_of_doubtful_names(tmp_path: Path) -> None:
    atoms = replace(ball_of_silica(), species_probability=np.full(400, 0.5))
    summary, found = found_of(atoms, 0.05, tmp_path, Structure(bonds=("Si-O:2.2",), draws=4))
    assert summary["ring_sizes_95"] == "none: by their probabilities 50% of the names are wrong; leave such atoms out"
    assert not any(path.startswith(("ring_statistics", "bonds")) for path in found["limits"])


def test_atoms_of_hopeless_errors_are_told(caplog: pytest.LogCaptureFixture) -> None:
    atoms = replace(polygon(8), sigma_A=np.array([0.05] * 7 + [2.0]))
    network(atoms, Structure(bonds=("O-Si:1.7",)))
    assert "sigma_A of 1 of 8 atoms is above 0.5 Å (atom 7: 2 Å)" in caplog.text


def test_rules_of_elements_that_are_not_there_are_told(caplog: pytest.LogCaptureFixture) -> None:
    network(polygon(8), Structure(bonds=("Au-Cu:3",)))
    assert "bond rules name Au, Cu, which the structure does not hold; it holds O, Si" in caplog.text


def test_doubled_atoms_are_refused_without_rules_too() -> None:
    one = polygon(8)
    twice = Atoms(np.tile(one.positions_A, (2, 1)), one.symbols * 2)
    with pytest.raises(InputError, match="atoms 0 and 8 stand in the same place"):
        network(twice, Structure())


def test_limits_of_angles_hold_where_the_limit_of_bonds_cuts_many_distances(tmp_path: Path) -> None:
    """Random atoms no nearer than 2 Å: which of them are bonded changes with errors, and with it their angles."""
    rng, at = np.random.default_rng(5), np.zeros((0, 3))
    while len(at) < 300:
        one = rng.uniform(0, 18, 3)
        if len(at) == 0 or np.linalg.norm(at - one, axis=1).min() > 2.0:
            at = np.vstack([at, one])
    truth, settings = Atoms(at, ("Si",) * 300), Structure(bonds=("Si-Si:2.6",), max_size=6)
    _, found = found_of(truth, 0.015, tmp_path, settings)
    (angles,) = bond_angles(network(truth, settings).network, truth.positions_A, truth.symbols).values()
    told = found["bond_angles_deg"]["Si-Si-Si"]
    assert told["mean"]["low"] <= angles.mean() <= told["mean"]["high"]
    assert told["spread"]["low"] <= angles.std() <= told["spread"]["high"]
