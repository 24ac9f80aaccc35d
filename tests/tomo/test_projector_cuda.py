"""The CUDA kernels without a GPU: nvcc accepts them, and run on the host they agree with the CPU kernels."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from tomo import Projector
from tomo import kernels_axis as axis
from tomo import kernels_euler as euler
from tomo.kernels import cuda_types

# Enough of CUDA for a C++ compiler: one thread of one block at a time.
HOST = """
#include <cmath>
using std::floor;
#define __global__
#define __device__
#define THREE_INTS(name) static struct {{ int x, y, z; }} name;
THREE_INTS(blockIdx) THREE_INTS(threadIdx) THREE_INTS(blockDim) THREE_INTS(gridDim)
{types}
static void atomicAdd(real* at, real value) {{ *at += value; }}
{source}
#define EVERY(i, n) for (i = 0; i < n; ++i)
#define RUN(call) \\
    EVERY(blockIdx.x, gridDim.x) EVERY(blockIdx.y, gridDim.y) EVERY(blockIdx.z, gridDim.z) \\
    EVERY(threadIdx.x, blockDim.x) EVERY(threadIdx.y, blockDim.y) call;
extern "C" void set_grid(int gx, int gy, int gz, int bx, int by)
{{
    gridDim.x = gx; gridDim.y = gy; gridDim.z = gz; blockDim.x = bx; blockDim.y = by; blockDim.z = 1;
}}
{runners}
"""
RUN_AXIS = """
extern "C" void run(int rows, int ny, const long long* start, const int* row, const int* column, const real* weight,
                    const real* source, real* out) { RUN(sparse_rows(rows, ny, start, row, column, weight, source, out)) }
"""
EULER_ARGUMENTS = (
    "int n, int ny, int nx, int first, int parts, const real* tilts, const real* steps, const real* reach, "
    "const real* from, real* to"
)
RUN_EULER = f"""
extern "C" void run_forward({EULER_ARGUMENTS})
{{ RUN(euler_forward(n, ny, nx, first, parts, tilts, steps, reach, from, to)) }}
extern "C" void run_transpose({EULER_ARGUMENTS})
{{ RUN(euler_transpose(n, ny, nx, first, parts, tilts, steps, reach, from, to)) }}
"""
EULER_TEXTS = {f"euler {n}": f"#define WINDOW {n}\n{euler.CUDA_SOURCE}" for n in euler.WINDOWS}
TEXTS = {"axis": axis.CUDA_SOURCE} | EULER_TEXTS


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize(("real", "store"), ["ff", "dd", "fe"])
def test_nvcc_accepts_the_source(tmp_path: Path, name: str, real: str, store: str) -> None:
    nvcc = shutil.which("nvcc") or shutil.which("nvcc", path="/usr/local/bin:/usr/local/cuda/bin")
    if nvcc is None:
        pytest.skip("nvcc is not installed")
    (tmp_path / "kernel.cu").write_text(cuda_types(real, store) + TEXTS[name])
    subprocess.run([nvcc, "-ptx", "-Werror", "all-warnings", "kernel.cu"], cwd=tmp_path, check=True, timeout=120)


def test_the_axis_kernel_multiplies(tmp_path: Path, rng: np.random.Generator) -> None:
    angles = [(0, 25, 0), (0, -70, 0)]
    A = Projector(angles, (35, 9), depth=6, dtype=np.float64)
    matrix, _ = axis.tables(A.geometry, A.dtype, groups=1, tiled=False)
    volume, out = rng.random(A.domain_shape), np.zeros((2 * 9, 35))
    library = _compiled(tmp_path, axis.CUDA_SOURCE, RUN_AXIS)
    library.set_grid(-(-len(matrix.row) // axis.CUDA_BLOCK[1]), -(-35 // axis.CUDA_BLOCK[0]), 1, *axis.CUDA_BLOCK)
    flat = np.ascontiguousarray(volume.transpose(0, 2, 1))
    library.run(len(matrix.row), 35, *map(_at, (matrix.start, matrix.row, matrix.column, matrix.weight, flat, out)))
    np.testing.assert_allclose(out.reshape(2, 9, 35).transpose(0, 2, 1), A(volume), rtol=1e-12)


@pytest.mark.parametrize("subvoxels", [(1, 1, 1), (2, 2, 2), (2, 4, 3)])
def test_the_euler_kernels_splat_and_gather(
    tmp_path: Path, rng: np.random.Generator, subvoxels: tuple[int, int, int]
) -> None:
    angles = [(12.0, 34.0, -5.0), (-100.0, 71.0, 44.0), (0.0, 45.0, 0.0)]
    A = Projector(
        angles,
        (7, 10),
        depth=9,
        subvoxels=subvoxels,
        shifts_px=rng.normal(size=(3, 2)),
        planes=(2, 8),
        dtype=np.float64,
    )
    *tables, window = euler.cuda_tables(A.geometry)
    sizes = (3, 7, 10, A.geometry.first, len(A.geometry.offsets))
    library = _compiled(tmp_path, EULER_TEXTS[f"euler {window}"], RUN_EULER)
    volume, images = rng.random((6, 10, 7)), rng.random((3, 10, 7))
    seen, smeared = np.zeros(images.shape), np.zeros(volume.shape)
    library.set_grid(10 * 6, 1, 3, *euler.CUDA_BLOCK, 1)
    library.run_forward(*sizes, *map(_at, (*tables, volume, seen)))
    library.set_grid(10 * 6, 1, 1, *euler.CUDA_BLOCK, 1)
    library.run_transpose(*sizes, *map(_at, (*tables, images, smeared)))
    np.testing.assert_allclose(seen, A(volume.transpose(0, 2, 1)).transpose(0, 2, 1), rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(smeared, A.T(images.transpose(0, 2, 1)).transpose(0, 2, 1), rtol=1e-12, atol=1e-13)


def _compiled(folder: Path, source: str, runners: str) -> ctypes.CDLL:
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("g++ is not installed")
    (folder / "kernel.cpp").write_text(HOST.format(types=cuda_types("d", "d"), source=source, runners=runners))
    subprocess.run([compiler, "-O1", "-shared", "-fPIC", "-o", "kernel.so", "kernel.cpp"], cwd=folder, check=True)
    return ctypes.CDLL(str(folder / "kernel.so"))


def _at(array: np.ndarray) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)
