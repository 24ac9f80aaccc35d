"""How far the modelled intensity is from the counts, and the derivative that is sent back.

With I = Σ_mode |Ψ|² and an offset c added to model and data alike (a known constant background),

    amplitude   L = Σ (sqrt(I + c) − sqrt(n + c))²                    ∂L/∂Ψ* = (1 − sqrt((n + c) / (I + c))) Ψ
    poisson     L = Σ (I − n) − (n + c) ln((I + c) / (n + c))         ∂L/∂Ψ* = (1 − (n + c) / (I + c)) Ψ

Both are zero where the model equals the data. At a fraction of an electron per pixel sqrt(n) is far from the square root
of the mean, so that the amplitude form pulls the model to too small intensities: its derivative has a mean other than 0 at
the truth. The Poisson derivative has mean 0 there for every c; c keeps pixels without any expected electrons from blowing up
(Odstrčil et al., doi:10.1364/OE.26.003108; Thibault and Guizar-Sicairos, doi:10.1088/1367-2630/14/6/063004).

Standard shapes: waves (pattern, mode, ky, kx), counts (pattern, ky, kx), mask (ky, kx) or None; zero frequency at [0, 0].
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ptycho.grid import Array


@dataclass(frozen=True)
class Likelihood:
    """`evaluate` (waves, counts, mask, offset) -> loss of each pattern, the waves become ∂L/∂Ψ* in place.

    `curvature` is the mean of ∂²L/∂I² at the truth in units of 1 / (I + c): 1 for a log-likelihood of Poisson counts.
    """

    evaluate: Callable[[Array, Array, Array | None, float], Array]
    curvature: float


def intensity(waves: Array) -> Array:
    """Σ_mode |Ψ|²: real (pattern, ky, kx)."""
    real, imag = waves.real, waves.imag
    power = real * real
    power += imag * imag
    return power[:, 0] if power.shape[1] == 1 else power.sum(1)


def amplitude(waves: Array, counts: Array, mask: Array | None, offset: float) -> Array:
    """Least squares of amplitudes; `waves` becomes the derivative, the loss of each pattern is returned."""
    xp = waves.__array_namespace__()
    model = intensity(waves)
    model += model.dtype.type(offset + np.finfo(model.dtype).tiny)
    xp.sqrt(model, out=model)
    difference = counts.astype(model.dtype)
    difference += model.dtype.type(offset)
    xp.sqrt(difference, out=difference)
    xp.subtract(model, difference, out=difference)
    if mask is not None:
        difference *= mask
    flat = difference.reshape(len(difference), -1)
    loss = xp.einsum("ij,ij->i", flat, flat)
    difference /= model
    waves *= difference[:, None]
    return loss


def poisson(waves: Array, counts: Array, mask: Array | None, offset: float) -> Array:
    """Negative log-likelihood of Poisson counts; `waves` becomes the derivative, the loss of each pattern is returned."""
    xp = waves.__array_namespace__()
    model = intensity(waves)
    tiny = np.finfo(model.dtype).tiny
    model += model.dtype.type(offset + tiny)
    data = counts.astype(model.dtype)
    data += model.dtype.type(offset + tiny)
    if mask is not None:
        data = xp.where(mask, data, model)
    ratio = data / model
    terms = model - data
    data *= xp.log(ratio)
    terms += data
    xp.subtract(1, ratio, out=ratio)
    waves *= ratio[:, None]
    return terms.reshape(len(terms), -1).sum(1)


LIKELIHOODS = {"amplitude": Likelihood(amplitude, 0.5), "poisson": Likelihood(poisson, 1.0)}
