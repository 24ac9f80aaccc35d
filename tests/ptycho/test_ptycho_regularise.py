"""What each regulariser keeps, where it leads, and when it acts."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ptycho.grid import library_of, to_numpy
from ptycho.optics import Optics
from ptycho.regularise import (
    OBJECT_KINDS,
    PROBE_KINDS,
    Regulariser,
    active,
    centroid_px,
    orthogonalise,
    orthogonalising_rotation,
    regularise_object,
    regularise_probe,
    shifted,
)
from ptycho.regularise.variation import _divergence, _gradient, _scales, variation_prox

PIXEL, GAPS = 0.4, (9.0, 9.0, 9.0, 9.0, 9.0)
SHAPE = (2, 2, 6, 20, 24)
EXAMPLES = {
    "layers": {"sigma_A": 12.0},
    "kz_filter": {"angle_mrad": 200.0},
    "blur": {"sigma_A": 0.5},
    "lowpass": {"radius_per_A": 0.6},
    "probe_support": {"radius_A": 4.0},
    "probe_aperture": {"radius_per_A": 0.6},
    "probe_smooth": {"sigma_per_A": 0.05},
    "probe_power": {"electrons": 50.0},
}


def example(kind: str, weight: float = 1.0, **fields: Any) -> Regulariser:
    return Regulariser(kind, weight, **(EXAMPLES.get(kind, {}) | fields))


def on_object(a: Any, *regularisers: Regulariser, gaps: tuple[float, ...] = GAPS, step: float = 1.0) -> np.ndarray:
    return to_numpy(regularise_object(a, regularisers, 0, pixel_A=PIXEL, gaps_A=gaps, step=step))


def on_probe(a: Any, *regularisers: Regulariser, **given: Any) -> np.ndarray:
    return to_numpy(regularise_probe(a, regularisers, 0, pixel_A=PIXEL, **given)[0])


@pytest.fixture
def potential(rng: np.random.Generator, xp: ModuleType) -> Any:
    return xp.asarray(rng.standard_normal(SHAPE))


@pytest.fixture
def probe(rng: np.random.Generator, xp: ModuleType) -> Any:
    """Three random modes of unlike power, confined to the middle of an uneven window."""
    y, x = np.mgrid[:30, :32] - np.array([15, 16])[:, None, None]
    shape = np.exp(-((y - 1.3) ** 2 + (x + 0.6) ** 2) / 30.0)
    modes = rng.standard_normal((3, 30, 32)) + 1j * rng.standard_normal((3, 30, 32))
    return xp.asarray(np.array([1.0, 2.0, 0.5])[:, None, None] * shape * modes)


@given(
    start=st.integers(0, 30),
    every=st.integers(1, 7),
    length=st.none() | st.integers(1, 40),
    iteration=st.integers(0, 90),
)
def test_schedule(start, every, length, iteration):
    stop = None if length is None else start + length
    acts = iteration in range(start, 91 if stop is None else stop, every)
    assert active(Regulariser("orthogonal", 1.0, start, every, stop), iteration) == acts


def test_schedule_holds_for_object_and_probe(potential, probe):
    first = Regulariser("blur", 1.0, start=2, sigma_A=0.5), Regulariser("probe_power", 1.0, start=2, electrons=3.0)
    for iteration, changed in ((1, False), (2, True)):
        moved = regularise_object(potential, first, iteration, pixel_A=PIXEL, gaps_A=GAPS)
        scaled, _ = regularise_probe(probe, first, iteration, pixel_A=PIXEL)
        assert (not np.array_equal(to_numpy(moved), to_numpy(potential))) == changed
        assert (not np.array_equal(to_numpy(scaled), to_numpy(probe))) == changed


@pytest.mark.parametrize(
    ("kind", "weight"),
    [(k, w) for k in (*OBJECT_KINDS, *PROBE_KINDS) for w in (0.0, 0.3, 1.0) if k != "orthogonal" or w == 1],
)
def test_types_and_inputs_are_kept(kind, weight, potential, probe):
    """Single precision stays single and near the double result, the input is left alone, weight 0 changes nothing."""
    apply, given = (on_object, potential) if kind in OBJECT_KINDS else (on_probe, probe)
    before = to_numpy(given).copy()
    double = apply(given, example(kind, weight))
    single = apply(given.astype("float32" if kind in OBJECT_KINDS else "complex64"), example(kind, weight))
    assert np.array_equal(to_numpy(given), before)
    assert double.dtype == before.dtype
    assert single.dtype.itemsize * 2 == before.dtype.itemsize
    assert np.abs(single - double).max() < 1e-5 * np.abs(before).max()
    if weight == 0:
        assert np.abs(double - before).max() < 1e-12
    elif kind != "probe_centre":
        assert np.abs(double - before).max() > 1e-3


@pytest.mark.parametrize("kind", [*OBJECT_KINDS, *PROBE_KINDS])
def test_numbers_of_double_precision_leave_single_arrays_single(kind, potential, probe):
    one, pixel = np.float64(1.0), np.float64(PIXEL)
    if kind in OBJECT_KINDS:
        a = potential.astype("float32")
        after = regularise_object(a, [example(kind, one)], 0, pixel_A=pixel, gaps_A=np.array(GAPS), step=one)
    else:
        a = probe.astype("complex64")
        after, shift = regularise_probe(a, [example(kind, one)], 0, pixel_A=pixel, electrons=one)
        assert shift.dtype == "float32"
    assert after.dtype == a.dtype


@pytest.mark.parametrize("kind", ["layers", "kz_filter", "identical", "blur", "lowpass", "positivity"])
def test_a_share_is_a_share_of_the_whole_way(kind, potential):
    before, whole, part = to_numpy(potential), *(on_object(potential, example(kind, w)) for w in (1.0, 0.3))
    assert part == pytest.approx(before + 0.3 * (whole - before), abs=1e-12)


def test_regularisers_compose_in_order(potential):
    a, b = example("positivity"), example("blur")
    together = on_object(potential, a, b)
    xp = library_of(potential)
    assert np.array_equal(together, on_object(xp.asarray(on_object(potential, a)), b))
    assert np.abs(together - on_object(potential, b, a)).max() > 1e-2


@pytest.mark.parametrize("kind", ["blur", "layers", "tv", "l1"])
def test_only_the_part_asked_for(kind, potential):
    before, after = to_numpy(potential), on_object(potential, example(kind, part="absorption"))
    assert np.array_equal(after[0], before[0])
    assert np.abs(after[1] - before[1]).max() > 1e-2
    assert np.array_equal(on_object(potential[:1], example(kind, part="absorption")), before[:1])


@pytest.mark.parametrize("kind", ["layers", "kz_filter", "identical"])
@pytest.mark.parametrize("gaps", [GAPS, (4.0, 9.0, 20.0, 7.0, 5.0)])
def test_projection_is_kept(kind, gaps, potential):
    """The sum over slices stays, and so does a homogeneous specimen, at unequal distances too."""
    after = on_object(potential, example(kind), gaps=gaps)
    assert np.abs(after.sum(2) - to_numpy(potential).sum(2)).max() < 1e-11
    d = np.array([gaps[0], *gaps, gaps[-1]])
    thickness = 0.5 * (d[1:] + d[:-1])
    xp = library_of(potential)
    homogeneous = potential[:, :, :1] * xp.asarray(thickness[:, None, None])
    assert on_object(homogeneous, example(kind), gaps=gaps) == pytest.approx(to_numpy(homogeneous), abs=1e-11)


def test_layers_are_a_gaussian_along_the_beam(xp):
    """A slice in the middle of many spreads to a normalised Gaussian of variance sigma²."""
    z = np.arange(81) - 40
    a = xp.asarray((z == 0).astype(float)[None, None, :, None, None] * np.ones((1, 1, 1, 2, 2)))
    profile = on_object(a, Regulariser("layers", 1.0, sigma_A=15.0), gaps=(5.0,) * 80)[0, 0, :, 0, 0]
    assert profile.min() > -1e-15
    assert (profile * z**2).sum() * 25 == pytest.approx(225.0, rel=1e-6)
    assert profile[[30, 37, 40, 44]] == pytest.approx(
        np.exp(-(z[[30, 37, 40, 44]] ** 2) / 18) / np.sqrt(18 * np.pi), abs=2e-3
    )


def test_layers_leave_a_smooth_profile(potential):
    """Noise becomes a profile that sigma allows; with sigma beyond the thickness, the mean; the last slice does not reach
    the first."""
    rough = np.abs(np.diff(to_numpy(potential), axis=2)).max()
    assert np.abs(np.diff(on_object(potential, Regulariser("layers", 1.0, sigma_A=20.0)), axis=2)).max() < 0.4 * rough
    flat = on_object(potential, Regulariser("layers", 1.0, sigma_A=1e3))
    assert flat == pytest.approx(on_object(potential, Regulariser("identical", 1.0)), abs=1e-12)
    assert flat == pytest.approx(np.broadcast_to(to_numpy(potential).mean(2, keepdims=True), SHAPE), abs=1e-12)
    end = potential * 0
    end[:, :, -1] = 1
    spread = on_object(end, Regulariser("layers", 1.0, sigma_A=9.0))[0, 0, :, 0, 0]
    assert (np.diff(spread) > 0).all()
    assert spread[0] < 1e-3


@pytest.mark.parametrize("order", [0, 1, 3])
@pytest.mark.parametrize("wave", [0, 2, 5])
def test_kz_kernel(order, wave, xp):
    """A cosine of j half waves through the depth and n waves across is multiplied by 1 − 2/π atan((k_z / k_r tan α)²)."""
    slices, width, angle = 6, 24, 0.15
    z, x = np.arange(slices), np.arange(width)
    a = np.cos(np.pi * order * (z + 0.5) / slices)[:, None, None] * np.cos(2 * np.pi * wave * x / width)
    a = xp.asarray(np.broadcast_to(a[None, None], (1, 1, slices, 8, width)).copy())
    k_z, k_r = order / (2 * slices * 9.0), wave / (width * PIXEL)
    ratio = k_z / (k_r * np.tan(angle)) if k_r else np.inf
    expected = 1.0 if order == 0 else 1 - 2 / np.pi * np.arctan(ratio**2)
    after = on_object(a, Regulariser("kz_filter", 1.0, angle_mrad=angle * 1e3))
    assert after == pytest.approx(expected * to_numpy(a), abs=1e-12)


def test_kz_filter_halves_at_the_angle(xp):
    """A wave that lies on the cone loses half of itself."""
    z, x = np.arange(6), np.arange(24)
    a = np.cos(np.pi * 2 * (z + 0.5) / 6)[:, None, None] * np.sin(2 * np.pi * 3 * x / 24) * np.ones((1, 1, 1, 4, 1))
    angle = np.arctan((2 / (2 * 54.0)) / (3 / (24 * PIXEL)))
    after = on_object(xp.asarray(a), Regulariser("kz_filter", 1.0, angle_mrad=angle * 1e3))
    assert after == pytest.approx(0.5 * a, abs=1e-12)


@pytest.mark.parametrize("kind", ["layers", "kz_filter", "identical"])
def test_a_single_slice_has_no_depth(kind, potential):
    single = potential[:, :, :1]
    assert np.array_equal(on_object(single, example(kind), gaps=()), to_numpy(single))


def test_tv_agrees_with_another_solver(rng, xp):
    """scikit-image minimises the same functional by Chambolle's iteration without momentum."""
    from skimage.restoration import denoise_tv_chambolle

    y, x = np.mgrid[:40, :48]
    image = ((y - 20.0) ** 2 + (x - 22.0) ** 2 < 120.0) + 0.2 * rng.standard_normal((40, 48))
    theirs = denoise_tv_chambolle(image, weight=0.25, eps=1e-12, max_num_iter=5000)
    weight = 0.25 * PIXEL
    ours = on_object(xp.asarray(image)[None, None, None], Regulariser("tv", weight, passes=800), gaps=())[0, 0, 0]
    assert ours == pytest.approx(theirs, abs=2e-3)


def test_tv_of_few_passes_is_near(rng, xp):
    """The default stops within a percent of the way where the weight is half the noise, within a tenth well beyond it."""
    y, x = np.mgrid[:40, :48]
    image = xp.asarray((((y - 20.0) ** 2 + (x - 22.0) ** 2 < 120.0) + 0.2 * rng.standard_normal((40, 48)))[None])
    for weight, bound in ((0.05, 0.01), (0.1, 0.03), (0.25, 0.1)):
        full, few = variation_prox(image, weight, passes=1500), variation_prox(image, weight)
        assert float(((few - full) ** 2).mean()) < bound**2 * float(((image - full) ** 2).mean())


@pytest.mark.parametrize("ratios", [(), (0.5, 1.0, 0.2)])
def test_tv_optimality(rng, xp, ratios):
    """Primal and dual objective meet: ½‖z − a‖² + λΣ|∇z| = ½‖a‖² − ½‖z‖² at the minimum, and the sum is kept."""
    a = xp.asarray(rng.standard_normal((2, 4, 16, 18)))
    weight = 0.3
    z = variation_prox(a, weight, ratios, passes=1500)
    total = float(xp.sqrt((_gradient(z, _scales(z, ratios)) ** 2).sum(0)).sum())
    primal = 0.5 * float(((z - a) ** 2).sum()) + weight * total
    dual = 0.5 * float((a**2).sum()) - 0.5 * float((z**2).sum())
    assert primal == pytest.approx(dual, rel=1e-6)
    assert float(z.sum()) == pytest.approx(float(a.sum()), abs=1e-10)


@pytest.mark.parametrize("ratios", [(), (0.5, 1.0, 0.2)])
def test_tv_divergence_is_the_adjoint(rng, xp, ratios):
    a = xp.asarray(rng.standard_normal((3, 4, 7, 9)))
    scales = _scales(a, ratios)
    dual = xp.asarray(rng.standard_normal((len(scales), *a.shape)))
    left, right = (_gradient(a, scales) * dual).sum(), -(a * _divergence(dual, scales)).sum()
    assert float(left) == pytest.approx(float(right), rel=1e-12)


def test_tv_along_the_beam_flattens_slices(potential):
    across = on_object(potential, Regulariser("tv", 0.5, passes=300))
    through = on_object(potential, Regulariser("tv", 0.5, passes=300, weight_z=30.0))
    alone = on_object(potential[:, :, 2:3], Regulariser("tv", 0.5, passes=300), gaps=())
    assert across[:, :, 2:3] == pytest.approx(alone, abs=1e-12)
    assert np.abs(np.diff(through, axis=2)).mean() < 0.2 * np.abs(np.diff(across, axis=2)).mean()


def test_tv_does_not_depend_on_the_sampling(xp):
    """A disk loses 2·weight / radius of its height, whatever the pixel (Strong and Chan, doi:10.1088/0266-5611/19/6/059);
    its staircase edge is up to an eighth longer than the circle."""
    radius, weight, lost = 12.0, 0.6, []
    for pixel in (0.5, 0.25):
        n = int(48 / pixel)
        y, x = (np.mgrid[:n, :n] - n // 2) * pixel
        disk = xp.asarray((np.hypot(y, x) < radius).astype(float))[None, None, None]
        after = regularise_object(disk, [Regulariser("tv", weight, passes=400)], 0, pixel_A=pixel)
        lost.append(1 - float(after[0, 0, 0, n // 2, n // 2]))
    assert lost == pytest.approx([0.1, 0.1], abs=0.015)


def test_l1_is_the_soft_threshold(xp):
    values = np.array([-0.5, -0.1, 0.0, 0.05, 0.3, 1.0])
    a = xp.asarray(values[None, None, None, None])
    soft = on_object(a, Regulariser("l1", 0.2), gaps=(), step=0.5)[0, 0, 0, 0]
    assert soft == pytest.approx([-0.4, 0.0, 0.0, 0.0, 0.2, 0.9], abs=1e-15)
    about = on_object(a, Regulariser("l1", 0.1, level=0.3), gaps=())[0, 0, 0, 0]
    assert about == pytest.approx([-0.4, 0.0, 0.1, 0.15, 0.3, 0.9], abs=1e-15)
    median = on_object(a + 7, Regulariser("l1", 0.1, level="median"), gaps=())[0, 0, 0, 0]
    assert median == pytest.approx(7 + np.array([-0.4, 0.0, 0.025, 0.025, 0.2, 0.9]), abs=1e-14)


@pytest.mark.parametrize("step", [0.3, 0.8])
def test_fixed_point_minimises_loss_and_penalty(rng, step):
    """Newton steps on ½h‖x − y‖² with soft thresholds end at the minimum of loss / h + weight·R, whatever the step."""
    y, weight = rng.standard_normal((1, 1, 1, 6, 7)), 0.4
    x = np.zeros_like(y)
    for i in range(200):
        x = regularise_object(x - step * (x - y), [Regulariser("l1", weight)], i, pixel_A=PIXEL, step=step)
    assert x == pytest.approx(np.sign(y) * np.maximum(np.abs(y) - weight, 0), abs=1e-10)


def test_positivity(potential):
    before = to_numpy(potential)
    hard, half = (on_object(potential, Regulariser("positivity", w)) for w in (1.0, 0.5))
    assert hard[0] == pytest.approx(np.maximum(before[0], 0), abs=1e-15)
    assert half[0] == pytest.approx(np.where(before[0] < 0, 0.5 * before[0], before[0]), abs=1e-15)
    assert np.array_equal(hard[1], before[1])
    floor = on_object(potential, Regulariser("positivity", 1.0, level="median"))
    assert floor[0].min((-2, -1)) == pytest.approx(np.median(before[0], axis=(-2, -1)), abs=1e-15)


def test_amplitude_clamp(potential):
    before = to_numpy(potential)
    after = on_object(potential, Regulariser("amplitude", 1.0, low=0.5, high=1.0))
    assert np.exp(-after[1]) == pytest.approx(np.clip(np.exp(-before[1]), 0.5, 1.0), abs=1e-14)
    assert np.array_equal(after[0], before[0])
    assert np.exp(-on_object(potential, Regulariser("amplitude", 1.0))[1]).max() <= 1
    assert np.array_equal(on_object(potential[:1], Regulariser("amplitude", 1.0)), before[:1])


def test_blur_and_lowpass_kernels(xp):
    """A wave across is multiplied by the Gaussian's, and the Butterworth filter's, value there; the mean stays."""
    wave = 1.0 + np.cos(2 * np.pi * 4 * np.arange(32) / 32)
    a = xp.asarray(np.broadcast_to(wave, (1, 1, 1, 8, 32)).copy())
    k = 4 / (32 * PIXEL)
    for r, value in (
        (Regulariser("blur", 1.0, sigma_A=0.6), np.exp(-2 * (np.pi * 0.6 * k) ** 2)),
        (Regulariser("lowpass", 1.0, radius_per_A=k), 0.5),
        (Regulariser("lowpass", 1.0, radius_per_A=2 * k), 256 / 257),
    ):
        assert on_object(a, r, gaps=())[0, 0, 0, 3] == pytest.approx(1 + value * (wave - 1), abs=1e-12)


@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
def test_orthogonal_modes(probe, dtype):
    given = probe.astype(dtype)
    before, after = to_numpy(given), to_numpy(orthogonalise(given))
    assert after.dtype == before.dtype
    intensity = (np.abs(before) ** 2).sum(0)
    assert np.abs((np.abs(after) ** 2).sum(0) - intensity).max() < 1e-5 * intensity.max()
    flat = after.reshape(3, -1).astype(complex)
    gram = flat @ flat.conj().T
    power = np.diagonal(gram).real
    assert np.abs(gram - np.diag(power)).max() < 1e-6 * power[0]
    assert (np.diff(power) < 0).all()
    assert power == pytest.approx(np.linalg.svd(before.reshape(3, -1), compute_uv=False) ** 2, rel=1e-5)
    assert np.array_equal(on_probe(given, Regulariser("orthogonal", 1.0)), after)


def test_orthogonal_modes_are_left_alone(probe):
    once = orthogonalise(probe)
    assert to_numpy(orthogonalise(once)) == pytest.approx(to_numpy(once), abs=1e-12)
    assert np.array_equal(to_numpy(orthogonalise(probe[:1])), to_numpy(probe[:1]))
    rotation = to_numpy(orthogonalising_rotation(probe))
    assert rotation @ rotation.conj().T == pytest.approx(np.eye(3), abs=1e-13)
    turned = np.tensordot(rotation, to_numpy(probe), 1)
    assert turned == pytest.approx(to_numpy(orthogonalise(probe)), abs=1e-12)


def test_equal_and_empty_modes_stay_finite(probe):
    twice = probe[[0, 0, 0]]
    twice[2] = 0
    after = to_numpy(orthogonalise(twice))
    assert after[0] == pytest.approx(
        np.sqrt(2) * to_numpy(probe[0]) * np.exp(1j * np.angle(after[0] / to_numpy(probe[0])))
    )
    assert np.abs(after[1:]).max() < 1e-7 * np.abs(after[0]).max()


def test_support(probe):
    """Hard edge: a projection. Soft edge: untouched within the radius about the centroid, zero beyond the edge."""
    before, centre = to_numpy(probe), to_numpy(centroid_px(probe))
    y, x = np.mgrid[:30, :32] - np.array([15, 16])[:, None, None]
    distance = np.hypot(y - centre[0], x - centre[1]) * PIXEL
    hard = on_probe(probe, Regulariser("probe_support", 1.0, radius_A=3.0, edge=0.0))
    assert np.array_equal(hard, np.where(distance <= 3.0, before, 0))
    soft = on_probe(probe, Regulariser("probe_support", 1.0, radius_A=3.0, edge=0.4))
    assert soft[:, distance <= 3.0] == pytest.approx(before[:, distance <= 3.0], abs=1e-14)
    assert not soft[:, distance >= 4.2].any()
    edge = (distance > 3.0) & (distance < 4.2)
    assert (np.abs(soft[:, edge]) < np.abs(before[:, edge])).all()
    half = on_probe(probe, Regulariser("probe_support", 0.5, radius_A=3.0, edge=0.0))
    assert half == pytest.approx(0.5 * (before + hard), abs=1e-14)


def test_support_is_idempotent(xp):
    wave = Optics(80e3, 25.0, 150.0).probe((48, 48), (PIXEL, PIXEL))
    r = Regulariser("probe_support", 1.0, radius_A=4.0, edge=0.0)
    once, _ = regularise_probe(xp.asarray(wave)[None], [r], 0, pixel_A=PIXEL)
    assert 0 < (to_numpy(once) == 0).mean() < 1
    assert on_probe(once, r) == pytest.approx(to_numpy(once), abs=1e-14)


def test_aperture_is_idempotent(probe):
    r = Regulariser("probe_aperture", 1.0, radius_per_A=0.5, edge=0.0)
    once, _ = regularise_probe(probe, [r], 0, pixel_A=PIXEL)
    assert on_probe(once, r) == pytest.approx(to_numpy(once), abs=1e-12)
    k = np.hypot(np.fft.fftfreq(30, PIXEL)[:, None], np.fft.fftfreq(32, PIXEL)[None, :])
    before, after = (np.fft.fft2(to_numpy(a)) for a in (probe, once))
    assert after == pytest.approx(np.where(k <= 0.5, before, 0), abs=1e-10)


def test_power(probe):
    r = Regulariser("probe_power", 1.0)
    assert (np.abs(on_probe(probe, r, electrons=70.0)) ** 2).sum() == pytest.approx(70.0)
    assert (np.abs(on_probe(probe, example("probe_power"), electrons=70.0)) ** 2).sum() == pytest.approx(50.0)
    with pytest.raises(ValueError, match="electrons is not known"):
        on_probe(probe, r)


def test_smooth_spreads_the_amplitude_and_keeps_the_phase(xp):
    """A ring of amplitude becomes a blurred one, the aberrations and the power of each mode stay."""
    wave = Optics(80e3, 25.0, 60.0).probe((64, 64), (PIXEL, PIXEL))
    modes = xp.asarray(np.stack([wave, 0.3 * wave]))
    step = 1 / (64 * PIXEL)
    after = np.fft.fft2(on_probe(modes, Regulariser("probe_smooth", 1.0, sigma_per_A=1.5 * step)))
    before = np.fft.fft2(to_numpy(modes))
    assert (np.abs(after) ** 2).sum((1, 2)) == pytest.approx((np.abs(before) ** 2).sum((1, 2)))
    strong = np.abs(before) > 0.5 * np.abs(before).max()
    assert np.abs(np.angle(after[strong] / before[strong])).max() < 1e-9
    from scipy.ndimage import gaussian_filter

    blurred = gaussian_filter(np.abs(before[0]), 1.5, mode="wrap", truncate=8)
    lit = np.abs(before[0]) > 1e-3 * np.abs(before[0]).max()
    ratio = np.abs(after[0])[lit] / blurred[lit]
    assert ratio == pytest.approx(ratio.mean(), rel=1e-4)
    assert np.abs(after[0][~lit]).max() < 1e-9


def test_centre_anchors_the_probe(xp):
    """An off-centre Gaussian goes to index n // 2; the shift says how far, and half the weight goes half the way."""
    y, x = np.mgrid[:40, :36] - np.array([20, 18])[:, None, None]
    wave = xp.asarray(np.exp(-((y - 2.3) ** 2 + (x + 3.1) ** 2) / 20.0).astype(complex))[None]
    assert to_numpy(centroid_px(wave)) == pytest.approx([2.3, -3.1], abs=1e-6)
    moved, shift = regularise_probe(wave, [Regulariser("probe_centre", 1.0)], 0, pixel_A=PIXEL)
    assert to_numpy(shift) == pytest.approx([-2.3, 3.1], abs=1e-6)
    assert to_numpy(moved)[0] == pytest.approx(np.exp(-(y**2 + x**2) / 20.0), abs=1e-4)
    half, shift = regularise_probe(wave, [Regulariser("probe_centre", 0.5)], 0, pixel_A=PIXEL)
    assert to_numpy(shift) == pytest.approx([-1.15, 1.55], abs=1e-6)
    assert to_numpy(centroid_px(half)) == pytest.approx([1.15, -1.55], abs=1e-5)


def test_centred_probe_with_moved_object_gives_the_same_patterns(xp):
    """The gauge: probe and object moved together, or the positions moved the other way, change no pattern."""
    n = 64
    y, x = np.mgrid[:n, :n] - n // 2
    wave = xp.asarray(np.exp(-((y - 3.4) ** 2 + (x + 1.7) ** 2) / 30.0 + 0.3j * x))[None]
    phase = xp.asarray(
        0.4 * np.exp(-((y - 4.0) ** 2 + x**2) / 40.0) + 0.2 * np.exp(-((y + 5) ** 2 + (x - 6) ** 2) / 20.0)
    )
    moved, shift = regularise_probe(wave, [Regulariser("probe_centre", 1.0)], 0, pixel_A=PIXEL)

    def pattern(p: Any, v: Any) -> np.ndarray:
        return np.abs(np.fft.fft2(to_numpy(p[0] * xp.exp(1j * v)))) ** 2

    before = pattern(wave, phase)
    assert pattern(moved, shifted(phase, shift)) == pytest.approx(before, abs=1e-6 * before.max())
    at_moved_position = pattern(shifted(moved, -shift), phase)
    assert at_moved_position == pytest.approx(before, abs=1e-6 * before.max())
    assert np.abs(pattern(moved, phase) - before).max() > 1e-3 * before.max()


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "complex128"])
def test_whole_shifts_roll(rng, xp, dtype):
    a = xp.asarray(rng.standard_normal((2, 9, 12)).astype(dtype))
    moved = to_numpy(shifted(a, xp.asarray([2.0, -3.0])))
    assert moved.dtype == np.dtype(dtype)
    assert moved == pytest.approx(np.roll(to_numpy(a), (2, -3), (1, 2)), abs=1e-5)


@pytest.mark.parametrize(
    ("sentence", "fields"),
    [
        ("kind is", {"kind": "smooth", "weight": 1.0}),
        ("sigma_A is missing", {"kind": "layers", "weight": 1.0}),
        ("angle_mrad is given", {"kind": "layers", "weight": 1.0, "sigma_A": 3.0, "angle_mrad": 3.0}),
        ("sigma_A is given", {"kind": "orthogonal", "weight": 1.0, "sigma_A": 3.0}),
        ("weight is 1.5", {"kind": "identical", "weight": 1.5}),
        ("weight is nan", {"kind": "tv", "weight": float("nan")}),
        ("weight is -0.1", {"kind": "l1", "weight": -0.1}),
        ("weight is 0.5", {"kind": "orthogonal", "weight": 0.5}),
        ("start is -1", {"kind": "orthogonal", "weight": 1.0, "start": -1}),
        ("every is 0", {"kind": "orthogonal", "weight": 1.0, "every": 0}),
        ("stop is 3 and start 3", {"kind": "orthogonal", "weight": 1.0, "start": 3, "stop": 3}),
        ("stop is 2.5", {"kind": "orthogonal", "weight": 1.0, "stop": 2.5}),
        ("level is 'mean'", {"kind": "l1", "weight": 0.1, "level": "mean"}),
        ("part is 'phases'", {"kind": "blur", "weight": 0.1, "sigma_A": 1.0, "part": "phases"}),
        ("passes is 0", {"kind": "tv", "weight": 0.1, "passes": 0}),
        ("low is 1.0 and high 0.5", {"kind": "amplitude", "weight": 1.0, "low": 1.0, "high": 0.5}),
        ("radius_A is -2.0", {"kind": "probe_support", "weight": 1.0, "radius_A": -2.0}),
    ],
)
def test_mistakes_are_named(sentence, fields):
    with pytest.raises(ValueError, match=sentence) as error:
        Regulariser(**fields)
    assert "expected" in str(error.value)
    assert str(error.value).endswith(".")


def test_arrays_that_do_not_fit_are_named(rng):
    a = rng.standard_normal(SHAPE)
    with pytest.raises(ValueError, match="gaps_A is"):
        regularise_object(a, [], 0, pixel_A=PIXEL, gaps_A=(9.0, 9.0))
    with pytest.raises(ValueError, match="potential is"):
        regularise_object(a[0], [], 0, pixel_A=PIXEL, gaps_A=GAPS)
    with pytest.raises(ValueError, match="probe is"):
        regularise_probe(a[0, 0], [], 0, pixel_A=PIXEL)
