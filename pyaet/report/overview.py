"""The opening of the report: headline numbers, the state of every stage, the score against a truth, the warnings."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pyaet.plots.results import (
    Model,
    missing_stages,
    read_json,
    read_model,
    read_projections,
    read_volume,
    run_kind,
    stages_of,
)
from pyaet.plots.style import signed
from pyaet.report.html import Section, card, cards, duration, notice, number, share, table


def _atoms_card(model: Model) -> str:
    counts = " · ".join(f"{n} {symbol}" for symbol, n in model.counts().items())
    return card("Atoms found", f"{len(model.symbols)}", counts)


def _score_cards(score: Mapping[str, Any]) -> list[str]:
    strict = score.get("strict", {})
    cutoff = f"cutoff {score['cutoff_A']:g} Å" if score.get("cutoff_A") else ""
    found = f"recall {share(strict.get('recall'))}, precision {share(strict.get('precision'))}"
    return [
        card("Found and rightly named", share(strict.get("right_element")), found),
        card("Distance to truth", f"{strict['rmsd_pm']:.1f} pm" if strict.get("rmsd_pm") is not None else "–",
             f"3D RMSD, {cutoff}" if cutoff else "3D RMSD"),
    ]  # fmt: skip


def _sigma_card(model: Model) -> list[str]:
    if model.sigma_A is None or not np.isfinite(model.sigma_A).any():
        return []
    return [
        card(
            "Median error bar",
            f"{100 * np.nanmedian(model.sigma_A):.1f} pm",
            "of one coordinate, noise of the images alone",
        )
    ]


def headline(directory: Path, summary: Mapping[str, Any]) -> list[str]:
    """Return the cards of whatever is known so far."""
    model = read_model(directory / "atoms.extxyz")
    volume = read_volume(directory / "volume.h5")
    tilts = read_projections(directory / "projections.h5")
    score = summary.get("score")
    items = [_atoms_card(model)] if model else []
    items += _score_cards(score) if score else []
    items += _sigma_card(model) if model else []
    if volume is not None and volume.r_factor.size:
        iterations = f"after {volume.r_factor.size} iterations" if volume.r_factor.size > 1 else "of a back-projection"
        items.append(card("R-factor", f"{volume.r_factor[-1]:.3g}", iterations))
    if tilts is not None:
        angles = f"{signed(tilts.tilts_deg.min())}° to {signed(tilts.tilts_deg.max())}°"
        items.append(card("Tilts", f"{len(tilts.tilts_deg)}", f"{angles}, pixel {tilts.pixel_A:.3g} Å"))
    road = {stage for stage, _ in stages_of(run_kind(directory, dict(summary)))}
    seconds = [
        told["seconds"] for stage, told in summary.get("stages", {}).items() if stage in road and "seconds" in told
    ]
    if seconds:
        where = f"on {summary.get('device', 'unknown device')}"
        where += ", simulation not counted" if "simulation" in summary.get("stages", {}) else ""
        items.append(card("Total time", duration(sum(seconds)), where))
    return items


def _stage_table(kind: str, summary: Mapping[str, Any], missing: dict[str, str]) -> str:
    rows = []
    for stage, name in stages_of(kind):
        seconds = summary.get("stages", {}).get(stage, {}).get("seconds")
        state = "missing" if stage in missing else "done"
        rows.append((stage, state, name, duration(seconds) if seconds is not None else "–"))
    return table(("stage", "state", "file", "time"), rows, "Stages")


def _score_tables(score: Mapping[str, Any]) -> list[str]:
    strict, paper = score.get("strict", {}), score.get("paper", {})
    names = ("found", "recall", "precision", "f1", "right_element", "rmsd_pm")
    heads = ("found", "recall", "precision", "F1", "found and rightly named", "RMSD (pm)")
    pieces = [
        table(
            ("", *heads),
            [
                ("strict: one to one", *(number(strict.get(name)) for name in names)),
                ("paper: nearest", number(paper.get("matched")), number(paper.get("share")), "–", "–", "–",
                 number(paper.get("rmsd_pm"))),
            ],
            "Score against the truth",
        )
    ]  # fmt: skip
    if score.get("elements"):
        rows = [(symbol, *(number(e.get(k)) for k in ("truth", "found", "right", "rmsd_pm")))
                for symbol, e in score["elements"].items()]  # fmt: skip
        pieces.append(table(("element", "in truth", "found", "rightly named", "RMSD (pm)"), rows, "Per element"))
    return pieces


def overview_section(directory: Path, kind: str, summary: Mapping[str, Any]) -> Section:
    """Return the headline numbers, what is missing, the stages, the score."""
    missing = dict(missing_stages(directory, kind))
    pieces = [cards(headline(directory, summary))]
    if missing:
        named = ", ".join(f"{stage} ({name})" for stage, name in missing.items())
        pieces.append(notice(f"The run is not complete. Missing stages: {named}. Run it again to go on from here."))
    if summary.get("score"):
        pieces += _score_tables(summary["score"])
    pieces.append(_stage_table(kind, summary, missing))
    sentence = (
        "The result in a few numbers. Good: nearly all atoms of the truth found and rightly named, error bars of a few to "
        "twenty picometres; without a truth, look at the error bars, the bond lengths and the warnings, not at the R-factor alone."
    )
    return Section("overview", "Overview", sentence, tuple(pieces))


def warnings_section(summary: Mapping[str, Any]) -> Section:
    """Return the warnings the run raised, one frame each."""
    raised = summary.get("warnings", [])
    pieces = [notice(str(text)) for text in raised] or [notice("The run raised no warning.", "good")]
    return Section("warnings", "Warnings", "What the run itself found doubtful; each deserves a look before a number is used.",
                   tuple(pieces))  # fmt: skip


def provenance_section(directory: Path, summary: Mapping[str, Any]) -> Section:
    """Return the plan, folded, and the versions of everything that computed."""
    from html import escape

    pieces = []
    plan = directory / "plan.toml"
    if plan.is_file():
        text = escape(plan.read_text(encoding="utf-8", errors="replace"))
        pieces.append(f"<details><summary>plan.toml, as it was resolved</summary><pre>{text}</pre></details>")
    facts = [("pyaet", number(summary.get("pyaet_version"))), ("created", number(summary.get("created"))),
             ("device", number(summary.get("device")))]  # fmt: skip
    facts += [(name, str(version)) for name, version in summary.get("versions", {}).items()]
    if summary:
        pieces.append(table((), facts, "Versions"))
    return Section(
        "plan",
        "Plan and versions",
        "What was asked for, and what computed it: enough to repeat the run.",
        tuple(pieces),
    )


def read_summary(directory: Path) -> dict[str, Any]:
    """Return `summary.json` of a run, empty when it is not written yet."""
    return read_json(directory / "summary.json")
