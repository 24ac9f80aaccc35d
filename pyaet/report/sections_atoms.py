"""The sections of the result: candidates, the particle in 3D, error bars, structure."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pyaet.plots import atoms as plots
from pyaet.plots import fit, structure
from pyaet.plots.atoms_3d import atoms_in_3d
from pyaet.plots.results import bonds_of, read_candidates, read_fit, read_json, read_model, rings_of
from pyaet.plots.rings import SMALLEST_RING, draw_rings
from pyaet.report import structure_tables
from pyaet.report.html import Section, numbers_table, table
from pyaet.report.sections import shown, stage_numbers

MIN_DRAWN = 2


def candidates_section(directory: Path, summary: Mapping[str, Any]) -> Section | None:
    found = read_candidates(directory / "candidates.h5")
    if found is None or found.intensity.size == 0:
        return None
    extra: dict[str, Any] = {
        "candidates": int(found.intensity.size),
        "rejected": int(np.sum(found.label < 0)),
    }
    extra["atoms"] = {symbol: int(np.sum(found.label == k)) for k, symbol in enumerate(found.elements)}
    sentence = (
        "The intensity of every candidate site and the class it was put in. Good: humps that stand apart with the boundaries in "
        "the valleys between them; bad: one broad hump cut by a boundary, where names of elements are a matter of chance."
    )
    figure = plots.draw_candidates(found.intensity, found.label, found.elements, found.boundaries)
    pieces = (shown(figure, "candidates", "Histogram of candidate intensities by class"),
              stage_numbers(summary, "tracing", extra))  # fmt: skip
    return Section("candidates", "Candidates", sentence, pieces)


def _script_json(text: str) -> str:
    """Return JSON that cannot close the script element it stands in."""
    return text.replace("</", "<\\/")


def atoms_section(directory: Path) -> Section | None:
    model = read_model(directory / "atoms.extxyz")
    if model is None or len(model.symbols) < MIN_DRAWN:
        return None
    known = read_model(directory / "truth.extxyz")
    truth = (known.positions_A, known.symbols) if known is not None and len(known.symbols) >= MIN_DRAWN else None
    network = read_json(directory / "rings.json")
    bonds, rings = bonds_of(network, len(model.symbols)), rings_of(network, len(model.symbols))
    turning = atoms_in_3d(model.positions_A, model.symbols, bonds, sigma_A=model.sigma_A,
                                species_probability=model.species_probability, truth=truth, rings=rings)  # fmt: skip
    still = plots.draw_atoms(model.positions_A, model.symbols, bonds, truth)
    size = np.ptp(model.positions_A, axis=0) / 10
    numbers: dict[str, Any] = {f"{symbol} atoms": n for symbol, n in model.counts().items()}
    numbers |= {"extent": " × ".join(f"{v:.2f}" for v in size) + " nm", "bonds": len(bonds)}
    sentence = (
        "The atoms found, to be turned with the mouse; point at one for its species, index, error bar and probability. Good: an "
        "even filling with a closed surface; bad: holes, layers missing along z, pairs of atoms on top of each other."
    )
    if truth is not None:
        sentence += " A click on “truth” in the legend lays the known atoms over the found ones."
    if rings:
        sentence += " The rings of each size are hidden until their name in the legend is clicked."
    holder = (
        '<figure class="turning"><div id="atoms-3d" role="img" aria-label="Atoms in 3D, can be turned"></div></figure>'
    )
    data = f'<script type="application/json" id="atoms-data">{_script_json(str(turning.to_json()))}</script>'
    pieces = (holder, data, shown(still, "still", "Still views of the atoms", "Still views; farther atoms are paler."),
              numbers_table(numbers))  # fmt: skip
    return Section("atoms", "Atoms in 3D", sentence, pieces)


def errors_section(directory: Path, summary: Mapping[str, Any]) -> Section | None:
    model = read_model(directory / "atoms.extxyz")
    if model is None or model.sigma_A is None or not np.isfinite(model.sigma_A).any():
        return None
    names, sigma_pm = np.asarray(model.symbols), 100 * model.sigma_A
    rows = []
    for symbol in model.counts():
        own = sigma_pm[(names == symbol) & np.isfinite(sigma_pm)]
        if own.size:
            rows.append((symbol, f"{own.size}", *(f"{np.percentile(own, p):.1f}" for p in (5, 50, 95))))
    sentence = (
        "How far each coordinate may be off by the noise of the images alone. Good: one narrow hump per element, narrower for "
        "heavier atoms; bad: a long tail to the right, atoms that the data hardly hold in place."
    )
    pieces = (
        shown(plots.draw_sigmas(model.sigma_A, model.symbols), "sigmas", "Histogram of error bars per element"),
        table(("element", "atoms", "5 % below (pm)", "median (pm)", "95 % below (pm)"), rows, "Per element"),
        stage_numbers(summary, "refinement"),
    )
    return Section("errors", "Error bars", sentence, pieces)


def fit_section(directory: Path) -> Section | None:
    found = read_fit(directory / "fit.h5")
    if found is None:
        return None
    sentence = (
        "How well the atoms explain the electrons that were counted, one by one. Good: a deviance of 1 in every tilt, what is left looks "
        "like noise, and no atom is near the least gain asked for; bad: tilts that stand out, spots or an outline of the particle in "
        "what is left."
    )
    told = "Mismatch of every tilt: 1 is what counting alone gives. What each atom is worth: by how much the counts are likelier with it."
    if found.halves_ratio is not None:
        told += (
            " Atoms of two halves: every other tilt was fitted apart; where error bars are honest, the atoms found twice lie as far apart "
            "as they state."
        )
    pieces = (
        shown(fit.draw_fit(found), "fit", "What tells whether the atoms explain the counts", told),
        shown(fit.draw_residuals(found), "residuals", "Counts, expectation and what is left of some tilts",
              "The least tilted, a usual and the worst explained tilt; red: more electrons than expected, blue: fewer."),
    )  # fmt: skip
    return Section("fit", "Fit of the counts", sentence, pieces)


def _sizes(record: Mapping[str, int] | None) -> dict[int, int]:
    return {int(size): int(count) for size, count in (record or {}).items()}


def _distributions(found: Mapping[str, Any], reference: Mapping[str, Any] | None, name: str) -> list[str]:
    """Return the pictures of distances, lengths, angles, scattering and numbers of bonds, of those that are known."""
    known, pieces = reference or {}, []
    if (found.get("pair_distribution") or {}).get("g"):
        figure = structure.draw_pair_distribution(found["pair_distribution"], known.get("pair_distribution"), name)
        pieces.append(
            shown(figure, "gofr", "Pair distribution functions", "Pair distribution g(r); 1 is a random filling.")
        )
    for key, anchor, title, label in _HISTOGRAMS:
        if structure.most_frequent(found.get(key) or {}):
            figure = structure.draw_histograms(found[key], known.get(key), label, name)
            pieces.append(
                shown(figure, anchor, f"Histograms of {title}", f"{title.capitalize()}, with how many there are.")
            )
    if (found.get("structure_factor") or {}).get("S"):
        figure = structure.draw_structure_factor(found["structure_factor"], known.get("structure_factor"), name)
        pieces.append(
            shown(
                figure, "sofq", "Structure factors", "Structure factor S(q), what scattering would show of these atoms."
            )
        )
    if found.get("coordination"):
        figure = structure.draw_coordination(found["coordination"], known.get("coordination"), name)
        pieces.append(shown(figure, "coordination", "Numbers of bonds per element", "How many bonds the atoms have."))
    return pieces


_HISTOGRAMS = (
    ("bond_lengths_A", "bondlengths", "bond lengths", "bond length (Å)"),
    ("bond_angles_deg", "bondangles", "bond angles", "bond angle (°)"),
    ("dihedral_angles_deg", "dihedrals", "dihedral angles", "dihedral angle (°)"),
)


def _ring_pictures(
    directory: Path,
    network: Mapping[str, Any],
    found: Mapping[str, Any],
    reference: Mapping[str, Any] | None,
    name: str,
) -> list[str]:
    """Return the histogram of ring sizes and the still view of rings in space."""
    pieces = []
    sizes: Mapping[int, Any] = structure.ring_sizes(found) or _sizes(network.get("sizes"))
    known, told = structure.reference_sizes(found, reference, name)
    others: Mapping[int, Any] = known or _sizes(network.get("truth_sizes"))
    if sizes or others:
        figure = structure.draw_ring_sizes(sizes, others, told)
        caption = f"Rings, definition “{network.get('definition', '?')}”."
        pieces.append(shown(figure, "ringsizes", "Histogram of ring sizes", caption))
    model = read_model(directory / "atoms.extxyz")
    drawn = rings_of(dict(network), len(model.symbols)) if model is not None else []
    if model is not None and any(len(ring) >= SMALLEST_RING for ring in drawn):
        figure = draw_rings(model.positions_A, bonds_of(dict(network), len(model.symbols)), drawn)
        caption = "Rings nearest the centre of the particle, each spanned from its own centre; farther ones are paler."
        pieces.append(shown(figure, "ringviews", "Still views of rings in the network", caption))
    return pieces


def _sides(directory: Path, network: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any] | None, str]:
    """Return what structure.json tells of the atoms found and of the reference, and the reference's name.

    Where it tells no ring sizes, those of the network stand in.
    """
    record = read_json(directory / "structure.json")
    found, reference = dict(record.get("found") or {}), record.get("reference")
    if not found.get("ring_sizes"):
        found["ring_sizes"] = dict(network.get("sizes") or {})
        if network.get("truth_sizes"):
            reference = dict(reference or {}) | {"ring_sizes": dict(network["truth_sizes"])}
    return found, reference, str(record.get("reference_name") or "truth")


def structure_section(directory: Path, summary: Mapping[str, Any]) -> Section | None:
    network = read_json(directory / "rings.json")
    found, reference, name = _sides(directory, network)
    if not network and not any(found.values()):
        return None
    pieces = _distributions(found, reference, name)
    pieces += _ring_pictures(directory, network, found, reference, name)
    pieces += [*structure_tables.tables(found, reference, name), stage_numbers(summary, "rings")]
    return Section("structure", "Structure", _structure_sentence(found, reference, name), tuple(p for p in pieces if p))


def _structure_sentence(found: Mapping[str, Any], reference: Mapping[str, Any] | None, name: str) -> str:
    agree = f" that agree with those of “{name}”" if reference else ""
    sentence = (
        "The network the atoms form. Good: sharp first peaks and an empty gap below them, bond lengths and angles in "
        f"narrow humps at the known places, numbers of bonds and ring sizes{agree or ' that the elements allow'}; "
        "bad: pairs closer than any bond, many atoms with too few or too many bonds, which break rings and shift their sizes."
    )
    if structure.tells_limits(found):
        sentence += (
            " Lines and bars are what was found, errors of the atoms included, which broaden every peak; shaded bands, "
            "error bars and numbers in parentheses are the limits in which, in 95 of 100 cases, lies what was there before those errors."
        )
    return sentence


def has_turning_view(sections: list[Section]) -> bool:
    """Return whether a section of the page needs the script that turns atoms."""
    return any('id="atoms-data"' in piece for section in sections for piece in section.pieces)
