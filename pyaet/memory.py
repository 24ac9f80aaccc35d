"""What one tilt and what a volume take in memory, on the CPU and on a GPU, and what is done when that does not fit."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import ptycho
from ptycho.problem import CPU_CHUNK_BYTES, GPU_CHUNK_BYTES
from pyaet.device import Device, available_memory_bytes
from pyaet.io.counts_on_disk import CACHE_BYTES
from pyaet.plan import Tomography
from tomo.resire import COPIES

RESIDENT_SHARE = 0.5
"""Of the free memory, what the counts of the tilts worked on at once may fill."""
GPU_SHARE = 0.85
"""Of the GPU's free memory, what a reconstruction may fill."""
VOLUME_SHARE = 0.85
"""Of the free memory, what the reconstruction of a volume may fill."""
_MARGIN_PX = 10
_STACKS = 6
"""Stacks of projections alive in the loop of a reconstruction."""
_HELD_VOLUMES = 3
"""Volumes in main memory that wait for their slabs: now, one step before, and put together."""
_LIKELIHOOD_STACKS, _LIKELIHOOD_NUMBERS = 12, 24
"""Stacks of images, and numbers for each atom in each tilt, alive in a fit of counts."""
_HALVES = 8
"""Volumes beside those of the loop while halves of the series are compared, their spectra and shells among them."""


@dataclass(frozen=True)
class TiltSize:
    """What memory follows from: patterns, detector (ky, kx), scanned field (y, x) in Å, pixel of the detector in mrad."""

    patterns: int
    detector: tuple[int, int]
    field_A: tuple[float, float]
    energy_eV: float
    pixel_mrad: float
    bytes_per_count: int = 2

    @property
    def counts_bytes(self) -> int:
        return self.patterns * math.prod(self.detector) * self.bytes_per_count

    def window(self, settings: ptycho.Settings) -> int:
        return ptycho.window_side(self.detector, settings.detector)

    def pixel_A(self, settings: ptycho.Settings) -> float:
        return ptycho.wavelength_A(self.energy_eV) / (self.window(settings) * self.pixel_mrad * 1e-3)

    def image_px(self, settings: ptycho.Settings) -> tuple[int, int]:
        """Pixels (y, x) of the scanned field."""
        ny, nx = (math.ceil(f / self.pixel_A(settings)) for f in self.field_A)
        return ny, nx

    def engine_bytes(self, settings: ptycho.Settings, *, gpu: bool) -> int:
        """Peak of the reconstruction beside the counts in main memory."""
        ny, nx = (n + self.window(settings) + _MARGIN_PX for n in self.image_px(settings))
        return ptycho.memory_bytes(
            self.patterns, self.detector, (ny, nx), settings, bytes_per_count=self.bytes_per_count, gpu=gpu
        )

    def held_bytes(self, resident_bytes: int | None) -> int:
        """What the counts take in main memory when those beyond `resident_bytes` stay on disk."""
        streamed = resident_bytes is not None and self.counts_bytes > resident_bytes
        return min(self.counts_bytes, 2 * CACHE_BYTES) if streamed else self.counts_bytes

    def chunk(self, settings: ptycho.Settings, *, gpu: bool) -> int:
        """Patterns whose waves are worked on together."""
        number = 16 if settings.dtype == "float64" else 8
        waves = self.window(settings) ** 2 * settings.probe_modes * number
        return min(max(1, (GPU_CHUNK_BYTES if gpu else CPU_CHUNK_BYTES) // waves), self.patterns)

    def batch(self, settings: ptycho.Settings) -> int:
        """Patterns to an update."""
        return min(settings.patterns_per_batch or self.patterns, self.patterns)


def resident_bytes(at_once: int) -> int | None:
    """Counts of one tilt that may be held in memory while `at_once` tilts are worked on; None where nobody can tell."""
    free = available_memory_bytes("cpu")
    return int(RESIDENT_SHARE * free / at_once) if free else None


def device_bytes(size: TiltSize, settings: ptycho.Settings, device: Device) -> int | None:
    """How much of the counts a GPU may hold beside everything else; None where all of them fit, or on the CPU."""
    if device == "cpu":
        return None
    free = int(GPU_SHARE * available_memory_bytes(device))
    if size.engine_bytes(replace(settings, device_bytes=None), gpu=True) <= free:
        return None
    return max(free - size.engine_bytes(replace(settings, device_bytes=0), gpu=True), 0)


def volume_bytes(shape: tuple[int, int, int], settings: Tomography, device: Device) -> int | None:
    """What the volumes of a reconstruction of projections (n, y, x) may take, slab by slab; None where they fit as a whole."""
    if settings.memory_GB is not None:
        return int(settings.memory_GB * 1e9)
    free = int(VOLUME_SHARE * available_memory_bytes(device))
    if not free or tomography_bytes(shape, settings, None, device) <= free:
        return None
    plane, planes = 4 * COPIES * shape[1] * shape[2], settings.depth or shape[2]
    left = free - tomography_bytes(shape, settings, 0, device)
    return max(min(left, (planes - 1) * plane), plane)


def tomography_bytes(shape: tuple[int, int, int], settings: Tomography, limit: int | None, device: Device) -> int:
    """Peak of a reconstruction of projections (n, y, x) that works on volumes within `limit`, None without a limit."""
    n, ny, nx = shape
    depth = settings.depth or nx
    volume, stack, tables = 4 * depth * ny * nx, 4 * n * ny * nx, 20 * n * depth * nx
    waiting = _HALVES * volume if settings.quality else 0
    if limit is None or limit >= COPIES * volume:
        return _STACKS * stack + tables + waiting + COPIES * volume
    return _STACKS * stack + tables + limit + (0 if device == "cuda" else _HELD_VOLUMES * volume + waiting)


def likelihood_bytes(shape: tuple[int, int, int], atoms: int, elements: int) -> int:
    """Peak of a fit of so many atoms to counts (n, y, x), in double precision, its two halves included."""
    stack = 8 * math.prod(shape)
    return (_LIKELIHOOD_STACKS + 2 * elements) * stack + _LIKELIHOOD_NUMBERS * 8 * shape[0] * atoms
