"""Atoms as a value, and the names of the package."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from analysis import Atoms
from analysis.atoms import SYMBOLS, atomic_number

POSITIONS = np.arange(9.0).reshape(3, 3)


def test_what_is_not_measured_is_nan_and_elements_come_lightest_first():
    atoms = Atoms(POSITIONS, ("Si", "O", "Si"))
    assert len(atoms) == 3
    assert atoms.elements == ("O", "Si")
    assert atoms.numbers.tolist() == [14, 8, 14]
    for column in (atoms.intensity, atoms.sigma_A, atoms.species_probability):
        assert column.shape == (3,)
        assert np.isnan(column).all()


def test_select_keeps_rows_together():
    atoms = Atoms(POSITIONS, ("Si", "O", "Ge"), intensity=[1, 2, 3], sigma_A=[0.1, 0.2, 0.3])
    for chosen in (atoms.select([False, True, True]), atoms.select([1, 2])):
        assert chosen.symbols == ("O", "Ge")
        assert chosen.positions_A.tolist() == POSITIONS[1:].tolist()
        assert chosen.intensity.tolist() == [2, 3]
        assert chosen.sigma_A.tolist() == [0.2, 0.3]


def test_no_atoms_are_atoms_too():
    assert len(Atoms([], ())) == 0
    assert Atoms([], ()).positions_A.shape == (0, 3)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"positions_A": np.zeros((3, 2))}, r"positions_A has shape \(3, 2\); expected \(n, 3\)"),
        ({"positions_A": [[0, 0, np.nan]] * 3}, "positions_A of atom 0"),
        ({"positions_A": [["a", 0, 0]] * 3}, "does not hold numbers"),
        ({"symbols": ("Si",)}, "symbols has 1 entries for 3 atoms"),
        ({"symbols": ("Si", "si", "O")}, "'si' is not an element symbol"),
        ({"intensity": np.zeros(2)}, r"intensity has shape \(2,\); expected \(3,\)"),
        ({"sigma_A": [0.1, -0.1, np.nan]}, "cannot be negative"),
        ({"species_probability": [0.1, 1.1, np.nan]}, "outside 0..1"),
        ({"sigma_A": [0.1, np.inf, np.nan]}, "infinite"),
    ],
)
def test_what_does_not_fit_is_said(change, sentence):
    with pytest.raises(ValueError, match=sentence):
        Atoms(**({"positions_A": POSITIONS, "symbols": ("Si", "O", "Si")} | change))


def test_periodic_table_anchors():
    assert [atomic_number(symbol) for symbol in ("H", "O", "Si", "Co", "Ge", "Pd", "Sn", "Pt", "U", "Og")] == [
        1, 8, 14, 27, 32, 46, 50, 78, 92, 118,
    ]  # fmt: skip
    assert len(set(SYMBOLS)) == 119


@pytest.mark.parametrize("first", ["import analysis.rings", "from analysis.rings import rings", "import analysis"])
def test_functions_keep_their_names_whichever_module_is_imported_first(first):
    """`analysis.rings` is the function, also after its module of the same name was imported."""
    code = f"{first}\nfrom analysis import rings, bonds, compare\nimport analysis.bonds, analysis.compare\n"
    code += "import analysis\nassert all(map(callable, (rings, bonds, compare, analysis.rings, analysis.bonds)))\n"
    code += "from analysis import compare\nassert callable(compare)\n"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_importing_the_package_loads_nothing_heavy():
    code = "import sys, analysis; assert not {'scipy', 'numba', 'ase'} & set(sys.modules), sorted(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
