"""Atoms to their network: bonds, rings, pair distribution; and the comparison with a truth where one is known."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pyaet.artifacts import write_json
from pyaet.io.errors import told_of
from pyaet.io.structures import read_structure, write_extxyz
from pyaet.plan import Structure, Truth
from pyaet.stages.context import Context

if TYPE_CHECKING:
    from analysis import Atoms, BondRule, Network, RingList

LIAO2026 = {"bonds": ("any:1.66",), "tolerance_A": 0.15, "min_size": 6, "max_size": 18, "definition": "primitive"}
"""How the rings of Liao et al. (doi:10.1038/s41586-025-09857-4) were counted."""


@dataclass(frozen=True)
class Found:
    """The bonds, the rings, and the settings that led to them."""

    definition: str
    rules: tuple[str, ...]
    bonds: Network
    rings: RingList

    @property
    def sizes(self) -> dict[str, int]:
        return {str(size): n for size, n in self.rings.sizes.items()}


def with_preset(settings: Structure) -> Structure:
    """The settings with the preset under them: whatever was given beside the preset overrides it."""
    if settings.preset is None:
        return settings
    given = {name: getattr(settings, name) for name in settings.model_fields_set}
    return settings.model_copy(update=LIAO2026 | given)


def network(atoms: Atoms, settings: Structure) -> Found:
    """Bonds and rings of a set of atoms."""
    import analysis

    settings = with_preset(settings)
    with told_of("structure"):
        rules = bond_rules(atoms, settings)
        bonds = analysis.bonds(atoms.positions_A, atoms.symbols, rules, atoms.cell)
        rings = analysis.rings(
            bonds, definition=settings.definition, min_size=settings.min_size, max_size=settings.max_size
        )
    return Found(settings.definition, tuple(map(str, rules)), bonds, rings)


def bond_rules(atoms: Atoms, settings: Structure) -> tuple[BondRule, ...]:
    """The rules the plan states, else those the first minimum of the measured g(r) gives."""
    import analysis

    if not settings.bonds:
        return analysis.default_rules(atoms.positions_A, atoms.symbols, atoms.cell)
    return tuple(analysis.BondRule.parse(text, settings.tolerance_A) for text in settings.bonds)


def find_structure(
    source: Path, target: Path, settings: Structure, truth: Truth | None, context: Context
) -> dict[str, Any]:
    """Write `rings.json` for `atoms.extxyz`, beside the truth's statistics where a truth is given."""
    import analysis

    atoms = read_structure(source)
    found = network(atoms, settings)
    content = network_json(found) | _statistics(atoms, found)
    if truth is not None:
        known = read_truth(truth)
        rules = {"bonds": found.rules, "tolerance_A": None, "preset": None}
        same = network(known, with_preset(settings).model_copy(update=rules))
        content |= {f"truth_{name}": value for name, value in _statistics(known, same).items()}
        content["truth_sizes"] = same.sizes
    write_json(target, content | {"made_by": context.key})
    numbers = {
        "definition": found.definition,
        "bond_rules": list(found.rules),
        "bonds": len(found.bonds),
        "rings": len(found.rings),
        "ring_sizes": found.sizes,
        **({"truth_ring_sizes": content["truth_sizes"]} if truth is not None else {}),
        "coordination": _coordination(atoms, found.bonds),
    }
    if len(atoms.elements) == 2:
        shares = analysis.alternating_share(found.rings, atoms.symbols)
        numbers["alternating_share"] = {str(size): share for size, share in shares.items()}
    return numbers


def network_json(found: Found) -> dict[str, Any]:
    """The content of `rings.json` that others read."""
    return {
        "definition": found.definition,
        "bond_rules": list(found.rules),
        "bonds": found.bonds.pairs.tolist(),
        "sizes": found.sizes,
        "rings": [list(ring) for ring in found.rings],
        **(
            {"bond_shifts": found.bonds.shifts.tolist(), "ring_shifts": found.rings.shifts}
            if found.bonds.periodic
            else {}
        ),
    }


def read_truth(truth: Truth) -> Atoms:
    types = None if truth.types is None else {int(code): symbol for code, symbol in truth.types.items()}
    return read_structure(
        truth.path, axes=truth.axes, variable=truth.variable, types_variable=truth.types_variable, types=types
    )


def score(source: Path, target: Path, truth: Truth, context: Context) -> dict[str, Any]:
    """Compare `atoms.extxyz` with the truth by both metrics; the truth is copied beside it for the report."""
    import analysis

    atoms, known = read_structure(source), read_truth(truth)
    with told_of(truth.path):
        result = analysis.compare(atoms.positions_A, atoms.symbols, known.positions_A, known.symbols, truth.cutoff_A)
    write_extxyz(target, known, made_by=context.key)
    return result.to_dict() | {"truth_path": truth.path, "cutoff_A": truth.cutoff_A}


def _statistics(atoms: Atoms, found: Found) -> dict[str, Any]:
    import analysis

    lengths = defaultdict(list)
    vectors = found.bonds.vectors_A(atoms.positions_A, None if atoms.cell is None else atoms.cell.vectors_A)
    for (a, b), length in zip(found.bonds.pairs, np.linalg.norm(vectors, axis=1), strict=True):
        lengths["-".join(sorted((atoms.symbols[a], atoms.symbols[b])))].append(round(float(length), 4))
    if len(atoms) < 2:
        return {"bond_lengths_A": {}, "pair_distribution": None}
    pairs = analysis.pair_distribution(atoms.positions_A, atoms.symbols, cell=atoms.cell)
    g = {"-".join(pair): np.round(values, 5) for pair, values in pairs.g.items()}
    return {"bond_lengths_A": lengths, "pair_distribution": {"r_A": np.round(pairs.r_A, 5), "g": g}}


def _coordination(atoms: Atoms, bonds: Network) -> dict[str, float]:
    degree = bonds.degree
    symbols = np.array(atoms.symbols)
    return {element: float(degree[symbols == element].mean()) for element in atoms.elements}
