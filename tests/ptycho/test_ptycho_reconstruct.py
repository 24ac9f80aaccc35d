"""The engine on small simulated data with a known object."""

from __future__ import annotations

import numpy as np
import pytest

import ptycho
from ptycho.batches import make_batches
from ptycho.engine import terminate
from ptycho.forward import Multislice
from ptycho.grid import pixel_A
from ptycho.propagate import FreeSpace
from ptycho.scan import Illumination, Scan, canvas_shape

N, PIXEL_MRAD = 32, 2.5
OPTICS = ptycho.Optics(80e3, 20.0, 120.0)
PIXEL_A = pixel_A(OPTICS.wavelength_A, N, PIXEL_MRAD)
STEP_A, SIDE = 1.0, 14
POSITIONS_A = STEP_A * (np.stack(np.meshgrid(*(2 * [np.arange(SIDE) - SIDE // 2]), indexing="ij"), -1).reshape(-1, 2))


def true_phase(canvas: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Gaussian atoms inside a disk of 4 Å about coordinate 0."""
    y, x = (np.arange(n) - n // 2 for n in canvas)
    phase = np.zeros(canvas)
    for _ in range(25):
        radius, angle = 4 * np.sqrt(rng.random()), rng.uniform(0, 2 * np.pi)
        cy, cx = radius * np.sin(angle) / PIXEL_A, radius * np.cos(angle) / PIXEL_A
        phase += 0.5 * np.exp(-((y[:, None] - cy) ** 2 + (x[None] - cx) ** 2) * PIXEL_A**2 / (2 * 0.7**2))
    return phase


def simulate(rng: np.random.Generator, electrons: float, slices: int = 1, slice_A: float = 30.0, positions=POSITIONS_A):
    """Poisson patterns of a stack of atoms, and the phase of each slice."""
    canvas = canvas_shape(POSITIONS_A / PIXEL_A, (N, N))
    phases = np.stack([true_phase(canvas, rng) for _ in range(slices)])
    probe = OPTICS.probe((N, N), (PIXEL_A, PIXEL_A), -0.5 * (slices - 1) * slice_A)
    space = FreeSpace(np.full(slices - 1, slice_A), np.zeros((1, 2)), (N, N), PIXEL_A, OPTICS.wavelength_A)
    scan = Scan(positions / PIXEL_A, canvas, (N, N))
    incoming, index, corners = Illumination(scan, np.sqrt(electrons) * probe[None]).take(np.arange(len(positions)))
    _, wave = Multislice(space).forward(incoming, index, np.exp(1j * phases), corners, np.arange(len(positions)))
    intensity = np.fft.fftshift((np.abs(wave) ** 2).sum(1), axes=(1, 2))
    return ptycho.Patterns(rng.poisson(intensity).astype(np.uint16), POSITIONS_A, PIXEL_MRAD), phases


def correlation(result: ptycho.Result, phases: np.ndarray) -> float:
    """Of the summed phases in the central 10 Å."""
    half = int(5 / PIXEL_A)
    cut = [slice(n // 2 - half, n // 2 + half + 1) for n in phases.shape[-2:]]
    a, b = np.angle(result.object).sum(0)[tuple(cut)], phases.sum(0)[tuple(cut)]
    return float(np.corrcoef(a.ravel(), b.ravel())[0, 1])


def run(patterns: ptycho.Patterns, seed: int = 1, **settings):
    return ptycho.reconstruct(patterns, OPTICS, ptycho.Settings(**settings), rng=np.random.default_rng(seed))


@pytest.mark.parametrize("likelihood", ["poisson", "amplitude"])
@pytest.mark.parametrize("batching", ["random", "compact"])
@pytest.mark.parametrize(("solver", "iterations"), [("gradient", 8), ("lsqml", 15)])
def test_both_solvers_and_batchings_find_the_object(rng, solver, iterations, batching, likelihood):
    patterns, phases = simulate(rng, 2e4)
    result = run(
        patterns, solver=solver, batching=batching, batch_size=40, iterations=iterations, likelihood=likelihood
    )
    assert correlation(result, phases) > 0.97
    assert result.loss[-1] < 0.5 * result.loss[0]


def test_all_patterns_at_once_need_few_iterations(rng):
    patterns, phases = simulate(rng, 2e4)
    result = run(patterns)
    assert correlation(result, phases) > 0.985
    assert np.abs(np.abs(result.object) - 1).max() < 1e-5


def test_complex_objects_find_an_absorption(rng):
    patterns, phases = simulate(rng, 2e4)
    result = run(patterns, object_type="complex", iterations=8)
    assert correlation(result, phases) > 0.97
    assert 0.9 < np.median(np.abs(result.object)) < 1.1


@pytest.mark.parametrize("solver", ["gradient", "lsqml"])
def test_two_slices_are_told_apart(rng, solver):
    patterns, phases = simulate(rng, 5e4, slices=2)
    result = run(patterns, slices=2, slice_A=30.0, iterations=25, solver=solver, prior_rad2_A2=None)
    assert result.object.shape[0] == 2
    assert correlation(result, phases) > 0.95
    half = int(5 / PIXEL_A)
    cut = tuple(slice(n // 2 - half, n // 2 + half + 1) for n in phases.shape[-2:])
    found = [np.angle(o)[cut] for o in result.object]
    own, other = (np.corrcoef(found[0].ravel(), phases[k][cut].ravel())[0, 1] for k in (0, 1))
    assert own > other + 0.1


def test_the_loss_is_that_of_noise_at_the_end(rng):
    """A pixel of Poisson data adds ½ I / (I + c) to the log-likelihood ratio with offset c, where I is large."""
    patterns, _ = simulate(rng, 1e5)
    bright = patterns.counts.mean(0) > 50
    mean = patterns.counts.mean(0)[bright]
    settings = {"iterations": 30, "offset": 0.25, "prior_rad2_A2": None}
    result = run(ptycho.Patterns(patterns.counts, POSITIONS_A, PIXEL_MRAD, mask=bright), **settings)
    offset = 0.25 * (mean**2).sum() / mean.sum()
    assert result.loss[-1] == pytest.approx(0.5 * (mean / (mean + offset)).sum(), rel=0.15)


def test_wrong_positions_are_found(rng):
    wrong = POSITIONS_A + rng.normal(0, 0.15, POSITIONS_A.shape)
    patterns, phases = simulate(rng, 2e4, positions=wrong)
    held = run(patterns, iterations=12)
    refined = run(patterns, iterations=12, update_positions=2)
    inside = np.hypot(*POSITIONS_A.T) < 4
    error = (refined.positions_A - wrong)[inside]
    assert (error - error.mean(0)).std() < 0.06
    assert correlation(refined, phases) > correlation(held, phases)


@pytest.mark.parametrize(("solver", "iterations"), [("gradient", 30), ("lsqml", 30)])
def test_a_wrong_probe_is_improved(rng, solver, iterations):
    patterns, _ = simulate(rng, 2e4)
    right = OPTICS.probe((N, N), (PIXEL_A, PIXEL_A))
    wrong = ptycho.Optics(80e3, 20.0, 100.0).probe((N, N), (PIXEL_A, PIXEL_A))
    settings = ptycho.Settings(solver=solver, batch_size=49, iterations=iterations, update_probe=0)
    result = ptycho.reconstruct(patterns, OPTICS, settings, rng=rng, probe=wrong)

    def overlap(wave: np.ndarray) -> float:
        return float(abs(np.vdot(wave, right)) / np.linalg.norm(wave))

    assert overlap(result.probe[0]) > 0.5 * (1 + overlap(wrong))


def test_the_same_seed_gives_the_same_result(rng):
    patterns, _ = simulate(rng, 1e3)
    first, second = (run(patterns, iterations=2, batch_size=30) for _ in range(2))
    assert np.array_equal(first.object, second.object)
    other = run(patterns, seed=2, iterations=2, batch_size=30)
    assert not np.array_equal(first.object, other.object)


def test_double_precision_agrees_with_single(rng):
    patterns, _ = simulate(rng, 1e3)
    single, double = (run(patterns, iterations=3, dtype=d, prior_rad2_A2=0.1) for d in ("float32", "float64"))
    assert np.abs(single.object - double.object).max() < 1e-3


def test_a_detector_cut_to_another_size_sees_the_same_object(rng):
    """31 pixels are padded to 32; the object keeps its place."""
    patterns, phases = simulate(rng, 2e4)
    cut = ptycho.Patterns(patterns.counts[:, 1:, 1:], POSITIONS_A, PIXEL_MRAD)
    assert ptycho.window_size(cut) == 32
    assert correlation(run(cut), phases) > 0.98


def test_a_finished_object_is_a_start(rng):
    patterns, _ = simulate(rng, 2e4)
    first = run(patterns)
    second = ptycho.reconstruct(patterns, OPTICS, ptycho.Settings(iterations=1), rng=rng, object_=first.object)
    assert second.loss[0] < 1.01 * first.loss[-1]


def test_progress_and_clocks(rng):
    patterns, _ = simulate(rng, 1e3)
    calls: list[tuple[int, int, float]] = []
    result = ptycho.reconstruct(
        patterns, OPTICS, ptycho.Settings(iterations=3), rng=rng, progress=lambda *a: calls.append(a)
    )
    assert [c[:2] for c in calls] == [(1, 3), (2, 3), (3, 3)]
    assert [c[2] for c in calls] == result.loss.tolist()
    assert (np.diff(result.wall_s) > 0).all()
    assert (np.diff(result.cpu_s) > 0).all()


def test_a_converged_run_stops():
    assert terminate([10.0, 9.999], 1e-3) is not None
    assert terminate([10.0, 9.0], 1e-3) is None
    assert terminate([10.0, 9.999], 0.0) is None


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_divergence_is_named(rng):
    patterns, _ = simulate(rng, 2e4)
    with pytest.raises(ptycho.Diverged, match="diverged; check defocus"):
        run(patterns, offset=0.0)


@pytest.mark.parametrize("batching", ["random", "compact"])
def test_batches_hold_every_pattern_once(rng, batching):
    groups = make_batches(POSITIONS_A, 30, batching, rng)
    assert sorted(np.concatenate(groups).tolist()) == list(range(len(POSITIONS_A)))
    assert max(len(g) for g in groups) <= 30


def test_compact_batches_are_compact(rng):
    def spread(batching: str) -> float:
        return float(np.mean([POSITIONS_A[g].std(0).mean() for g in make_batches(POSITIONS_A, 30, batching, rng)]))

    assert spread("compact") < 0.6 * spread("random")
