"""Search of calibration numbers, on functions with a known minimum and on simulated patterns."""

from __future__ import annotations

import sys

import numpy as np
import pytest

import ptycho
from ptycho.calibrate import frame_matrix
from ptycho.grid import pixel_A
from ptycho.tune import Parameter, alternatives, objective, specimen_patterns, tune

N, PIXEL_MRAD, STEP_A, SIDE = 40, 2.5, 0.9, 20
OPTICS = ptycho.Optics(80e3, 25.0, 150.0)
PIXEL_A = pixel_A(OPTICS.wavelength_A, N, PIXEL_MRAD)
ROTATION_DEG = 6.0


def grid_A() -> np.ndarray:
    axis = STEP_A * (np.arange(SIDE) - SIDE // 2)
    return np.stack(np.meshgrid(axis, axis, indexing="ij"), -1).reshape(-1, 2)


@pytest.fixture(scope="module")
def measured() -> ptycho.Patterns:
    """Poisson patterns of atoms in a disk beside the middle of the scan; the stated positions lack a rotation of 6°."""
    rng = np.random.default_rng(5)
    size = 2 * int(np.ceil(SIDE * STEP_A * 0.75 / PIXEL_A)) + N + 10
    axis = (np.arange(size) - size // 2) * PIXEL_A
    phase = np.zeros((size, size))
    for radius, angle in zip(4.0 * np.sqrt(rng.random(40)), rng.uniform(0, 2 * np.pi, 40), strict=True):
        y, x = 2 + radius * np.sin(angle), 1.5 + radius * np.cos(angle)
        phase += 0.25 * np.exp(-((axis[:, None] - y) ** 2 + (axis[None] - x) ** 2) / (2 * 0.5**2))
    probe = np.sqrt(400.0) * OPTICS.probe((N, N), (PIXEL_A, PIXEL_A))
    k = np.fft.fftfreq(N)
    counts = []
    for y, x in grid_A() @ frame_matrix(ROTATION_DEG, False).T / PIXEL_A:
        top, left = round(y) + size // 2 - N // 2, round(x) + size // 2 - N // 2
        ramp = np.exp(-2j * np.pi * ((y - round(y)) * k[:, None] + (x - round(x)) * k[None]))
        wave = np.fft.ifft2(np.fft.fft2(probe) * ramp) * np.exp(1j * phase[top : top + N, left : left + N])
        counts.append(rng.poisson(np.abs(np.fft.fftshift(np.fft.fft2(wave, norm="ortho"))) ** 2))
    return ptycho.Patterns(np.array(counts, np.uint16), grid_A(), PIXEL_MRAD)


def test_a_parabola_gives_its_minimum_and_its_width():
    found = tune(lambda v: 7 + 0.5 * ((v["a"] - 3.2) / 0.4) ** 2, [Parameter("a", 0, -10, 10, 0.01)])
    assert found.best["a"] == pytest.approx(3.2, abs=1e-6)
    assert found.uncertainty["a"] == pytest.approx(0.4, rel=1e-6)
    assert found.loss == pytest.approx(7) and not found.at_limit
    assert len(found.trials) < 25


def test_correlated_parameters_have_the_covariance_of_the_likelihood():
    covariance = np.array([[4.0, 1.5], [1.5, 0.9]])
    centre, inverse = np.array([12.0, -1.0]), np.linalg.inv(covariance)

    def loss(values: dict[str, float]) -> float:
        d = np.array([values["a"], values["b"]]) - centre
        return 0.5 * float(d @ inverse @ d)

    found = tune(loss, [Parameter("a", 0, -50, 50, 0.1), Parameter("b", 3, -5, 5, 0.02)])
    assert found.best["a"] == pytest.approx(12, abs=1e-3) and found.best["b"] == pytest.approx(-1, abs=1e-3)
    assert found.uncertainty["a"] == pytest.approx(2, rel=1e-3)
    assert found.uncertainty["b"] == pytest.approx(np.sqrt(0.9), rel=1e-3)


def test_noise_of_the_loss_does_not_mislead(rng):
    for _ in range(20):
        noise = np.random.default_rng(int(rng.integers(1 << 30)))

        def loss(v: dict[str, float], noise: np.random.Generator = noise) -> float:
            return 0.5 * ((v["a"] - 1.7) / 0.5) ** 2 + 0.3 * noise.normal()

        found = tune(loss, [Parameter("a", 5, -10, 10, 0.1)])
        assert abs(found.best["a"] - 1.7) < 0.6
        assert found.uncertainty["a"] == pytest.approx(0.5, rel=0.25)


def test_the_deeper_of_two_valleys_is_found_from_the_other():
    def loss(v: dict[str, float]) -> float:
        return -50 * np.exp(-(((v["d"] + 180) / 25) ** 2)) - 200 * np.exp(-(((v["d"] - 176) / 25) ** 2))

    found = tune(loss, [Parameter("d", -180, -300, 300, 1)])
    assert found.best["d"] == pytest.approx(176, abs=1)


def test_later_parameters_reopen_the_search_of_earlier_ones():
    """The first parameter means nothing until the second one has found its valley."""

    def loss(v: dict[str, float]) -> float:
        return -100 * np.exp(-(((v["b"] - 70) / 12) ** 2)) * (1 + np.exp(-(((v["a"] - 6) / 2) ** 2)))

    found = tune(loss, [Parameter("a", -8, -10, 10, 0.05), Parameter("b", -90, -100, 100, 0.2, grid=17)])
    assert found.best["a"] == pytest.approx(6, abs=0.1) and found.best["b"] == pytest.approx(70, abs=0.4)


def test_the_end_of_a_range_and_of_a_budget_are_told():
    found = tune(lambda v: v["a"], [Parameter("a", 5, 0, 10, 0.1)])
    assert found.best["a"] == 0 and found.at_limit == ("a",) and np.isnan(found.uncertainty["a"])
    seen: list[tuple[int, int, float]] = []
    found = tune(lambda v: v["a"] ** 2, [Parameter("a", 5, -9, 10, 0.1)], budget=4, progress=lambda *p: seen.append(p))
    assert len(found.trials) == len(seen) == 4 and np.isnan(found.uncertainty["a"])
    assert [s[:2] for s in seen] == [(i, 4) for i in range(1, 5)]
    assert seen[-1][2] == found.loss == min(t.loss for t in found.trials)


def test_values_without_a_loss_are_passed_over():
    found = tune(lambda v: np.nan if v["a"] < 0 else (v["a"] - 2) ** 2, [Parameter("a", 8, -10, 10, 0.01)])
    assert found.best["a"] == pytest.approx(2, abs=0.01)


def test_wrong_questions_are_refused(monkeypatch):
    def flat(_: dict[str, float]) -> float:
        return 0.0

    a = Parameter("a", 0, -1, 1, 0.1)
    with pytest.raises(ValueError, match="each name once"):
        tune(flat, [a, a])
    with pytest.raises(ValueError, match="auto, golden, optuna"):
        tune(flat, [a], method="magic")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="budget"):
        tune(flat, [a], budget=0)
    with pytest.raises(ValueError, match="low ≤ start ≤ high"):
        Parameter("a", 2, -1, 1, 0.1)
    with pytest.raises(ValueError, match="tolerance"):
        Parameter("a", 0, -1, 1, 0)
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ValueError, match="pip install optuna"):
        tune(flat, [a], method="optuna")
    with pytest.raises(ValueError, match="pip install optuna"):
        tune(flat, [Parameter(n, 0, -1, 1, 0.1) for n in "abcde"])


def test_optuna_ends_with_the_same_quadratic_model():
    found = tune(
        lambda v: 0.5 * ((v["a"] - 0.3) / 0.05) ** 2, [Parameter("a", -1, -2, 2, 0.01)], method="optuna", budget=60
    )
    assert found.best["a"] == pytest.approx(0.3, abs=1e-3) and found.uncertainty["a"] == pytest.approx(0.05, rel=1e-3)


def test_the_subset_lies_on_the_specimen_and_holds_together(measured):
    chosen = specimen_patterns(measured, 80)
    positions = measured.positions_A[chosen]
    assert len(np.unique(chosen)) == 80
    assert np.linalg.norm(positions.mean(0) - [2, 1.5]) < 3.5
    assert np.ptp(positions, axis=0).max() <= 13 * STEP_A


def test_defocus_and_rotation_are_found_from_the_wrong_sign(measured):
    evaluate = objective(measured, ptycho.Optics(80e3, 25.0, -150.0), subset=120)
    found = tune(
        evaluate, [Parameter("defocus_A", -150, -240, 240, 2), Parameter("rotation_deg", 0, -15, 15, 0.3, grid=5)]
    )
    assert abs(found.best["defocus_A"] - 150) < 4 * found.uncertainty["defocus_A"] + 2
    assert abs(found.best["rotation_deg"] - ROTATION_DEG) < 4 * found.uncertainty["rotation_deg"] + 0.3
    assert found.uncertainty["defocus_A"] < 8 and found.uncertainty["rotation_deg"] < 2


def test_names_reach_patterns_optics_and_settings(measured):
    evaluate = objective(measured, OPTICS, ptycho.Settings(slices=2, slice_A=4.0), subset=60, iterations=2)
    given = evaluate({})
    assert evaluate({"rotation_deg": 0.0, "scan_scale": 1.0, "defocus_A": 150.0, "slice_A": 4.0}) == given
    for name, value in (
        ("scan_scale", 1.1),
        ("slice_A", 30.0),
        ("semiangle_mrad", 20.0),
        ("pixel_mrad", 2.2),
        ("tilt_x_mrad", 80.0),
        ("c12_A", 30.0),
    ):
        assert evaluate({name: value}) != given
    judged = objective(measured, OPTICS, subset=60, iterations=2, held_out=0.25)
    assert 0.15 * given < judged({}) < 0.35 * given
    with pytest.raises(ValueError, match="magic cannot be tuned"):
        evaluate({"magic": 1.0})
    with pytest.raises(ValueError, match="subset"):
        objective(measured, OPTICS, subset=2)


@pytest.mark.parametrize(
    ("defocus_A", "rotation_deg", "transposed", "expected"),
    [
        (150.0, 0, False, "as given"),
        (-150.0, 0, False, "defocus flipped"),
        (150.0, 180, False, "scan turned by 180°"),
        (150.0, 0, True, "scan transposed"),
        (-150.0, 90, True, "scan mirrored in x, defocus flipped"),
    ],
)
def test_signs_and_axes_are_told_apart(measured, defocus_A, rotation_deg, transposed, expected):
    turned = measured.positions_A @ frame_matrix(ROTATION_DEG, False).T @ frame_matrix(rotation_deg, transposed)
    patterns = ptycho.Patterns(measured.counts, turned, PIXEL_MRAD)
    losses = alternatives(patterns, ptycho.Optics(80e3, 25.0, defocus_A), subset=120)
    assert min(losses, key=losses.__getitem__) == expected
    different = sorted(set(losses.values()))
    assert len(losses) == 16 and different[1] - different[0] > 100
