"""The four likelihoods: derivatives, expected curvature, noise statistics, masks and dtypes, on every backend; memory traffic."""

from __future__ import annotations

import numpy as np
import pytest

from ptycho.freespace import through_free_space
from ptycho.grid import to_numpy
from ptycho.likelihood import LIKELIHOODS, Likelihood, intensity
from ptycho.patches import multiply, scatter_add, scatter_back
from ptycho.traffic import bytes_per_position

PATTERNS, MODES, N, OFFSET = 3, 2, 10, 0.3
ALL = [
    Likelihood("amplitude"),
    Likelihood("poisson"),
    Likelihood("gaussian", variance=2.5),
    Likelihood("anscombe", read_noise=0.8),
]
each_likelihood = pytest.mark.parametrize("likelihood", ALL, ids=lambda x: x.name)


class Case:
    """Random waves, counts, a mask, scale and background in double precision on the backend under test."""

    def __init__(self, xp, rng: np.random.Generator) -> None:
        self.xp = xp
        shape = (PATTERNS, MODES, N, N)
        self.waves = xp.asarray(rng.standard_normal(shape) + 1j * rng.standard_normal(shape))
        self.counts = xp.asarray(rng.poisson(3.0, (PATTERNS, N, N)).astype(np.uint16))
        self.mask = xp.asarray(rng.random((N, N)) > 0.15)
        self.scale = xp.asarray(rng.uniform(0.5, 2.0, PATTERNS))
        self.background = xp.asarray(rng.uniform(0.1, 1.0, PATTERNS))

    def evaluate(self, likelihood: Likelihood, **changed):
        """Loss (pattern,) and ∂L/∂Ψ*."""
        use = {k: getattr(self, k) for k in ("waves", "counts", "mask", "scale", "background")} | changed
        waves = use.pop("waves").copy()
        loss = likelihood.evaluate(waves, offset=OFFSET, **use)
        return to_numpy(loss), to_numpy(waves)


@pytest.fixture
def case(xp, rng) -> Case:
    return Case(xp, rng)


def assert_slope(numeric, analytic) -> None:
    assert numeric == pytest.approx(analytic, rel=1e-6, abs=1e-6)


@each_likelihood
@pytest.mark.parametrize("plain", [False, True])
def test_derivative_in_the_waves(case, rng, likelihood, plain):
    none = {"mask": None, "scale": None, "background": None} if plain else {}
    shape, step = case.waves.shape, 1e-5
    direction = rng.standard_normal(shape) + 1j * rng.standard_normal(shape)
    _, derivative = case.evaluate(likelihood, **none)
    up, down = (
        case.evaluate(likelihood, waves=case.waves + s * step * case.xp.asarray(direction), **none)[0] for s in (1, -1)
    )
    assert_slope((up - down) / (2 * step), 2 * (derivative.conj() * direction).real.sum((1, 2, 3)))


@each_likelihood
def test_slopes_give_the_derivatives_in_scale_and_background(case, likelihood):
    power, step = intensity(case.waves), 1e-5
    model = intensity(case.waves, case.scale, case.background)
    slope, _ = likelihood.slopes(model, case.counts, case.mask, OFFSET)
    for name, by in (("scale", slope * power), ("background", slope)):
        up, down = (case.evaluate(likelihood, **{name: getattr(case, name) + s * step})[0] for s in (1, -1))
        assert_slope((up - down) / (2 * step), to_numpy(by.sum((1, 2))))


@each_likelihood
def test_slopes_make_the_derivative_in_the_waves(case, likelihood):
    model = intensity(case.waves, case.scale, case.background)
    slope, curvature = likelihood.slopes(model, case.counts, case.mask, OFFSET)
    _, derivative = case.evaluate(likelihood)
    expected = (case.scale[:, None, None] * slope)[:, None] * case.waves
    assert np.allclose(derivative, to_numpy(expected), rtol=0, atol=1e-13)
    hidden = ~to_numpy(case.mask)
    assert not to_numpy(slope)[:, hidden].any() and not to_numpy(curvature)[:, hidden].any()


def noisy(likelihood: Likelihood, mean: np.ndarray, draws: int, rng: np.random.Generator) -> np.ndarray:
    """Counts with the noise that the likelihood stands for."""
    if likelihood.name == "gaussian":
        return mean + np.sqrt(likelihood.variance) * rng.standard_normal((draws, *mean.shape))
    return rng.poisson(mean, (draws, *mean.shape)) + likelihood.read_noise * rng.standard_normal((draws, *mean.shape))


@pytest.mark.parametrize(
    ("likelihood", "means"),
    [
        (ALL[0], [60.0, 400.0]),
        (ALL[1], [0.05, 1.0, 20.0]),
        (ALL[2], [0.05, 1.0, 20.0]),
        (ALL[3], [60.0, 400.0]),
    ],
    ids=[x.name for x in ALL],
)
def test_expected_curvature_is_the_mean_second_derivative(xp, rng, likelihood, means):
    mean = np.array(means)[None]
    counts = xp.asarray(noisy(likelihood, mean, 40_000, rng))
    model, step = xp.asarray(np.broadcast_to(mean, counts.shape).copy()), 1e-4
    up, down = (likelihood.slopes(model + s * step, counts, None, OFFSET)[0] for s in (1, -1))
    second = to_numpy(((up - down) / (2 * step)).mean(0))
    assert second == pytest.approx(to_numpy(likelihood.slopes(model, counts, None, OFFSET)[1][0]), rel=0.02)


@pytest.mark.parametrize("likelihood", ALL[1:], ids=lambda x: x.name)
def test_variance_of_the_slope_is_the_curvature(rng, likelihood):
    """What makes a likelihood of it (Fisher): holds for the noise it stands for, without an offset."""
    mean = np.array([[30.0, 200.0]])
    counts = noisy(likelihood, mean, 40_000, rng)
    slope, curvature = likelihood.slopes(np.broadcast_to(mean, counts.shape), counts, None, 0.0)
    assert slope.var(0) == pytest.approx(curvature[0], rel=0.04)


def test_anscombe_makes_counts_with_read_noise_of_unit_variance(rng):
    likelihood = Likelihood("anscombe", read_noise=1.5)
    for mean in (20.0, 200.0):
        counts = noisy(likelihood, np.full((1, 1), mean), 100_000, rng)
        waves = np.full((100_000, 1, 1, 1), np.sqrt(mean), complex)
        assert 2 * likelihood.evaluate(waves, counts, None, 0.0).mean() == pytest.approx(1, abs=0.03)


def test_one_pixel_by_hand():
    """n = 9, I = 4 and no offset; the read noise makes 3/8 + r² = 7."""
    expected = {
        "amplitude": (1.0, -0.5),
        "poisson": (-5 + 9 * np.log(9 / 4), -1.25),
        "gaussian": (5.0, -2.0),
        "anscombe": (2 * (np.sqrt(11) - 4) ** 2, 2 * (1 - 4 / np.sqrt(11))),
    }
    for name, (loss, slope) in expected.items():
        waves = np.full((1, 1, 1, 1), 2.0, complex)
        likelihood = Likelihood(name, variance=2.5, read_noise=np.sqrt(6.625))
        assert likelihood.evaluate(waves, np.full((1, 1, 1), 9, np.uint8), None, 0.0)[0] == pytest.approx(loss)
        assert waves[0, 0, 0, 0] == pytest.approx(2 * slope)


@each_likelihood
def test_nothing_is_left_at_the_truth(case, likelihood):
    counts = intensity(case.waves, case.scale, case.background)
    loss, derivative = case.evaluate(likelihood, counts=counts, mask=None)
    assert np.abs(loss).max() < 1e-12
    assert np.abs(derivative).max() < 1e-12


@each_likelihood
@pytest.mark.parametrize("rubbish", [np.nan, np.inf, -50.0, 1e30])
def test_masked_counts_do_not_leak(case, likelihood, rubbish):
    counts = case.counts.astype("float64")
    expected = case.evaluate(likelihood, counts=counts)
    counts[:, ~case.mask] = rubbish
    loss, derivative = case.evaluate(likelihood, counts=counts)
    assert np.array_equal(loss, expected[0])
    assert np.array_equal(derivative, expected[1])
    assert not derivative[:, :, ~to_numpy(case.mask)].any()
    slope, curvature = likelihood.slopes(intensity(case.waves), counts, case.mask, OFFSET)
    assert np.isfinite(to_numpy(slope)).all() and np.isfinite(to_numpy(curvature)).all()


@each_likelihood
def test_the_dtype_of_the_counts_does_not_matter(case, likelihood):
    expected = case.evaluate(likelihood)
    for dtype in ("uint8", "uint32", "float16", "float32", "float64"):
        loss, derivative = case.evaluate(likelihood, counts=case.counts.astype(dtype))
        assert np.array_equal(loss, expected[0])
        assert np.array_equal(derivative, expected[1])


@each_likelihood
def test_memory_order_of_the_counts_does_not_matter(case, likelihood):
    turned = case.xp.asarray(to_numpy(case.counts).transpose(2, 1, 0).copy()).transpose(2, 1, 0)
    assert np.array_equal(case.evaluate(likelihood, counts=turned)[0], case.evaluate(likelihood)[0])


@each_likelihood
def test_single_precision(case, likelihood):
    loss, derivative = case.evaluate(likelihood)
    single, waves = case.evaluate(likelihood, waves=case.waves.astype("complex64"))
    assert single.dtype == np.float32 and waves.dtype == np.complex64
    assert single == pytest.approx(loss, rel=1e-5)
    assert np.allclose(waves, derivative, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
def test_an_empty_pixel_without_offset_stays_finite(xp, dtype):
    for likelihood in ALL:
        waves = xp.zeros((1, 1, 1, 2), dtype)
        loss = likelihood.evaluate(waves, xp.asarray(np.array([[[0, 200]]], np.uint8)), None, 0.0)
        assert np.isfinite(to_numpy(loss)).all() and np.isfinite(to_numpy(waves)).all()


def test_curvature_bound_holds_up_to_the_brightest_pixel():
    model = np.array([0.0, 0.5, 3.0, 40.0])
    for likelihood in ALL:
        bound = likelihood.curvature_bound(40.0, OFFSET)
        assert (likelihood.information(model, OFFSET) * (model + OFFSET) <= bound * (1 + 1e-12)).all()
        assert (likelihood.weighting == "constant") == (np.ptp(likelihood.information(model, OFFSET)) == 0)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"name": "cauchy"}, "expected one of amplitude, anscombe, poisson, gaussian"),
        ({"name": "gaussian", "variance": 0.0}, "expected the positive mean variance"),
        ({"name": "anscombe", "read_noise": -1.0}, "expected electrons per pixel"),
    ],
)
def test_bad_arguments(arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        Likelihood(**arguments)
    assert set(LIKELIHOODS) == {x.name for x in ALL}


def draw(xp, rng, *shape: int):
    return xp.asarray(rng.standard_normal(shape) + 1j * rng.standard_normal(shape))


CORNERS = np.array([[0, 0], [13, 9], [5, 4]], np.int32)


def test_windows_of_the_conjugate_object_in_place(xp, rng):
    waves, slice_, corners = draw(xp, rng, 3, 2, N, N), draw(xp, rng, 25, 21), xp.asarray(CORNERS)
    expected = multiply(waves, xp.arange(3, dtype="int32"), slice_.conj(), corners)
    out = multiply(waves, None, slice_, corners, conjugate=True, out=waves)
    assert out is waves
    assert np.allclose(to_numpy(waves), to_numpy(expected), rtol=0, atol=1e-14)


def test_scatter_back_is_both_adjoints_of_the_product(xp, rng):
    """⟨a·O, y⟩ differentiated in O is the scatter, in a the wave carried back."""
    a, slice_, corners = draw(xp, rng, 2, 2, N, N), draw(xp, rng, 25, 21), xp.asarray(CORNERS)
    index, y = xp.asarray(np.array([1, 0, 1], np.int32)), draw(xp, rng, 3, 2, N, N)
    value = np.vdot(to_numpy(multiply(a, index, slice_, corners)), to_numpy(y))
    sums, only_sums, carried = xp.zeros_like(slice_), xp.zeros_like(slice_), y.copy()
    scatter_add(only_sums, a, index, y, corners)
    scatter_back(sums, a, index, carried, corners, slice_)
    assert np.allclose(to_numpy(sums), to_numpy(only_sums), rtol=0, atol=1e-13)
    assert np.vdot(to_numpy(slice_), to_numpy(sums)) == pytest.approx(value, rel=1e-12)
    assert np.vdot(to_numpy(a[index]), to_numpy(carried)) == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize("ramped", [False, True])
def test_free_space_and_back(xp, rng, ramped):
    """Phases alone: the conjugate product undoes the first, and a ramp moves the wave by whole pixels."""
    wave = draw(xp, rng, 3, 2, N, N)
    kernel = xp.exp(1j * xp.asarray(rng.standard_normal((N, N))))
    shifts = np.array([[0, 1], [3, -2], [-1, 4]])
    k = -2j * np.pi * np.fft.fftfreq(N)
    ramps = tuple(xp.asarray(np.exp(k * shifts[:, i, None])) for i in (0, 1)) if ramped else None
    there = through_free_space(wave.copy(), kernel, ramps)
    assert np.allclose(to_numpy(through_free_space(there.copy(), kernel, ramps, conjugate=True)), to_numpy(wave))
    moved = np.fft.ifft2(to_numpy(through_free_space(there, kernel, None, conjugate=True)))
    for at, before, shift in zip(moved, np.fft.ifft2(to_numpy(wave)), shifts if ramped else 0 * shifts, strict=True):
        assert np.allclose(at, np.roll(before, tuple(shift), (1, 2)), atol=1e-13)


def test_bytes_per_position_counted_by_hand():
    wave = 4 * 4 * 8
    one = {"gather": 1, "fft": 2 + 2, "residual": 1 + 1, "inverse fft": 2 + 2, "scatter": 1}
    assert bytes_per_position(4, 1, 1, 2, False) == sum(one.values()) * wave + 4 * 4 * 2
    there = {"fft": 4, "propagator": 2, "inverse fft": 4, "gather": 2}
    back = {"scatter, carry": 3, "fft": 4, "propagator": 2, "inverse fft": 4}
    five = sum(one.values()) + 4 * (sum(there.values()) + sum(back.values()))
    assert five == 112
    assert bytes_per_position(4, 5, 3, 1, True) == (five + 2) * 3 * wave + 4 * 4
