"""The structure stage: presets, rules taken over to the truth, what rings.json holds."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from analysis import Atoms
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
