"""What one iteration costs against the number of positions, the size of the patterns and the number of slices.

    python tests/bench/ptychography.py                       scaling on the CPU, one thread, about two minutes
    python tests/bench/ptychography.py --paper [--device cuda] [--side 208] [--iterations 6]

The second form takes the published problem: 208 × 208 positions, patterns of 152 × 152, five slices, LSQ-ML, and one slice
beside it; a smaller --side makes it fit a CPU. Counts are Poisson draws of the empty beam, some hundred of them used over
and over: their values do not change the amount of work. Costs are medians over the iterations after the first, processor
seconds on the CPU and synchronised wall seconds on a GPU. A cost that is linear in the number of positions, of pixels per
pattern or of slices has the ratio 1. The first form writes results/ptychography_scaling.md.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import ptycho
from ptycho.traffic import bytes_per_position

SEMIANGLE_MRAD, REACH_MRAD, STEP_A, ELECTRONS = 30.0, 60.0, 0.5, 4e3
OPTICS = ptycho.Optics(80e3, SEMIANGLE_MRAD, 180.0)
POSITIONS, SIZES, SLICES = (24, 34, 48), (64, 96, 128, 192), (1, 2, 4, 8)
DRAWS = 256
RESULTS = Path(__file__).resolve().parent / "results"


def patterns(side: int, pixels: int) -> ptycho.Patterns:
    """Empty-beam counts of side × side positions, `pixels` across, reaching 60 mrad."""
    pixel_mrad = 2 * REACH_MRAD / pixels
    k = (np.arange(pixels) - pixels // 2) * pixel_mrad
    disk = (np.hypot(k[:, None], k) <= SEMIANGLE_MRAD).astype(np.float64)
    drawn = np.random.default_rng(0).poisson(disk * (ELECTRONS / disk.sum()), (DRAWS, pixels, pixels))
    counts = drawn.astype(np.min_scalar_type(int(drawn.max())))[np.arange(side**2) % DRAWS]
    grid = (np.arange(side) - side // 2) * STEP_A
    positions_A = np.stack(np.meshgrid(grid, grid, indexing="ij"), -1).reshape(-1, 2)
    return ptycho.Patterns(counts, positions_A, pixel_mrad)


def seconds_per_iteration(
    data: ptycho.Patterns, solver: str, slices: int, iterations: int = 4, device: str = "cpu", slice_A: float = 4.0
) -> float:
    """Median over the iterations after the first."""
    xp, now = clock(device)
    ticks: list[float] = []
    # Short steps: these counts hold noise alone, and the length of a step costs nothing.
    given: dict[str, Any] = {
        "solver": solver,
        "slices": slices,
        "slice_A": slice_A if slices > 1 else None,
        "beta_lsq": 0.1,
    }
    settings = ptycho.Settings(iterations=iterations, detector="full", **given)
    rng = np.random.default_rng(0)
    ptycho.reconstruct(data, OPTICS, settings, rng=rng, xp=xp, progress=lambda *_: ticks.append(now()))
    return float(np.median(np.diff(ticks)))


def clock(device: str) -> tuple[Any, Callable[[], float]]:
    """Array module of the device, and what reads its time."""
    if device == "cpu":
        return np, time.process_time
    import cupy

    def now() -> float:
        cupy.cuda.runtime.deviceSynchronize()
        return time.perf_counter()

    return cupy, now


def floor_bytes(data: ptycho.Patterns, slices: int) -> int:
    """Bytes that all positions move at least in one iteration."""
    n = data.detector_shape[0]
    return len(data.counts) * bytes_per_position(n, slices, 1, data.counts.itemsize, to_probe=False)


def series(title: str, solver: str, each: list[tuple[int, int, int]]) -> list[str]:
    """Rows of one scaling: positions and pixels along a side, slices."""
    rows, first = [], 0.0
    for side, pixels, slices in each:
        work = side**2 * pixels**2 * slices
        label = {"positions": f"{side}²", "pixels": f"{pixels}²", "slices": f"{slices}"}[title]
        data = patterns(side, pixels)
        seconds = seconds_per_iteration(data, solver, slices)
        first = first or seconds / work
        moved = floor_bytes(data, slices) / seconds / 1e9
        rows.append(f"| {title} | {solver} | {label} | {seconds:.3f} | {seconds / work / first:.2f} | {moved:.2f} |")
        print(rows[-1], flush=True)
    return rows


def scaling() -> None:
    lines = ["One thread, median of three iterations.", ""]
    lines += ["| against | solver | value | s per iteration | per unit of work, of the first | floor GB/s |"]
    lines += ["|---|---|---|---|---|---|"]
    print("\n".join(lines))
    for solver in ("gradient", "lsqml"):
        lines += series("positions", solver, [(n, 96, 1) for n in POSITIONS])
        lines += series("pixels", solver, [(24, n, 1) for n in SIZES])
        lines += series("slices", solver, [(20, 96, s) for s in SLICES])
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "ptychography_scaling.md").write_text("\n".join(lines) + "\n")


def paper(side: int, device: str, iterations: int, bandwidth_GB_s: float) -> None:
    data = patterns(side, 152)
    print(f"{side} × {side} positions, 152 × 152 pixels, LSQ-ML, {device}")
    for slices in (5, 1):
        seconds = seconds_per_iteration(data, "lsqml", slices, iterations, device, slice_A=12.0)
        line = f"{slices} slices: {seconds:.3f} s per iteration, {1e6 * seconds / side**2:.1f} µs per position"
        floor_s = floor_bytes(data, slices) / (bandwidth_GB_s * 1e9)
        line += f", {seconds / floor_s:.2f} times the byte floor of {floor_s:.4f} s at {bandwidth_GB_s:g} GB/s"
        print(line, flush=True)


def on_one_thread() -> None:
    """Start again with single-threaded libraries: they read the environment when they are imported."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
    if any(os.environ.get(name) != "1" for name in names):
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | dict.fromkeys(names, "1"))


def main() -> None:
    on_one_thread()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--paper", action="store_true", help="the published problem instead of the scaling")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--side", type=int, default=208, help="positions along an axis of the published problem")
    parser.add_argument("--iterations", type=int, default=6)
    parser.add_argument("--bandwidth", type=float, default=4800.0, metavar="GB/S", help="memory bandwidth, H200: 4800")
    options = parser.parse_args()
    if options.paper:
        paper(options.side, options.device, options.iterations, options.bandwidth)
    else:
        scaling()


if __name__ == "__main__":
    main()
