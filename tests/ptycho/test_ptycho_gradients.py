"""Analytic derivatives against central differences in double precision."""

from __future__ import annotations

import numpy as np
import pytest

from ptycho.forward import Multislice
from ptycho.likelihood import LIKELIHOODS
from ptycho.optics import propagator
from ptycho.positions import position_derivatives
from ptycho.problem import Problem, State
from ptycho.scan import Scan

N, CANVAS, PATTERNS = 16, (32, 30), 6


def make(rng: np.random.Generator, slices: int, likelihood: str, offset: float = 0.3, masked: bool = True):
    """A small random problem with two probe modes, sub-pixel positions and a masked detector."""
    mask = rng.random((N, N)) > 0.1 if masked else None
    kernel = propagator((N, N), (0.4, 0.4), 9.0, 0.04) if slices > 1 else None
    counts = rng.poisson(1.0, (PATTERNS, N, N)).astype(np.uint16)
    problem = Problem(counts, mask, LIKELIHOODS[likelihood], offset, Multislice(kernel), 0.4)
    object_ = np.exp(1j * 0.3 * rng.standard_normal((slices, *CANVAS)))
    y, x = np.mgrid[:N, :N] - N // 2
    shape = np.exp(-(y**2 + x**2) / 18.0)
    probe = shape * (rng.standard_normal((2, N, N)) + 1j * rng.standard_normal((2, N, N)))
    return problem, State.start(object_, probe, Scan(rng.uniform(-4, 4, (PATTERNS, 2)), CANVAS, (N, N)), 1)


def loss(problem: Problem, state: State) -> np.ndarray:
    return problem.gradients(state.object, state.probes, np.arange(PATTERNS)).loss


def total(problem: Problem, state: State) -> float:
    return float(loss(problem, state).sum())


@pytest.mark.parametrize("likelihood", ["amplitude", "poisson"])
@pytest.mark.parametrize("slices", [1, 2, 5])
def test_object_and_probe(rng, slices, likelihood):
    problem, state = make(rng, slices, likelihood)
    g = problem.gradients(state.object, state.probes, np.arange(PATTERNS), probe=True)
    step = 1e-5
    d_object = rng.standard_normal(state.object.shape) + 1j * rng.standard_normal(state.object.shape)
    d_probe = rng.standard_normal(state.probe.shape) + 1j * rng.standard_normal(state.probe.shape)

    def moved(t: float, object_: bool) -> float:
        if object_:
            return total(problem, State(state.object + t * d_object, state.probe, state.probes))
        return total(problem, state.with_probe(state.probe + t * d_probe))

    for is_object, gradient, direction in ((True, g.object, d_object), (False, g.probe, d_probe)):
        numeric = (moved(step, is_object) - moved(-step, is_object)) / (2 * step)
        assert 2 * np.vdot(gradient, direction).real == pytest.approx(numeric, rel=1e-6)


@pytest.mark.parametrize("likelihood", ["amplitude", "poisson"])
@pytest.mark.parametrize("slices", [1, 2, 5])
def test_positions(rng, slices, likelihood):
    problem, state = make(rng, slices, likelihood)
    gradient, _ = position_derivatives(problem, state, np.arange(PATTERNS))
    positions, step = state.probes.scan.positions_px, 1e-4
    for axis in (0, 1):
        shift = step * np.eye(2)[axis]
        up, down = (loss(problem, state.with_positions(positions + s * shift)) for s in (1, -1))
        assert gradient[:, axis] == pytest.approx((up - down) / (2 * step), rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("likelihood", ["amplitude", "poisson"])
def test_curvature_of_positions_where_the_model_is_exact(rng, likelihood):
    """With data equal to the model the mean curvature is the second derivative."""
    problem, state = make(rng, 2, likelihood, masked=False)
    ids = np.arange(PATTERNS)
    probes, index, corners = state.probes.take(ids)
    wave = problem.multislice.forward(probes, index, state.object, corners)[1]
    exact = Problem((np.abs(wave) ** 2).sum(1), None, problem.likelihood, problem.offset, problem.multislice, 0.4)
    gradient, curvature = position_derivatives(exact, state, ids)
    assert np.abs(gradient).max() < 1e-9
    step, positions = 1e-5, state.probes.scan.positions_px
    for axis in (0, 1):
        shift = step * np.eye(2)[axis]
        up, down = (position_derivatives(exact, state.with_positions(positions + s * shift), ids)[0] for s in (1, -1))
        assert curvature[:, axis] == pytest.approx((up - down) / (2 * step), rel=1e-4, abs=1e-3)


@pytest.mark.parametrize("likelihood", ["amplitude", "poisson"])
def test_loss_and_derivative_vanish_where_the_model_is_exact(rng, likelihood):
    wave = rng.standard_normal((3, 2, 8, 8)) + 1j * rng.standard_normal((3, 2, 8, 8))
    counts = (np.abs(wave) ** 2).sum(1)
    residual = wave.copy()
    value = LIKELIHOODS[likelihood].evaluate(residual, counts, None, 0.2)
    assert np.abs(value).max() < 1e-12
    assert np.abs(residual).max() < 1e-12


def test_poisson_loss_is_the_log_likelihood_ratio():
    """One pixel, n = 3, I = 2: I − n − n ln(I / n) = −1 + 3 ln 1.5."""
    wave = np.full((1, 1, 1, 1), np.sqrt(2.0), complex)
    value = LIKELIHOODS["poisson"].evaluate(wave, np.full((1, 1, 1), 3, np.uint8), None, 0.0)
    assert value[0] == pytest.approx(-1 + 3 * np.log(1.5), rel=1e-12)


def test_only_the_poisson_derivative_is_unbiased_at_low_counts(rng):
    """Mean derivative at the truth over Poisson draws of 0.05 electrons per pixel."""
    mean, draws = 0.05, 200_000
    counts = rng.poisson(mean, (draws, 1, 1)).astype(np.uint8)

    def bias(likelihood: str) -> float:
        wave = np.full((draws, 1, 1, 1), np.sqrt(mean), complex)
        LIKELIHOODS[likelihood].evaluate(wave, counts, None, 0.0)
        return float(wave.mean().real / np.sqrt(mean))

    assert abs(bias("poisson")) < 0.03
    assert bias("amplitude") > 0.5


def test_masked_pixels_do_not_count(rng):
    mask = np.ones((8, 8), bool)
    mask[2, 3] = False
    for likelihood in LIKELIHOODS.values():
        wave = rng.standard_normal((1, 1, 8, 8)) + 0j
        counts = rng.poisson(2.0, (1, 8, 8)).astype(float)
        first, second = wave.copy(), wave.copy()
        a = likelihood.evaluate(first, counts, mask, 0.1)
        counts[0, 2, 3] = 1e6
        b = likelihood.evaluate(second, counts, mask, 0.1)
        assert a == pytest.approx(b, rel=1e-12)
        assert first[0, 0, 2, 3] == 0
        assert np.array_equal(first, second)
