"""4D-STEM tilt series of a known cluster: multislice, frozen phonons, Poisson counts, one file per tilt.

A specimen point r is seen at R r, R = Rz(φ) Ry(θ) Rx(ψ); the beam runs along +z. Counts are (scan_y, scan_x, ky, kx)
with index n // 2 at coordinate 0 along every axis; the expected number of electrons of a pattern is dose × step².
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from pyaet.artifacts import key_of, made_by
from pyaet.io.fourdstem import TiltFile, inspect_tilt, scan_grid_A, write_tilt
from pyaet.processes import in_processes
from pyaet.simulate.multislice import Grid, diffraction, even_fast, probe_spectrum, transmission, wavelength_A
from pyaet.simulate.series import Angles, Progress, checked_angles, checked_atoms, tilt_rng, tilted

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Recording:
    """How a simulated 4D-STEM tilt is recorded.

    `defocus_A` > 0 puts the crossover that far downstream of the particle's centre. `window_A` is the real-space width
    of one simulated wave, so a detector pixel is wavelength / window; it must hold the defocused probe with its tails.
    The detector is square, `detector_pixels` wide or as wide as `max_angle_mrad` asks. `pitch_A` is the sampling of
    the wave, by default as coarse as the detector allows. `phonons` configurations with a displacement of
    `phonon_sigma_A` per axis are averaged at each tilt. `dose_e_per_A2` is per tilt.
    """

    energy_eV: float = 80e3
    semiangle_mrad: float = 30.0
    defocus_A: float = 120.0
    scan_shape: tuple[int, int] = (36, 36)
    step_A: float = 0.5
    window_A: float = 22.0
    max_angle_mrad: float = 60.0
    detector_pixels: int | None = None
    pitch_A: float | None = None
    slice_A: float = 2.0
    phonons: int = 2
    phonon_sigma_A: float = 0.07
    dose_e_per_A2: float = 1e4

    def __post_init__(self) -> None:
        for name in ("energy_eV", "semiangle_mrad", "step_A", "window_A", "max_angle_mrad", "slice_A", "dose_e_per_A2"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) > 0):
                raise ValueError(f"{name} is {getattr(self, name)}; expected a positive number")
        if self.phonons < 1 or self.phonon_sigma_A < 0:
            raise ValueError(
                f"phonons is {self.phonons} and phonon_sigma_A {self.phonon_sigma_A}; expected 1 or more and 0 or more"
            )
        if min(self.scan_shape) < 1:
            raise ValueError(f"scan_shape is {self.scan_shape}; expected at least one position along each axis")
        if self.probe_radius_A * 2 > self.window_A:
            raise ValueError(
                f"window_A is {self.window_A:g}; a probe of {self.semiangle_mrad:g} mrad at a defocus of "
                f"{self.defocus_A:g} Å is {2 * self.probe_radius_A:.3g} Å wide: widen the window or reduce the defocus"
            )
        if self.semiangle_mrad > self.detector * self.pixel_mrad / 2:
            raise ValueError(
                f"the detector reaches {self.detector * self.pixel_mrad / 2:.3g} mrad, less than the semiangle of "
                f"{self.semiangle_mrad:g} mrad; ask for more detector pixels or a larger angle"
            )

    @property
    def pixel_mrad(self) -> float:
        return wavelength_A(self.energy_eV) / self.window_A * 1e3

    @property
    def probe_radius_A(self) -> float:
        """Geometric radius of the defocused probe at the particle's centre."""
        return abs(self.defocus_A) * self.semiangle_mrad * 1e-3

    @property
    def detector(self) -> int:
        """Pixels along a side of the detector: even, and a size that transforms fast unless given."""
        return self.detector_pixels or even_fast(2 * self.max_angle_mrad / self.pixel_mrad)

    @property
    def positions_A(self) -> np.ndarray:
        return scan_grid_A(self.scan_shape, self.step_A)

    def grid(self, radius_A: float) -> Grid:
        """Sampling for a particle whose atoms stay within `radius_A` of coordinate 0."""
        least = 1.5 * (self.detector + 2)
        window = even_fast(max(least, self.window_A / self.pitch_A) if self.pitch_A else least)
        pitch = self.window_A / window
        reach = np.abs(self.positions_A).max() + self.window_A / 2
        extent = even_fast(2 * (max(reach, radius_A + 3.0) / pitch + 1))
        depth = 2 * radius_A + 1.0
        slices = max(1, math.ceil(depth / self.slice_A - 1e-6))
        return Grid(self.energy_eV, window, extent, pitch, slices, depth / slices)


def simulate_patterns(
    positions_A: np.ndarray,
    symbols: Sequence[str],
    angles_deg: Sequence[float],
    recording: Recording,
    *,
    rng: np.random.Generator,
) -> np.ndarray:
    """Return noise-free patterns (scan_y, scan_x, ky, kx) float32, centred, as shares of the incoming electrons.

    `positions_A` (n, 3) as (x, y, z) in Å about the rotation centre, `symbols` n chemical symbols, `angles_deg` the
    Euler angles (φ, θ, ψ); `rng` draws the frozen phonons. Raises `ValueError` on wrong shapes.
    """
    positions_A = checked_atoms(positions_A, symbols)
    seen = tilted(positions_A, angles_deg)
    sigma = recording.phonon_sigma_A
    grid = recording.grid(float(np.linalg.norm(positions_A, axis=1).max()) + 3 * sigma)
    configurations = [
        transmission(seen + rng.normal(0.0, sigma, seen.shape), symbols, grid) for _ in range(recording.phonons)
    ]
    spectrum = probe_spectrum(grid, recording.semiangle_mrad, recording.defocus_A)
    scan, n = recording.positions_A, recording.detector
    keep = (np.arange(n) - n // 2) % grid.window
    patterns = np.empty((len(scan), n, n), dtype=np.float32)
    for rows, intensities in diffraction(configurations, spectrum, scan, grid):
        patterns[rows] = intensities[:, keep[:, None], keep]
    return patterns.reshape(*recording.scan_shape, n, n)


def simulate_tilt(
    positions_A: np.ndarray,
    symbols: Sequence[str],
    angles_deg: Sequence[float],
    recording: Recording,
    *,
    rng: np.random.Generator,
) -> np.ndarray:
    """Return Poisson counts (scan_y, scan_x, ky, kx) of one tilt in the smallest unsigned integer type that holds them.

    Arguments as in `simulate_patterns`; a probe position receives dose × step² electrons on average.
    """
    patterns = simulate_patterns(positions_A, symbols, angles_deg, recording, rng=rng)
    counts = np.empty(patterns.shape, dtype=np.uint16)
    for row, expected in zip(counts, patterns, strict=True):
        drawn = rng.poisson(expected * (recording.dose_e_per_A2 * recording.step_A**2))
        if drawn.max() > np.iinfo(np.uint16).max:
            raise ValueError(
                f"dose_e_per_A2 {recording.dose_e_per_A2:g} puts {drawn.max()} electrons on one pixel, more than a "
                "file's 65535; lower the dose"
            )
        row[...] = drawn
    return counts.astype(np.min_scalar_type(int(counts.max())))


def simulate_series(
    positions_A: np.ndarray,
    symbols: Sequence[str],
    angles_deg: np.ndarray,
    recording: Recording,
    folder: str | Path,
    *,
    seed: int,
    workers: int = 1,
    progress: Progress | None = None,
) -> list[TiltFile]:
    """Write one tilt file per row of `angles_deg` (n, 3) into `folder` and return them in that order.

    A file that already holds the same tilt of the same specimen, recording and seed is kept. Every tilt draws from its
    own generator, made of `seed` and its angles: neither the order of work nor `workers` (processes) changes a count.
    `progress(done, total, nan)` is called after each tilt. Raises `ValueError` on wrong shapes, `InputError` when the
    folder cannot be written.
    """
    positions_A = checked_atoms(positions_A, symbols)
    rows, folder, elements = checked_angles(angles_deg), Path(folder), tuple(symbols)
    jobs = [_Job(folder / _name(row), positions_A, elements, row, recording, seed) for row in rows]
    waiting = [job for job in jobs if made_by(job.path) != job.key]
    done, total = len(jobs) - len(waiting), len(jobs)
    logger.info("4D-STEM simulation: %d of %d tilts are there already", done, total)
    for _ in in_processes(_write, waiting, workers):
        done += 1
        if progress is not None:
            progress(done, total, math.nan)
    return [inspect_tilt(job.path) for job in jobs]


@dataclass(frozen=True)
class _Job:
    path: Path
    positions_A: np.ndarray
    symbols: tuple[str, ...]
    angles_deg: Angles
    recording: Recording
    seed: int

    @property
    def key(self) -> str:
        atoms = self.positions_A.tolist(), self.symbols
        return key_of("4dstem", atoms, self.angles_deg, asdict(self.recording), self.seed)


def _write(job: _Job) -> None:
    recording = job.recording
    counts = simulate_tilt(
        job.positions_A, job.symbols, job.angles_deg, recording, rng=tilt_rng(job.seed, job.angles_deg)
    )
    write_tilt(
        job.path,
        counts,
        energy_eV=recording.energy_eV,
        semiangle_mrad=recording.semiangle_mrad,
        defocus_A=recording.defocus_A,
        step_A=recording.step_A,
        pixel_mrad=recording.pixel_mrad,
        angles_deg=job.angles_deg,
        dose_e_per_A2=recording.dose_e_per_A2,
        key=job.key,
    )


def _name(angles_deg: Angles) -> str:
    phi, theta, psi = angles_deg
    extra = f"_phi{phi:+.2f}_psi{psi:+.2f}" if phi or psi else ""
    return f"tilt_{theta:+06.2f}{extra}.h5"
