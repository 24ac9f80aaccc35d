"""Bytes that must pass through memory for one position in one iteration: the floor that a measured speed is held against.

With W = modes · n² · 8 bytes (complex64) for one reading or writing of a pattern's waves,

    step                                         reads   writes   times
    gather × probe                                 0       W      1
    gather × entering wave                         W       W      S − 1
    FFT (two passes over the data)                2W      2W      1 on the way to the detector, 2 (S − 1) in free space
    propagator                                     W       W      S − 1
    residual (intensity, loss, derivative)         W       W      1, and the counts are read
    inverse FFT                                   2W      2W      1 from the detector, 2 (S − 1) in free space (adjoint)
    propagator, conjugate                          W       W      S − 1
    scatter of the first slice                     W       0      1
    scatter of another slice, wave carried on     2W       W      S − 1
    wave at the probe written, and summed          W       W      1 with the probe's gradient

that is 12 W for one slice, 25 W for each further one, 2 W for the probe, and the counts. Object, probe, their gradients and the
propagator stay in the cache, and what is done once per iteration is left out: both are small beside this.
"""

from __future__ import annotations

_COMPLEX64_BYTES = 8


def bytes_per_position(n: int, slices: int, modes: int, bytes_per_count: int, to_probe: bool) -> int:
    """Bytes read and written for one pattern of n × n pixels in one iteration, in single precision.

    bytes_per_count: size of the dtype of the counts. to_probe: the gradient of the probe is formed as well.
    """
    fft, product = 4, 2
    free_space = fft + product + fft
    passes = 1 + fft + product + fft + 1  # gather, to the detector, residual, from the detector, scatter
    passes += (slices - 1) * (free_space + product)  # forward: free space, gather
    passes += (slices - 1) * (3 + free_space)  # adjoint: scatter and carry, free space
    passes += 2 if to_probe else 0
    return passes * modes * n * n * _COMPLEX64_BYTES + n * n * bytes_per_count
