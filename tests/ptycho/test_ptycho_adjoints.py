"""⟨Ax, y⟩ = ⟨x, A'y⟩ for each linear map, in double precision, on every backend."""

from __future__ import annotations

import numpy as np
import pytest

from ptycho.forward import Multislice
from ptycho.grid import fft2, ifft2, irfft2, rfft2, to_numpy
from ptycho.patches import multiply, scatter_add
from ptycho.propagate import FreeSpace
from ptycho.scan import Illumination, Scan, Variations

N, CANVAS = 12, (25, 21)
CORNERS = np.array([[0, 0], [13, 9], [5, 4], [5, 5]], np.int32)
IDS = np.arange(4)


def multislice(xp, slices: int, rng: np.random.Generator | None = None) -> Multislice:
    """Slices at unequal distances, with a tilt of their own for each pattern where a generator is given."""
    tilts = np.array([[5.0, -8.0]]) if rng is None else rng.normal(0, 20, (4, 2))
    gaps = 9.0 + np.arange(slices - 1)
    return Multislice(FreeSpace(gaps, tilts, (N, N), 0.4, 0.04, xp, np.dtype(complex)))


@pytest.fixture
def draw(xp, rng):
    """Complex random arrays on the backend under test."""

    def make(*shape: int):
        return xp.asarray(rng.standard_normal(shape) + 1j * rng.standard_normal(shape))

    return make


def inner(a, b) -> complex:
    return complex(np.vdot(to_numpy(a), to_numpy(b)))


def assert_adjoint(ax, y, x, aty) -> None:
    left, right = inner(ax, y), inner(x, aty)
    assert abs(left - right) < 1e-12 * np.sqrt(abs(inner(ax, ax) * inner(y, y)))


def test_transforms_are_unitary(draw, xp):
    x, y = draw(3, N, N), draw(3, N, N)
    assert_adjoint(fft2(x.copy()), y, x, ifft2(y.copy()))
    real = x.real.copy()
    assert np.abs(to_numpy(irfft2(rfft2(real), (N, N)) - real)).max() < 1e-12
    assert np.abs(to_numpy(rfft2(real) - fft2(real.astype(complex))[..., : N // 2 + 1])).max() < 1e-12


def test_windows_of_the_object(draw, xp):
    incoming, slice_, y = draw(2, 3, N, N), draw(*CANVAS), draw(4, 3, N, N)
    index, corners = xp.asarray(np.array([0, 1, 1, 0], np.int32)), xp.asarray(CORNERS)
    back = xp.zeros_like(slice_)
    scatter_add(back, incoming, index, y, corners)
    assert_adjoint(multiply(incoming, index, slice_, corners), y, slice_, back)


def test_windows_agree_with_plain_indexing(draw, xp):
    incoming, slice_ = draw(2, 1, N, N), draw(*CANVAS)
    index = np.array([0, 1, 1, 0], np.int32)
    out = to_numpy(multiply(incoming, xp.asarray(index), slice_, xp.asarray(CORNERS)))
    for wave, i, (y, x) in zip(out, index, CORNERS, strict=True):
        assert np.allclose(wave, to_numpy(incoming)[i] * to_numpy(slice_)[y : y + N, x : x + N], atol=1e-14)


@pytest.mark.parametrize("tilted", [False, True])
@pytest.mark.parametrize("slices", [1, 2, 5])
def test_multislice_in_the_probe(draw, xp, rng, slices, tilted):
    model = multislice(xp, slices, rng if tilted else None)
    object_, probes, y = draw(slices, *CANVAS), draw(4, 2, N, N), draw(4, 2, N, N)
    index, corners = xp.arange(4, dtype="int32"), xp.asarray(CORNERS)
    entering, wave = model.forward(probes, index, object_, corners, IDS)
    back = model.adjoint(y.copy(), entering, object_, corners, IDS, xp.zeros_like(object_), True)
    assert_adjoint(wave, y, probes, back)


@pytest.mark.parametrize("tilted", [False, True])
@pytest.mark.parametrize("slices", [1, 2, 5])
def test_multislice_in_each_slice(draw, xp, rng, slices, tilted):
    """The wave is linear in one slice while the others are held."""
    model = multislice(xp, slices, rng if tilted else None)
    object_, probes, y = draw(slices, *CANVAS), draw(4, 2, N, N), draw(4, 2, N, N)
    index, corners = xp.arange(4, dtype="int32"), xp.asarray(CORNERS)
    gradient = xp.zeros_like(object_)
    entering, wave = model.forward(probes, index, object_, corners, IDS)
    model.adjoint(y.copy(), entering, object_, corners, IDS, gradient, False)
    for s in range(slices):
        assert_adjoint(wave, y, object_[s], gradient[s])


@pytest.mark.parametrize("tilted", [False, True])
def test_free_space(draw, xp, rng, tilted):
    model = multislice(xp, 3, rng if tilted else None)
    x, y = draw(4, 1, N, N), draw(4, 1, N, N)
    for gap in (0, 1):
        assert_adjoint(model.propagate(x.copy(), gap, IDS), y, x, model.propagate_adjoint(y.copy(), gap, IDS))


def test_a_tilt_moves_the_wave_back_along_the_columns():
    """Over 9 Å a tilt of 50 mrad towards +y moves a wave 9 tan(0.05) Å towards −y, seen from the specimen."""
    n, pixel = 48, 0.2
    y, x = np.mgrid[:n, :n] - n // 2
    spot = np.exp(-(y**2 + x**2) / 60.0).astype(complex)[None, None]

    def centre(tilt_mrad: float) -> np.ndarray:
        space = FreeSpace(np.array([9.0]), np.array([[tilt_mrad, 0.0]]), (n, n), pixel, 0.04, dtype=np.dtype(complex))
        power = np.abs(Multislice(space).propagate(spot.copy(), 0, np.arange(1))[0, 0]) ** 2
        return np.array([(power * y).sum(), (power * x).sum()]) / power.sum() * pixel

    assert centre(50.0) - centre(0.0) == pytest.approx([-9 * np.tan(0.05), 0.0], abs=1e-6)


@pytest.mark.parametrize("shared_shifts", [True, False])
def test_shift_of_the_probe(draw, xp, rng, shared_shifts):
    fractions = np.array([0.25, 0.75]) if shared_shifts else rng.uniform(-0.5, 0.5, 16)
    positions = rng.integers(-3, 3, (16, 2)) + rng.choice(fractions, (16, 1))
    scan = Scan(positions, (30, 30), (N, N))
    probe, y = draw(2, N, N), draw(16, 2, N, N)
    probes = Illumination(scan, probe)
    ids = np.arange(16)
    taken, index, _ = probes.take(ids)
    assert_adjoint(taken[index], y, probe, probes.adjoint(ids, y))


def test_variations_change_the_first_mode_only(draw, xp, rng):
    scan = Scan(rng.uniform(-3, 3, (5, 2)), (30, 30), (N, N))
    probe, modes, coefficients = draw(2, N, N), draw(3, N, N), draw(5, 3)
    ids = np.array([4, 1, 2])
    own, index, _ = Illumination(scan, probe, variations=Variations(modes, coefficients)).take(ids)
    for wave, i in zip(own[index], ids, strict=True):
        varied = probe.copy()
        varied[0] += xp.tensordot(coefficients[i], modes, axes=1)
        alone, at, _ = Illumination(scan, varied).take(np.array([i]))
        assert np.abs(to_numpy(wave - alone[at][0])).max() < 1e-12


def test_gradients_are_moved_back_to_the_unshifted_probe(draw, rng):
    scan = Scan(rng.uniform(-3, 3, (5, 2)), (30, 30), (N, N))
    probe, y, ids = draw(1, N, N), draw(5, 1, N, N), np.arange(5)
    probes = Illumination(scan, probe)
    each = probes.back_shifted(ids, y[:, 0].copy())
    assert np.abs(to_numpy(each.sum(0) - probes.adjoint(ids, y)[0])).max() < 1e-12


def test_a_whole_pixel_and_its_remainder_make_the_position():
    """A band-limited spot lands where the position says, for any split into window and shift."""
    n, canvas = 24, (48, 48)
    y, x = np.mgrid[:n, :n] - n // 2
    spot = np.exp(-(y**2 + x**2) / 8.0).astype(complex)[None]
    for position in (np.array([[2.3, -1.4]]), np.array([[-3.5, 0.5]]), np.array([[4.0, 5.0]])):
        scan = Scan(np.repeat(position, 2, 0), canvas, (n, n))
        probes = Illumination(scan, spot)
        taken, index, corners = probes.take(np.arange(1))
        on_canvas = np.zeros(canvas)
        cy, cx = corners[0]
        on_canvas[cy : cy + n, cx : cx + n] = taken[index[0], 0].real
        grid = np.mgrid[: canvas[0], : canvas[1]] - 24
        centre = (grid * on_canvas).sum((1, 2)) / on_canvas.sum()
        assert centre == pytest.approx(position[0], abs=1e-3)
