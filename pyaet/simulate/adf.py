"""ADF-STEM tilt series of a known cluster: annular dark-field images, by multislice or by a linear model.

`multislice` scans the probe of `multislice.py` and sums the far field over the annulus. An image holds no frequency
above 2 α / λ, so the probe stops only as often as that needs and the pixels in between follow exactly by Fourier
interpolation. `linear` sums Z^1.7 times the probe intensity over the atoms (doi:10.1016/0304-3991(90)90005-D for why
dark-field images are incoherent), scaled by the Rutherford cross-section of the annulus: good to a factor of two, and
thousands of times faster. Images are (y, x), the particle bright, index n // 2 at coordinate 0.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from scipy import constants, fft
from scipy.interpolate import RegularGridInterpolator

from pyaet.artifacts import Data, key_of, made_by, write_h5
from pyaet.io.fourdstem import scan_grid_A
from pyaet.processes import in_processes
from pyaet.simulate.multislice import Grid, diffraction, even_fast, probe_spectrum, transmission, wavelength_A
from pyaet.simulate.series import Progress, checked_angles, checked_atoms, tilt_rng, tilted

logger = logging.getLogger(__name__)
EXPONENT = 1.7
"""Dark-field intensity grows as Z to this power: Z² screened by the atom's own electrons."""


@dataclass(frozen=True)
class Imaging:
    """How a simulated ADF tilt is recorded.

    `defocus_A` > 0 puts the crossover downstream of the particle's centre. `inner_mrad` to `outer_mrad` is the annulus.
    `source_sigma_A` blurs the image by the finite electron source. `dose_e_per_A2` is per tilt; `background_e` electrons
    per pixel come on top, and a count is `gain` times the electrons detected, rounded. `window_A` is the width of one
    simulated wave. `cross_sections_A2` of elements into the annulus stand in the linear model where they were measured.
    """

    energy_eV: float = 200e3
    semiangle_mrad: float = 17.5
    defocus_A: float = 0.0
    image_shape: tuple[int, int] = (64, 64)
    pixel_A: float = 0.35
    inner_mrad: float = 38.0
    outer_mrad: float = 190.0
    source_sigma_A: float = 0.35
    slice_A: float = 2.0
    phonons: int = 1
    phonon_sigma_A: float = 0.07
    dose_e_per_A2: float = 1e5
    background_e: float = 0.0
    gain: float = 1.0
    window_A: float = 12.0
    model: Literal["multislice", "linear"] = "multislice"
    cross_sections_A2: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("energy_eV", "semiangle_mrad", "pixel_A", "slice_A", "dose_e_per_A2", "gain", "window_A"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) > 0):
                raise ValueError(f"{name} is {getattr(self, name)}; expected a positive number")
        for name in ("source_sigma_A", "phonon_sigma_A", "background_e"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) >= 0):
                raise ValueError(f"{name} is {getattr(self, name)}; expected 0 or more")
        if not 0 < self.inner_mrad < self.outer_mrad:
            raise ValueError(
                f"the annulus is {self.inner_mrad:g} to {self.outer_mrad:g} mrad; expected 0 < inner < outer"
            )
        if self.phonons < 1 or min(self.image_shape) < 1:
            raise ValueError(
                f"phonons is {self.phonons} and image_shape {self.image_shape}; expected 1 or more of each"
            )
        for symbol, area_A2 in self.cross_sections_A2.items():
            if not (math.isfinite(area_A2) and area_A2 > 0):
                raise ValueError(f"cross_sections_A2 of {symbol} is {area_A2}; expected a positive number")
        if self.model not in ("multislice", "linear"):
            raise ValueError(f"model is {self.model!r}; expected 'multislice' or 'linear'")

    @property
    def wavelength_A(self) -> float:
        return wavelength_A(self.energy_eV)

    @property
    def scan_shape(self) -> tuple[int, int]:
        """Probe positions along y and x: as many as the band limit of the image needs, at most one per pixel."""
        nyquist_A = self.wavelength_A / (4e-3 * self.semiangle_mrad)
        ny, nx = (min(n, even_fast(n * self.pixel_A / (0.95 * nyquist_A))) for n in self.image_shape)
        return ny, nx

    def grid(self, radius_A: float) -> Grid:
        """Sampling for a particle whose atoms stay within `radius_A` of coordinate 0."""
        window = even_fast(3e-3 * self.outer_mrad * self.window_A / self.wavelength_A + 2)
        pitch = self.window_A / window
        reach = max(self.image_shape) / 2 * self.pixel_A + self.window_A / 2
        extent = even_fast(2 * (max(reach, radius_A + 3.0) / pitch + 1))
        slices = max(1, math.ceil((2 * radius_A + 1.0) / self.slice_A - 1e-6))
        return Grid(self.energy_eV, window, extent, pitch, slices, (2 * radius_A + 1.0) / slices)


def simulate_adf_image(
    positions_A: np.ndarray,
    symbols: Sequence[str],
    angles_deg: Sequence[float],
    imaging: Imaging,
    *,
    rng: np.random.Generator,
) -> np.ndarray:
    """Return a noise-free image (y, x) float64: the share of the beam that reaches the annulus at every pixel.

    `positions_A` (n, 3) as (x, y, z) in Å about the rotation centre, `symbols` n chemical symbols, `angles_deg` the
    Euler angles (φ, θ, ψ); `rng` draws the frozen phonons. Raises `ValueError` on wrong shapes.
    """
    positions_A = checked_atoms(positions_A, symbols)
    seen = tilted(positions_A, angles_deg)
    make = _multislice if imaging.model == "multislice" else _linear
    return np.maximum(_resampled(make(seen, symbols, imaging, rng), imaging), 0.0)


def simulate_adf_tilt(
    positions_A: np.ndarray,
    symbols: Sequence[str],
    angles_deg: Sequence[float],
    imaging: Imaging,
    *,
    rng: np.random.Generator,
) -> np.ndarray:
    """Return the counts (y, x) uint32 of one tilt: gain times Poisson electrons of dose × pixel² × image + background.

    Arguments as in `simulate_adf_image`.
    """
    share = simulate_adf_image(positions_A, symbols, angles_deg, imaging, rng=rng)
    electrons = rng.poisson(share * imaging.dose_e_per_A2 * imaging.pixel_A**2 + imaging.background_e)
    return np.rint(imaging.gain * electrons).astype(np.uint32)


def simulate_adf_series(
    positions_A: np.ndarray,
    symbols: Sequence[str],
    angles_deg: np.ndarray,
    imaging: Imaging,
    path: str | Path,
    *,
    seed: int,
    workers: int = 1,
    progress: Progress | None = None,
) -> Path:
    """Write the series to one .h5: `projections` counts (n, y, x), `angles_deg` (n, 3), attribute `pixel_A`.

    A file that already holds this very series is kept. `progress(done, total, nan)` is called after each tilt. Raises
    `ValueError` on wrong shapes, `InputError` when the file cannot be written.
    """
    path, positions_A = Path(path), checked_atoms(positions_A, symbols)
    angles = checked_angles(angles_deg)
    key = key_of("adf", positions_A.tolist(), list(symbols), angles, asdict(imaging), seed)
    if made_by(path) == key:
        return path
    jobs = [_Job(positions_A, tuple(symbols), row, imaging, seed) for row in angles]
    images = np.empty((len(jobs), *imaging.image_shape), dtype=np.uint32)
    for done, (i, image) in enumerate(in_processes(_image, jobs, workers), start=1):
        images[i] = image
        if progress is not None:
            progress(done, len(jobs), math.nan)
    data = {
        "projections": Data(images.astype(np.min_scalar_type(int(images.max()))), "counts"),
        "angles_deg": Data(np.asarray(angles), "deg"),
    }
    settings = asdict(imaging)
    areas_A2 = settings.pop("cross_sections_A2")
    write_h5(path, data, settings | {f"cross_section_{symbol}_A2": area for symbol, area in areas_A2.items()}, key)
    return path


@dataclass(frozen=True)
class _Job:
    positions_A: np.ndarray
    symbols: tuple[str, ...]
    angles_deg: tuple[float, float, float]
    imaging: Imaging
    seed: int


def _image(job: _Job) -> np.ndarray:
    rng = tilt_rng(job.seed, job.angles_deg)
    return simulate_adf_tilt(job.positions_A, job.symbols, job.angles_deg, job.imaging, rng=rng)


def _multislice(seen: np.ndarray, symbols: Sequence[str], imaging: Imaging, rng: np.random.Generator) -> np.ndarray:
    """Share of the beam in the annulus at every probe position (scan_y, scan_x)."""
    sigma = imaging.phonon_sigma_A
    grid = imaging.grid(float(np.linalg.norm(seen, axis=1).max()) + 3 * sigma)
    configurations = [
        transmission(seen + rng.normal(0.0, sigma, seen.shape), symbols, grid) for _ in range(imaging.phonons)
    ]
    spectrum = probe_spectrum(grid, imaging.semiangle_mrad, imaging.defocus_A)
    angle_mrad = 1e3 * imaging.wavelength_A * np.hypot(grid.frequencies_per_A[:, None], grid.frequencies_per_A)
    annulus = (angle_mrad >= imaging.inner_mrad) & (angle_mrad < imaging.outer_mrad)
    scan_A = _scan_positions_A(imaging)
    share = np.empty(len(scan_A))
    for rows, intensities in diffraction(configurations, spectrum, scan_A, grid):
        share[rows] = intensities[:, annulus].sum(axis=1, dtype=np.float64)
    return share.reshape(imaging.scan_shape)


def _linear(seen: np.ndarray, symbols: Sequence[str], imaging: Imaging, rng: np.random.Generator) -> np.ndarray:
    """Σ σ(Z) × probe intensity, thermally blurred, at every probe position (scan_y, scan_x); draws nothing."""
    area_A2 = {symbol: cross_section_A2(symbol, imaging) for symbol in set(symbols)}
    ky, kx, area = _scan_frequencies(imaging)
    waves_y = np.exp(-2j * np.pi * ky[:, None] * seen[:, 1])
    waves_x = np.exp(-2j * np.pi * seen[:, 0, None] * kx)
    spectrum = (waves_y * [area_A2[symbol] for symbol in symbols]) @ waves_x
    k2 = ky[:, None] ** 2 + kx**2
    spectrum *= _probe_transfer(ky, kx, imaging) * np.exp(-2 * np.pi**2 * imaging.phonon_sigma_A**2 * k2)
    return fft.fftshift(fft.ifft2(spectrum).real) * (ky.size * kx.size / area)


def electrons_per_atom(symbol: str, imaging: Imaging) -> float:
    """Electrons that an atom of the element sends to the annulus in one image, after the linear model."""
    return imaging.dose_e_per_A2 * cross_section_A2(symbol, imaging)


def cross_section_A2(symbol: str, imaging: Imaging) -> float:
    """Of an atom of the element into the annulus: as measured, or Z^1.7 of Rutherford's 4 π γ² (1/θ1² - 1/θ2²) / (a0² k⁴)."""
    from ase.data import atomic_numbers

    if symbol in imaging.cross_sections_A2:
        return imaging.cross_sections_A2[symbol]
    gamma = 1 + imaging.energy_eV * constants.e / (constants.m_e * constants.c**2)
    bohr_A, k = constants.physical_constants["Bohr radius"][0] * 1e10, 2 * np.pi / imaging.wavelength_A
    angles = (imaging.inner_mrad * 1e-3) ** -2 - (imaging.outer_mrad * 1e-3) ** -2
    return float(4 * np.pi * gamma**2 * angles / (bohr_A**2 * k**4) * atomic_numbers[symbol] ** EXPONENT)


def _probe_transfer(ky: np.ndarray, kx: np.ndarray, imaging: Imaging) -> np.ndarray:
    """Transfer function of the defocused probe intensity, 1 at zero frequency, at frequencies (ky, kx)."""
    disk = np.linspace(-1, 1, 129) * imaging.semiangle_mrad * 1e-3 / imaging.wavelength_A
    inside = disk[:, None] ** 2 + disk**2 <= disk[-1] ** 2
    chi = np.pi * imaging.wavelength_A * imaging.defocus_A * (disk[:, None] ** 2 + disk**2)
    pupil = np.zeros((256, 256), dtype=np.complex128)
    pupil[:129, :129] = inside * np.exp(1j * chi)
    overlap = fft.fftshift(fft.fft2(np.abs(fft.ifft2(pupil)) ** 2)).real
    step = disk[1] - disk[0]
    axis = (np.arange(256) - 128) * step
    table = RegularGridInterpolator((axis, axis), overlap / overlap.max(), bounds_error=False, fill_value=0.0)
    return table(np.stack(np.meshgrid(ky, kx, indexing="ij"), axis=-1))


def _scan_step_A(imaging: Imaging) -> tuple[float, float]:
    (ny, nx), (sy, sx) = imaging.image_shape, imaging.scan_shape
    return ny * imaging.pixel_A / sy, nx * imaging.pixel_A / sx


def _scan_positions_A(imaging: Imaging) -> np.ndarray:
    """Probe positions (n, 2) as (y, x): the field of the image, index n // 2 at coordinate 0."""
    return scan_grid_A(imaging.scan_shape, 1.0) * _scan_step_A(imaging)


def _scan_frequencies(imaging: Imaging) -> tuple[np.ndarray, np.ndarray, float]:
    """Frequencies along y and x of the scanned field, in 1/Å, and its area in Å²."""
    (sy, sx), (dy, dx) = imaging.scan_shape, _scan_step_A(imaging)
    return fft.fftfreq(sy, dy), fft.fftfreq(sx, dx), sy * dy * sx * dx


def _resampled(scan: np.ndarray, imaging: Imaging) -> np.ndarray:
    """Image (y, x) of a scan with the same field, blurred by the source; coordinate 0 stays at n // 2."""
    ky, kx, _ = _scan_frequencies(imaging)
    spectrum = fft.fft2(fft.ifftshift(scan))
    spectrum *= np.exp(-2 * np.pi**2 * imaging.source_sigma_A**2 * (ky[:, None] ** 2 + kx**2))
    ny, nx = imaging.image_shape
    padded = np.zeros((ny, nx), dtype=np.complex128)
    rows, columns = (np.arange(n) - n // 2 for n in scan.shape)
    padded[np.ix_(rows, columns)] = spectrum[np.ix_(rows, columns)]
    return fft.fftshift(fft.ifft2(padded).real) * (ny * nx / scan.size)
