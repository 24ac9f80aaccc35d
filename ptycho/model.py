"""What a finished reconstruction says the patterns are: every part of the model, on the CPU.

Standard shapes: see `ptycho.result`; intensities (pattern, ky, kx) with zero frequency at [0, 0].
"""

from __future__ import annotations

import numpy as np

from ptycho.forward import Multislice
from ptycho.likelihood import intensity
from ptycho.propagate import FreeSpace
from ptycho.result import Result
from ptycho.scan import Illumination, Scan, Variations

_CHUNK = 16


def modelled_intensity(result: Result, ids: np.ndarray, wavelength_A: float) -> np.ndarray:
    """Expected electrons (pattern, ky, kx) of the patterns `ids`: all probe modes, object states, slices, tilts, variations,
    doses and backgrounds of the result."""
    window = result.probe.shape[-2], result.probe.shape[-1]
    scan = Scan(result.positions_A / result.pixel_A, result.object.shape[-2:], window)
    varied = None
    if result.variations is not None and result.coefficients is not None:
        varied = Variations(result.variations, result.coefficients)
    illumination = Illumination(scan, result.probe, variations=varied)
    model = Multislice(FreeSpace(result.gaps_A, result.tilts_mrad, window, result.pixel_A, wavelength_A))
    scales, backgrounds = (None if a is None else a.astype(np.float32) for a in (result.scales, result.backgrounds))
    out = np.empty((len(ids), *window), np.float32)
    for start in range(0, len(ids), _CHUNK):
        part = ids[start : start + _CHUNK]
        incoming, index, corners = illumination.take(part)
        waves = [model.forward(incoming, index, o, corners, part)[1] for o in result.object_states]
        detector = np.concatenate(waves, axis=1) / np.float32(np.sqrt(len(waves)))
        scale, background = (None if a is None else a[part] for a in (scales, backgrounds))
        out[start : start + _CHUNK] = intensity(detector, scale, background)
    return out
