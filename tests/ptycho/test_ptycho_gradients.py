"""Analytic derivatives against central differences in double precision, with every part of the model switched on."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import ptycho
from ptycho import variation
from ptycho.data import Counts
from ptycho.forward import Multislice
from ptycho.likelihood import LIKELIHOODS, intensity
from ptycho.linearise import normal_equations, parameter_names
from ptycho.problem import Problem, State
from ptycho.propagate import FreeSpace
from ptycho.scan import Illumination, Scan

N, CANVAS, PATTERNS, PIXEL_A, WAVELENGTH_A = 16, (32, 30), 6, 0.4, 0.04
ALL = ("positions", "scale", "background", "tilt", "thickness", "defocus", "astigmatism")


def make(rng: np.random.Generator, slices: int, likelihood: str, *, states: int = 1, full: bool = True):
    """A small random problem: two probe modes, sub-pixel positions, and with `full` a masked detector, tilts of each
    pattern, probe variations, dose and background of each pattern."""
    counts = rng.poisson(1.0, (PATTERNS, N, N)).astype(np.uint16)
    mask = rng.random((N, N)) > 0.1 if full else None
    patterns = ptycho.Patterns(counts, np.zeros((PATTERNS, 2)), 1.0, mask)
    problem = Problem(Counts(patterns, N), LIKELIHOODS[likelihood], 0.3, PIXEL_A, np.arange(PATTERNS))
    object_ = np.exp(1j * 0.3 * rng.standard_normal((states, slices, *CANVAS)))
    y, x = np.mgrid[:N, :N] - N // 2
    shape = np.exp(-(y**2 + x**2) / 18.0)
    probe = shape * (rng.standard_normal((2, N, N)) + 1j * rng.standard_normal((2, N, N)))
    tilts = rng.normal(0, 10, (PATTERNS if full else 1, 2))
    space = FreeSpace(rng.uniform(5, 12, slices - 1), tilts, (N, N), PIXEL_A, WAVELENGTH_A, dtype=np.dtype(complex))
    state = State(object_, Illumination(Scan(rng.uniform(-4, 4, (PATTERNS, 2)), CANVAS, (N, N)), probe), space)
    if not full:
        return problem, state
    state = variation.start(state, 2, rng)
    varied = state.illumination.variations
    coefficients = rng.standard_normal((PATTERNS, 2)) + 1j * rng.standard_normal((PATTERNS, 2))
    illumination = state.illumination.with_variations(replace(varied, coefficients=coefficients))
    scales, backgrounds = rng.uniform(0.5, 1.5, PATTERNS), rng.uniform(0.0, 0.5, PATTERNS)
    return problem, replace(state, illumination=illumination, scales=scales, backgrounds=backgrounds)


def moved(state: State, name: str, t: float) -> State:
    """The state with one named parameter of all patterns moved by t."""
    if name in ("y", "x"):
        return state.with_positions(state.positions_px + t * np.eye(2)["yx".index(name)])
    if name in ("scale", "background"):
        return replace(state, **{f"{name}s": getattr(state, f"{name}s") + t})
    if name.startswith("tilt"):
        tilts = state.space.tilts_mrad + t * np.eye(2)["yx".index(name[-1])]
        return replace(state, space=replace(state.space, tilts_mrad=tilts))
    if name.startswith("gap"):
        gaps = state.space.gaps_A.copy()
        gaps[int(name[4:])] += t
        return replace(state, space=replace(state.space, gaps_A=gaps))
    optics = {
        "defocus": ptycho.Optics(80e3, 1e3, t),
        "astigmatism_a": ptycho.Optics(80e3, 1e3, 0.0, c12_A=t),
        "astigmatism_b": ptycho.Optics(80e3, 1e3, 0.0, c12_A=t, phi12_deg=45.0),
    }[name]
    scale = WAVELENGTH_A / optics.wavelength_A
    wide = replace(optics, defocus_A=optics.defocus_A * scale, c12_A=optics.c12_A * scale)
    wave = np.fft.ifftshift(wide.probe((N, N), (PIXEL_A, PIXEL_A)))
    factor = np.fft.fft2(wave)
    factor = factor / np.abs(factor)

    def turned(probes: np.ndarray) -> np.ndarray:
        return np.fft.ifft2(np.fft.fft2(probes) * factor)

    varied = state.illumination.variations
    illumination = state.illumination.with_probe(turned(state.probe))
    if varied is not None:
        illumination = illumination.with_variations(replace(varied, modes=turned(varied.modes)))
    return replace(state, illumination=illumination)


@pytest.mark.parametrize("likelihood", sorted(LIKELIHOODS))
@pytest.mark.parametrize("states", [1, 2])
@pytest.mark.parametrize("slices", [1, 2, 5])
def test_object_and_probe(rng, slices, states, likelihood):
    problem, state = make(rng, slices, likelihood, states=states)
    ids = np.arange(PATTERNS)
    g = problem.gradients(state, ids, probe=True)
    step = 1e-5
    d_object = rng.standard_normal(state.object.shape) + 1j * rng.standard_normal(state.object.shape)
    d_probe = rng.standard_normal(state.probe.shape) + 1j * rng.standard_normal(state.probe.shape)

    def total(t: float, is_object: bool) -> float:
        if is_object:
            return float(problem.losses(replace(state, object=state.object + t * d_object), ids).sum())
        return float(problem.losses(state.with_probe(state.probe + t * d_probe), ids).sum())

    for is_object, gradient, direction in ((True, g.object, d_object), (False, g.probe, d_probe)):
        numeric = (total(step, is_object) - total(-step, is_object)) / (2 * step)
        assert 2 * np.vdot(gradient, direction).real == pytest.approx(numeric, rel=1e-6)


@pytest.mark.parametrize("likelihood", sorted(LIKELIHOODS))
@pytest.mark.parametrize("states", [1, 2])
@pytest.mark.parametrize("slices", [1, 2, 5])
def test_everything_else(rng, slices, states, likelihood):
    problem, state = make(rng, slices, likelihood, states=states)
    state = replace(state, space=replace(state.space, tilts_mrad=state.space.tilts_mrad[:1]))
    ids = np.arange(PATTERNS)
    what = [w for w in ALL if slices > 1 or w not in ("tilt", "thickness")]
    names = parameter_names(what, slices - 1)
    normal = normal_equations(problem, state, ids, names)
    step = 1e-4
    for column, name in enumerate(names):
        up, down = (problem.losses(moved(state, name, s * step), ids) for s in (1, -1))
        numeric = (up - down) / (2 * step)
        assert normal.gradient[:, column] == pytest.approx(numeric, rel=1e-5, abs=1e-6), name


@pytest.mark.parametrize("likelihood", ["amplitude", "poisson"])
def test_information_where_the_model_is_exact(rng, likelihood):
    """With data equal to the model the information is the second derivative."""
    problem, state = make(rng, 2, likelihood, full=False)
    state = replace(state, scales=np.ones(PATTERNS), backgrounds=np.full(PATTERNS, 0.2))
    ids = np.arange(PATTERNS)
    exact = np.fft.fftshift(intensity(problem.forward(state, ids).detector) + 0.2, axes=(1, 2))
    patterns = ptycho.Patterns(exact, np.zeros((PATTERNS, 2)), 1.0)
    problem = replace(problem, counts=Counts(patterns, N))
    names = parameter_names(ALL, 1)
    normal = normal_equations(problem, state, ids, names)
    assert np.abs(normal.gradient).max() < 1e-8
    step = 1e-5
    for column, name in enumerate(names):
        up, down = (normal_equations(problem, moved(state, name, s * step), ids, names).gradient for s in (1, -1))
        numeric = (up - down) / (2 * step)
        scale = np.abs(normal.information).max()
        assert normal.information[:, column] == pytest.approx(numeric, rel=1e-3, abs=1e-6 * scale), name


@pytest.mark.parametrize("slices", [1, 2, 5])
def test_reversing_the_propagation_returns_the_probe(rng, slices):
    problem, state = make(rng, slices, "poisson")
    ids = np.arange(PATTERNS)
    waves = problem.forward(state, ids)
    incoming, index, _ = state.illumination.take(ids)
    model, gradient = Multislice(state.space), np.zeros_like(state.object[0])
    back = model.adjoint(waves.detector, waves.entering[0], state.object[0], waves.corners, ids, gradient, True)
    assert np.abs(back - incoming[index]).max() < 1e-10 * np.abs(incoming).max()
