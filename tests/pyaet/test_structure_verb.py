"""`pyaet rings` and `pyaet structure` on files: what they tell, limits, pictures, and one sentence for each fault."""

from __future__ import annotations

import json
from importlib.resources import as_file, files
from pathlib import Path

import numpy as np
import pytest

from analysis import Atoms
from pyaet.cli import main
from pyaet.io.structures import read_structure, write_extxyz


def call(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as leave:
        main([str(a) for a in arguments])
    out, err = capsys.readouterr()
    return int(leave.value.code or 0), out, err


def flat(told: dict, path: str = "") -> dict[str, float]:
    """Numbers of a table of tables by the path of their keys."""
    found: dict[str, float] = {}
    for key, value in told.items():
        found |= flat(value, f"{path}{key}.") if isinstance(value, dict) else {path + key: value}
    return found


def silica() -> Atoms:
    with as_file(files("pyaet.simulate") / "silica_network.extxyz") as path:
        return read_structure(path)


@pytest.fixture(scope="module")
def particle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ball of 500 atoms of silica with stated errors of 0.05 Å, and the truth beside it."""
    whole = silica()
    away = np.linalg.norm(whole.positions_A - whole.positions_A.mean(axis=0), axis=1)
    inside = np.argsort(away)[:500]
    places, symbols = whole.positions_A[inside], tuple(whole.symbols[k] for k in inside)
    folder = tmp_path_factory.mktemp("particle")
    write_extxyz(folder / "truth.extxyz", Atoms(places, symbols))
    noisy = places + np.random.default_rng(2).normal(0, 0.05, places.shape)
    sigma = np.full(len(places), 0.05)
    write_extxyz(folder / "atoms.extxyz", Atoms(noisy, symbols, sigma_A=sigma, species_probability=np.full(500, 0.99)))
    return folder


def test_a_periodic_file_is_counted_as_periodic(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every Si of the box has its four O and every O its two Si, which only holds across the faces."""
    write_extxyz(tmp_path / "box.extxyz", silica())
    code, out, _ = call(capsys, "rings", tmp_path / "box.extxyz", "--json")
    told = json.loads(out)
    assert code == 0
    assert len(told["bonds"]) == 4 * 640
    assert any(any(shift) for shift in told["bond_shifts"])
    assert sum(told["sizes"].values()) == len(told["rings"]) == len(told["ring_shifts"])
    assert {"8", "10", "12"} <= set(told["sizes"])


def test_rings_of_a_cycle_basis_have_limits(particle: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    at = (particle / "atoms.extxyz", "--bond", "Si-O:2.2", "--definition", "mcb", "--out", tmp_path / "s.json")
    code, _, _ = call(capsys, "structure", *at, "--reference", particle / "truth.extxyz")
    told = json.loads((tmp_path / "s.json").read_text())
    assert code == 0
    found, known = told["found"]["ring_sizes"], told["reference"]["ring_sizes"]
    assert set(known) <= set(found)
    held = [one["low"] <= known.get(size, {"value": 0})["value"] <= one["high"] for size, one in found.items()]
    assert np.mean(held) >= 0.8


def test_what_is_told_of_a_particle(particle: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    at = (particle / "atoms.extxyz", "--bond", "Si-O:2.2", "--reference", particle / "truth.extxyz")
    out, picture = tmp_path / "s.json", tmp_path / "s.png"
    code, text, err = call(capsys, "structure", *at, "--coordination", "Si=4,O=2", "--out", out, "--picture", picture)
    assert (code, err) == (0, "")
    assert "ring_sizes_95" in text
    told = json.loads(out.read_text())
    found, known = told["found"], told["reference"]
    assert told["reference_name"] == "truth"
    assert picture.read_bytes()[:4] == b"\x89PNG"
    assert found["defects"]["expected"] == {"Si": 4, "O": 2}
    assert 0 < found["surface_atoms"] < 400
    assert set(found["bond_angles_deg"]) == {"O-Si-O", "Si-O-Si"}
    lengths = found["bond_lengths_A"]["O-Si"]
    assert set(lengths) == {"edges", "value", "best", "low", "high", "mean", "spread"}
    for kind in ("bond_lengths_A", "bond_angles_deg"):
        for name, one in found[kind].items():
            for moment in ("mean", "spread"):
                assert one[moment]["low"] <= known[kind][name][moment]["value"] <= one[moment]["high"]
    assert "low" not in known["bond_lengths_A"]["O-Si"]
    for kind in ("bond_lengths_A", "bond_angles_deg"):
        for name, one in found[kind].items():
            assert known[kind][name]["edges"] == one["edges"]
    assert lengths["spread"]["best"] < 0.7 * lengths["spread"]["value"]  # errors of 5 pm have widened it
    bonds = known["coordination"]["Si"]["mean"] * known["atoms"]["Si"]
    assert sum(known["bond_lengths_A"]["O-Si"]["value"]) == pytest.approx(bonds)
    middle = [np.average(np.convolve(h["edges"], [0.5, 0.5], "valid"), weights=h["value"])
              for h in (lengths, known["bond_lengths_A"]["O-Si"])]  # fmt: skip
    assert middle[0] == pytest.approx(middle[1], abs=(lengths["edges"][1] - lengths["edges"][0]) / 2)
    held = [one["low"] <= known["ring_sizes"].get(size, {"value": 0})["value"] <= one["high"]
            for size, one in found["ring_sizes"].items()]  # fmt: skip
    assert np.mean(held) >= 0.8
    limits = found["limits"]
    truth = {
        "coordination.Si": known["coordination"]["Si"]["mean"],
        **flat({k: known[k] for k in ("bond_order", "ring_shape", "q_n")}),
    }
    within = [limits[k]["low"] - 1e-4 <= value <= limits[k]["high"] + 1e-4 for k, value in truth.items() if k in limits]
    turns, true_turns = (one["dihedral_angles_deg"]["O-Si-O-Si"] for one in (found, known))
    within += [a <= t <= b for a, t, b in zip(turns["low"], true_turns["value"], turns["high"], strict=True)]
    assert len(within) > 40
    assert np.mean(within) >= 0.9
    scattered = limits["structure_factor.xray"]
    s = np.array(known["structure_factor"]["S"]["xray"])
    assert np.mean((s >= scattered["low"]) & (s <= scattered["high"])) >= 0.85
    assert found["q_n"].keys() <= {"0", "1", "2", "3", "4"}
    assert len(found["structure_factor"]["S"]["neutron"]) == len(found["structure_factor"]["q_per_A"])
    assert found["short_range_order"]["Si-O"] < 0 < found["short_range_order"]["Si-Si"]


def test_surface_atoms_can_be_left_out(particle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("structure", particle / "truth.extxyz", "--bond", "Si-O:2.2", "--coordination", "Si=4,O=2", "--json")
    every, inner = (json.loads(call(capsys, *arguments, *more)[1])["found"] for more in ((), ("--surface", "exclude")))
    assert inner["counted"] == "atoms below the surface"
    assert inner["coordination"]["Si"]["mean"] > every["coordination"]["Si"]["mean"]
    assert len(inner["defects"]["under"]) < len(every["defects"]["under"])


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        ("Si 0 0 0|O 1.6 0 0|Si 0 0 0", "atoms 0 and 2 stand in the same place"),
        ("Qq 0 0 0|O 1.6 0 0", "'Qq' is not an element symbol"),
        ("Si nan 0 0|O 1.6 0 0", "every coordinate must be a finite number"),
        ("Si inf 0 0|O 1.6 0 0", "every coordinate must be a finite number"),
    ],
)
@pytest.mark.parametrize("verb", ["rings", "structure"])
def test_bad_atoms_are_told_in_a_sentence(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    recwarn: pytest.WarningsRecorder,
    verb: str,
    rows: str,
    sentence: str,
) -> None:
    lines = rows.split("|")
    (tmp_path / "a.xyz").write_text("\n".join([str(len(lines)), "", *lines]) + "\n")
    code, out, err = call(capsys, verb, tmp_path / "a.xyz")
    assert (code, out) == (2, "")
    assert sentence in err
    assert err.count("\n") == 1
    assert not recwarn.list


@pytest.mark.parametrize(
    ("rows", "bonds"), [("", 0), ("Si 0 0 0", 0), ("Si 0 0 0|O 50 0 0|Si 0 90 0", 0), ("Si 0 0 0|O 1.6 0 0", 1)]
)
def test_few_atoms_have_an_answer(tmp_path: Path, capsys: pytest.CaptureFixture[str], rows: str, bonds: int) -> None:
    lines = [line for line in rows.split("|") if line]
    (tmp_path / "a.xyz").write_text("\n".join([str(len(lines)), "", *lines]) + "\n")
    for verb in ("rings", "structure"):
        code, out, _ = call(capsys, verb, tmp_path / "a.xyz")
        assert code == 0
        assert f"bonds: {bonds}\n" in out
        assert "rings: 0\n" in out


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--coordination", "Si:4"), "expected elements and numbers such as Si=4,O=2"),
        (("--coordination", "Ge=4"), "coordination names Ge, which is not in the structure"),
        (("--tolerance", "0.1"), "tolerance_A is given without bonds"),
        (("--types", "2=O"), "the file names them itself"),
        (("--coordination", "Qq=4"), "'Qq' is not an element symbol"),
        (("--surface", "peel"), "surface"),
        (("--draws", "-1"), "draws"),
        (
            ("--bond", "Si-O:2.2", "--pairs", "all"),
            'pairs is "all", and which pairs are bonded is given by bonds or preset',
        ),
        (("--draws", "1000000000"), "draws: found 1000000000; expected less than or equal to 1000"),
        (("--draws", "2"), "expected 4 or more, from which a spread can be told, or 0 for no error bars"),
        (("--reference", "nowhere.cif"), "nowhere.cif"),
        (("--picture", "a.pdf"), "expected the name of a .png"),
        (("--definition", "round"), "definition"),
        (("--bond", "Si-O"), "bond rule"),
    ],
)
def test_bad_options_are_told_in_a_sentence(
    particle: Path, capsys: pytest.CaptureFixture[str], options: tuple[str, ...], sentence: str
) -> None:
    code, out, err = call(capsys, "structure", particle / "truth.extxyz", *options)
    assert (code, out) == (2, "")
    assert sentence in err
    assert "Traceback" not in err
