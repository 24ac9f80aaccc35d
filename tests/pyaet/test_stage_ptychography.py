"""4D-STEM tilts through the stage: right phases, per-tilt files kept or redone, faults told."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ptycho.series import overlap
from pyaet.console import Console
from pyaet.io.errors import InputError
from pyaet.io.fourdstem import inspect_tilt, write_tilt
from pyaet.plan import Input, Ptychography
from pyaet.simulate.fourdstem import Recording, simulate_tilt
from pyaet.stages.calibration import optics_of
from pyaet.stages.context import Context
from pyaet.stages.projections import read_projections
from pyaet.stages.ptychography import _tasks, reconstruct_series, tilts_of
from pyaet.stages.tilt import read_probe, reconstruct_tilt, tilt_key

ATOM_A = np.array([[2.0, -1.0, 1.5]])
RECORDING = Recording(scan_shape=(20, 20), window_A=14.0, dose_e_per_A2=1e5, phonons=1, slice_A=4.0)


@pytest.fixture(scope="module")
def tilts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two tilts of one silicon atom off the axis."""
    folder = tmp_path_factory.mktemp("tilts")
    for theta in (0.0, 60.0):
        angles = (0.0, theta, 0.0)
        counts = simulate_tilt(ATOM_A, ("Si",), angles, RECORDING, rng=np.random.default_rng(1))
        write_tilt(
            folder / f"tilt_{theta:.0f}.h5", counts, energy_eV=80e3, semiangle_mrad=30.0, defocus_A=120.0, step_A=0.5,
            pixel_mrad=RECORDING.pixel_mrad, angles_deg=angles, dose_e_per_A2=1e5,
        )  # fmt: skip
    return folder


def context(workers: int) -> Context:
    return Context("cpu", workers, 0, Console(terminal=False), "key")


@pytest.mark.parametrize("workers", [1, 2])
def test_the_atom_appears_where_the_tilt_puts_it(tilts: Path, tmp_path: Path, workers: int) -> None:
    source = Input(kind="4dstem", path=str(tilts))
    target = tmp_path / "projections.h5"
    told = reconstruct_series(source, tmp_path / "ptychography", target, Ptychography(), context(workers))
    assert told["tilts"] == 2
    assert [row["tilt_deg"] for row in told["consistency"]] == [0.0, 60.0]
    made = read_projections(target)
    for image, (_, theta, _) in zip(made.images, made.angles_deg, strict=True):
        angle = np.deg2rad(theta)
        x, y, z = ATOM_A[0]
        row, column = np.unravel_index(image.argmax(), image.shape)
        found = (np.array([column, row]) - np.array(image.shape[::-1]) // 2) * made.pixel_A
        np.testing.assert_allclose(found, [x * np.cos(angle) + z * np.sin(angle), y], atol=0.6 * made.pixel_A + 0.1)


def test_finished_tilts_are_kept_and_optics_redo_them(tilts: Path, tmp_path: Path) -> None:
    folder, target = tmp_path / "ptychography", tmp_path / "projections.h5"

    def run(**stated: float) -> dict[str, int]:
        source = Input(kind="4dstem", path=str(tilts), **stated)  # type: ignore[arg-type]
        reconstruct_series(source, folder, target, Ptychography(iterations=2), context(1))
        return stamps(folder)

    first = run()
    assert run() == first
    for stated in ({"energy_eV": 100e3}, {"semiangle_mrad": 29.0}, {"defocus_A": 110.0}):
        again = run(**stated)
        assert all(again[name] != first[name] for name in first), stated
        first = again


def test_the_key_of_a_tilt_follows_optics_and_content(tilts: Path) -> None:
    a, b = tilts_of(Input(kind="4dstem", path=str(tilts)))
    other = tilts_of(Input(kind="4dstem", path=str(tilts), energy_eV=100e3))[0]
    keys = {tilt_key(t, Ptychography(), 0) for t in (a, b, other)} | {tilt_key(a, Ptychography(iterations=9), 0)}
    assert len(keys) == 4


def stamps(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("tilt_*.h5")}


def test_a_refined_probe_of_the_least_tilt_starts_the_others(tilts: Path, tmp_path: Path) -> None:
    folder, target = tmp_path / "ptychography", tmp_path / "projections.h5"
    source = Input(kind="4dstem", path=str(tilts))

    def run(**changes: object) -> dict[str, int]:
        reconstruct_series(source, folder, target, Ptychography(iterations=2, **changes), context(2))
        return stamps(folder)

    first = run(update_probe=0)
    reference, other = "tilt_000.h5", "tilt_001.h5"
    assert first[reference] < first[other]
    assert run(update_probe=0) == first
    alone = run(update_probe=0, share_probe=False)
    assert alone[reference] == first[reference]
    assert alone[other] != first[other]
    again = run(update_probe=1)
    assert all(again[name] != alone[name] for name in again)


def test_the_start_is_the_probe_of_the_reference_and_no_other(tilts: Path, tmp_path: Path) -> None:
    """With the probe refined behind the last iteration the hand-over shows as it is: equal probes."""
    least, tilted = tilts_of(Input(kind="4dstem", path=str(tilts)))
    files = [replace(least, defocus_A=70.0), tilted]
    reference, other = _tasks(files, tmp_path, Ptychography(iterations=1, update_probe=0, calibrate="off"), context(1))
    assert (reference.probe_from, other.probe_from) == (None, reference.target)
    late = Ptychography(iterations=1, update_probe=5, calibrate="off")
    reconstruct_tilt(reference)
    reconstruct_tilt(replace(other, settings=late))
    a, b = read_probe(reference.target)[0], read_probe(other.target)[0]
    assert overlap(a, b) > 0.9999
    reconstruct_tilt(replace(other, settings=late, probe_from=None, key="x"))
    assert overlap(a, read_probe(other.target)[0]) < 0.95


def test_tilts_of_other_pixels_do_not_share_a_probe(tilts: Path, tmp_path: Path) -> None:
    files = tilts_of(Input(kind="4dstem", path=str(tilts)))
    files[1] = replace(files[1], pixel_mrad=1.01 * files[1].pixel_mrad)
    with pytest.raises(InputError, match=r"tilt_60\.h5: energy, pixel_mrad or detector differ.*share_probe = false"):
        _tasks(files, tmp_path, Ptychography(update_probe=0), context(1))


def test_without_a_refined_probe_the_tilts_are_independent(tilts: Path, tmp_path: Path) -> None:
    files = tilts_of(Input(kind="4dstem", path=str(tilts)))
    tasks = _tasks(files, tmp_path, Ptychography(update_positions=1, calibrate="off"), context(1))
    assert all(task.probe_from is None for task in tasks)
    assert [task.key for task in tasks] == [tilt_key(file, tasks[0].settings, i) for i, file in enumerate(files)]


def test_what_the_plan_says_of_the_lens_stands_above_the_file(tilts: Path) -> None:
    (tilt, _) = tilts_of(Input(kind="4dstem", path=str(tilts), c30_A=1e5, focal_spread_A=20.0))
    assert optics_of(tilt).c30_A == 1e5
    assert optics_of(tilt).focal_spread_A == 20.0


def test_a_vacuum_radius_beyond_the_field_is_told_with_the_file(tilts: Path, tmp_path: Path) -> None:
    source = Input(kind="4dstem", path=str(tilts / "tilt_0.h5"))
    with pytest.raises(InputError, match=r"tilt_0\.h5: vacuum_radius_A is 50"):
        reconstruct_series(
            source, tmp_path, tmp_path / "p.h5", Ptychography(iterations=1, vacuum_radius_A=50.0), context(1)
        )
    assert not (tmp_path / "p.h5").exists()
    assert inspect_tilt(tilts / "tilt_0.h5").angles_deg == (0.0, 0.0, 0.0)
