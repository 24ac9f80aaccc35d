"""What every solver must do: find the object, compose with every part of the model, and resume where it stopped."""

from __future__ import annotations

import numpy as np
import pytest

import ptycho
from ptycho.forward import Multislice
from ptycho.grid import pixel_A
from ptycho.propagate import FreeSpace
from ptycho.scan import Illumination, Scan, canvas_shape

N, PIXEL_MRAD, SIDE = 32, 2.5, 12
OPTICS = ptycho.Optics(80e3, 20.0, 120.0)
PIXEL_A = pixel_A(OPTICS.wavelength_A, N, PIXEL_MRAD)
POSITIONS_A = (np.stack(np.meshgrid(*(2 * [np.arange(SIDE) - SIDE // 2]), indexing="ij"), -1).reshape(-1, 2)).astype(
    float
)
CANVAS = canvas_shape(POSITIONS_A / PIXEL_A, (N, N))
SETTINGS = {
    "gradient": {"iterations": 6},
    "lbfgs": {"iterations": 8},
    "lsqml": {"iterations": 10, "batch_size": 36},
    "adam": {"iterations": 20, "batch_size": 36, "learning_rate": 0.05},
    "pie": {"iterations": 15, "likelihood": "amplitude"},
}


def simulated(rng: np.random.Generator, slices: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Poisson patterns of Gaussian atoms, and the summed phase."""
    y, x = (np.arange(n) - n // 2 for n in CANVAS)
    phases = np.zeros((slices, *CANVAS))
    for phase in phases:
        for cy, cx in rng.uniform(-4, 4, (15, 2)) / PIXEL_A:
            phase += 0.4 / slices * np.exp(-((y[:, None] - cy) ** 2 + (x[None] - cx) ** 2) * PIXEL_A**2 / 0.98)
    probe = np.sqrt(2e4) * OPTICS.probe((N, N), (PIXEL_A, PIXEL_A), -10.0 * (slices - 1))
    space = FreeSpace(np.full(slices - 1, 20.0), np.zeros((1, 2)), (N, N), PIXEL_A, OPTICS.wavelength_A)
    scan, ids = Scan(POSITIONS_A / PIXEL_A, CANVAS, (N, N)), np.arange(len(POSITIONS_A))
    incoming, index, corners = Illumination(scan, probe[None]).take(ids)
    _, wave = Multislice(space).forward(incoming, index, np.exp(1j * phases), corners, ids)
    counts = rng.poisson(np.fft.fftshift(np.abs(wave[:, 0]) ** 2, axes=(1, 2)))
    return counts.astype(np.uint16), phases.sum(0)


def run(counts: np.ndarray, solver: str, **settings) -> ptycho.Result:
    keywords = {k: settings.pop(k) for k in ("watch", "resume") if k in settings}
    patterns = ptycho.Patterns(counts, POSITIONS_A, PIXEL_MRAD, scales=settings.pop("scales", None))
    chosen = ptycho.Settings(solver=solver, **(SETTINGS[solver] | settings))
    return ptycho.reconstruct(patterns, OPTICS, chosen, rng=np.random.default_rng(3), **keywords)


def correlation(result: ptycho.Result, phase: np.ndarray) -> float:
    """Of the summed phases in the central 8 Å."""
    half = int(4 / PIXEL_A)
    cut = tuple(slice(n // 2 - half, n // 2 + half + 1) for n in phase.shape)
    return float(np.corrcoef(np.angle(result.object).sum(0)[cut].ravel(), phase[cut].ravel())[0, 1])


@pytest.mark.parametrize("slices", [1, 2])
@pytest.mark.parametrize("solver", sorted(SETTINGS))
def test_the_object_is_found(rng, solver, slices):
    counts, phase = simulated(rng, slices)
    result = run(counts, solver, slices=slices, slice_A=20.0 if slices > 1 else None)
    assert correlation(result, phase) > 0.95
    assert result.loss[-1] < 0.8 * result.loss[0]


@pytest.mark.parametrize("solver", sorted(SETTINGS))
def test_every_part_of_the_model_composes(rng, solver):
    counts, _ = simulated(rng, 2)
    parts = {"slices": 2, "slice_A": 20.0, "probe_modes": 2, "object_states": 2, "probe_variations": 1, "held_out": 0.1}
    drift = np.linspace(0.95, 1.05, len(counts))
    short = {"iterations": 4, "update_probe": 1, "update_positions": 2, "object_type": "complex", "scales": drift}
    regularisers = (
        ptycho.Regulariser("layers", 0.1, sigma_A=20.0),
        ptycho.Regulariser("tv", 1e-4),
        ptycho.Regulariser("probe_power", 1.0),
    )
    result = run(counts, solver, **parts, **short, regularisers=regularisers)
    assert result.object_states.shape[:2] == (2, 2)
    assert result.probe.shape[0] == 2
    assert result.loss[-1] < result.loss[0]
    assert np.isfinite(result.object).all()


@pytest.mark.parametrize("solver", sorted(SETTINGS))
def test_a_resumed_run_ends_as_if_it_had_never_stopped(rng, solver):
    counts, _ = simulated(rng)
    kept: list[dict[str, np.ndarray]] = []

    def watch(iteration: ptycho.Iteration) -> None:
        if iteration.done == 2:
            kept.append({name: np.array(value) for name, value in iteration.checkpoint().items()})

    whole = run(counts, solver, iterations=4, update_probe=1, watch=watch)
    again = run(counts, solver, iterations=4, update_probe=1, resume=kept[0])
    assert np.array_equal(whole.object, again.object)
    assert np.array_equal(whole.probe, again.probe)
    assert np.array_equal(whole.loss, again.loss)


def test_quasi_newton_never_raises_the_loss(rng):
    counts, _ = simulated(rng)
    loss = run(counts, "lbfgs", iterations=12, prior_rad2_A2=None).loss
    assert (np.diff(loss) <= 1e-6 * loss[0]).all()


def test_momentum_carries_least_squares_steps_on(rng):
    counts, _ = simulated(rng)
    plain, carried = (run(counts, "lsqml", iterations=6, beta_lsq=0.3, momentum=m).loss[-1] for m in (0.0, 0.5))
    assert carried < plain
