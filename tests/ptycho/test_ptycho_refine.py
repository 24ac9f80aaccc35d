"""Wrong calibrations are found again from the patterns, and what varies between patterns is told apart."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import ptycho
from ptycho.forward import Multislice
from ptycho.grid import pixel_A
from ptycho.propagate import FreeSpace
from ptycho.scan import Illumination, Scan, Variations, canvas_shape

N, PIXEL_MRAD = 32, 2.5
OPTICS = ptycho.Optics(80e3, 20.0, 120.0)
PIXEL_A = pixel_A(OPTICS.wavelength_A, N, PIXEL_MRAD)
SIDE = 14
POSITIONS_A = (np.stack(np.meshgrid(*(2 * [np.arange(SIDE) - SIDE // 2]), indexing="ij"), -1).reshape(-1, 2)).astype(
    float
)
CANVAS = canvas_shape(POSITIONS_A / PIXEL_A, (N, N))


def atoms(rng: np.random.Generator, slices: int = 1) -> np.ndarray:
    """Phases (slice, Y, X) of Gaussian atoms all over the scanned field."""
    y, x = (np.arange(n) - n // 2 for n in CANVAS)
    phases = np.zeros((slices, *CANVAS))
    for phase in phases:
        for cy, cx in rng.uniform(-7, 7, (40 // slices, 2)) / PIXEL_A:
            phase += 0.5 * np.exp(-((y[:, None] - cy) ** 2 + (x[None] - cx) ** 2) * PIXEL_A**2 / (2 * 0.7**2))
    return phases


def expected(
    phases: np.ndarray,
    *,
    optics: ptycho.Optics = OPTICS,
    electrons: float = 5e4,
    positions_A: np.ndarray = POSITIONS_A,
    gap_A: float = 0.0,
    tilt_mrad: tuple[float, float] = (0.0, 0.0),
    modes: int = 1,
    variations: Variations | None = None,
) -> np.ndarray:
    """Mean patterns (n, ky, kx), centred, of a stack of phases."""
    slices = len(phases)
    probe = optics.probe_modes(modes, (N, N), (PIXEL_A, PIXEL_A), -0.5 * (slices - 1) * gap_A)
    space = FreeSpace(np.full(slices - 1, gap_A), np.array([tilt_mrad]), (N, N), PIXEL_A, OPTICS.wavelength_A)
    scan, ids = Scan(positions_A / PIXEL_A, CANVAS, (N, N)), np.arange(len(positions_A))
    incoming, index, corners = Illumination(scan, np.sqrt(electrons) * probe, variations=variations).take(ids)
    _, wave = Multislice(space).forward(incoming, index, np.exp(1j * phases), corners, ids)
    return np.fft.fftshift((np.abs(wave) ** 2).sum(1), axes=(1, 2))


def run(counts: np.ndarray, *, optics: ptycho.Optics = OPTICS, positions_A: np.ndarray = POSITIONS_A, **settings):
    patterns = ptycho.Patterns(counts, positions_A, PIXEL_MRAD)
    given = {name: settings.pop(name) for name in ("watch", "resume") if name in settings}
    return ptycho.reconstruct(patterns, optics, ptycho.Settings(**settings), rng=np.random.default_rng(1), **given)


def draw(rng: np.random.Generator, mean: np.ndarray) -> np.ndarray:
    return rng.poisson(mean).astype(np.uint16)


def turned(degrees: float) -> np.ndarray:
    """Positions of a scan turned by an angle (x towards y)."""
    a = np.radians(degrees)
    return POSITIONS_A @ np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]])


def fitted_map(result: ptycho.Result, true_A: np.ndarray) -> np.ndarray:
    """Linear map (2, 2) from the true positions to the found ones."""
    return np.linalg.lstsq(true_A - true_A.mean(0), result.positions_A - result.positions_A.mean(0), rcond=None)[0]


def test_a_turned_scan_is_found(rng):
    true = turned(3.0)
    counts = draw(rng, expected(atoms(rng), positions_A=true))
    result = run(counts, iterations=30, update_affine=1)
    linear = fitted_map(result, true)
    assert np.degrees(0.5 * (linear[0, 1] - linear[1, 0])) == pytest.approx(0.0, abs=0.25)
    assert np.abs(linear - np.eye(2)).max() < 0.02


@pytest.mark.parametrize("wrong_A", [100.0, 140.0])
def test_a_wrong_defocus_is_found(rng, wrong_A):
    counts = draw(rng, expected(atoms(rng)))
    result = run(counts, optics=replace(OPTICS, defocus_A=wrong_A), iterations=25, update_defocus=1)
    right = OPTICS.probe((N, N), (PIXEL_A, PIXEL_A))
    overlap = abs(np.vdot(result.probe[0], right)) / np.linalg.norm(result.probe[0])
    assert overlap > 0.99
    assert result.sigma["defocus"] < 1.0


def test_an_astigmatism_is_found(rng):
    astigmatic = replace(OPTICS, c12_A=25.0, phi12_deg=30.0)
    counts = draw(rng, expected(atoms(rng), optics=astigmatic))
    result = run(counts, iterations=25, update_astigmatism=1)
    right = astigmatic.probe((N, N), (PIXEL_A, PIXEL_A))
    wrong = OPTICS.probe((N, N), (PIXEL_A, PIXEL_A))
    overlaps = [abs(np.vdot(p, right)) / np.linalg.norm(p) for p in (wrong, result.probe[0])]
    assert overlaps[1] > 0.99 > overlaps[0]


def test_a_tilt_of_columns_is_found(rng):
    """Atoms above each other in all slices; slices that were free to move sideways would absorb the tilt."""
    counts = draw(rng, expected(np.repeat(atoms(rng), 3, 0) / 3, gap_A=40.0, tilt_mrad=(12.0, -8.0)))
    columns = (ptycho.Regulariser("identical", 1.0),)
    result = run(counts, slices=3, slice_A=40.0, iterations=30, update_tilt=2, regularisers=columns)
    assert result.tilts_mrad[0] == pytest.approx([12.0, -8.0], abs=1.0)


def test_a_distance_between_slices_is_found(rng):
    counts = draw(rng, expected(atoms(rng, 2), gap_A=60.0))
    result = run(counts, slices=2, slice_A=45.0, iterations=40, update_thickness=5, prior_rad2_A2=None)
    assert result.gaps_A[0] == pytest.approx(60.0, abs=6.0)


def test_dose_and_background_of_each_pattern_are_found(rng):
    mean = expected(atoms(rng))
    dose = np.linspace(1.2, 0.8, len(mean))
    background = np.where(np.arange(len(mean)) % 2, 0.4, 0.1)
    counts = draw(rng, mean * dose[:, None, None] + background[:, None, None])
    settings = {"iterations": 12, "offset": 0.003}
    result = run(counts, update_scale=1, update_background=1, **settings)
    assert np.abs(result.scales / dose - 1).max() < 0.03
    assert np.abs(result.backgrounds - background).mean() < 0.08
    assert result.loss[-1] < 0.97 * run(counts, **settings).loss[-1]


def test_given_doses_are_used(rng):
    mean = expected(atoms(rng))
    dose = np.linspace(1.2, 0.8, len(mean))
    counts = draw(rng, mean * dose[:, None, None])
    known = ptycho.Patterns(counts, POSITIONS_A, PIXEL_MRAD, scales=dose)
    result = ptycho.reconstruct(known, OPTICS, ptycho.Settings(iterations=8), rng=rng)
    assert result.loss[-1] < 0.9 * run(counts, iterations=8).loss[-1]


def test_modes_explain_a_partially_coherent_source(rng):
    blurred = replace(OPTICS, source_size_A=1.5)
    counts = draw(rng, expected(atoms(rng), optics=blurred, modes=6))
    coherent = run(counts, iterations=8)
    known = run(counts, optics=blurred, iterations=8, probe_modes=6)
    found = run(counts, iterations=25, probe_modes=3, update_probe=1)
    assert known.loss[-1] < 0.8 * coherent.loss[-1]
    assert found.loss[-1] < 0.85 * coherent.loss[-1]
    powers = (np.abs(found.probe) ** 2).sum((1, 2))
    assert (np.diff(powers) < 0).all()
    gram = np.abs(np.einsum("ayx,byx->ab", found.probe.conj(), found.probe))
    assert gram[0, 1] < 1e-3 * powers[0]


def test_two_states_of_the_object_explain_what_one_cannot(rng):
    first, second = 3 * atoms(rng), 3 * atoms(rng)
    mean = 0.5 * (expected(first) + expected(second))
    counts = draw(rng, mean)
    one, two = (run(counts, iterations=30, object_states=s, prior_rad2_A2=None) for s in (1, 2))
    assert two.object_states.shape[0] == 2
    assert two.loss[-1] < 0.9 * one.loss[-1]


def test_variations_follow_a_probe_that_changes_during_the_scan(rng):
    probe = np.sqrt(5e4) * OPTICS.probe((N, N), (PIXEL_A, PIXEL_A))
    other = np.sqrt(5e4) * replace(OPTICS, defocus_A=150.0).probe((N, N), (PIXEL_A, PIXEL_A)) - probe
    length = np.linalg.norm(other)
    drift = np.linspace(-0.5, 0.5, len(POSITIONS_A))[:, None] * length
    varied = Variations((other / length)[None], drift.astype(complex))
    counts = draw(rng, expected(atoms(rng), variations=varied))
    fixed = run(counts, iterations=20, update_probe=1)
    free = run(counts, iterations=20, update_probe=1, probe_variations=1)
    assert free.loss[-1] < 0.8 * fixed.loss[-1]
    share = np.abs(
        np.corrcoef(free.coefficients[:, 0] / np.exp(1j * np.angle(free.coefficients[0, 0])), drift[:, 0])[0, 1]
    )
    assert share > 0.8


def test_errors_of_positions_are_those_stated(rng):
    true = POSITIONS_A + rng.normal(0, 0.15, POSITIONS_A.shape)
    counts = draw(rng, expected(atoms(rng), positions_A=true))
    result = run(counts, iterations=20, update_positions=2, position_sigma_A=0.15)
    error = result.positions_A - true
    error -= error.mean(0)
    assert error.std() < 0.06
    inner = np.abs(POSITIONS_A).max(1) < 5
    assert 0.4 < (error / result.position_sigma_A)[inner].std() < 2.5


def test_held_out_patterns_tell_overfitting(rng):
    counts = draw(rng, expected(atoms(rng), electrons=300))
    result = run(counts, iterations=40, held_out=0.1, prior_rad2_A2=None)
    assert len(result.training) == len(POSITIONS_A) - round(0.1 * len(POSITIONS_A))
    assert result.validation.argmin() < 35
    assert result.validation[-1] > result.validation.min()
    assert result.loss[-1] < result.validation[-1]


def test_a_resumed_run_ends_as_if_it_had_never_stopped(rng):
    counts = draw(rng, expected(atoms(rng)))
    settings = {"iterations": 6, "update_positions": 1, "update_scale": 2, "held_out": 0.05, "probe_variations": 1}
    kept: list[dict[str, np.ndarray]] = []
    patterns = ptycho.Patterns(counts, POSITIONS_A, PIXEL_MRAD)

    def watch(iteration: ptycho.Iteration) -> None:
        if iteration.done == 3:
            kept.append({name: value.copy() for name, value in iteration.checkpoint().items()})

    whole = ptycho.reconstruct(
        patterns, OPTICS, ptycho.Settings(update_probe=1, **settings), rng=np.random.default_rng(1), watch=watch
    )
    again = ptycho.reconstruct(
        patterns, OPTICS, ptycho.Settings(update_probe=1, **settings), rng=np.random.default_rng(1), resume=kept[0]
    )
    for name in ("object", "probe", "positions_A", "scales", "loss", "validation", "coefficients"):
        assert np.array_equal(getattr(whole, name), getattr(again, name)), name
    assert len(again.cpu_s) == 6
    other = dict(kept[0], object=kept[0]["object"][..., :-2])
    with pytest.raises(ValueError, match="belongs to other patterns"):
        ptycho.reconstruct(patterns, OPTICS, ptycho.Settings(update_probe=1, **settings), rng=rng, resume=other)


def test_a_resumed_run_still_states_the_errors_of_an_earlier_refinement(rng):
    counts = draw(rng, expected(atoms(rng)))
    kept: list[dict[str, np.ndarray]] = []
    settings = {"iterations": 3, "update_positions": 0, "update_defocus": 0, "refine_every": 4}
    whole = run(counts, **settings, watch=lambda i: kept.append(i.checkpoint()))
    again = run(counts, **settings, resume=kept[1])
    assert np.isfinite(whole.position_sigma_A).all()
    assert np.array_equal(whole.position_sigma_A, again.position_sigma_A)
    assert again.sigma == whole.sigma and set(again.sigma) == {"defocus"}


def test_counts_that_stay_in_a_file_give_the_same_result(rng, tmp_path):
    counts = draw(rng, expected(atoms(rng)))
    held = np.memmap(tmp_path / "counts.raw", counts.dtype, "w+", shape=counts.shape)
    held[:] = counts
    there, here = run(held, iterations=2), run(counts, iterations=2)
    assert np.array_equal(there.object, here.object)


def test_the_gauge_is_the_same_for_a_moved_probe(rng):
    counts = draw(rng, expected(atoms(rng)))
    result = run(counts)
    shifted = replace(
        result,
        probe=3.0 * np.roll(result.probe, (2, -1), (1, 2)),
        object=np.roll(result.object, (2, -1), (1, 2)) / 3,
        object_states=np.roll(result.object_states, (2, -1), (2, 3)) / 3,
    )
    (a, move_a), (b, move_b) = ptycho.in_gauge(result), ptycho.in_gauge(shifted)
    assert np.subtract(move_b, move_a) == pytest.approx([-2 * PIXEL_A, PIXEL_A], abs=1e-3)
    inside = (slice(None), slice(20, -20), slice(20, -20))
    assert np.abs(a.object - b.object)[inside].max() < 1e-3
    assert np.abs(a.probe - b.probe).max() < 1e-3 * np.abs(a.probe).max()
