"""What is said about right and about deliberately wrong reconstructions."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import ptycho
from ptycho.calibrate import frame_matrix
from ptycho.diagnose import (
    Evidence,
    Fit,
    Slope,
    diagnose,
    evidence,
    expected_loss,
    poisson_loss,
)
from ptycho.grid import pixel_A
from ptycho.model import modelled_intensity

N, PIXEL_MRAD, STEP_A, SIDE = 40, 2.5, 0.9, 20
OPTICS = ptycho.Optics(80e3, 25.0, 150.0)
PIXEL_A = pixel_A(OPTICS.wavelength_A, N, PIXEL_MRAD)
GOOD = Fit(loss=500.0, expected=500.2, sigma=0.5, empty_loss=510.0, structure=10.0, left=0.1, structure_sigma=0.2)


def positions_A() -> np.ndarray:
    axis = STEP_A * (np.arange(SIDE) - SIDE // 2)
    return np.stack(np.meshgrid(axis, axis, indexing="ij"), -1).reshape(-1, 2)


def truth(electrons: float, slices: int = 1, optics: ptycho.Optics = OPTICS) -> ptycho.Result:
    """Atoms in a disk, seen as a finished reconstruction."""
    rng = np.random.default_rng(5)
    size = 2 * int(np.ceil(SIDE * STEP_A * 0.75 / PIXEL_A)) + N + 10
    axis = (np.arange(size) - size // 2) * PIXEL_A
    phase = np.zeros((slices, size, size))
    for i, (radius, angle) in enumerate(zip(5.0 * np.sqrt(rng.random(60)), rng.uniform(0, 2 * np.pi, 60), strict=True)):
        y, x = radius * np.sin(angle), radius * np.cos(angle)
        phase[i % slices] += 0.25 * np.exp(-((axis[:, None] - y) ** 2 + (axis[None] - x) ** 2) / (2 * 0.5**2))
    probe = np.sqrt(electrons) * optics.probe((N, N), (PIXEL_A, PIXEL_A))
    object_ = np.exp(1j * phase).astype(np.complex64)
    gap_A = 8.0 if slices > 1 else 0.0
    return ptycho.Result(
        object=object_,
        probe=probe[None].astype(np.complex64),
        positions_A=positions_A(),
        loss=np.array([3.0, 2.0, 1.99]),
        cpu_s=np.zeros(3),
        wall_s=np.zeros(3),
        pixel_A=PIXEL_A,
        slice_A=gap_A,
        validation=None,
        gaps_A=np.full(slices - 1, gap_A),
        tilts_mrad=np.zeros((1, 2)),
        scales=None,
        backgrounds=None,
        object_states=object_[None],
        variations=None,
        coefficients=None,
        training=np.arange(SIDE**2),
        offset=0.25 * electrons / (np.pi * (OPTICS.semiangle_mrad / PIXEL_MRAD) ** 2),
    )


def with_object(result: ptycho.Result, object_: np.ndarray) -> ptycho.Result:
    return replace(result, object=object_, object_states=object_[None])


def measure(result: ptycho.Result, rng: np.random.Generator, gain: int = 1) -> ptycho.Patterns:
    intensity = modelled_intensity(result, np.arange(SIDE**2), OPTICS.wavelength_A)
    counts = gain * rng.poisson(np.fft.fftshift(intensity, axes=(1, 2)))
    return ptycho.Patterns(counts.astype(np.uint16), positions_A(), PIXEL_MRAD)


def codes(e: Evidence) -> set[str]:
    return {f.code for f in diagnose(e)}


def severe(e: Evidence) -> set[str]:
    return {f.code for f in diagnose(e) if f.severe}


@pytest.mark.parametrize("offset", [0.0, 0.05, 0.5])
@pytest.mark.parametrize("mean", [0.003, 0.1, 1.0, 7.3, 31.0, 200.0])
def test_expected_loss_is_what_poisson_counts_cost(rng, mean, offset):
    losses = poisson_loss(rng.poisson(mean, 100_000).astype(float), np.array(mean), offset)
    expected, variance = (v[0] for v in expected_loss(np.array([mean]), offset))
    assert losses.mean() == pytest.approx(expected, abs=4.5 * losses.std() / np.sqrt(losses.size) + 0.01 * expected)
    assert losses.var() == pytest.approx(variance, rel=0.15)


def test_sum_and_expansion_of_the_expected_loss_meet():
    below, above = (np.array(expected_loss(np.array([i]), 0.2)).ravel() for i in (29.99, 30.01))
    assert np.allclose(below, above, rtol=(2e-4, 1e-2))


def test_loss_and_offset_are_those_of_the_engine(rng):
    """The engine's loss at a given object is the same number, made by other code."""
    result = truth(300.0)
    patterns = measure(result, rng)
    settings = ptycho.Settings(iterations=1)
    engine = ptycho.reconstruct(patterns, OPTICS, settings, rng=rng, probe=result.probe, object_=result.object)
    start = with_object(engine, result.object)
    found = evidence(start, patterns, OPTICS, sample=SIDE**2).fit
    assert found is not None and found.loss == pytest.approx(engine.loss[0], rel=1e-4)


@pytest.mark.parametrize("electrons", [200.0, 2000.0])
def test_at_the_truth_all_three_measures_are_clean(rng, electrons):
    result = truth(electrons)
    found = evidence(result, measure(result, rng), OPTICS)
    f = found.fit
    assert f is not None and abs(f.loss - f.expected) < 4 * f.sigma
    assert abs(f.left) < 4 * f.structure_sigma
    assert f.structure / 2 < f.empty_loss - f.loss + 3 * f.structure_sigma
    assert electrons < 1000 or f.structure > 15 * f.structure_sigma
    assert [s.name for s in found.slopes] == ["defocus", "scan rotation", "scan scale"]
    assert max(abs(s.z) for s in found.slopes) < 4
    assert not diagnose(found)


def test_slopes_point_back_to_the_truth(rng):
    result = truth(2000.0)
    patterns = measure(result, rng)
    wrong = {
        "defocus": replace(result, probe=truth(2000.0, optics=replace(OPTICS, defocus_A=158.0)).probe),
        "scan rotation": replace(result, positions_A=positions_A() @ frame_matrix(1.0, False).T),
        "scan scale": replace(result, positions_A=positions_A() * 1.02),
    }
    for (name, false), step in zip(wrong.items(), (-8.0, -1.0, -0.02), strict=True):
        slope = next(s for s in evidence(false, patterns, OPTICS).slopes if s.name == name)
        assert slope.step == pytest.approx(step, abs=abs(4 * slope.step / slope.z) + 0.25 * abs(step))
        assert abs(slope.z) > 4


@pytest.mark.parametrize("electrons", [150.0, 1500.0])
def test_right_reconstructions_are_left_alone(rng, electrons):
    patterns = measure(truth(electrons), rng)
    result = ptycho.reconstruct(patterns, OPTICS, rng=rng)
    found = diagnose(evidence(result, patterns, OPTICS))
    assert not {f.code for f in found if f.severe}
    assert {f.code for f in found} <= {"not_converged", "low_dose"}


@pytest.mark.parametrize(
    ("electrons", "wrong", "expected"),
    [
        (1500.0, {"defocus_A": -150.0}, "not_explained"),
        (1500.0, {"transposed": True}, "not_explained"),
        (1500.0, {"defocus_A": 210.0}, "wrong_defocus"),
        (200.0, {"defocus_A": 210.0}, "wrong_defocus"),
        (1500.0, {"rotation_deg": 8.0}, "wrong_rotation"),
    ],
)
def test_wrong_inputs_are_named(rng, electrons, wrong, expected):
    patterns = measure(truth(electrons), rng)
    frame = frame_matrix(wrong.get("rotation_deg", 0.0), wrong.get("transposed", False))
    patterns = replace(patterns, positions_A=patterns.positions_A @ frame.T)
    optics = replace(OPTICS, defocus_A=wrong.get("defocus_A", OPTICS.defocus_A))
    result = ptycho.reconstruct(patterns, optics, rng=rng)
    assert expected in severe(evidence(result, patterns, optics))


def test_gain_and_background_are_no_electron_counts(rng):
    result = truth(1500.0)
    patterns = measure(result, rng, gain=3)
    scaled = replace(result, probe=np.sqrt(np.float32(3)) * result.probe)
    assert severe(evidence(scaled, patterns, OPTICS)) == {"not_poisson"}
    assert not diagnose(evidence(scaled, patterns, OPTICS, counted=False))
    patterns = measure(result, rng)
    raised = replace(patterns, counts=patterns.counts + rng.poisson(0.3, patterns.counts.shape).astype(np.uint16))
    assert {"not_poisson", "mean_pattern", "probe_power"} <= severe(evidence(result, raised, OPTICS))


def test_fitted_noise_is_told_from_structure(rng):
    result = truth(1500.0)
    patterns = measure(result, rng)
    settings = ptycho.Settings(iterations=20, prior_rad2_A2=None)
    fitted = ptycho.reconstruct(patterns, OPTICS, settings, rng=rng)
    assert "noise_fitted" in codes(evidence(fitted, patterns, OPTICS))
    noise = np.exp(0.2j * rng.normal(size=result.object.shape)).astype(np.complex64)
    assert severe(evidence(with_object(result, result.object * noise), patterns, OPTICS)) == {"worse_than_empty"}


def test_doses_and_backgrounds_of_the_patterns_are_no_structure(rng):
    result = truth(1500.0)
    drifting = replace(
        result,
        scales=1 + 0.3 * np.sin(np.arange(SIDE**2) / 40),
        backgrounds=np.linspace(0.1, 0.4, SIDE**2),
    )
    vacuum = with_object(drifting, np.ones_like(result.object))
    for true, visible in ((drifting, True), (vacuum, False)):
        found = evidence(true, measure(true, rng), OPTICS).fit
        assert found is not None and abs(found.loss - found.expected) < 4 * found.sigma
        assert (found.structure > 6 * found.structure_sigma) == visible


def loss_trace(*values: float) -> Evidence:
    return Evidence(np.array(values))


@pytest.mark.parametrize(
    ("e", "code", "is_severe"),
    [
        (loss_trace(10, 5, 6, 7), "diverging", True),
        (loss_trace(10, 11, 12), "diverging", True),
        (loss_trace(10, np.nan, np.nan), "diverged", True),
        (loss_trace(10, 5, 7, 4, 6, 3.5), "step_too_large", False),
        (loss_trace(10, 8, 7, 6.5), "not_converged", False),
        (
            Evidence(np.array([10, 8, 7, 6.99]), validation=np.array([10, 8.5, 9.5, 10]), held_out_patterns=400),
            "overfitted",
            True,
        ),
        (Evidence(np.array([10, 9, 8, 7.99]), validation=np.array([10, 9.95, 10.1, 10.2])), "not_predictive", True),
        (Evidence(np.ones(1), fit=replace(GOOD, loss=504.0)), "misfit", False),
        (Evidence(np.ones(1), fit=replace(GOOD, loss=490.0)), "noise_fitted", False),
        (Evidence(np.ones(1), fit=replace(GOOD, loss=900.0, empty_loss=910.0)), "not_poisson", True),
        (Evidence(np.ones(1), fit=replace(GOOD, left=9.0)), "not_explained", True),
        (Evidence(np.ones(1), fit=replace(GOOD, left=3.0)), "partly_explained", False),
        (Evidence(np.ones(1), fit=replace(GOOD, mean_misfit=0.08)), "mean_pattern", False),
        (Evidence(np.ones(1), slopes=(Slope("scan scale", "of it", 0.01, 9.0, 0.2),)), "wrong_scale", True),
        (Evidence(np.ones(1), alternatives={"as given": 900.0, "scan transposed": 500.0}), "wrong_orientation", True),
        (
            Evidence(
                np.ones(1), alternatives={"scan turned by 180°, defocus flipped": 5.0, "as given": 5.0, "x": 99.0}
            ),
            "phase_negative",
            True,
        ),
    ],
)
def test_each_sign_has_its_finding(e, code, is_severe):
    found = {f.code: f for f in diagnose(e)}
    assert set(found) == {code} and found[code].severe == is_severe
    assert found[code].sentence.endswith(".")


@pytest.mark.parametrize(
    "e",
    [
        loss_trace(536.83, 535.45, 535.37, 535.42, 535.43),
        loss_trace(10, 5, 4.99),
        loss_trace(10, 9),
        Evidence(np.ones(1), fit=GOOD),
        Evidence(np.ones(1), fit=replace(GOOD, structure=0.6, left=0.5)),
        Evidence(np.array([10, 8, 7.99]), validation=np.array([10, 8.7, 8.72]), held_out_patterns=150),
        Evidence(np.ones(1), alternatives={"as given": 500.0, "scan transposed": 900.0}),
        Evidence(np.ones(1), alternatives={"as given": 520.0, "scan transposed": 500.0}),
        Evidence(np.ones(1), slopes=(Slope("scan scale", "of it", 1e-4, 9.0, 0.002), Slope("x", "", 1, 2, 9))),
    ],
)
def test_what_is_in_order_is_not_mentioned(e):
    assert not diagnose(e)


def arrays(**changes) -> Evidence:
    """A clean result on the grid of these tests, with some of it changed."""
    result = truth(1e4)
    known = {
        "object_": result.object,
        "probe": result.probe,
        "positions_A": result.positions_A,
        "electrons": 1e4,
        "pixel_A": PIXEL_A,
        "wavelength_A": OPTICS.wavelength_A,
        "semiangle_mrad": OPTICS.semiangle_mrad,
    }
    return Evidence(np.ones(1), **(known | changes))


def probe_A(defocus_A: float) -> np.ndarray:
    wave = ptycho.Optics(80e3, 25.0, defocus_A).probe((N, N), (PIXEL_A, PIXEL_A))[None]
    return (100 * wave).astype(np.complex64)


def test_probe_findings():
    assert not diagnose(arrays())
    assert severe(arrays(probe=0 * probe_A(150.0))) == {"probe_vanished"}
    assert severe(arrays(electrons=3e4)) == {"probe_power"}
    assert "window_small" in codes(arrays(probe=probe_A(400.0)))
    modes = np.concatenate([probe_A(150.0), 1e-3 * probe_A(150.0)])
    assert codes(arrays(probe=modes)) == {"modes_unused"}
    equal = np.concatenate([probe_A(150.0)] * 4) / 2
    assert codes(arrays(probe=equal)) == {"modes_level"}


def test_object_findings(rng):
    clean = truth(1e4).object
    assert codes(arrays(object_=0.8 * clean)) == {"amplitude"}
    assert severe(arrays(object_=0.5 * clean)) == {"amplitude"}
    assert severe(arrays(object_=clean * np.nan)) == {"object_broken"}
    assert "phase_wraps" in codes(arrays(object_=clean**14))
    assert codes(arrays(object_=np.repeat(clean, 3, axis=0), slice_A=4.0)) == {"slices_alike"}
    assert not diagnose(arrays(object_=truth(1e4, 3).object, slice_A=40.0))


def test_scan_findings():
    assert codes(arrays(positions_A=4 * positions_A(), object_=None)) == {"overlap"}
    assert "overlap" in severe(arrays(positions_A=9 * positions_A()))
    e = arrays(electrons=1.0, probe=0.01 * probe_A(150.0))
    assert codes(e) == {"low_dose"}
    assert "1.23 e⁻/Å²" in diagnose(e)[0].sentence


def test_severe_findings_stand_first():
    e = replace(loss_trace(10, 8, 7, 6.5), alternatives={"as given": 900.0, "scan transposed": 500.0}, fit=GOOD)
    assert [f.severe for f in diagnose(replace(e, fit=replace(GOOD, left=9.0)))] == [True, True, False]


def test_positions_off_by_themselves_are_named_with_their_size(rng):
    result = truth(2000.0)
    patterns = measure(result, rng)
    moved = replace(result, positions_A=positions_A() + rng.normal(0, 0.2, positions_A().shape))
    right, wrong = (evidence(r, patterns, OPTICS, sample=SIDE**2) for r in (result, moved))
    assert right.jitter is not None and abs(right.jitter.z) < 4
    assert wrong.jitter is not None and wrong.jitter.rms_A == pytest.approx(0.2, rel=0.2)
    assert "positions" in codes(wrong) and "positions" not in codes(right)


def test_masked_rows_in_the_disk_are_no_misfit(rng):
    result = truth(2000.0)
    patterns = measure(result, rng)
    counts = patterns.counts.copy()
    counts[:, N // 2 + 3 : N // 2 + 6] = 0
    mask = np.ones((N, N), bool)
    mask[N // 2 + 3 : N // 2 + 6] = False
    seen = ptycho.Patterns(counts, positions_A(), PIXEL_MRAD, mask)
    found = ptycho.reconstruct(seen, OPTICS, ptycho.Settings(iterations=8), rng=rng)
    power = (np.abs(found.probe) ** 2).sum()
    assert power == pytest.approx((np.abs(result.probe) ** 2).sum(), rel=0.01)
    assert not {"misfit", "mean_pattern", "probe_power"} & codes(evidence(found, seen, OPTICS, sample=SIDE**2))
