"""The CUDA text compiles for the architectures in use, whether or not a GPU is there."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from ptycho.patches import CUDA_SOURCE

INSTANCES = """
template __global__ void multiply_patches<{t}>(const Complex<{t}>*, const int*, const Complex<{t}>*, const int*,
    int, int, int, int, long long, Complex<{t}>*);
template __global__ void scatter_add_patches<{t}>(const Complex<{t}>*, const int*, const Complex<{t}>*, const int*,
    int, int, int, int, long long, Complex<{t}>*);
"""


@pytest.mark.parametrize("architecture", ["sm_80", "sm_90"])
def test_kernels_compile(tmp_path, architecture):
    nvcc = shutil.which("nvcc") or "/usr/local/bin/nvcc"
    if not Path(nvcc).exists():
        pytest.skip("nvcc is not installed")
    source = tmp_path / "patches.cu"
    source.write_text(CUDA_SOURCE + "".join(INSTANCES.format(t=t) for t in ("float", "double")))
    done = subprocess.run(
        [nvcc, "-std=c++17", f"-arch={architecture}", "-cubin", "-o", str(tmp_path / "patches.cubin"), str(source)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "scatter_add_patches" in (tmp_path / "patches.cubin").read_bytes().decode("latin1")
