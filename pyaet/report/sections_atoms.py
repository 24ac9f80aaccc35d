"""The sections of the result: candidates, the particle in 3D, error bars, structure."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pyaet.plots import atoms as plots
from pyaet.plots import fit, structure
from pyaet.plots.atoms_3d import atoms_in_3d
from pyaet.plots.results import bonds_of, read_candidates, read_fit, read_json, read_model
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
    bonds = bonds_of(read_json(directory / "rings.json"), len(model.symbols))
    turning = atoms_in_3d(model.positions_A, model.symbols, bonds, sigma_A=model.sigma_A,
                                species_probability=model.species_probability, truth=truth)  # fmt: skip
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


def _curves(record: Mapping[str, Any] | None) -> tuple[np.ndarray, dict[str, np.ndarray]] | None:
    if not record or not record.get("g"):
        return None
    return np.asarray(record["r_A"]), {pair: np.asarray(g) for pair, g in record["g"].items()}


def _sizes(record: Mapping[str, int] | None) -> dict[int, int]:
    return {int(size): int(count) for size, count in (record or {}).items()}


def _bond_table(lengths_A: Mapping[str, Any]) -> str:
    rows = [
        (pair, f"{len(values)}", f"{np.median(values):.3f}", f"{100 * np.std(values):.1f}")
        for pair, values in lengths_A.items()
        if len(values)
    ]
    return table(("bond", "count", "median (Å)", "spread (pm)"), rows, "Bonds") if rows else ""


def _ring_table(sizes: Mapping[int, int], truth: Mapping[int, int]) -> str:
    every = sorted({*sizes, *truth})
    rows = [("found", *(str(sizes.get(n, 0)) for n in every))]
    rows += [("truth", *(str(truth.get(n, 0)) for n in every))] if truth else []
    return table(("ring size", *(str(n) for n in every)), rows, "Rings")


def structure_section(directory: Path, summary: Mapping[str, Any]) -> Section | None:
    found = read_json(directory / "rings.json")
    if not found:
        return None
    pieces = []
    curves, sizes, true_sizes = (
        _curves(found.get("pair_distribution")),
        _sizes(found.get("sizes")),
        _sizes(found.get("truth_sizes")),
    )
    lengths = found.get("bond_lengths_A", {})
    if curves is not None:
        figure = structure.draw_pair_distribution(*curves, _curves(found.get("truth_pair_distribution")))
        pieces.append(
            shown(figure, "gofr", "Pair distribution functions", "Pair distribution g(r); 1 is a random filling.")
        )
    if any(len(values) for values in lengths.values()):
        figure = structure.draw_bond_lengths(lengths, found.get("truth_bond_lengths_A"))
        pieces.append(shown(figure, "bondlengths", "Histogram of bond lengths", "Bond lengths."))
    if sizes or true_sizes:
        figure = structure.draw_ring_sizes(sizes, true_sizes)
        pieces.append(
            shown(
                figure, "ringsizes", "Histogram of ring sizes", f"Rings, definition “{found.get('definition', '?')}”."
            )
        )
        pieces.append(_ring_table(sizes, true_sizes))
    pieces += [_bond_table(lengths), stage_numbers(summary, "rings")]
    sentence = (
        "The network the atoms form. Good: sharp first peaks and an empty gap below them, bond lengths in one narrow hump at the "
        "known length, ring sizes that agree with the truth where there is one; bad: pairs closer than any bond, many open or "
        "overlong bonds, which break rings and shift their sizes."
    )
    return Section("structure", "Structure", sentence, tuple(piece for piece in pieces if piece))


def has_turning_view(sections: list[Section]) -> bool:
    """Return whether a section of the page needs the script that turns atoms."""
    return any('id="atoms-data"' in piece for section in sections for piece in section.pieces)
