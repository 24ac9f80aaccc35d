"""A small ADF tilt series with a known truth, made by a formula, and a plan for it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

PIXEL_A = 0.5
ANGLES_DEG = np.arange(0.0, 180.0, 9.0)
PEAK_COUNTS = 60.0
WIDTH_A = 0.7


def cluster() -> np.ndarray:
    """Nine atoms (n, 3) in Å: a cube of 3.2 Å and its centre, turned so that no axis is special."""
    corners = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)]) * 1.6
    a, b = np.deg2rad([20.0, 33.0])
    turn_z = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    turn_x = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    return np.vstack([corners, [[0.0, 0.0, 0.0]]]) @ (turn_z @ turn_x).T


def counts(n: int = 33) -> np.ndarray:
    """Poisson counts (tilt, y, x) of the cluster with one electron of background, seen at x' = x cos θ + z sin θ."""
    grid = (np.arange(n) - n // 2) * PIXEL_A
    images = np.ones((len(ANGLES_DEG), n, n))
    for image, theta in zip(images, np.deg2rad(ANGLES_DEG), strict=True):
        for x, y, z in cluster():
            seen = x * np.cos(theta) + z * np.sin(theta)
            profile_x = np.exp(-((grid - seen) ** 2) / (2 * WIDTH_A**2))
            profile_y = np.exp(-((grid - y) ** 2) / (2 * WIDTH_A**2))
            image += PEAK_COUNTS * profile_y[:, None] * profile_x
    return np.random.default_rng(3).poisson(images).astype(np.uint16)


PLAN = """
[input]
kind = "adf"
path = "counts.npy"
angles = {start = 0, stop = 171, step = 9}
pixel_A = 0.5
[specimen]
elements = ["Si"]
min_distance_A = 1.8
[tomography]
iterations = 30
[truth]
path = "truth.extxyz"
[output]
directory = "run"
"""


def small_series(folder: Path) -> Path:
    """The folder, with counts.npy, truth.extxyz and plan.toml in it."""
    np.save(folder / "counts.npy", counts())
    rows = [f"Si {x:.6f} {y:.6f} {z:.6f}" for x, y, z in cluster()]
    (folder / "truth.extxyz").write_text("\n".join([str(len(rows)), "Properties=species:S:1:pos:R:3", *rows]) + "\n")
    (folder / "plan.toml").write_text(PLAN)
    return folder


@pytest.fixture
def series(tmp_path: Path) -> Path:
    """A folder with counts.npy, truth.extxyz and plan.toml."""
    return small_series(tmp_path)


@pytest.fixture(scope="session")
def run_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same folder with a whole run in it; read only."""
    from pyaet.plan import load_plan
    from pyaet.run import run_plan

    folder = small_series(tmp_path_factory.mktemp("run_once"))
    run_plan(load_plan(folder / "plan.toml"), folder / "run")
    return folder


@pytest.fixture
def finished(run_once: Path, tmp_path: Path) -> Path:
    """A copy of the folder and its run, to be worked on, as if it had been made there."""
    folder = Path(shutil.copytree(run_once, tmp_path / "finished"))
    summary = folder / "run" / "summary.json"
    summary.write_text(summary.read_text().replace(str(run_once), str(folder)))
    return folder


@pytest.fixture
def no_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs draw no report, which takes most of the time of small ones; the shared run has one."""
    monkeypatch.setattr("pyaet.report.write_report", lambda directory: directory / "report.html")


def small_tilt(path: Path, theta_deg: float, *, scan: int = 12, dose_e_per_A2: float = 1e5) -> None:
    """A tilt of scan × scan patterns of a few phase bumps, made by one multiplication and one transform."""
    from ptycho import Optics
    from pyaet.io.fourdstem import scan_grid_A, write_tilt

    side, pixel_A, step_A, defocus_A = 36, 0.35, 0.6, 120.0
    lens = Optics(80e3, 30.0, defocus_A)
    probe = np.fft.fft2(np.fft.ifftshift(lens.probe((side, side), (pixel_A, pixel_A))))
    axis = (np.arange(side) - side // 2) * pixel_A
    k = np.fft.fftfreq(side, pixel_A)
    electrons = dose_e_per_A2 * step_A**2
    patterns = []
    for y, x in scan_grid_A((scan, scan), step_A):
        phase = np.zeros((side, side))
        for ax, ay, az in cluster():
            seen = ax * np.cos(np.deg2rad(theta_deg)) + az * np.sin(np.deg2rad(theta_deg))
            phase += 0.3 * np.exp(-((axis[:, None] - ay) ** 2 + (axis - seen) ** 2) / (2 * 0.5**2))
        wave = np.fft.ifft2(probe * np.exp(-2j * np.pi * (k[:, None] * y + k * x)))
        exit_wave = np.fft.fft2(wave * np.exp(1j * np.fft.ifftshift(phase)), norm="ortho")
        intensity = np.fft.fftshift(np.abs(exit_wave) ** 2)
        patterns.append(electrons * intensity / intensity.sum())
    counts = np.random.default_rng(4).poisson(np.reshape(patterns, (scan, scan, side, side))).astype(np.uint16)
    write_tilt(
        path, counts, energy_eV=80e3, semiangle_mrad=30.0, defocus_A=defocus_A, step_A=step_A,
        pixel_mrad=lens.wavelength_A / (side * pixel_A) * 1e3, angles_deg=(0.0, theta_deg, 0.0),
        dose_e_per_A2=dose_e_per_A2,
    )  # fmt: skip


@pytest.fixture(scope="session")
def make_tilt() -> Callable[..., None]:
    """`small_tilt`, for tests that need another scan."""
    return small_tilt


@pytest.fixture(scope="session")
def tilt_series(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with five tilts of 4D-STEM, −48° to 48°; read only."""
    folder = tmp_path_factory.mktemp("series")
    for theta in (-48, -24, 0, 24, 48):
        small_tilt(folder / f"t_{theta}.h5", theta)
    return folder
