"""How much memory a reconstruction will need, before it runs."""

from __future__ import annotations

from ptycho.data import window_side
from ptycho.problem import CPU_CHUNK_BYTES, GPU_CHUNK_BYTES
from ptycho.scan import CACHE_BYTES
from ptycho.settings import Settings


def memory_bytes(
    n_patterns: int,
    detector: tuple[int, int],
    object_shape: tuple[int, int],
    settings: Settings,
    *,
    bytes_per_count: int = 2,
    gpu: bool = False,
) -> int:
    """Estimate of the peak in bytes on top of the caller's own counts.

    detector: pixels (ky, kx) of a pattern; object_shape: (y, x) pixels of a slice; bytes_per_count: size of the dtype of the
    counts; gpu: whether the work is done there, in larger pieces.
    """
    window = window_side(detector, settings.detector)
    number = 16 if settings.dtype == "float64" else 8
    counts = n_patterns * window**2 * bytes_per_count
    chunk = GPU_CHUNK_BYTES if gpu else CPU_CHUNK_BYTES
    waves = chunk * (settings.slices + 6)
    if settings.solver == "lsqml":
        batch = min(settings.patterns_per_batch or n_patterns, n_patterns)
        waves += 2 * batch * window**2 * number * (settings.slices + 1)
    canvas = object_shape[0] * object_shape[1] * number
    arrays = canvas * (12 * settings.slices + settings.slices**2)
    return int(counts + waves + arrays + CACHE_BYTES)
