"""The refinement stage: counts where there are any, else aligned projections; and the bound before an experiment."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis import Atoms, compare
from pyaet.cli import main
from pyaet.commands.road import table
from pyaet.console import Console
from pyaet.io.errors import InputError
from pyaet.io.structures import read_structure, write_extxyz
from pyaet.io.xyz import read_xyz
from pyaet.plan import Adf, Alignment, Input, Plan, Refinement, Simulation, Specimen, load_plan
from pyaet.plots.results import read_fit
from pyaet.report.sections_atoms import fit_section
from pyaet.stages import adf, alignment, doubts, limit
from pyaet.stages.context import Context
from pyaet.stages.refinement import read_counts, refine

CONTEXT = Context("cpu", 1, 0, Console(terminal=False), "key")
SPECIMEN = Specimen(elements=("Si",), min_distance_A=1.8)
SILICA = Specimen(elements=("Si", "O"), min_distance_A=1.2)


@pytest.fixture
def made(series: Path) -> Path:
    """The folder of the series with projections.h5, aligned.h5 and atoms 0.2 Å off."""
    prepared(series, Adf())
    off = truth(series) + np.random.default_rng(0).normal(0, 0.1, (9, 3))
    write_extxyz(series / "traced.extxyz", Atoms(off, ("Si",) * 9))
    return series


def prepared(folder: Path, settings: Adf) -> None:
    source = load_plan(folder / "plan.toml").input
    assert source is not None
    adf.condition(source, folder / "projections.h5", settings, CONTEXT)
    alignment.align(folder / "projections.h5", folder / "aligned.h5", Alignment(), CONTEXT)


def refined(folder: Path, settings: Refinement, projections: str | None = "projections.h5") -> dict:
    return refine(
        folder / "traced.extxyz", folder / "aligned.h5", folder / projections if projections else None,
        folder / "atoms.extxyz", folder / "fit.h5", SPECIMEN, settings, CONTEXT,
    )  # fmt: skip


def truth(folder: Path) -> np.ndarray:
    return read_structure(folder / "truth.extxyz").positions_A


def off_pm(folder: Path) -> float:
    found = read_structure(folder / "atoms.extxyz")
    return compare(found.positions_A, None, truth(folder), None, 0.5).strict.rmsd_pm


def test_counts_are_those_of_the_detector(made: Path) -> None:
    given = read_counts(made / "projections.h5", made / "aligned.h5", 0.5)
    assert given is not None
    np.testing.assert_allclose(given.electrons, np.load(made / "counts.npy"), atol=1e-4)
    assert given.ground.shape == (20, 1, 1)
    np.testing.assert_allclose(given.ground, 1.0, atol=0.2)


def test_atoms_are_fitted_to_the_counts(made: Path) -> None:
    told = refined(made, Refinement())
    assert told["method"] == "likelihood" and told["atoms"] == {"Si": 9}
    assert off_pm(made) < 5
    columns = read_xyz(made / "atoms.extxyz").columns
    assert columns["sigma_xyz_A"].shape == (9, 3) and columns["covariance_A2"].shape == (9, 6)
    np.testing.assert_allclose(columns["covariance_A2"][:, [0, 3, 5]], columns["sigma_xyz_A"] ** 2)
    assert (columns["likelihood_gain"] > 100).all()
    assert told["deviance"] == pytest.approx(1.0, abs=0.05) and not told["warnings"]


def test_least_squares_may_be_asked_for(made: Path) -> None:
    told = refined(made, Refinement(method="least_squares"))
    assert told["method"] == "least_squares"
    assert off_pm(made) < 8


def test_what_was_denoised_is_no_count_any_more(made: Path) -> None:
    prepared(made, Adf(denoise="wavelet"))
    assert refined(made, Refinement())["method"] == "least_squares"
    with pytest.raises(InputError, match=r'holds no counts .* use "least_squares"'):
        refined(made, Refinement(method="likelihood"))
    with pytest.raises(InputError, match=r"aligned\.h5: holds no counts"):
        refined(made, Refinement(method="likelihood"), None)


def test_mislabelled_tilts_are_doubted(made: Path) -> None:
    with h5py.File(made / "aligned.h5", "r+") as file:
        file["angles_deg"][::2] = file["angles_deg"][::2][::-1]
    told = refined(made, Refinement())
    assert any("do not explain the counts" in sentence for sentence in told["warnings"])


def test_halves_of_the_series_agree_or_are_doubted(made: Path) -> None:
    told = refined(made, Refinement())
    assert told["halves_atoms"] == [9, 9] and told["halves_agreement"] == 1.0
    assert 0.3 < told["halves_distance_over_stated"] < 2.0
    assert told["r_free"] > told["r_work"] > 0
    assert "r_free" not in refined(made, Refinement(quality=False))


def test_atoms_fitted_without_a_probe_are_told(made: Path) -> None:
    source = Input(kind="adf", path="counts.npy", angles=(0.0, 5.0), pixel_A=0.35)
    (sentence,) = doubts.of_optics(source)
    assert "fitted as a Gaussian" in sentence and "input.energy_eV and input.semiangle_mrad" in sentence
    assert doubts.of_optics(source.model_copy(update={"energy_eV": 200e3, "semiangle_mrad": 17.5})) == []
    assert refined(made, Refinement(quality=False))["atoms_look_like"] == "a Gaussian"


@pytest.mark.parametrize(("excess", "said"), [(1.1, "too few at this dose"), (4.0, "tilts contradict each other")])
def test_few_electrons_are_told_from_tilts_that_contradict_each_other(excess: float, said: str) -> None:
    halves = SimpleNamespace(agreement=0.77, excess=excess, distance_ratio=1.2, held_out=np.ones(4))
    assert said in doubts.of_halves(halves, np.zeros((4, 3)))[0]


def test_an_element_that_is_not_there_is_doubted() -> None:
    atoms = Atoms(np.arange(12.0).reshape(4, 3), ("Si", "Si", "Ge", "Ge"))
    found = SimpleNamespace(
        atoms=atoms, misfit=np.ones(5), brightness_z=np.array([1, -1, 3.0, -3.0]), amplitudes={"Si": 10.0, "Ge": 11.0},
        worth=np.full(4, 50.0), believed={"Si": 5.0, "Ge": 6.0},
    )  # fmt: skip
    scatter, ratio = doubts.of_fit(found, np.zeros((5, 3)))
    assert "brightness of the Ge atoms scatters 3.0 times" in scatter
    assert "Ge atoms are 1.10 times as bright as Si atoms" in ratio
    found.amplitudes["Ge"], found.brightness_z = 41.0, np.ones(4)
    assert doubts.of_fit(found, np.zeros((5, 3))) == []
    found.worth = np.array([7.0, 9.0, 50.0, 50.0])
    (barely,) = doubts.of_fit(found, np.zeros((5, 3)))
    assert "the 2 Si atoms are hardly worth believing: half of them add less than 8.0" in barely
    assert "where 5.0 is the least" in barely


def test_how_well_the_counts_are_explained_is_kept_and_drawn(made: Path) -> None:
    refined(made, Refinement())
    fit = read_fit(made / "fit.h5")
    assert fit is not None and fit.held_out is not None and fit.halves_ratio is not None
    assert fit.deviance.shape == fit.held_out.shape == fit.tilts_deg.shape == (20,)
    assert fit.gains.shape == (9,) and fit.halves_ratio.shape == (9,)
    np.testing.assert_allclose(fit.counts, np.load(made / "counts.npy")[list(fit.shown)], atol=1e-3)
    left = (fit.counts - fit.expected) / np.sqrt(fit.expected)
    assert 0.8 < left.std() < 1.2
    section = fit_section(made)
    assert section is not None and section.html().count("<svg") == 2 and "Atoms of two halves" in section.html()
    refined(made, Refinement(quality=False))
    alone = read_fit(made / "fit.h5")
    assert alone is not None and alone.held_out is None and alone.halves_ratio is None
    with pytest.raises(InputError, match="holds no counts"):
        refined(made, Refinement(method="likelihood"), None)
    assert read_fit(made / "fit.h5") is not None
    refined(made, Refinement(method="least_squares"))
    assert fit_section(made) is None


def test_distances_that_no_bond_has_are_doubted() -> None:
    line = np.array([[0, 0, 0], [2.35, 0, 0], [4.7, 0, 0], [7.05, 0, 0]])
    assert doubts.of_distances(Atoms(line, ("Si",) * 4), 1.9) == []
    (radii,) = doubts.of_distances(Atoms(line, ("Pt",) * 4), 1.9)
    assert "2.35 Å apart, 0.86 times the sum of the covalent radii" in radii
    (crowded,) = doubts.of_distances(Atoms(line, ("Si",) * 4), 2.9)
    assert "100% of the atoms are as near to another as specimen.min_distance_A = 2.9 allows" in crowded


def glass() -> np.ndarray:
    """Places (n, 3) in a dense random packing, none nearer than 2.35 Å to another."""
    rng, kept = np.random.default_rng(3), np.zeros((1, 3))
    for at in rng.uniform(-11, 11, (60000, 3)):
        if np.linalg.norm(at) < 11 and np.linalg.norm(kept - at, axis=1).min() > 2.35:
            kept = np.vstack([kept, at])
    return kept


def test_atoms_that_are_sheared_are_doubted() -> None:
    places = glass()
    assert doubts.of_distances(Atoms(places, ("Si",) * len(places)), 1.9) == []
    sheared = places @ np.array([[1.0, 0.0, 0.05], [0.0, 1.0, 0.0], [0.05, 0.0, 1.0]])
    (sentence,) = doubts.of_distances(Atoms(sheared, ("Si",) * len(places)), 1.9)
    assert "longer than across" in sentence and "mislabelled" in sentence
    few = doubts.of_distances(Atoms(sheared[:8], ("Si",) * 8), 1.9)
    assert not any("longer than across" in sentence for sentence in few)


@given(st.floats(-0.1, 0.1), st.floats(-0.1, 0.1), st.integers(0, 99))
def test_a_strain_of_bonds_is_found(along: float, across: float, seed: int) -> None:
    way = np.random.default_rng(seed).normal(size=(200, 3))
    way /= np.linalg.norm(way, axis=1)[:, None]
    tensor = np.array([[along, across, 0.0], [across, 0.0, 0.0], [0.0, 0.0, -along]])
    stretch, _, longest = doubts.strain(way, np.einsum("ni,ij,nj->n", way, tensor, way) + 0.3)
    values, vectors = np.linalg.eigh(tensor)
    assert stretch == pytest.approx(values[2] - values[0], abs=1e-9)
    if values[2] - values[1] > 1e-3:
        assert abs(longest @ vectors[:, 2]) == pytest.approx(1.0, abs=1e-5)


def test_one_bad_tilt_is_named(made: Path) -> None:
    with h5py.File(made / "aligned.h5", "r+") as file:
        file["angles_deg"][7] += [0.0, 20.0, 0.0]
    told = refined(made, Refinement())
    assert told["worst_tilt_deg"] == pytest.approx(83.0)
    assert any("number 7 (+83°)" in sentence for sentence in told["warnings"])


def test_the_verb_takes_counts(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["refine", str(made / "traced.extxyz"), str(made / "aligned.h5"), "--min-distance-A", "1.8"]
    with pytest.raises(SystemExit) as ended:
        main([*words, "--counts", str(made / "projections.h5"), "--out", str(made / "r.extxyz"), "--json"])
    assert ended.value.code == 0
    assert json.loads(capsys.readouterr().out)["method"] == "likelihood"


PLANNED = Simulation(
    kind="adf", diameter_A=9.0, angles=(0.0, 30.0, 60.0, 90.0, 120.0, 150.0), field_A=14.0, dose_e_per_A2=1e5, model="linear"
)  # fmt: skip


def test_the_bound_falls_with_dose_and_tilts() -> None:
    found = limit.limits(Plan(specimen=SILICA, simulation=PLANNED), CONTEXT)
    planned, fewer = found["tilts"]["as planned"], found["tilts"]["every 2nd"]
    assert set(planned["rmsd_pm"]) == {"O", "Si"}
    for element, values in planned["rmsd_pm"].items():
        assert (np.diff(values) < 0).all()
        assert (np.array(fewer["rmsd_pm"][element]) > np.array(values)).all()
    brightest = planned["rmsd_pm"]["Si"][-2:]
    # Far above the background ten times the electrons are worth √10; below it more.
    assert np.sqrt(2.5) * 0.98 < brightest[0] / brightest[1] < 2.5
    assert "within ±70°" in found["tilts"]


def test_the_bound_takes_the_brightness_that_was_measured() -> None:
    plain = limit.limits(Plan(specimen=SILICA, simulation=PLANNED), CONTEXT)
    brighter = {symbol: 4 * area_A2 for symbol, area_A2 in plain["cross_sections_A2"].items()}
    planned = PLANNED.model_copy(update={"cross_sections_A2": brighter})
    found = limit.limits(Plan(specimen=SILICA, simulation=planned), CONTEXT)
    assert found["cross_sections_A2"] == brighter
    fourfold, once = (one["tilts"]["as planned"]["rmsd_pm"]["Si"] for one in (found, plain))
    # Doses 1/4, 1/2, 1 of brighter atoms are doses 1, 2, 4 of the others: the ground is the same.
    np.testing.assert_allclose(fourfold[1:4], once[3:6], rtol=1e-9)


def test_a_bound_is_not_stated_where_atoms_are_not_found() -> None:
    rows = {"as planned": {"tilts": 3, "rmsd_pm": {"Si": [12.0, 96.0]}}}
    found = {
        "dose_e_per_A2": [1e4, 1e2], "least_distance_pm": 190.0, "cross_sections_A2": {"Si": 0.00178}, "tilts": rows
    }  # fmt: skip
    line, areas = table(found).splitlines()[1:3]
    assert line.split()[-2:] == ["12", "-"]
    assert "Si 0.00178" in areas


def test_a_bound_is_for_the_elements_of_the_plan() -> None:
    gold = SILICA.model_copy(update={"elements": ("Au",)})
    with pytest.raises(InputError, match="found Au; expected O, Si as well"):
        limit.limits(Plan(specimen=gold, simulation=PLANNED), CONTEXT)


def test_likelihood_of_images_that_are_no_counts_is_a_fault_of_the_plan() -> None:
    with pytest.raises(ValueError, match=r'found kind "adf" and adf\.denoise "nlm"'):
        Plan(specimen=SILICA, simulation=PLANNED, adf=Adf(denoise="nlm"), refinement=Refinement(method="likelihood"))


def test_a_bound_needs_a_dark_field_plan(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "plan.toml"
    path.write_text('[specimen]\nelements = ["Si", "O"]\nmin_distance_A = 1.2\n[simulation]\nkind = "4dstem"\n')
    with pytest.raises(SystemExit) as ended:
        main(["limit", str(path)])
    assert ended.value.code == 2
    assert 'kind = "adf"' in capsys.readouterr().err
    path.write_text(path.read_text().replace("4dstem", "adf") + "diameter_A = 8.0\nfield_A = 12.0\n")
    with pytest.raises(SystemExit) as ended:
        main(["limit", str(path)])
    assert ended.value.code == 0
    assert "every 2nd, 13 tilts: Si" in capsys.readouterr().out
