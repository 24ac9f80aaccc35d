"""How the modelled counts change with everything that is neither object nor probe, to first order.

A position, a tilt, a distance between slices or an aberration turns the spectrum of a wave at a known rate, and the change is
carried through the remaining slices by the forward model. That gives ∂I/∂p for each pattern, hence with the slope ∂L/∂I and the
Fisher curvature E[∂²L/∂I²] of the likelihood the gradient and the information of all parameters together.

Standard shapes: ∂I/∂p (pattern, parameter, ky, kx), gradient (n, parameter), information (n, parameter, parameter).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ptycho.data import as_slice
from ptycho.forward import Entering, Multislice
from ptycho.grid import Array, fft2, ifft2, library_of, to_numpy
from ptycho.likelihood import intensity
from ptycho.patches import multiply
from ptycho.problem import Problem, State, Waves


@dataclass(frozen=True, eq=False)
class Normal:
    """Gradient (n, parameter) and information (n, parameter, parameter) of each pattern for the named parameters."""

    names: tuple[str, ...]
    gradient: np.ndarray
    information: np.ndarray


def parameter_names(what: Sequence[str], gaps: int) -> tuple[str, ...]:
    """Columns of the normal equations: those of single patterns first."""
    columns = {
        "positions": ("y", "x"),
        "scale": ("scale",),
        "background": ("background",),
        "tilt": ("tilt_y", "tilt_x"),
        "thickness": tuple(f"gap_{g}" for g in range(gaps)),
        "defocus": ("defocus",),
        "astigmatism": ("astigmatism_a", "astigmatism_b"),
    }
    wanted = ["positions", *what] if "affine" in what and "positions" not in what else list(what)
    return tuple(name for key, names in columns.items() if key in wanted for name in names)


def normal_equations(problem: Problem, state: State, ids: np.ndarray, names: Sequence[str]) -> Normal:
    """Gradient and Fisher information of the named parameters for the patterns `ids`."""
    gradients, informations = [], []
    for chunk in problem.chunks(ids, state.probe):
        gradient, information = _chunk_equations(problem, state, chunk, names)
        gradients.append(to_numpy(gradient).astype(np.float64))
        informations.append(to_numpy(information).astype(np.float64))
    return Normal(tuple(names), np.concatenate(gradients), np.concatenate(informations))


def _chunk_equations(problem: Problem, state: State, ids: np.ndarray, names: Sequence[str]) -> tuple[Array, Array]:
    waves = problem.forward(state, ids)
    xp = library_of(state.object)
    rows = as_slice(ids)
    bare = intensity(waves.detector)
    scale = None if state.scales is None else state.scales[rows][:, None, None]
    background = None if state.backgrounds is None else state.backgrounds[rows]
    model = intensity(waves.detector, None if scale is None else scale[:, 0, 0], background)
    changes = []
    for name in names:
        if name == "scale":
            changes.append(bare)
        elif name == "background":
            changes.append(xp.ones_like(bare))
        else:
            turned = _turned_detector(problem, state, ids, waves, name)
            change = 2 * (waves.detector.real * turned.real + waves.detector.imag * turned.imag).sum(1)
            changes.append(change if scale is None else scale * change)
    slope, curvature = problem.likelihood.slopes(model, problem.counts.take(ids), problem.counts.mask, problem.offset)
    table = xp.stack(changes, axis=1).reshape(len(ids), len(names), -1)
    gradient = (table @ slope.reshape(len(ids), -1, 1))[..., 0]
    return gradient, (table * curvature.reshape(len(ids), 1, -1)) @ table.swapaxes(1, 2)


def _turned_detector(problem: Problem, state: State, ids: np.ndarray, waves: Waves, name: str) -> Array:
    """∂Ψ/∂p on the detector: (pattern, state · mode, ky, kx)."""
    model = Multislice(state.space, problem.threads)
    xp = library_of(state.object)
    parts = []
    for entering, slices in zip(waves.entering, state.object, strict=True):
        if name.startswith(("tilt", "gap")):
            parts.append(_turned_space(model, state, ids, entering, slices, waves.corners, name))
        else:
            rate = probe_rate(state, name)
            (probe,) = state.illumination.turned(ids, [xp.asarray(rate)])
            parts.append(model.forward(probe, None, slices, waves.corners, ids)[1])
    detector = parts[0] if len(parts) == 1 else xp.concatenate(parts, axis=1)
    return detector * detector.real.dtype.type(1 / math.sqrt(len(parts)))


def probe_rate(state: State, name: str) -> np.ndarray:
    """Rate (ky, kx) at which a parameter turns the spectrum of the probe."""
    if name in ("y", "x"):
        return -2 * np.pi * state.illumination.scan.frequencies["yx".index(name)] + np.zeros(state.probe.shape[-2:])
    ky, kx = state.space.axes
    shape = {"defocus": ky**2 + kx**2, "astigmatism_a": kx**2 - ky**2, "astigmatism_b": 2 * kx * ky}[name]
    return (1 if name == "defocus" else -1) * np.pi * state.space.wavelength_A * shape


def _turned_space(
    model: Multislice,
    state: State,
    ids: np.ndarray,
    entering: Entering,
    slices: Array,
    corners: Array,
    name: str,
) -> Array:
    """Change of the detector wave when free space turns its spectra at another rate."""
    total: Any = None
    xp = library_of(slices)
    for gap in range(len(slices) - 1):
        if total is not None:
            total = model.propagate(multiply(total, None, slices[gap], corners), gap, ids)
        rates = dict(zip((f"gap_{gap}", "tilt_y", "tilt_x"), state.space.rates(gap), strict=True))
        if name in rates:
            behind = multiply(*entering[gap], slices[gap], corners)
            own = _turn(model, behind, gap, ids, xp.asarray((1j * rates[name]).astype(behind.dtype)))
            total = own if total is None else total + own
    return fft2(multiply(total, None, slices[-1], corners), model.threads)


def _turn(model: Multislice, wave: Array, gap: int, ids: np.ndarray, factor: Array) -> Array:
    spectrum = model.space.apply(fft2(wave, model.threads), gap, ids)
    spectrum *= factor
    return ifft2(spectrum, model.threads)
