"""Rings of the amorphous silica network that comes with pyaet, by three definitions."""

from importlib.resources import as_file, files

from analysis import bonds, default_rules, rings, size_histogram
from pyaet.io.structures import read_structure

with as_file(files("pyaet.simulate") / "silica_network.extxyz") as path:
    atoms = read_structure(path)
rules = default_rules(atoms.positions_A, atoms.symbols, atoms.cell)
network = bonds(atoms.positions_A, atoms.symbols, rules, atoms.cell)
print("bond rules:", *rules)
for definition in ("primitive", "king", "guttman"):
    print(definition, size_histogram(rings(network, definition=definition, max_size=16)))
