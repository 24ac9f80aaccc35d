"""Atoms to their network: bonds, rings, order; and the comparison with a truth where one is known."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from math import ceil, floor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pyaet.artifacts import write_json
from pyaet.console import Console
from pyaet.io.errors import InputError, told_of
from pyaet.io.structures import read_structure, write_extxyz
from pyaet.plan import Structure, Truth
from pyaet.stages.context import Context
from pyaet.stages.describe import Described, describe, on_bins_of

if TYPE_CHECKING:
    from analysis import Atoms, BondRule

log = logging.getLogger(__name__)

LIAO2026 = {"bonds": ("any:1.66",), "tolerance_A": 0.15, "min_size": 6, "max_size": 18, "definition": "primitive"}
"""How the rings of Liao et al. (doi:10.1038/s41586-025-09857-4) were counted."""


def with_preset(settings: Structure) -> Structure:
    """The settings with the preset under them: whatever was given beside the preset overrides it."""
    if settings.preset is None:
        return settings
    given = {name: getattr(settings, name) for name in settings.model_fields_set}
    return settings.model_copy(update=LIAO2026 | given)


def network(atoms: Atoms, settings: Structure, seed: int = 0, console: Console | None = None) -> Described:
    """Bonds and rings of a set of atoms; limits that are asked for later show their progress on the console."""
    import analysis

    settings = with_preset(settings)
    _warn_of_lost(atoms)
    if strange := set(settings.coordination) - set(atoms.symbols):
        held = ", ".join(atoms.elements)
        raise InputError(f"coordination names {min(strange)}, which is not in the structure; it holds {held}")
    with told_of("structure"):
        rules = bond_rules(atoms, settings)
        bonds = analysis.bonds(atoms.positions_A, atoms.symbols, rules, atoms.cell)
        if len(bonds) == 0 and len(atoms) > 1:
            log.warning(_no_bonds(atoms, rules))
        rings = analysis.rings(
            bonds, definition=settings.definition, min_size=settings.min_size, max_size=settings.max_size
        )
    return Described(atoms, rules, bonds, rings, settings, seed, console=console or Console(terminal=False))


def _warn_of_lost(atoms: Atoms) -> None:
    """Tell of atoms whose error bars say that nobody knows where they are."""
    from analysis.likely import LARGEST_A

    lost = np.flatnonzero(atoms.sigma_A > LARGEST_A)
    if lost.size:
        log.warning(
            f"sigma_A of {lost.size} of {len(atoms)} atoms is above {LARGEST_A} Å (atom {lost[0]}: {atoms.sigma_A[lost[0]]:.3g} Å): "
            "where they are and what they are bonded to is not known, and limits may be wrong; leave such atoms out"
        )


def _no_bonds(atoms: Atoms, rules: Sequence[BondRule]) -> str:
    strange = {name for rule in rules for name in (rule.a, rule.b)} - {"any", *atoms.symbols}
    if strange:
        return f"bond rules name {', '.join(sorted(strange))}, which the structure does not hold; it holds {', '.join(atoms.elements)}"
    if not rules:
        return "g(r) shows no bonds: too few pairs of atoms, or none near enough; state which are bonded (Si-O:2.2)"
    return f"no two atoms are as near as {', '.join(map(str, rules))} says; are the coordinates in Å?"


def bond_rules(atoms: Atoms, settings: Structure) -> tuple[BondRule, ...]:
    """The rules the plan states, else those the first minimum of the measured g(r) gives."""
    import analysis

    if not settings.bonds:
        return analysis.default_rules(atoms.positions_A, atoms.symbols, atoms.cell, pairs=settings.pairs)
    return tuple(analysis.BondRule.parse(text, settings.tolerance_A) for text in settings.bonds)


def find_structure(
    source: Path, rings_json: Path, structure_json: Path, settings: Structure, truth: Truth | None, context: Context
) -> dict[str, Any]:
    """Write `rings.json` and `structure.json` for `atoms.extxyz`, beside the statistics of a truth or a reference."""
    found = network(read_structure(source), settings, context.seed, context.console)
    beside = _beside(found, settings, truth)
    content = network_json(found)
    if beside is not None and truth is not None:
        content["truth_sizes"] = sizes_of(beside)
    told = told_beside(found, beside, "truth" if truth is not None else str(settings.reference or ""))
    write_json(rings_json, content | {"made_by": context.key})
    write_json(structure_json, told | {"made_by": context.key})
    return summary_of(found, told) | ({"truth_ring_sizes": content["truth_sizes"]} if "truth_sizes" in content else {})


def told_beside(found: Described, beside: Described | None, name: str) -> dict[str, Any]:
    """The content of `structure.json`: the model, and a reference beside it by the same rules."""
    with told_of("structure"):
        own = describe(found)
        _warn_of_names(found)
        _warn_of_broken(found, own)
        return {
            "bond_rules": list(map(str, found.rules)),
            "definition": found.settings.definition,
            "found": own,
            "reference": None if beside is None else on_bins_of(describe(beside), beside, own),
            "reference_name": name or None,
        }


def _warn_of_names(found: Described) -> None:
    """Tell of names that neighbours contradict or doubt."""
    if found.names.contradicted:
        log.warning(
            f"neighbours doubt the names of {found.names.contradicted} of {len(found.atoms)} atoms, more than are wrong by their "
            "probabilities: atoms are in the places of others, or the probabilities are too high; limits reach from the one to the other"
        )
    if not found.renamed:
        return
    atom, name = next(iter(found.renamed.items()))
    log.warning(
        f"the neighbours of {len(found.renamed)} of {len(found.atoms)} atoms contradict their names, which are not certain "
        f"(atom {atom} is named {found.atoms.symbols[int(atom)]} and sits as {name} does): bonds, rings and defects are listed by "
        "the names given, their 95 % limits are about what the neighbours say; names_by_neighbours in structure.json has all of them"
    )


def _warn_of_broken(found: Described, own: dict[str, Any]) -> None:
    """Tell of bonds that errors of atoms or wrong names have broken or made, as far as the number of bonds shows it."""
    limits = own.get("limits", {}).get("bonds")
    if limits is None:
        return
    measured, likeliest = len(found.likely.as_measured()), len(found.likely.likeliest())
    if limits["low"] <= measured <= limits["high"]:
        return
    cause, advice = "wrong names break and make bonds", ""
    if not found.misnamed or abs(likeliest - measured) >= max(limits["low"] - measured, measured - limits["high"]):
        cause = f"errors of the atoms carry distances across the limits of bonds ({', '.join(map(str, found.rules))})"
        advice = "; wider limits of bonds keep the two together"
    log.warning(
        f"{cause}: {own['bonds']} bonds are measured, {floor(limits['low'])} to {ceil(limits['high'])} are true. Bonds, rings and "
        f"defects are listed as measured, their 95 % limits are about the true numbers{advice}"
    )


def _beside(found: Described, settings: Structure, truth: Truth | None) -> Described | None:
    """The truth, else the reference, with the bonds that the rules of the model give."""
    if truth is None and settings.reference is None:
        return None
    known = read_truth(truth) if truth is not None else read_structure(str(settings.reference))
    return referred(found, known)


def referred(found: Described, known: Atoms) -> Described:
    """A known structure with the bonds that the rules of the model give it, and the same network former if it has that."""
    rules = {"bonds": tuple(map(str, found.rules)), "tolerance_A": None, "preset": None}
    beside = network(known, found.settings.model_copy(update=rules), found.seed, found.console)
    return replace(beside, known_former=found.former if found.former in known.elements else None)


def sizes_of(found: Described) -> dict[str, int]:
    return {str(size): n for size, n in found.rings.sizes.items()}


def network_json(found: Described) -> dict[str, Any]:
    """The content of `rings.json` that others read."""
    bonds, rings = found.network, found.rings
    images = {"bond_shifts": bonds.shifts.tolist(), "ring_shifts": rings.shifts} if bonds.periodic else {}
    return {
        "definition": found.settings.definition,
        "bond_rules": list(map(str, found.rules)),
        "bonds": bonds.pairs.tolist(),
        "sizes": sizes_of(found),
        "rings": [list(ring) for ring in rings],
        **images,
    }


def summary_of(found: Described, told: dict[str, Any]) -> dict[str, Any]:
    """The numbers of a structure that fit on a screen."""
    own = told["found"]
    numbers: dict[str, Any] = {
        "definition": found.settings.definition,
        "bond_rules": list(map(str, found.rules)),
        "bonds": len(found.network),
        "rings": len(found.rings),
        "ring_sizes": sizes_of(found),
        "limits": "95 %" if found.banded else f"none: {found.unsure}",
        "ring_sizes_95": {
            size: f"{one['low']:.0f}-{one['high']:.0f}"
            for size, one in own.get("ring_sizes", {}).items()
            if "low" in one
        },
        "coordination": {element: one["mean"] for element, one in own.get("coordination", {}).items()},
        "surface_atoms": own["surface_atoms"],
        "defects": {name: len(value) for name, value in own.get("defects", {}).items() if name != "expected"},
    }
    if found.banded and not found.sure:
        numbers["ring_sizes_95"] = f"none: {found.unsure}"
    if len(found.atoms.elements) == 2:
        numbers["alternating_share"] = own.get("alternating_share", {})
    return numbers


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
