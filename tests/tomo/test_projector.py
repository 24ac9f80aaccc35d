"""The projector: where points land, what is conserved, and that the transpose is one."""

from __future__ import annotations

import subprocess
import sys
from types import ModuleType

import numpy as np
import pytest

from tomo import Projector, rotation

SUBVOXELS = [(1, 1, 1), (2, 1, 2), (2, 2, 2), (3, 2, 1), (4, 1, 5)]
ABOUT_Y = np.column_stack([np.zeros(5), [0.0, 33.3, 90.0, -71.2, 180.0], np.zeros(5)])
# Near the axis and far off it: columns of voxels follow columns of pixels, or do not.
ANY = np.array([(0.0, 0.0, 0.0), (2.0, 34.0, -1.0), (12.0, 34.0, -5.0), (-100.0, 71.0, 44.0), (3.0, 90.0, 200.0)])
# Odd and even, cubic and not: (depth, y, x).
SHAPES = [(8, 8, 8), (9, 7, 11), (6, 11, 8)]


def inner(a: object, b: object) -> float:
    return float((a.astype(np.float64) * b.astype(np.float64)).sum())  # type: ignore[attr-defined]


@pytest.mark.parametrize("subvoxels", SUBVOXELS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("angles", [ABOUT_Y, ANY], ids=["about y", "any"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 1e-6), (np.float64, 1e-12)])
def test_transpose_is_exact(
    xp: ModuleType,
    rng: np.random.Generator,
    subvoxels: tuple[int, int, int],
    shape: tuple[int, int, int],
    angles: np.ndarray,
    dtype: type,
    tolerance: float,
) -> None:
    depth, *image_shape = shape
    A = Projector(angles, tuple(image_shape), depth=depth, subvoxels=subvoxels, xp=xp, dtype=dtype, threads=2)
    x = xp.asarray(rng.random(A.domain_shape), dtype)
    y = xp.asarray(rng.random(A.range_shape), dtype)
    assert A.domain_shape == shape
    assert A(x).shape == A.range_shape
    assert A.T(y).shape == A.domain_shape
    assert A.T(y).dtype == A(x).dtype == dtype
    assert inner(A(x), y) == pytest.approx(inner(x, A.T(y)), rel=tolerance)
    assert A.T.T is A


@pytest.mark.parametrize("angles", [ABOUT_Y, ANY], ids=["about y", "any"])
def test_shifted_and_scaled_images_have_an_exact_transpose(
    xp: ModuleType, rng: np.random.Generator, angles: np.ndarray
) -> None:
    given = {"shifts_px": rng.normal(0, 2, (5, 2)), "scales": rng.uniform(0.5, 2, 5)}
    A = Projector(angles, (9, 12), depth=7, xp=xp, dtype=np.float64, **given)
    x, y = xp.asarray(rng.random(A.domain_shape)), xp.asarray(rng.random(A.range_shape))
    kept = y.copy()
    assert inner(A(x), y) == pytest.approx(inner(x, A.T(y)), rel=1e-12)
    assert (y == kept).all()


@pytest.mark.parametrize("angles", [ABOUT_Y, ANY], ids=["about y", "any"])
def test_a_shift_moves_the_content_towards_higher_indices(xp: ModuleType, angles: np.ndarray) -> None:
    volume = xp.zeros((16, 16, 16))
    volume[8, 9, 10] = 1.0
    still = Projector(angles, (16, 16), xp=xp, dtype=np.float64)(volume)
    whole = Projector(angles, (16, 16), xp=xp, dtype=np.float64, shifts_px=[(2, -1)] * 5, scales=[3.0] * 5)(volume)
    assert float(xp.abs(whole - 3 * xp.roll(still, (2, -1), (1, 2))).max()) < 1e-12
    line = xp.arange(16)
    for shift in ((0.25, 0.0), (0.0, -0.4)):
        moved = Projector(angles, (16, 16), xp=xp, dtype=np.float64, shifts_px=[shift] * 5)(volume)
        for axis in (1, 2):
            step = ((moved - still).sum(axis=3 - axis) * line).sum(axis=1)
            np.testing.assert_allclose(step.get() if hasattr(step, "get") else step, shift[axis - 1], atol=1e-12)


@pytest.mark.parametrize("angles", [ABOUT_Y, ANY], ids=["about y", "any"])
def test_slabs_add_up_to_the_whole(xp: ModuleType, rng: np.random.Generator, angles: np.ndarray) -> None:
    volume, images = xp.asarray(rng.random((9, 6, 8))), xp.asarray(rng.random((5, 6, 8)))
    given = {"image_shape": (6, 8), "depth": 9, "xp": xp, "dtype": np.float64}
    whole = Projector(angles, **given)
    slabs = [(0, 4), (4, 5), (5, 9)]
    parts = [Projector(angles, planes=planes, **given) for planes in slabs]
    seen = sum(A(volume[a:b]) for A, (a, b) in zip(parts, slabs, strict=True))
    assert float(xp.abs(seen - whole(volume)).max()) < 1e-12
    smeared = xp.concatenate([A.T(images) for A in parts])
    assert float(xp.abs(smeared - whole.T(images)).max()) < 1e-12


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("subvoxels", SUBVOXELS)
def test_both_paths_agree(
    xp: ModuleType, rng: np.random.Generator, subvoxels: tuple[int, int, int], dtype: type
) -> None:
    # A turn about x far too small to matter sends the same tilts down the general path.
    fast = Projector(ABOUT_Y, (9, 12), depth=7, subvoxels=subvoxels, xp=xp, dtype=dtype)
    general = Projector(ABOUT_Y + np.array([0, 0, 1e-9]), (9, 12), depth=7, subvoxels=subvoxels, xp=xp, dtype=dtype)
    assert fast.tilts_about_y
    assert not general.tilts_about_y
    x, y = xp.asarray(rng.random(fast.domain_shape), dtype), xp.asarray(rng.random(fast.range_shape), dtype)
    tolerance = 1e-5 if dtype is np.float32 else 1e-8
    assert float(xp.abs(fast(x) - general(x)).max()) < tolerance * float(xp.abs(fast(x)).max())
    assert float(xp.abs(fast.T(y) - general.T(y)).max()) < tolerance * float(xp.abs(fast.T(y)).max())


@pytest.mark.parametrize("angles", [ABOUT_Y, ANY], ids=["about y", "any"])
def test_gpu_gives_the_numbers_of_the_cpu(xp: ModuleType, rng: np.random.Generator, angles: np.ndarray) -> None:
    # With numpy this compares one thread with three; with cupy the other machine.
    here = Projector(angles, (10, 12), depth=9, dtype=np.float64, threads=1)
    there = Projector(angles, (10, 12), depth=9, dtype=np.float64, threads=3, xp=xp)
    x, y = rng.random(here.domain_shape), rng.random(here.range_shape)
    for ours, theirs in ((here(x), there(xp.asarray(x))), (here.T(y), there.T(xp.asarray(y)))):
        theirs = theirs.get() if hasattr(theirs, "get") else theirs
        np.testing.assert_allclose(theirs, ours, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("angles", [ABOUT_Y, ANY], ids=["about y", "any"])
def test_half_storage_rounds_and_nothing_else(xp: ModuleType, rng: np.random.Generator, angles: np.ndarray) -> None:
    whole = Projector(angles, (10, 12), depth=9, xp=xp)
    half = Projector(angles, (10, 12), depth=9, xp=xp, half_storage=True)
    # Values far beyond the range of half precision.
    x, y = (xp.asarray(1e7 * rng.random(shape), np.float32) for shape in (whole.domain_shape, whole.range_shape))
    for exact, rounded in ((whole(x), half(x)), (whole.T(y), half.T(y))):
        apart = float(xp.abs(exact - rounded).max() / xp.abs(exact).max())
        assert 1e-7 < apart < 5e-4
    assert not half(xp.zeros(half.domain_shape, np.float32)).any()


@pytest.mark.parametrize(
    ("angles", "seen"),
    [
        ((0, 0, 0), (2, 3)),  # untilted, a voxel at x = 3, y = 2 is seen there
        ((0, 90, 0), (2, 4)),  # +90° about y shows z where x was
        ((0, -90, 0), (2, -4)),
        ((0, 180, 0), (2, -3)),  # half a turn about y mirrors x
        ((90, 0, 0), (3, -2)),  # +90° about z sends x to y, and y to −x
        ((0, 0, 90), (-4, 3)),  # +90° about x sends z to −y
    ],
)
@pytest.mark.parametrize(("ny", "nx", "nz"), [(16, 16, 16), (17, 15, 13)])
def test_an_off_centre_voxel_lands_where_the_sentences_say(
    xp: ModuleType, angles: tuple[float, float, float], seen: tuple[int, int], ny: int, nx: int, nz: int
) -> None:
    volume = xp.zeros((nz, ny, nx), np.float64)
    volume[nz // 2 + 4, ny // 2 + 2, nx // 2 + 3] = 1.0
    A = Projector([angles], (ny, nx), depth=nz, subvoxels=(1, 1, 1), xp=xp, dtype=np.float64)
    expected = xp.zeros((ny, nx))
    expected[ny // 2 + seen[0], nx // 2 + seen[1]] = 1.0
    assert float(xp.abs(A(volume)[0] - expected).max()) < 1e-12


@pytest.mark.parametrize("subvoxels", SUBVOXELS)
@pytest.mark.parametrize("angles", [ABOUT_Y, ANY], ids=["about y", "any"])
def test_mass_and_its_centre_are_conserved_inside(
    xp: ModuleType, rng: np.random.Generator, subvoxels: tuple[int, int, int], angles: np.ndarray
) -> None:
    n = 24
    inside = np.zeros((n, n, n))
    inside[9:15, 9:15, 9:15] = rng.random((6, 6, 6))
    A = Projector(angles, (n, n), subvoxels=subvoxels, xp=xp, dtype=np.float64)
    images = A(xp.asarray(inside))
    images = images.get() if hasattr(images, "get") else images
    np.testing.assert_allclose(images.sum(axis=(1, 2)), inside.sum(), rtol=1e-12)
    line = np.arange(n) - n // 2
    centre = np.array([(inside * axis).sum() for axis in np.meshgrid(line, line, line, indexing="ij")])[::-1]
    np.testing.assert_allclose((images * line).sum(axis=(1, 2)), (rotation(angles) @ centre)[:, 0], atol=1e-9)
    np.testing.assert_allclose((images * line[:, None]).sum(axis=(1, 2)), (rotation(angles) @ centre)[:, 1], atol=1e-9)


@pytest.mark.parametrize("angles", [ABOUT_Y, ANY], ids=["about y", "any"])
def test_a_gaussian_projects_to_the_analytic_gaussian(angles: np.ndarray) -> None:
    n, sigma, at = 48, 3.0, np.array([5.0, -4.0, 6.5])
    line = np.arange(n) - n // 2
    gauss = [np.exp(-((line - c) ** 2) / (2 * sigma**2)) for c in at]
    volume = gauss[2][:, None, None] * gauss[1][:, None] * gauss[0]
    images = Projector(angles, (n, n), subvoxels=(2, 2, 2), dtype=np.float64)(volume)
    for image, seen in zip(images, rotation(angles) @ at, strict=True):
        # Bilinear sharing and the extent of the voxel parts widen the spot by a small known variance.
        profile = np.exp(-((line - seen[0]) ** 2) / (2 * sigma**2)) * np.exp(
            -((line[:, None] - seen[1]) ** 2) / (2 * sigma**2)
        )
        expected = np.sqrt(2 * np.pi) * sigma * profile
        assert np.abs(image - expected).max() < 0.04 * expected.max()
        assert (image * expected).sum() / np.sqrt((image**2).sum() * (expected**2).sum()) > 0.9995


def test_what_leaves_the_image_is_dropped_and_reads_zero() -> None:
    A = Projector([(0, 45, 0)], (4, 8), subvoxels=(1, 1, 1), dtype=np.float64)
    corner = np.zeros(A.domain_shape)
    corner[7, 2, 7] = 1.0  # x = z = 3 is seen at x = 4.24, beyond the last pixel at 3
    assert A(corner).sum() == 0.0
    assert A.T(np.ones(A.range_shape))[7, 2, 7] == 0.0
    edge = np.zeros(A.domain_shape)
    edge[6, 2, 6] = 1.0  # x = z = 2 is seen at 2.83: 0.17 on pixel 2, 0.83 on the last one
    np.testing.assert_allclose(A(edge)[0, 2, 6:], (3 - 2 * np.sqrt(2), 2 * np.sqrt(2) - 2))


@pytest.mark.parametrize("angles", [ABOUT_Y, ANY], ids=["about y", "any"])
def test_norm_is_the_largest_eigenvalue(angles: np.ndarray) -> None:
    A = Projector(angles, (4, 5), depth=3, dtype=np.float64)
    columns = [A(unit.reshape(A.domain_shape)).ravel() for unit in np.eye(60)]
    largest = np.linalg.norm(np.array(columns), 2) ** 2
    assert A.norm() == pytest.approx(largest, rel=5e-3)
    assert A.norm() <= largest * (1 + 1e-12)


def test_stored_arrays_hold_the_same_values(rng: np.random.Generator) -> None:
    A = Projector(ABOUT_Y, (6, 7), depth=5)
    volume = rng.random(A.domain_shape, dtype=np.float32)
    np.testing.assert_array_equal(A.stored(volume), volume)
    np.testing.assert_array_equal(A(A.stored(volume)), A(volume))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"image_shape": (4,)}, "expected \\(y, x\\)"),
        ({"image_shape": (4, 0)}, "positive numbers of pixels"),
        ({"depth": 0}, "depth is 0"),
        ({"threads": 0}, "threads is 0"),
        ({"dtype": np.float16}, "float32 or float64"),
        ({"planes": (2, 5)}, "within 0 and the depth 4"),
        ({"shifts_px": [(0, 0)]}, r"shifts_px has shape \(1, 2\); expected finite numbers of shape \(5, 2\)"),
        ({"scales": [1, 1, 1, 1, np.nan]}, "scales holds values that are not finite"),
    ],
)
def test_bad_arguments_are_named(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Projector(ABOUT_Y, **({"image_shape": (4, 4)} | arguments))  # type: ignore[arg-type]


def test_bad_arrays_are_named() -> None:
    A = Projector(ABOUT_Y, (4, 6))
    with pytest.raises(ValueError, match=r"volume has shape \(4, 6, 6\); this projector expects \(6, 4, 6\)"):
        A(np.zeros((4, 6, 6), np.float32))
    with pytest.raises(ValueError, match=r"images has shape .* expects \(5, 4, 6\)"):
        A.T(np.zeros((5, 6, 4), np.float32))
    with pytest.raises(ValueError, match=r"is a builtins\.list; expected a numpy array"):
        A([[1.0]])


def test_works_where_no_cache_can_be_written() -> None:
    # Numba then finds no folder for compiled code and refuses to cache; the projector must work all the same.
    code = (
        "import numba.core.caching as c\n"
        "c.CacheImpl._locator_classes.clear()\n"
        "import numpy as np, tomo\n"
        "a = tomo.Projector([(0, 0, 0)], (4, 4), subvoxels=(1, 1, 1))\n"
        "assert a(np.ones((4, 4, 4), 'f4')).sum() == 64\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, env={"PYTHONPATH": ":".join(sys.path)})


def test_import_is_light() -> None:
    heavy = "{'numba', 'cupy', 'skimage', 'matplotlib', 'scipy.ndimage'}"
    code = f"import sys, tomo; found = {heavy} & set(sys.modules); assert not found, found"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, env={"PYTHONPATH": ":".join(sys.path)})
