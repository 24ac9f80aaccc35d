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
    """Estimate of the peak in bytes on top of the caller's own counts, of which a CPU makes no copy.

    detector: pixels (ky, kx) of a pattern; object_shape: (y, x) pixels of a slice; bytes_per_count: size of the dtype of the
    counts; gpu: whether the work is done there, in larger pieces.
    """
    window = window_side(detector, settings.detector)
    number = 16 if settings.dtype == "float64" else 8
    wave = window**2 * number * settings.probe_modes
    chunk = max(GPU_CHUNK_BYTES if gpu else CPU_CHUNK_BYTES, wave)
    waves = chunk * settings.object_states * (settings.slices + 6)
    if settings.solver in ("lsqml", "pie"):
        batch = min(settings.patterns_per_batch or n_patterns, n_patterns)
        waves += 2 * batch * wave * settings.object_states * (settings.slices + 1)
    counts = n_patterns * window**2 * bytes_per_count if gpu else 0
    if settings.device_bytes is not None:
        counts = min(counts, settings.device_bytes)
    canvas = object_shape[0] * object_shape[1] * number * settings.object_states
    copies = 28 if settings.solver == "lbfgs" else 12
    if any(r.kind == "tv" for r in settings.regularisers):
        copies += 8
    arrays = canvas * (copies * settings.slices + settings.slices**2)
    varied = settings.probe_variations * (n_patterns + 4 * window**2) * number
    return int(counts + waves + arrays + varied + CACHE_BYTES)
