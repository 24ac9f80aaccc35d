"""Atoms fitted to projections: the model in absolute terms, its gradient, and the accuracy theory allows."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from analysis.atoms import Atoms
from analysis.image_model import Model
from analysis.refine import refine

PIXEL = 0.3


def tilts(degrees):
    """Rotations about y: x' = x cos θ + z sin θ, z' = −x sin θ + z cos θ."""
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    zero, one = np.zeros_like(c), np.ones_like(c)
    return np.array([[c, zero, s], [zero, one, zero], [-s, zero, c]]).transpose(2, 0, 1)


def drawn(positions_A, amplitudes, widths_A, rotations, shape, pixel_A=PIXEL):
    """Images of Gaussian atoms, written out pixel by pixel: amplitude in units × Å², no boxes, no backgrounds."""
    y, x = (pixel_A * (np.arange(n) - n // 2) for n in shape)
    images = np.zeros((len(rotations), *shape))
    for image, turn in zip(images, rotations, strict=True):
        for (u, v, _), a, w in zip(positions_A @ turn.T, amplitudes, widths_A, strict=True):
            image += a / (2 * np.pi * w**2) * np.exp(-((x - u) ** 2 + (y[:, None] - v) ** 2) / 2 / w**2)
    return images


def cluster(rng, count=24, gap_A=1.7, radius_A=4.0):
    """Random points in a ball, none nearer than `gap_A`."""
    points: list[np.ndarray] = []
    while len(points) < count:
        p = rng.uniform(-radius_A, radius_A, 3)
        if np.linalg.norm(p) < radius_A and all(np.linalg.norm(p - q) > gap_A for q in points):
            points.append(p)
    return np.array(points)


def named(positions, symbols=None):
    return Atoms(positions, tuple(symbols) if symbols is not None else ("Si",) * len(positions))


def test_an_atom_appears_where_the_conventions_say():
    """R r = (x, y, ·) lies at column x/pixel + nx//2 and row y/pixel + ny//2; +90° about y sends z to x."""
    turns = tilts(np.array([0.0, 90.0]))
    model = Model(np.zeros((2, 20, 25)), np.ones((2, 20, 25)), turns, 0.5, np.array([0]))
    images = model.render(model.project(np.array([[1.5, -2.0, 3.0]])), np.ones(1), np.ones(1))
    assert [np.unravel_index(image.argmax(), image.shape) for image in images] == [(6, 15), (6, 18)]
    assert images.sum(axis=(1, 2)) == pytest.approx([1.0, 1.0], rel=1e-4)


def test_images_equal_the_sum_of_gaussians_written_out(rng):
    positions, turns = cluster(rng, 8), tilts(np.array([0.0, 33.0, -61.0]))
    amplitudes, widths = rng.uniform(0.5, 2, 8), rng.uniform(0.35, 0.6, 8)
    expected = drawn(positions, amplitudes, widths, turns, (40, 42))
    model = Model(expected, np.ones_like(expected), turns, PIXEL, np.zeros(8, int))
    found = model.render(model.project(positions), amplitudes / PIXEL**2, widths / PIXEL)
    assert np.abs(found - expected).max() < 1e-5 * expected.max()


@pytest.fixture
def problem(rng):
    """A model with random weights, away from its minimum."""
    positions, turns = cluster(rng, 6), tilts(np.linspace(-60, 60, 4))
    images = drawn(positions, np.ones(6), np.full(6, 0.45), turns, (36, 38)) + 0.1 * rng.normal(size=(4, 36, 38))
    weights = rng.uniform(0.5, 1.5, images.shape)
    model = Model(images, weights, turns, PIXEL, np.zeros(6, int))
    return model, positions + rng.normal(0, 0.1, (6, 3)), rng.uniform(8, 14, 6), np.full(6, 1.4)


def test_gradient_by_positions_matches_finite_differences(problem, rng):
    model, positions, amplitude, sigma = problem
    _, slope, _ = model.gradient(positions, amplitude, sigma)
    for _ in range(5):
        direction, h = rng.normal(size=positions.shape), 1e-6
        ahead, behind = (model.gradient(positions + s * h * direction, amplitude, sigma)[0] for s in (1, -1))
        assert (ahead - behind) / (2 * h) == pytest.approx(np.sum(slope * direction), rel=2e-4)


def test_gradient_by_amplitudes_matches_finite_differences(problem, rng):
    model, positions, amplitude, sigma = problem
    _, _, slope = model.gradient(positions, amplitude, sigma)
    direction, h = rng.normal(size=amplitude.shape), 1e-5
    ahead, behind = (model.gradient(positions, amplitude + s * h * direction, sigma)[0] for s in (1, -1))
    assert (ahead - behind) / (2 * h) == pytest.approx(slope @ direction, rel=1e-5)


def test_derivative_by_the_width_matches_finite_differences(problem):
    model, positions, amplitude, sigma = problem
    at, h = model.project(positions), 1e-5
    ahead, behind = (model.render(at, amplitude, sigma * np.exp(s * h)) for s in (1, -1))
    analytic = model.render(at, amplitude, sigma, widen=True)
    assert np.abs((ahead - behind) / (2 * h) - analytic).max() < 1e-3 * np.abs(analytic).max()


def test_exact_images_give_back_the_exact_atoms(rng):
    truth, turns = cluster(rng), tilts(np.arange(-70, 71, 10.0))
    kinds = np.arange(24) % 2
    images = drawn(truth, np.where(kinds, 2.0, 1.0), np.where(kinds, 0.5, 0.42), turns, (44, 46))
    images += np.linspace(0, 0.3, len(turns))[:, None, None]
    start = named(truth + rng.normal(0, 0.1, truth.shape), np.where(kinds, "Si", "O"))
    found = refine(start, images, turns, PIXEL, noise="white", rounds=8, threads=1)
    assert np.abs(found.atoms.positions_A - truth).max() < 2e-3
    assert found.amplitudes == pytest.approx({"O": 1.0, "Si": 2.0}, rel=2e-3)
    assert found.widths_A == pytest.approx({"O": 0.42, "Si": 0.5}, rel=2e-3)
    assert found.backgrounds == pytest.approx(np.linspace(0, 0.3, len(turns)), abs=1e-3)
    assert found.loss[-1] < 1e-3 * found.loss[0]


@pytest.mark.parametrize("per_atom", [False, True])
def test_the_bound_is_reached_and_the_error_bars_cover(rng, per_atom):
    """Over 8 draws of noise the rms error is within 10 % of the Cramér-Rao bound of the full information matrix."""
    truth, turns = cluster(rng), tilts(np.arange(-70, 71, 10.0))
    clean = drawn(truth, np.ones(24), np.full(24, 0.45), turns, (44, 46))
    sigma = 0.08
    bound = full_bound(truth, 1.0, 0.45, turns, (44, 46), sigma)
    error, bars, inflation = [], [], []
    for _ in range(8):
        start = named(truth + rng.normal(0, 0.08, truth.shape))
        images = clean + sigma * rng.normal(size=clean.shape)
        found = refine(start, images, turns, PIXEL, per_atom_amplitude=per_atom, threads=1)
        assert (np.diff(found.loss) <= 0).all()
        assert found.noise.floor == pytest.approx(sigma**2, rel=0.05)
        error.append(found.atoms.positions_A - truth)
        bars.append(found.sigma_axes_A)
        inflation.append(found.inflation)
    error, bars = np.array(error), np.array(bars)
    assert np.sqrt((error**2).mean()) == pytest.approx(np.sqrt((bound**2).mean()), rel=0.1)
    assert np.sqrt((bars**2).mean(axis=(0, 1))) == pytest.approx(np.sqrt((bound**2).mean(axis=0)), rel=0.06)
    assert (np.abs(error) < bars).mean() == pytest.approx(0.683, abs=0.05)
    assert (np.abs(error) < 2 * bars).mean() == pytest.approx(0.954, abs=0.03)
    assert np.mean(inflation) < 1.1


def full_bound(truth, amplitude, width, turns, shape, sigma):
    """Standard deviations (n, 3) from the inverse of the whole information matrix of the positions, by brute force."""
    y, x = (PIXEL * (np.arange(n) - n // 2) for n in shape)
    information = np.zeros((truth.size, truth.size))
    for turn in turns:
        seen = truth @ turn.T
        dx, dy = x - seen[:, :1], y - seen[:, 1:2]
        g = amplitude / (2 * np.pi * width**4)
        ex, ey = np.exp(-(dx**2) / 2 / width**2), np.exp(-(dy**2) / 2 / width**2)
        along_x = g * np.einsum("ay,ax->ayx", ey, dx * ex).reshape(len(truth), -1)
        along_y = g * np.einsum("ay,ax->ayx", dy * ey, ex).reshape(len(truth), -1)
        jacobian = along_x[:, None] * turn[0][:, None] + along_y[:, None] * turn[1][:, None]
        jacobian = jacobian.reshape(truth.size, -1)
        information += jacobian @ jacobian.T / sigma**2
    return np.sqrt(np.diag(np.linalg.inv(information))).reshape(-1, 3)


def test_shot_noise_is_measured(rng):
    """Poisson counts of a known gain on a background: variance = gain × (signal + background)."""
    truth, turns = cluster(rng), tilts(np.arange(-70, 71, 10.0))
    mean = drawn(truth, np.full(24, 30.0), np.full(24, 0.45), turns, (44, 46)) + 4.0
    counts = 0.5 * rng.poisson(mean / 0.5)
    found = refine(named(truth), counts, turns, PIXEL, threads=1)
    assert found.noise.gain == pytest.approx(0.5, rel=0.05)
    assert found.noise.floor == pytest.approx(0.5 * 4.0, rel=0.05)
    assert found.inflation < 1.1
    assert refine(named(truth), counts, turns, PIXEL, noise="white", threads=1).noise.gain == 0


def test_correlated_noise_widens_the_error_bars(rng):
    """Noise smooth over a few pixels hurts an atom more than its pixel variance says; the bars must follow."""
    from scipy.ndimage import gaussian_filter

    truth, turns = cluster(rng), tilts(np.arange(-72, 73, 6.0))
    clean = drawn(truth, np.ones(24), np.full(24, 0.45), turns, (44, 46))
    error, bars, inflation = [], [], []
    for _ in range(4):
        noise = gaussian_filter(rng.normal(size=clean.shape), (0, 1.2, 1.2))
        found = refine(named(truth), clean + 0.05 * noise / noise.std(), turns, PIXEL, threads=1)
        error.append(found.atoms.positions_A - truth)
        bars.append(found.sigma_axes_A)
        inflation.append(found.inflation)
    assert min(inflation) > 3
    assert np.sqrt(np.mean(np.square(error))) == pytest.approx(np.sqrt(np.mean(np.square(bars))), rel=0.15)


def test_of_two_collapsed_atoms_the_fainter_goes(rng):
    truth, turns = cluster(rng, 10), tilts(np.arange(-70, 71, 10.0))
    images = drawn(truth, np.ones(10), np.full(10, 0.45), turns, (44, 46)) + 0.02 * rng.normal(size=(15, 44, 46))
    doubled = Atoms(np.concatenate([truth, truth[:1] + 0.4]), ("Si",) * 11, intensity=np.append(np.full(10, 2.0), 1.0))
    found = refine(doubled, images, turns, PIXEL, min_distance_A=1.0, threads=1)
    assert found.removed.tolist() == [10] and found.kept.tolist() == list(range(10))
    assert np.abs(found.atoms.positions_A - truth).max() < 0.05
    assert len(refine(doubled, images, turns, PIXEL, threads=1).atoms) == 11


def test_pixels_of_weight_zero_do_not_count(rng):
    truth, turns = cluster(rng, 10), tilts(np.arange(-70, 71, 10.0))
    images = drawn(truth, np.ones(10), np.full(10, 0.45), turns, (44, 46)) + 0.02 * rng.normal(size=(15, 44, 46))
    weights = np.ones_like(images)
    weights[3:6] = 0
    spoilt = np.where(weights == 0, 50 * rng.normal(size=images.shape), images)
    found = refine(named(truth), spoilt, turns, PIXEL, weights=weights, threads=1)
    clean = refine(named(truth), np.delete(images, [3, 4, 5], axis=0), np.delete(turns, [3, 4, 5], axis=0), PIXEL)
    assert np.abs(found.atoms.positions_A - clean.atoms.positions_A).max() < 1e-3
    assert found.sigma_axes_A == pytest.approx(clean.sigma_axes_A, rel=0.1)


def test_threads_do_not_change_the_result(rng):
    truth, turns = cluster(rng, 10), tilts(np.arange(-70, 71, 10.0))
    images = drawn(truth, np.ones(10), np.full(10, 0.45), turns, (44, 46)) + 0.05 * rng.normal(size=(15, 44, 46))
    one, two = (refine(named(truth), images, turns, PIXEL, threads=t) for t in (1, 2))
    assert np.array_equal(one.atoms.positions_A, two.atoms.positions_A)


def test_progress_tells_a_falling_loss(rng):
    truth, turns = cluster(rng, 10), tilts(np.arange(-70, 71, 10.0))
    images = drawn(truth, np.ones(10), np.full(10, 0.45), turns, (44, 46)) + 0.05 * rng.normal(size=(15, 44, 46))
    seen = []
    refine(named(truth + 0.05), images, turns, PIXEL, progress=lambda *told: seen.append(told), threads=1)
    assert len(seen) > 2 and (np.diff([loss for _, _, loss in seen]) <= 0).all()
    assert all(done <= most for done, most, _ in seen)


ATOMS = named(np.zeros((1, 3)))
IMAGES = np.random.default_rng(1).random((3, 12, 12))
TURNS = tilts(np.array([0.0, 30, 60]))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"atoms": named(np.zeros((0, 3)))}, "atoms is empty"),
        ({"projections": IMAGES[0]}, r"\(n, y, x\)"),
        ({"projections": np.where(IMAGES > 0.9, np.nan, IMAGES)}, "nan"),
        ({"rotations": TURNS[:2]}, "one matrix per image"),
        ({"rotations": 2 * TURNS}, "orthogonal"),
        ({"pixel_A": 0.0}, "pixel_A"),
        ({"weights": -np.ones_like(IMAGES)}, "weights"),
        ({"noise": "pink"}, "noise"),
        ({"min_distance_A": -1.0}, "min_distance_A"),
        ({"rounds": 0}, "rounds"),
        ({"atoms": named(np.full((1, 3), 99.0))}, "outside every image"),
    ],
)
def test_bad_arguments_are_named(change, says):
    arguments = {"atoms": ATOMS, "projections": IMAGES, "rotations": TURNS, "pixel_A": 0.3, **change}
    with pytest.raises(ValueError, match=says):
        refine(**arguments)


def strict(found, truth, cutoff_A=0.9):
    """One-to-one matches within the cutoff after removing the mean shift: count and rms distance in pm."""
    for _ in range(3):
        gap = np.linalg.norm(found[:, None] - truth, axis=2)
        i, j = linear_sum_assignment(np.where(gap < cutoff_A, gap**2, 1e6))
        good = gap[i, j] < cutoff_A
        found = found - (found[i[good]] - truth[j[good]]).mean(axis=0)
    return int(good.sum()), 100 * float(np.sqrt((gap[i, j][good] ** 2).mean())), (i[good], j[good])


def test_published_silicon_at_low_dose(shared, rng):
    """208 Si atoms at 1.6e4 e⁻/Å², counts less the background: the published model has 208, none false, 17.3 pm."""
    from scipy.io import loadmat

    from analysis.classify import classify
    from analysis.trace import trace
    from tomo import fbp, rotation

    folder = shared / "si208"
    raw = loadmat(folder / "aSi_2nmFosCetr_Dose1p6e4_cov35pm_ForBM3D.mat")["Trunc_projections_forBM3D"]
    images = raw.astype(float).transpose(2, 1, 0) - 1
    angles = np.zeros((60, 3))
    angles[:, 1] = 3.0 * np.arange(60)
    rows = [line.split()[1:4] for line in (folder / "aSi_208atoms_GT.txt").read_text().splitlines() if line[:1] != "%"]
    truth = np.array([row for row in rows if row], dtype=float)
    truth = (truth - truth.mean(axis=0))[:, [1, 0, 2]] * [1, 1, -1]

    volume = np.asarray(fbp(images, angles))
    peaks = trace(volume, 0.195, min_distance_A=1.9)
    traced = classify(volume, 0.195, peaks, ["Si"], rng=rng).atoms
    found, rms_pm, _ = strict(traced.positions_A, truth)
    assert found >= 205 and len(traced) - found <= 3 and rms_pm < 14

    refined = refine(traced, images, rotation(angles), 0.195, min_distance_A=1.5)
    found, rms_pm, (i, j) = strict(refined.atoms.positions_A, truth)
    assert found >= 205 and len(refined.atoms) - found <= 3 and rms_pm < 10.2
    assert refined.noise.gain == pytest.approx(1.0, abs=0.03)
    error = refined.atoms.positions_A[i] - truth[j]
    error -= error.mean(axis=0)
    assert (np.abs(error) < refined.sigma_axes_A[i]).mean() == pytest.approx(0.683, abs=0.05)
