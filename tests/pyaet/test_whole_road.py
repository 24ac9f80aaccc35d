"""The whole road on specimens whose truth is known; minutes, not seconds."""

from __future__ import annotations

from importlib.resources import as_file, files
from pathlib import Path

import pytest

from pyaet.plan import Plan, load_plan
from pyaet.run import run_plan

PLANS = Path(__file__).parents[1] / "bench" / "plans"
pytestmark = pytest.mark.slow


def published(name: str, shared: Path) -> Plan:
    """A plan of the benchmarks with its paths moved to where the data are."""
    plan = load_plan(PLANS / f"{name}.toml")
    assert plan.input is not None and plan.truth is not None
    folder = shared / name

    def moved(path: str) -> str:
        return str(folder / Path(path).name)

    changes = {"path": moved(str(plan.input.path))}
    if isinstance(plan.input.angles, str):
        changes["angles"] = moved(plan.input.angles)
    truth = plan.truth.model_copy(update={"path": moved(plan.truth.path)})
    return plan.model_copy(update={"input": plan.input.model_copy(update=changes), "truth": truth})


def test_the_demo_finds_and_names_its_atoms(tmp_path: Path) -> None:
    with as_file(files("pyaet") / "demo.toml") as path:
        strict = run_plan(load_plan(path), tmp_path / "demo")["score"]["strict"]
    assert min(strict["recall"], strict["precision"], strict["right_element"]) >= 0.97
    assert strict["rmsd_pm"] < 6


def test_published_silicon_counts(shared: Path, tmp_path: Path) -> None:
    strict = run_plan(published("si208", shared), tmp_path / "run")["score"]["strict"]
    assert strict["found"] == 208
    assert strict["precision"] == 1.0
    assert strict["rmsd_pm"] < 11


def test_silica_at_low_dose(shared: Path, tmp_path: Path) -> None:
    summary = run_plan(published("silica286", shared), tmp_path / "run")
    strict, elements = summary["score"]["strict"], summary["score"]["elements"]
    assert min(strict["recall"], strict["precision"], strict["right_element"]) >= 0.99
    assert elements["Si"]["rmsd_pm"] < 6
    assert elements["O"]["rmsd_pm"] < 9
