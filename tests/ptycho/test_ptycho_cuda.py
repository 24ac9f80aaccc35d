"""The CUDA texts compile for the architectures in use, and do the same as the NumPy texts, whether or not a GPU is there.

Without a GPU the texts are compiled for the host: each thread of a block is a thread of the processor, and what launches them in
the place of CuPy gets the very arguments that CuPy would get.
"""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest

from ptycho import cuda, freespace, likelihood, patches
from ptycho.likelihood import Likelihood

BOTH = [(False, False), (False, True), (True, False), (True, True)]
REALS = {"float": np.float32, "double": np.float64}
COUNTS = {"unsigned char": np.uint8, "unsigned short": np.uint16, "Half": np.float16, "float": np.float32}
SOURCES = {
    "likelihood": (
        likelihood.CUDA_SOURCE,
        [f"residual<{t}, unsigned short, {form}>" for t in REALS for form in range(3)]
        + [f"residual<double, {c}, 1>" for c in COUNTS if c != "unsigned short"]
        + ["residual<double, Half, 2>"],
    ),
    "patches": (patches.CUDA_SOURCE, [f"{k}_patches<{t}>" for t in REALS for k in ("multiply", "scatter")]),
    "freespace": (freespace.CUDA_SOURCE, [f"propagate<{t}>" for t in REALS]),
}

HOST = r"""
#include <atomic>
#include <barrier>
#include <cmath>
#include <thread>
#include <tuple>
#include <utility>
#include <vector>
#define __global__
#define __device__
#define __shared__ static
using std::log;
using std::sqrt;
struct Index { unsigned x; };
thread_local Index threadIdx, blockIdx;
Index blockDim;
std::barrier<>* everyone;
void __syncthreads() { everyone->arrive_and_wait(); }
template <typename T> void atomicAdd(T* place, T value) { std::atomic_ref<T>(*place) += value; }

template <auto kernel> struct Call;
template <typename... A, void (*kernel)(A...)> struct Call<kernel> {
    static constexpr int count = sizeof...(A);
    template <std::size_t... i> static void once(void** values, std::index_sequence<i...>) { kernel(*(A*)values[i]...); }
    static void run(unsigned blocks, unsigned threads, void** values) {
        std::barrier<> all(threads);
        everyone = &all;
        blockDim.x = threads;
        std::vector<std::thread> pool;
        for (unsigned t = 0; t < threads; ++t) pool.emplace_back([=] {
            threadIdx.x = t;
            for (unsigned b = 0; b < blocks; ++b) {
                blockIdx.x = b;
                once(values, std::index_sequence_for<A...>{});
                __syncthreads();
            }
        });
        for (auto& thread : pool) thread.join();
    }
};
"""


@pytest.mark.parametrize("architecture", [pytest.param("sm_80", marks=pytest.mark.slow), "sm_90"])
def test_kernels_compile(tmp_path, architecture):
    nvcc = shutil.which("nvcc") or "/usr/local/bin/nvcc"
    if not Path(nvcc).exists():
        pytest.skip("nvcc is not installed")
    text = ""
    for name, (source, expressions) in SOURCES.items():
        used = ", ".join(f"(void*)&{e}" for e in expressions)
        text += f"namespace {name} {{\n{source}\nvoid* used[] = {{{used}}};\n}}\n"
    (tmp_path / "text.cu").write_text(text)
    command = [nvcc, "-std=c++17", "-Werror", "all-warnings", f"-arch={architecture}", "-cubin", "-o", "text.cubin"]
    done = subprocess.run([*command, "text.cu"], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    cubin = (tmp_path / "text.cubin").read_bytes().decode("latin1")
    for kernel in ("residual", "multiply_patches", "scatter_patches", "propagate"):
        assert kernel in cubin


@pytest.fixture(scope="module")
def library(tmp_path_factory) -> ctypes.CDLL:
    """All kernels of all texts, compiled for the host."""
    if not (compiler := shutil.which("g++")):
        pytest.skip("g++ is not installed")
    folder = tmp_path_factory.mktemp("host")
    text = HOST
    for name, (source, expressions) in SOURCES.items():
        text += f"namespace {name} {{\n{source}\n"
        for i, e in enumerate(expressions):
            text += f"""
extern "C" const int {name}_{i}_count = Call<&{e}>::count;
extern "C" void {name}_{i}(unsigned b, unsigned t, void** values) {{ Call<&{e}>::run(b, t, values); }}
"""
        text += "}\n"
    (folder / "host.cpp").write_text(text)
    options = ("-std=c++20", "-fno-strict-aliasing", "-shared", "-fPIC", "-pthread", "-o", "host.so")
    subprocess.run([compiler, *options, "host.cpp"], check=True, cwd=folder)
    return ctypes.CDLL(str(folder / "host.so"))


class HostModule:
    """Stands in for cupy.RawModule: the same call, on arrays of NumPy."""

    library: ctypes.CDLL

    def __init__(self, code: str, options: tuple[str, ...], name_expressions: tuple[str, ...]) -> None:
        self.name = next(name for name, (source, _) in SOURCES.items() if source == code)

    def get_function(self, expression: str):
        symbol = f"{self.name}_{SOURCES[self.name][1].index(expression)}"
        count = ctypes.c_int.in_dll(self.library, f"{symbol}_count").value
        run = getattr(self.library, symbol)

        def call(grid: tuple[int], block: tuple[int], arguments: tuple) -> None:
            assert len(arguments) == count
            values = [np.uintp(a.ctypes.data) if isinstance(a, np.ndarray) else a for a in arguments]
            cells = [np.array(v) for v in values]
            run(*grid, *block, (ctypes.c_void_p * count)(*(c.ctypes.data for c in cells)))

        return call


@pytest.fixture
def on_host(library, monkeypatch):
    """The launcher takes the host's library for CuPy."""
    HostModule.library = library
    monkeypatch.setitem(sys.modules, "cupy", types.SimpleNamespace(RawModule=HostModule))
    monkeypatch.setattr(cuda, "THREADS", 64)
    monkeypatch.setattr(cuda, "_PIXELS_PER_PART", 200)
    cuda._kernel.cache_clear()
    yield
    cuda._kernel.cache_clear()


def draw(rng, *shape: int, dtype=np.complex128) -> np.ndarray:
    return (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(dtype)


@pytest.mark.parametrize("dtype", [np.complex64, np.complex128])
@pytest.mark.parametrize("name", ["amplitude", "poisson", "gaussian", "anscombe"])
@pytest.mark.parametrize("full", [False, True])
def test_residual(on_host, rng, name, dtype, full):
    comparison = Likelihood(name, variance=2.5, read_noise=0.7)
    waves, counts = draw(rng, 3, 2, 18, 23, dtype=dtype), rng.poisson(2.0, (3, 18, 23)).astype(np.uint16)
    mask = rng.random((18, 23)) > 0.1 if full else None
    scale, background = (rng.uniform(0.5, 2, 3), rng.uniform(0, 1, 3)) if full else (None, None)
    expected = waves.copy()
    loss = comparison.evaluate(expected, counts, mask, 0.3, scale, background)
    assert likelihood._evaluate_cuda(comparison, waves, counts, mask, 0.3, scale, background) == pytest.approx(
        loss, rel=2e-5 if dtype == np.complex64 else 1e-12
    )
    assert np.allclose(waves, expected, rtol=0, atol=2e-5 if dtype == np.complex64 else 1e-13)


@pytest.mark.parametrize("dtype", COUNTS.values())
def test_counts_of_any_kind(on_host, rng, dtype):
    waves, counts = draw(rng, 2, 1, 8, 8), rng.poisson(2.0, (2, 8, 8)).astype(dtype)
    expected = waves.copy()
    loss = Likelihood("poisson").evaluate(expected, counts, None, 0.1)
    assert likelihood._evaluate_cuda(Likelihood("poisson"), waves, counts, None, 0.1) == pytest.approx(loss)
    assert np.allclose(waves, expected, rtol=0, atol=1e-13)


def test_every_half_precision_number(on_host):
    """With ∂L/∂I = I − n the kernel gives back each of the 65536 bit patterns."""
    counts = np.arange(1 << 16, dtype=np.uint16).view(np.float16).reshape(1, 256, 256)
    waves = np.ones((1, 1, 256, 256), complex)
    likelihood._evaluate_cuda(Likelihood("gaussian"), waves, counts, None, 0.0)
    assert np.array_equal(1 - waves[:, 0].real, counts.astype(float), equal_nan=True)


def test_masked_counts_are_not_looked_at(on_host, rng):
    waves, counts, mask = draw(rng, 1, 1, 8, 8), np.ones((1, 8, 8)).astype(np.float32), np.ones((8, 8), bool)
    mask[2, 3], counts[0, 2, 3] = False, np.nan
    assert np.isfinite(likelihood._evaluate_cuda(Likelihood("poisson"), waves, counts, mask, 0.1)).all()
    assert np.isfinite(waves).all() and waves[0, 0, 2, 3] == 0


@pytest.mark.parametrize("dtype", [np.complex64, np.complex128])
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("conjugate", [False, True])
def test_windows(on_host, rng, dtype, shared, conjugate):
    incoming, slice_ = draw(rng, 3, 2, 12, 17, dtype=dtype), draw(rng, 30, 33, dtype=dtype)
    corners = np.array([[0, 0], [18, 16], [5, 4], [5, 5]][: 4 if shared else 3], np.int32)
    index = np.array([2, 0, 0, 1], np.int32) if shared else None
    expected = patches.multiply(incoming, index, slice_, corners, conjugate=conjugate)
    out = np.empty_like(expected)
    patches._multiply_cuda(incoming, index, slice_, corners, conjugate, out)
    assert np.allclose(out, expected, rtol=0, atol=1e-5 if dtype == np.complex64 else 1e-14)


@pytest.mark.parametrize("dtype", [np.complex64, np.complex128])
@pytest.mark.parametrize(("shared", "carried"), BOTH)
def test_scatter(on_host, rng, dtype, shared, carried):
    incoming, slice_ = draw(rng, 3, 2, 12, 17, dtype=dtype), draw(rng, 30, 33, dtype=dtype)
    corners = np.array([[0, 0], [18, 16], [5, 4], [5, 5]][: 4 if shared else 3], np.int32)
    index = np.array([2, 0, 0, 1], np.int32) if shared else None
    waves, target = draw(rng, len(corners), 2, 12, 17, dtype=dtype), draw(rng, 30, 33, dtype=dtype)
    expected, sums = waves.copy(), target.copy()
    if carried:
        patches.scatter_back(sums, incoming, index, expected, corners, slice_)
    else:
        patches.scatter_add(sums, incoming, index, expected, corners)
    patches._scatter_cuda(target, incoming, index, waves, corners, slice_ if carried else None)
    atol = 1e-5 if dtype == np.complex64 else 1e-13
    assert np.allclose(target, sums, rtol=0, atol=atol)
    assert np.allclose(waves, expected, rtol=0, atol=atol)


@pytest.mark.parametrize("dtype", [np.complex64, np.complex128])
@pytest.mark.parametrize(("ramped", "conjugate"), BOTH)
def test_free_space(on_host, rng, dtype, ramped, conjugate):
    spectrum, kernel = draw(rng, 3, 2, 12, 17, dtype=dtype), draw(rng, 12, 17, dtype=dtype)
    ramps = (draw(rng, 3, 12, dtype=dtype), draw(rng, 3, 17, dtype=dtype)) if ramped else None
    expected = freespace.through_free_space(spectrum.copy(), kernel, ramps, conjugate=conjugate)
    freespace._through_cuda(spectrum, kernel, ramps, conjugate)
    assert np.allclose(spectrum, expected, rtol=0, atol=1e-4 if dtype == np.complex64 else 1e-12)


def test_a_kernel_writes_only_into_what_it_can_address(rng):
    waves = draw(rng, 2, 1, 8, 8)
    with pytest.raises(ValueError, match="expected complex128 in C order"):
        cuda.in_place("waves", waves[..., ::2], waves.dtype)
    with pytest.raises(ValueError, match="waves is complex64"):
        cuda.in_place("waves", waves.astype(np.complex64), waves.dtype)
    with pytest.raises(ValueError, match="cannot be used on the GPU"):
        cuda.c_type(np.dtype(np.clongdouble))
