"""The CUDA sums over the pixels round atoms agree with the CPU's: compiled for the host without a GPU, and whole fits on one."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from analysis import Atoms
from analysis.likelihood import Optics, cuda, fit_counts, fit_halves, kernels
from analysis.likelihood.model import Model, State, on_host
from analysis.likelihood.psf import Spread
from tomo import rotation

TILTS, ATOMS, KINDS, SIDE, PIXEL_A = 12, 40, 2, 40, 0.35
IMAGES = {"render": (), "pulls": (3,), "sharpness": (6,)}

# Enough of CUDA for a C++ compiler: one thread of one block at a time.
HOST = r"""
#include <cmath>
#include <algorithm>
using std::min; using std::max; using std::ceil; using std::floor;
#define __global__
static struct {{ int x; }} blockIdx, threadIdx, blockDim;
static void atomicAdd(double* at, double value) {{ *at += value; }}
{source}
#define RUN(call) for (blockIdx.x = 0; blockIdx.x * 8 < tilts * atoms * columns; ++blockIdx.x) \
    for (threadIdx.x = 0; threadIdx.x < 8; ++threadIdx.x) {{ blockDim.x = 8; call; }}
#define GIVEN tilts, atoms, kinds, entries, ny, nx, columns, reach, positions, to_pixels, origin, bright, element, tables
extern "C" void run_render(ARGUMENTS, double* out) {{ RUN(render(GIVEN, out)) }}
extern "C" void run_pulls(ARGUMENTS, const double* image, double* out) {{ RUN(pulls(GIVEN, image, out)) }}
extern "C" void run_sharpness(ARGUMENTS, const double* image, double* out) {{ RUN(sharpness(GIVEN, image, out)) }}
"""


def particle(rng: np.random.Generator) -> tuple[State, np.ndarray, Spread]:
    angles = np.column_stack([np.zeros(TILTS), np.arange(TILTS) * 180.0 / TILTS, np.zeros(TILTS)])
    state = State(
        rng.uniform(-5, 5, (ATOMS, 3)), rng.integers(0, KINDS, ATOMS), np.array([60.0, 150.0]), np.array([0.37, 0.4]),
        rng.uniform(0.9, 1.1, TILTS), rng.normal(0, 0.3, (TILTS, 2)), rng.uniform(2, 30, TILTS), np.ones(TILTS),
    )  # fmt: skip
    return state, rotation(angles), Spread.of(Optics(200e3, 17.5), PIXEL_A, 0.6)


def test_nvcc_accepts_the_source(tmp_path: Path) -> None:
    nvcc = shutil.which("nvcc") or shutil.which("nvcc", path="/usr/local/bin:/usr/local/cuda/bin")
    if nvcc is None:
        pytest.skip("nvcc is not installed")
    (tmp_path / "kernel.cu").write_text(cuda.SOURCE)
    subprocess.run([nvcc, "-ptx", "-Werror", "all-warnings", "kernel.cu"], cwd=tmp_path, check=True, timeout=120)


@pytest.mark.parametrize("name", IMAGES)
def test_the_text_run_on_the_host_agrees(tmp_path: Path, rng: np.random.Generator, name: str) -> None:
    state, rotations, spread = particle(rng)
    model = Model(np.zeros((TILTS, SIDE, SIDE)), rotations, PIXEL_A, spread)
    at, bright, tables = model.seen(state), model.bright(state), model.tables(state)
    shape = (TILTS, ATOMS, *IMAGES[name]) if IMAGES[name] else (TILTS, SIDE, SIDE)
    images = [rng.normal(size=(TILTS, SIDE, SIDE))] if IMAGES[name] else []
    expected, found = np.zeros(shape), np.zeros(shape)
    getattr(kernels, name)(0, TILTS, at, bright, state.element, tables, spread.reach_px, *images, expected)
    sizes = (TILTS, ATOMS, KINDS, tables.shape[-1], SIDE, SIDE, 2 * int(np.ceil(spread.reach_px)) + 1)
    places = (state.positions_A, model.to_pixels, model.origin(state))
    arrays = [np.ascontiguousarray(a) for a in (*places, bright, state.element.astype(np.int64), tables, *images)]
    run = getattr(_compiled(tmp_path), f"run_{name}")
    run(*sizes, ctypes.c_double(spread.reach_px), *(ctypes.c_void_p(a.ctypes.data) for a in (*arrays, found)))
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12 * np.abs(expected).max())
    assert np.abs(expected).max() > 0


def test_every_device_sums_alike(xp: ModuleType, rng: np.random.Generator) -> None:
    state, rotations, spread = particle(rng)
    counts, image = np.zeros((TILTS, SIDE, SIDE)), rng.normal(size=(TILTS, SIDE, SIDE))
    host, there = Model(counts, rotations, PIXEL_A, spread), Model(xp.asarray(counts), rotations, PIXEL_A, spread)
    tables = host.tables(state)
    np.testing.assert_allclose(on_host(there.expected(state)), host.expected(state), rtol=1e-10)
    lit = host.glowing(state).expected(state)
    np.testing.assert_allclose(on_host(there.glowing(state).expected(state)), lit, rtol=1e-10)
    assert (lit > host.expected(state)).all()
    np.testing.assert_allclose(
        there.pulls(state, xp.asarray(image), tables), host.pulls(state, image, tables), atol=1e-9
    )
    weight = np.abs(image)
    sharp = there.sharpness(state, xp.asarray(weight), tables)
    np.testing.assert_allclose(sharp, host.sharpness(state, weight, tables), rtol=1e-9, atol=1e-9)


def test_a_whole_fit_is_the_same_on_every_device(xp: ModuleType, rng: np.random.Generator) -> None:
    """Of two elements, one atom missing at the start."""
    state, rotations, spread = particle(rng)
    apart = 1.5
    kept: list[np.ndarray] = []
    for at in rng.uniform(-5, 5, (2000, 3)):
        if len(kept) < ATOMS and all(np.linalg.norm(at - other) > apart for other in kept):
            kept.append(at)
    model = Model(np.zeros((TILTS, SIDE, SIDE)), rotations, PIXEL_A, spread)
    true = State(np.array(kept), *(getattr(state, name) for name in list(State.__dataclass_fields__)[1:]))
    counts = rng.poisson(model.glowing(true).expected(true)).astype(float)
    start = Atoms(true.positions_A[1:], tuple(np.array(["Si", "Ge"])[true.element[1:]]))
    given = {"elements": ("Si", "Ge"), "min_distance_A": apart, "optics": Optics(200e3, 17.5)}
    host = fit_counts(start, counts, rotations, PIXEL_A, **given)
    there = fit_counts(start, xp.asarray(counts), rotations, PIXEL_A, ground=xp.ones(counts.shape), **given)
    assert there.atoms.symbols == host.atoms.symbols
    np.testing.assert_allclose(there.atoms.positions_A, host.atoms.positions_A, atol=5e-3)
    np.testing.assert_allclose(there.sigma_axes_A, host.sigma_axes_A, rtol=1e-2)
    halves = fit_halves(start, xp.asarray(counts), rotations, PIXEL_A, **given)
    assert halves.agreement > 0.9


def _compiled(folder: Path) -> ctypes.CDLL:
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("g++ is not installed")
    (folder / "kernel.cpp").write_text(HOST.format(source=cuda.SOURCE))
    subprocess.run([compiler, "-O1", "-shared", "-fPIC", "-o", "kernel.so", "kernel.cpp"], cwd=folder, check=True)
    return ctypes.CDLL(str(folder / "kernel.so"))
