"""The alignment stage with calibration: what aligned.h5 then holds, and what is said about it."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from pyaet.cli import main
from pyaet.console import Console
from pyaet.io.errors import InputError
from pyaet.plan import Alignment
from pyaet.stages.alignment import _doubts, align
from pyaet.stages.context import Context
from pyaet.stages.projections import Projections, write_projections
from tomo import Calibration, rotation
from tomo.calibrate.tilts import turns_between

CONTEXT = Context("cpu", 1, 0, Console(terminal=False), "key")
SIDE, PIXEL_A, SIGMA_PX, APART_A = 80, 0.4, 1.5, 2.4
TRUE_DEG = np.column_stack([np.zeros(25), np.linspace(-72, 72, 25), np.zeros(25)])


@pytest.fixture(scope="module")
def places_A() -> np.ndarray:
    """Atoms (m, 3) in a ball of 8 Å, none nearer to another than APART_A, about their centre of mass."""
    kept: list[np.ndarray] = []
    for at in np.random.default_rng(0).uniform(-8, 8, (4000, 3)):
        if np.linalg.norm(at) < 8 and all(np.linalg.norm(at - other) > APART_A for other in kept):
            kept.append(at)
    return np.array(kept) - np.mean(kept, axis=0)


def counts(places_A: np.ndarray, angles_deg: np.ndarray) -> np.ndarray:
    """Poisson counts (n, y, x) with a background of 2."""
    seen = places_A @ rotation(angles_deg).transpose(0, 2, 1) / PIXEL_A
    line = np.arange(SIDE) - SIDE // 2
    x, y = (np.exp(-((line - seen[..., k, None]) ** 2) / (2 * SIGMA_PX**2)) for k in (0, 1))
    return np.random.default_rng(1).poisson(2 + 50 * np.einsum("tay,tax->tyx", y, x)).astype(np.float32)


def test_refined_angles_stand_beside_the_given_ones(places_A: np.ndarray, tmp_path: Path) -> None:
    wrong = TRUE_DEG + np.random.default_rng(2).normal(0, (0.3, 0.8, 0.3), TRUE_DEG.shape)
    images = counts(places_A, TRUE_DEG)
    write_projections(tmp_path / "p.h5", Projections(images, wrong, PIXEL_A, "counts"), "key")
    told = align(tmp_path / "p.h5", tmp_path / "a.h5", Alignment(calibrate=True), CONTEXT, APART_A)
    with h5py.File(tmp_path / "a.h5") as file:
        refined, given, sigma = (file[n][()] for n in ("angles_deg", "given_angles_deg", "angle_sigma_deg"))
        aligned = file["projections"][()]
    np.testing.assert_array_equal(given, wrong)
    before, after = (
        np.sqrt((turns_between(rotation(a), rotation(TRUE_DEG)) ** 2).sum(axis=1).mean()) for a in (wrong, refined)
    )
    assert before > 0.6 and after < 0.35 * before
    assert sigma.shape == (25, 3) and (sigma > 0).all()
    assert told["calibration_settled"] and told["angle_change_rms_deg"] == pytest.approx(before, rel=0.3)
    assert np.abs(aligned.sum(axis=(1, 2)) / aligned.sum(axis=(1, 2)).mean() - 1).max() < 0.05


@pytest.mark.parametrize(("change_deg", "told"), [(0.3, True), (2.0, False)])
def test_a_change_within_its_errors_is_doubted(change_deg: float, told: bool) -> None:
    n = len(TRUE_DEG)
    found = Calibration(
        TRUE_DEG + change_deg, np.zeros((n, 2)), np.ones(n), np.zeros(n), np.full((n, 3), 0.2), np.ones((n, 2)), np.ones(n),
        np.ones(n), np.ones(n), (), (0.01,), True,
    )  # fmt: skip
    assert any("cannot better the given angles" in sentence for sentence in _doubts(found, TRUE_DEG)) == told


def test_a_change_within_its_errors_is_not_made(places_A: np.ndarray, tmp_path: Path) -> None:
    few = places_A[np.linalg.norm(places_A, axis=1) < 6]
    write_projections(tmp_path / "p.h5", Projections(counts(few, TRUE_DEG), TRUE_DEG, PIXEL_A, "counts"), "key")
    told = align(tmp_path / "p.h5", tmp_path / "a.h5", Alignment(calibrate=True), CONTEXT, APART_A)
    plain = align(tmp_path / "p.h5", tmp_path / "plain.h5", Alignment(), CONTEXT)
    assert not told["calibration_used"] and told["shift_max_A"] == plain["shift_max_A"]
    assert any("cannot better the given angles" in sentence for sentence in told["warnings"])
    with h5py.File(tmp_path / "a.h5") as file:
        np.testing.assert_array_equal(file["angles_deg"][()], TRUE_DEG)
        assert "angle_sigma_deg" not in file


def test_too_few_atoms_leave_the_tilts_as_they_are(places_A: np.ndarray, tmp_path: Path) -> None:
    write_projections(tmp_path / "p.h5", Projections(counts(places_A[:6], TRUE_DEG), TRUE_DEG, PIXEL_A, "c"), "key")
    told = align(tmp_path / "p.h5", tmp_path / "a.h5", Alignment(calibrate=True), CONTEXT, APART_A)
    assert any("not calibrated: the volume shows" in sentence for sentence in told["warnings"])
    assert "calibration_used" not in told
    with h5py.File(tmp_path / "a.h5") as file:
        np.testing.assert_array_equal(file["angles_deg"][()], TRUE_DEG)


def test_tilts_that_share_no_axis_go_without_the_common_line(places_A: np.ndarray, tmp_path: Path) -> None:
    apart = TRUE_DEG + np.arange(25)[:, None] * [0.0, 0.0, 0.4]
    write_projections(tmp_path / "p.h5", Projections(counts(places_A, apart), apart, PIXEL_A, "counts"), "key")
    told = align(tmp_path / "p.h5", tmp_path / "a.h5", Alignment(), CONTEXT)
    assert any("common line was left out" in sentence for sentence in told["warnings"])
    assert told["shift_max_A"] < PIXEL_A


def test_an_axis_that_is_not_known_is_searched(places_A: np.ndarray, tmp_path: Path) -> None:
    true = np.add(TRUE_DEG, [28.0, 0.0, 0.0])
    write_projections(tmp_path / "p.h5", Projections(counts(places_A, true), TRUE_DEG, PIXEL_A, "counts"), "key")
    told = align(tmp_path / "p.h5", tmp_path / "a.h5", Alignment(tilt_axis="search"), CONTEXT)
    assert told["tilt_axis_deg"] == pytest.approx(28.0, abs=1.0)
    assert not told["warnings"]
    with h5py.File(tmp_path / "a.h5") as file:
        np.testing.assert_array_equal(file["given_angles_deg"][()], TRUE_DEG)
        np.testing.assert_allclose(file["angles_deg"][()], true, atol=1.0)
        assert np.abs(file["shifts_A"][()]).max() < PIXEL_A


def test_an_axis_the_images_do_not_show_is_left_as_given(places_A: np.ndarray, tmp_path: Path) -> None:
    turned = TRUE_DEG + np.random.default_rng(4).uniform(-90, 90, (25, 1)) * [1.0, 0.0, 0.0]
    write_projections(tmp_path / "p.h5", Projections(counts(places_A, turned), TRUE_DEG, PIXEL_A, "counts"), "key")
    told = align(tmp_path / "p.h5", tmp_path / "a.h5", Alignment(tilt_axis="search", match=False), CONTEXT)
    assert any("do not show about which axis" in sentence for sentence in told["warnings"])
    with h5py.File(tmp_path / "a.h5") as file:
        np.testing.assert_array_equal(file["angles_deg"][()], TRUE_DEG)


def test_without_calibration_angles_are_left_alone(places_A: np.ndarray, tmp_path: Path) -> None:
    write_projections(tmp_path / "p.h5", Projections(counts(places_A, TRUE_DEG), TRUE_DEG, PIXEL_A, "counts"), "key")
    told = align(tmp_path / "p.h5", tmp_path / "a.h5", Alignment(), CONTEXT, APART_A)
    with h5py.File(tmp_path / "a.h5") as file:
        np.testing.assert_array_equal(file["angles_deg"][()], TRUE_DEG)
        assert "given_angles_deg" not in file
    assert "angle_change_rms_deg" not in told


def test_a_least_distance_is_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = np.zeros((25, 8, 8), np.float32)
    write_projections(tmp_path / "p.h5", Projections(images, TRUE_DEG, PIXEL_A, "counts"), "key")
    with pytest.raises(InputError, match="expected --min-distance-A"):
        align(tmp_path / "p.h5", tmp_path / "a.h5", Alignment(calibrate=True), CONTEXT)
    with pytest.raises(SystemExit) as ended:
        main(["align", str(tmp_path / "p.h5"), "--set", "calibrate=true", "--out", str(tmp_path / "a.h5")])
    assert ended.value.code == 2
    assert "--min-distance-A" in capsys.readouterr().err
    assert not (tmp_path / "a.h5").exists()
