"""Absolute anchors: Gaussian beam, weak phase object, energy, sign of the defocus."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from ptycho.data import Counts, Patterns
from ptycho.forward import Multislice
from ptycho.grid import fast_size, fft2, ifft2, pixel_A, resize_centred
from ptycho.information import vacuum_information
from ptycho.likelihood import LIKELIHOODS
from ptycho.optics import Optics, propagator, wavelength_A
from ptycho.problem import Problem, State
from ptycho.propagate import FreeSpace
from ptycho.scan import Illumination, Scan, canvas_shape

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


def space(n: int, pixel: float, gaps: int, gap_A: float, tilt_mrad: tuple[float, float] = (0.0, 0.0)) -> FreeSpace:
    return FreeSpace(np.full(gaps, gap_A), np.array([tilt_mrad]), (n, n), pixel, LAMBDA_80KEV, dtype=np.dtype(complex))


@pytest.mark.parametrize("slices", [1, 2, 5])
def test_phase_objects_keep_every_electron(rng, slices):
    n, pixel = 32, 0.4
    probe = rng.standard_normal((1, 2, n, n)) + 1j * rng.standard_normal((1, 2, n, n))
    _, wave = Multislice(space(n, pixel, slices - 1, 8.0, (12.0, -30.0))).forward(
        probe,
        np.zeros(3, np.int32),
        random_object(rng, (slices, 50, 50)),
        np.array([[0, 0], [4, 9], [18, 2]], np.int32),
        np.arange(3),
    )
    power = (np.abs(wave) ** 2).sum((1, 2, 3))
    assert power == pytest.approx(np.full(3, (np.abs(probe) ** 2).sum()), rel=1e-12)


def test_weak_phase_object_in_a_plane_wave_follows_the_closed_form():
    """Behind a weak phase ε cos(2πq·r) and free space d the diffracted beams are iε/2 exp(−iπλd q²), the direct one 1."""
    n, pixel, d, epsilon, order = 64, 0.3, 25.0, 1e-4, 5
    x = np.arange(n) / n
    object_ = np.ones((2, n, n), complex)
    object_[0] = np.exp(1j * epsilon * np.cos(2 * np.pi * order * x))[None]
    plane, corner, ids = np.ones((1, 1, n, n), complex), np.zeros((1, 2), np.int32), np.arange(1)
    _, wave = Multislice(space(n, pixel, 1, d)).forward(plane, np.zeros(1, np.int32), object_, corner, ids)
    q = order / (n * pixel)
    assert wave[0, 0, 0, 0] / n == pytest.approx(1.0, abs=1e-8)
    for k in (order, -order):
        expected = 0.5j * epsilon * np.exp(-1j * np.pi * LAMBDA_80KEV * d * q**2)
        assert wave[0, 0, 0, k] / n == pytest.approx(expected, abs=1e-8)


def test_a_tilted_specimen_is_seen_as_the_same_columns(rng):
    """Slices moved sideways along the tilt give the same intensities as straight slices with the tilt in free space."""
    n, pixel, gap_A, shift_px = 120, 0.25, 10.0, 2
    phase = ndimage.gaussian_filter(rng.standard_normal((3, 132, 132)), (0, 2, 2))
    object_ = np.exp(0.3j * phase / phase.std())
    leaning = np.stack([np.roll(o, s * shift_px, axis=1) for s, o in enumerate(object_)])
    probe = Optics(80e3, 20.0, 60.0).probe((n, n), (pixel, pixel))[None, None]
    corner, index, ids = np.array([[6, 6]], np.int32), np.zeros(1, np.int32), np.arange(1)
    tilt = (0.0, 1e3 * np.arctan(shift_px * pixel / gap_A))
    _, straight = Multislice(space(n, pixel, 2, gap_A, tilt)).forward(probe, index, object_, corner, ids)
    _, moved = Multislice(space(n, pixel, 2, gap_A)).forward(probe, index, leaning, corner, ids)
    ratio = np.abs(np.abs(straight) ** 2 - np.abs(moved) ** 2).max() / (np.abs(moved) ** 2).max()
    assert ratio < 2e-2
    _, wrong = Multislice(space(n, pixel, 2, gap_A, (0.0, -tilt[1]))).forward(probe, index, object_, corner, ids)
    assert np.abs(np.abs(wrong) ** 2 - np.abs(moved) ** 2).max() / (np.abs(moved) ** 2).max() > 0.2


def test_modes_of_partial_coherence_add_up_to_the_mixture():
    """A Gaussian source blurs the intensity of the probe by its own width; a focal spread averages over defocus."""
    n, pixel = 96, 0.25
    sharp = Optics(80e3, 25.0, 0.0)
    blurred = Optics(80e3, 25.0, 0.0, source_size_A=0.3).probe_modes(10, (n, n), (pixel, pixel))
    ky, kx = (np.fft.fftfreq(n, pixel)[s] for s in ((slice(None), None), (None, slice(None))))
    transfer = np.exp(-2 * np.pi**2 * 0.3**2 * (ky**2 + kx**2))
    expected = np.fft.ifft2(np.fft.fft2(np.abs(sharp.probe((n, n), (pixel, pixel))) ** 2) * transfer).real
    assert np.abs((np.abs(blurred) ** 2).sum(0) - expected).max() < 0.005 * expected.max()
    gram = np.einsum("ayx,byx->ab", blurred.conj(), blurred)
    assert np.abs(gram - np.diag(np.diag(gram))).max() < 1e-10
    assert (np.diff(np.diag(gram).real) < 1e-9).all()
    spread = Optics(80e3, 25.0, 100.0, focal_spread_A=40.0).probe_modes(5, (n, n), (pixel, pixel))
    nodes, weights = np.polynomial.hermite_e.hermegauss(21)
    members = [np.abs(Optics(80e3, 25.0, 100 + 40 * x).probe((n, n), (pixel, pixel))) ** 2 for x in nodes]
    mixture = np.average(members, axis=0, weights=weights)
    assert np.abs((np.abs(spread) ** 2).sum(0) - mixture).max() < 0.05 * mixture.max()


@pytest.mark.parametrize(
    ("name", "value", "angle", "order", "power"),
    [("c12_A", 50.0, "phi12_deg", 2, 2), ("c21_A", 4e3, "phi21_deg", 1, 3), ("c23_A", 4e3, "phi23_deg", 3, 3)],
)
def test_aberrations_turn_the_wave_by_krivaneks_phase(name, value, angle, order, power):
    """exp(−iχ) with χ = 2π/λ · C α^(n+1) / (n + 1) · cos m(φ − φ_C) for α = λk."""
    n, pixel = 64, 0.4
    plain = np.fft.fft2(np.fft.ifftshift(Optics(80e3, 25.0, 30.0).probe((n, n), (pixel, pixel))))
    turned = Optics(80e3, 25.0, 30.0, **{name: value, angle: 20.0})
    turned = np.fft.fft2(np.fft.ifftshift(turned.probe((n, n), (pixel, pixel))))
    ky, kx = np.meshgrid(*(2 * [np.fft.fftfreq(n, pixel)]), indexing="ij")
    alpha, phi = LAMBDA_80KEV * np.hypot(ky, kx), np.arctan2(ky, kx)
    chi = 2 * np.pi / LAMBDA_80KEV * value * alpha**power / power * np.cos(order * (phi - np.radians(20.0)))
    inside = alpha < 0.024
    assert np.abs(turned[inside] / plain[inside] - np.exp(-1j * chi[inside])).max() < 1e-4


def test_the_exit_wave_of_one_atom_is_abtems():
    """Eight slices of a silicon atom under a plane wave, against abTEM's own multislice, 0.5 Å behind the last slice."""
    import abtem
    from abtem.core.energy import energy2sigma
    from ase import Atoms

    n, side, gap_A = 256, 10.0, 0.5
    pixel = side / n
    atom = Atoms("Si", positions=[(side / 2, side / 2, 2.0)], cell=[side, side, 4.0])
    with abtem.config.set({"precision": "float64"}):
        potential = abtem.Potential(atom, gpts=n, slice_thickness=gap_A, parametrization="lobato").build(lazy=False)
        theirs = np.asarray(abtem.PlaneWave(energy=80e3).multislice(potential, lazy=False).array)
        phases = energy2sigma(80e3) * np.asarray(potential.array, np.float64)
    k = np.hypot(*np.meshgrid(*(2 * [np.fft.fftfreq(n, pixel)])))
    kept = k < 0.97 * 2 / 3 * 0.5 / pixel
    slices = np.fft.ifft2(np.fft.fft2(np.exp(1j * phases)) * kept)
    slices = np.concatenate([slices, np.ones((1, n, n))])
    plane, index, ids = np.ones((1, 1, n, n), complex), np.zeros(1, np.int32), np.arange(1)
    model = Multislice(space(n, pixel, len(slices) - 1, gap_A))
    _, wave = model.forward(plane, index, slices, np.zeros((1, 2), np.int32), ids)
    seen = LAMBDA_80KEV * k < 0.2
    ours, theirs = wave[0, 0] / n * seen, np.fft.fft2(theirs) / n**2 * seen
    ours, theirs = np.fft.ifft2(ours) * n**2, np.fft.ifft2(theirs) * n**2
    turn = np.vdot(ours, theirs)
    assert np.abs(theirs - 1).max() > 0.3
    assert np.abs(ours * turn / abs(turn) - theirs).max() < 1e-5


def test_information_predicts_the_loss_of_a_weak_phase_grating(rng):
    """A phase ε cos(2πq·r) raises the Poisson loss of a pattern by ε²/4 · H(q) / density on average."""
    n, pixel, order, epsilon = 64, 0.4, 9, 1e-3
    optics = Optics(80e3, 25.0, 150.0)
    positions = rng.uniform(-12, 12, (300, 2))
    canvas = canvas_shape(positions, (n, n))
    probe = (30 * optics.probe((n, n), (pixel, pixel)))[None]
    scan = Scan(positions, canvas, (n, n))
    vacuum = np.ones((1, *canvas), complex)
    state = State(vacuum[None], Illumination(scan, probe), space(n, pixel, 0, 0.0))
    offset = 0.01
    expected = np.fft.fftshift(np.abs(state.illumination.spectrum) ** 2, axes=(1, 2))
    patterns = Patterns(np.repeat(expected, 300, 0), positions, 1.0)
    problem = Problem(Counts(patterns, n), LIKELIHOODS["poisson"], offset, pixel, np.arange(300))
    phase = epsilon * np.cos(2 * np.pi * order * np.arange(canvas[1]) / n)[None, None] * np.ones(vacuum.shape)
    loss = problem.losses(replace(state, object=np.exp(1j * phase)[None]), np.arange(300)).mean()
    spectrum = state.illumination.spectrum
    weight = 1 / ((np.abs(spectrum) ** 2).sum(0) + offset)
    information = vacuum_information(spectrum[None], weight)[order, 0, 0]
    assert loss == pytest.approx(epsilon**2 / 4 * information, rel=0.05)
