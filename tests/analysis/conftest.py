"""The glass that tests of networks share."""

from __future__ import annotations

from importlib.resources import as_file, files

import pytest

from analysis import Atoms, Cell


@pytest.fixture(scope="session")
def silica() -> Atoms:
    """The periodic amorphous silica that comes with the project, 1920 atoms; all of its 2560 bonds are within 1.66 ± 0.15 Å."""
    from ase.io import read

    with as_file(files("pyaet.simulate") / "silica_network.extxyz") as path:
        atoms = read(path)
    return Atoms(atoms.positions, tuple(atoms.get_chemical_symbols()), cell=Cell(atoms.cell.array))
