"""Absolute anchors: Gaussian beam, weak phase object, energy, sign of the defocus."""

from __future__ import annotations

import numpy as np
import pytest

from ptycho.forward import Multislice
from ptycho.grid import fast_size, fft2, ifft2, pixel_A, resize_centred
from ptycho.information import vacuum_information
from ptycho.likelihood import LIKELIHOODS
from ptycho.optics import Optics, propagator, wavelength_A
from ptycho.problem import Problem, State
from ptycho.scan import Scan, canvas_shape

LAMBDA_80KEV = 0.0417571


def test_relativistic_wavelengths():
    assert wavelength_A(80e3) == pytest.approx(LAMBDA_80KEV, abs=5e-7)
    assert wavelength_A(200e3) == pytest.approx(0.0250793, abs=5e-7)
    assert wavelength_A(300e3) == pytest.approx(0.0196875, abs=5e-7)


def test_full_detector_of_silica286_has_a_window_of_36_A():
    assert pixel_A(wavelength_A(80e3), 106, 1.159921126802601) * 106 == pytest.approx(36.0, rel=1e-5)


def test_fast_sizes():
    assert [fast_size(n) for n in (104, 106, 108, 128, 152, 256)] == [108, 108, 108, 128, 150, 256]


def test_resizing_keeps_the_centre_index():
    for old, new in ((106, 108), (107, 100), (8, 13), (9, 4)):
        a = np.zeros((old, old))
        a[old // 2, old // 2] = 1
        assert np.argwhere(resize_centred(a, (new, new))).tolist() == [[new // 2, new // 2]]


def gaussian_beam(n: int, pixel: float, waist: float, z: float, lam: float) -> np.ndarray:
    """Closed form of the paraxial Gaussian beam in two dimensions, without the common phase exp(ikz)."""
    x = (np.arange(n) - n // 2) * pixel
    q = 1 + 1j * lam * z / (np.pi * waist**2)
    return np.exp(-(x[:, None] ** 2 + x[None] ** 2) / (waist**2 * q)) / q


@pytest.mark.parametrize("z", [150.0, -80.0])
def test_free_space_turns_a_gaussian_beam_into_its_closed_form(z):
    n, pixel, waist = 128, 0.25, 2.0
    start = gaussian_beam(n, pixel, waist, 0.0, LAMBDA_80KEV).astype(complex)
    moved = ifft2(fft2(start.copy()) * propagator((n, n), (pixel, pixel), z, LAMBDA_80KEV))
    assert np.abs(moved - gaussian_beam(n, pixel, waist, z, LAMBDA_80KEV)).max() < 1e-10


def test_the_crossover_lies_downstream_for_positive_defocus():
    n, pixel, optics = 128, 0.3, Optics(80e3, 30.0, 180.0)
    probe = optics.probe((n, n), (pixel, pixel))

    def peak(z: float) -> float:
        kernel = propagator((n, n), (pixel, pixel), z, optics.wavelength_A)
        return float((np.abs(ifft2(fft2(probe.copy()) * kernel)) ** 2).max())

    heights = {z: peak(z) for z in (-180.0, 0.0, 170.0, 180.0, 190.0)}
    assert max(heights, key=lambda z: heights[z]) == 180.0
    assert heights[180.0] > 20 * heights[0.0]
    centre = np.abs(ifft2(fft2(probe.copy()) * propagator((n, n), (pixel, pixel), 180.0, optics.wavelength_A)))
    assert np.unravel_index(centre.argmax(), centre.shape) == (n // 2, n // 2)


def test_the_probe_of_another_plane_is_the_propagated_probe():
    n, pixel, optics = 96, 0.35, Optics(80e3, 30.0, 180.0, c30_A=1e6)
    kernel = propagator((n, n), (pixel, pixel), 15.0, optics.wavelength_A)
    moved = ifft2(fft2(optics.probe((n, n), (pixel, pixel), -5.0)) * kernel)
    assert np.abs(moved - optics.probe((n, n), (pixel, pixel), 10.0)).max() < 1e-12


def test_probe_fills_the_aperture_and_nothing_else():
    n, pixel = 108, 1 / 3
    spectrum = np.abs(np.fft.fft2(Optics(80e3, 30.0, 180.0).probe((n, n), (pixel, pixel))))
    angle = 1e3 * LAMBDA_80KEV * np.hypot(*np.meshgrid(*(2 * [np.fft.fftfreq(n, pixel)])))
    assert spectrum[angle > 31.0].max() < 1e-10 * spectrum.max()
    inside = spectrum[angle < 29.0]
    assert np.ptp(inside) < 1e-10 * inside.max()


def random_object(rng: np.random.Generator, shape: tuple[int, ...], strength: float = 0.4) -> np.ndarray:
    return np.exp(1j * strength * rng.standard_normal(shape))


@pytest.mark.parametrize("slices", [1, 2, 5])
def test_phase_objects_keep_every_electron(rng, slices):
    n, pixel = 32, 0.4
    kernel = propagator((n, n), (pixel, pixel), 8.0, LAMBDA_80KEV)
    probe = rng.standard_normal((1, 2, n, n)) + 1j * rng.standard_normal((1, 2, n, n))
    _, wave = Multislice(kernel).forward(
        probe,
        np.zeros(3, np.int32),
        random_object(rng, (slices, 50, 50)),
        np.array([[0, 0], [4, 9], [18, 2]], np.int32),
    )
    power = (np.abs(wave) ** 2).sum((1, 2, 3))
    assert power == pytest.approx(np.full(3, (np.abs(probe) ** 2).sum()), rel=1e-12)


def test_reversing_the_propagation_returns_the_probe(rng):
    n, pixel, slices = 32, 0.4, 4
    model = Multislice(propagator((n, n), (pixel, pixel), 8.0, LAMBDA_80KEV))
    probe = rng.standard_normal((1, 1, n, n)) + 1j * rng.standard_normal((1, 1, n, n))
    object_, corners = random_object(rng, (slices, 40, 40)), np.array([[3, 5]], np.int32)
    entering, wave = model.forward(probe.copy(), np.zeros(1, np.int32), object_, corners)
    back = model.adjoint(wave, entering, object_, corners, np.zeros_like(object_), True)
    assert np.abs(back[0] - probe[0]).max() < 1e-12


def test_weak_phase_object_in_a_plane_wave_follows_the_closed_form():
    """Behind a weak phase ε cos(2πq·r) and free space d the diffracted beams are iε/2 exp(−iπλd q²), the direct one 1."""
    n, pixel, d, epsilon, order = 64, 0.3, 25.0, 1e-4, 5
    x = np.arange(n) / n
    object_ = np.ones((2, n, n), complex)
    object_[0] = np.exp(1j * epsilon * np.cos(2 * np.pi * order * x))[None]
    model = Multislice(propagator((n, n), (pixel, pixel), d, LAMBDA_80KEV))
    _, wave = model.forward(np.ones((1, 1, n, n), complex), np.zeros(1, np.int32), object_, np.zeros((1, 2), np.int32))
    q = order / (n * pixel)
    assert wave[0, 0, 0, 0] / n == pytest.approx(1.0, abs=1e-8)
    for k in (order, -order):
        expected = 0.5j * epsilon * np.exp(-1j * np.pi * LAMBDA_80KEV * d * q**2)
        assert wave[0, 0, 0, k] / n == pytest.approx(expected, abs=1e-8)


def test_information_predicts_the_loss_of_a_weak_phase_grating(rng):
    """A phase ε cos(2πq·r) raises the Poisson loss of a pattern by ε²/4 · H(q) / density on average."""
    n, pixel, order, epsilon = 64, 0.4, 9, 1e-3
    optics = Optics(80e3, 25.0, 150.0)
    positions = rng.uniform(-12, 12, (300, 2))
    canvas = canvas_shape(positions, (n, n))
    probe = (30 * optics.probe((n, n), (pixel, pixel)))[None]
    scan = Scan(positions, canvas, (n, n))
    vacuum = np.ones((1, *canvas), complex)
    state = State.start(vacuum, probe, scan, 1)
    offset = 0.01
    expected = np.abs(state.probes.spectrum) ** 2
    problem = Problem(np.repeat(expected, 300, 0), None, LIKELIHOODS["poisson"], offset, Multislice(), pixel)
    phase = epsilon * np.cos(2 * np.pi * order * np.arange(canvas[1]) / n)[None, None] * np.ones(vacuum.shape)
    loss = problem.gradients(np.exp(1j * phase), state.probes, np.arange(300)).loss.mean()
    spectrum = np.broadcast_to(state.probes.spectrum, (1, n, n))
    information = vacuum_information(spectrum, None, 1, offset, 1.0)[order, 0, 0]
    assert loss == pytest.approx(epsilon**2 / 4 * information, rel=0.05)
