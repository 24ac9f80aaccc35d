"""How far the modelled intensity is from the counts, and the derivative that is sent back.

With I = scale · Σ_mode |Ψ|² + background of each pattern, n the counts, and an offset c that is added to model and data alike,

    amplitude   L = Σ (√(I + c) − √(n + c))²                            ∂L/∂I = 1 − √((n + c) / (I + c))
    poisson     L = Σ (I − n) − (n + c) ln((I + c) / (n + c))           ∂L/∂I = 1 − (n + c) / (I + c)
    gaussian    L = Σ (I − n)² / 2σ²                                    ∂L/∂I = (I − n) / σ²
    anscombe    L = Σ ½ (f(I + c) − f(n + c))², f(v) = 2√(v + 3/8 + r²)   ∂L/∂I = 2 (1 − √((n + c + b) / (I + c + b))), b = 3/8 + r²

and ∂L/∂Ψ* = scale · ∂L/∂I · Ψ. All are zero where the model equals the data. "anscombe" is for counts with a read noise of r
electrons; it is twice the amplitude form with b more offset, so that three forms (root, log, square) serve all four.

At a fraction of an electron per pixel √n is far from the root of the mean, so that "amplitude" pulls the model to too small
intensities: its derivative has a mean other than 0 at the truth. The Poisson derivative has mean 0 there for every c; c keeps
pixels without any expected electrons from blowing up (Odstrčil et al., doi:10.1364/OE.26.003108; Thibault and Guizar-Sicairos,
doi:10.1088/1367-2630/14/6/063004; generalised Anscombe transform: Starck, Murtagh and Bijaoui, doi:10.1017/CBO9780511564352).

On the CPU each form is a few NumPy passes over a piece that stays in the cache: a loop fused by a compiler gained nothing over
NumPy's vectorised logarithm and took longer to load than it could save in a tilt. The CUDA text does all in one pass.

Standard shapes: waves (pattern, mode, ky, kx), counts (pattern, ky, kx) of any unsigned or floating dtype, mask (ky, kx) bool or
None, scale and background (pattern,); zero frequency at [0, 0]. What stands in masked pixels is never used.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ptycho.cuda import PRELUDE, c_type, in_place, launch, parts, readable
from ptycho.grid import Array, library_of

_FLOOR = 1e-20
"""Electrons added to model and data: keeps empty pixels finite in single precision."""

CUDA_SOURCE = (
    PRELUDE
    + r"""
template <typename T> struct Term { T loss, slope; };

template <int form, typename T> __device__ Term<T> compare(T model, T data, T weight) {
    if (form == 0) {
        T root = sqrt(model), difference = root - sqrt(data > 0 ? data : T(0));
        return {weight * difference * difference, weight * difference / root};
    }
    if (form == 1) {
        T ratio = data / model;
        return {model - data + data * log(ratio), 1 - ratio};
    }
    T difference = model - data;
    return {weight * difference * difference / 2, weight * difference};
}

// One pass over the waves: the second look at a pixel's modes finds them in the first-level cache.
template <typename T, typename Count, int form> __global__ void residual(
        int pixels, int parts, int modes, Complex<T>* waves, const Count* counts, const bool* mask,
        const T* scale, const T* background, T shift, T weight, T* loss) {
    __shared__ T sums[256];
    long long pattern = blockIdx.x / parts;
    T factor = scale ? scale[pattern] : T(1), level = shift + (background ? background[pattern] : T(0)), sum = 0;
    for (int k = blockIdx.x % parts * blockDim.x + threadIdx.x; k < pixels; k += parts * blockDim.x) {
        Complex<T>* wave = waves + pattern * modes * pixels + k;
        T slope = 0;
        if (!mask || mask[k]) {
            T power = 0;
            for (int m = 0; m < modes; ++m) {
                Complex<T> value = wave[(long long)m * pixels];
                power += value.re * value.re + value.im * value.im;
            }
            Term<T> term = compare<form>(factor * power + level, T(counts[pattern * pixels + k]) + shift, weight);
            sum += term.loss;
            slope = factor * term.slope;
        }
        for (int m = 0; m < modes; ++m) {
            wave[(long long)m * pixels].re *= slope;
            wave[(long long)m * pixels].im *= slope;
        }
    }
    sums[threadIdx.x] = sum;
    for (int half = blockDim.x / 2; half > 0; half /= 2) {
        __syncthreads();
        if (threadIdx.x < half) sums[threadIdx.x] += sums[threadIdx.x + half];
    }
    if (threadIdx.x == 0) loss[blockIdx.x] = sums[0];
}
"""
)


def _root(model: Array, data: Array, weight: float) -> tuple[Array, Array]:
    """weight · Σ (√I − √n)² and its slope weight · (1 − √(n / I)); both arguments are used up."""
    xp = library_of(model)
    xp.sqrt(model, out=model)
    xp.maximum(data, 0, out=data)
    xp.sqrt(data, out=data)
    xp.subtract(model, data, out=data)
    loss = weight * _dot(data, data)
    data /= model
    if weight != 1:
        data *= weight
    return loss, data


def _log(model: Array, data: Array, weight: float) -> tuple[Array, Array]:
    """Σ I − n − n ln(I / n) and its slope 1 − n / I; both arguments are used up."""
    xp = library_of(model)
    ratio = data / model
    model -= data
    loss = model.reshape(len(model), -1).sum(1)
    xp.log(ratio, out=model)
    loss += _dot(data, model)
    return loss, xp.subtract(1, ratio, out=ratio)


def _square(model: Array, data: Array, weight: float) -> tuple[Array, Array]:
    """weight · Σ (I − n)² / 2 and its slope weight · (I − n); both arguments are used up."""
    model -= data
    loss = 0.5 * weight * _dot(model, model)
    model *= weight
    return loss, model


def _dot(a: Array, b: Array) -> Array:
    """Σ a·b of each pattern."""
    return (a.reshape(len(a), 1, -1) @ b.reshape(len(b), -1, 1))[:, 0, 0]


_FORMS: dict[str, tuple[int, Callable[[Array, Array, float], tuple[Array, Array]]]] = {
    "amplitude": (0, _root),
    "anscombe": (0, _root),
    "poisson": (1, _log),
    "gaussian": (2, _square),
}


@dataclass(frozen=True)
class Likelihood:
    """One of the four comparisons of model and counts.

    name: "amplitude", "poisson", "gaussian" or "anscombe". variance: σ² of "gaussian" in electrons², one number for all
    pixels (the mean variance of the counts of the run). read_noise: r of "anscombe" in electrons.
    Raises ValueError for another name, a variance that is not positive or a negative read noise.
    """

    name: str
    variance: float = 1.0
    read_noise: float = 0.0

    def __post_init__(self) -> None:
        if self.name not in _FORMS:
            raise ValueError(f'likelihood is "{self.name}"; expected one of {", ".join(_FORMS)}.')
        if not (math.isfinite(self.variance) and self.variance > 0):
            raise ValueError(f"variance is {self.variance}; expected the positive mean variance of the counts.")
        if not (math.isfinite(self.read_noise) and self.read_noise >= 0):
            raise ValueError(
                f"read_noise is {self.read_noise}; expected electrons per pixel, 0 for a counting detector."
            )

    @property
    def curvature(self) -> float:
        """Mean of ∂²L/∂I² at the truth in units of 1 / (I + c) (of 1 / (I + c + b) for "anscombe").

        That of "gaussian" is 1 / σ² everywhere, which is 1 in these units in the mean when σ² is the variance of the counts.
        """
        return 0.5 if self.name == "amplitude" else 1.0

    @property
    def weighting(self) -> str:
        """Whether ∂²L/∂I² goes with "inverse intensity" or is "constant": then a preconditioner must use `information`."""
        return "constant" if self.name == "gaussian" else "inverse intensity"

    def curvature_bound(self, brightest: float, offset: float) -> float:
        """κ with E[∂²L/∂I²] ≤ κ / (I + c) in all pixels of up to `brightest` electrons: a step −∂L/∂Ψ* / 2κ is stable."""
        return (brightest + offset) / self.variance if self.name == "gaussian" else self.curvature

    def information(self, model: Array, offset: float) -> Array:
        """Expected curvature E[∂²L/∂I²] where the modelled intensity (any shape, without offset) is the truth.

        Exact for "poisson" and "gaussian", the limit of many counts for "amplitude" and "anscombe".
        """
        if self.name == "gaussian":
            return library_of(model).full_like(model, 1 / self.variance)
        return self.curvature / (model + self._shift(offset))

    def evaluate(
        self,
        waves: Array,
        counts: Array,
        mask: Array | None,
        offset: float,
        scale: Array | None = None,
        background: Array | None = None,
    ) -> Array:
        """Loss (pattern,) of waves (pattern, mode, ky, kx), which become ∂L/∂Ψ* in place; offset in electrons per pixel."""
        if not isinstance(waves, np.ndarray):
            return _evaluate_cuda(self, waves, counts, mask, offset, scale, background)
        loss, slope = self._compare(intensity(waves, scale, background), counts, mask, offset)
        if scale is not None:
            slope *= _column(scale, slope)
        waves *= slope[:, None]
        return loss

    def slopes(self, model: Array, counts: Array, mask: Array | None, offset: float) -> tuple[Array, Array]:
        """∂L/∂I and E[∂²L/∂I²] of each pixel (pattern, ky, kx), 0 where masked, for Gauss–Newton steps.

        model: `intensity` with scale and background, without the offset.
        """
        slope = self._compare(model.copy(), counts, mask, offset)[1]
        curvature = self.information(model, offset)
        if mask is not None:
            curvature *= mask
        return slope, curvature

    @property
    def _weight(self) -> float:
        return {"anscombe": 2.0, "gaussian": 1 / self.variance}.get(self.name, 1.0)

    def _shift(self, offset: float) -> float:
        """Electrons added to model and data; of no effect in a difference."""
        anscombe = 0.375 + self.read_noise**2
        return {"anscombe": offset + anscombe, "gaussian": 0.0}.get(self.name, offset + _FLOOR)

    def _compare(self, model: Array, counts: Array, mask: Array | None, offset: float) -> tuple[Array, Array]:
        """Loss (pattern,) and slope (pattern, ky, kx); `model` is used up."""
        xp = library_of(model)
        data = counts.astype(model.dtype, order="C")
        if mask is not None:
            hidden = xp.flatnonzero(~mask)  # not a product with 0: masked counts may be NaN
            data.reshape(len(data), -1)[:, hidden] = model.reshape(len(data), -1)[:, hidden]
        if shift := self._shift(offset):
            model += model.dtype.type(shift)
            data += data.dtype.type(shift)
        return _FORMS[self.name][1](model, data, self._weight)


LIKELIHOODS = {name: Likelihood(name) for name in _FORMS}


def intensity(waves: Array, scale: Array | None = None, background: Array | None = None) -> Array:
    """scale · Σ_mode |Ψ|² + background: real (pattern, ky, kx)."""
    xp = library_of(waves)
    squares = xp.ascontiguousarray(waves).view(waves.real.dtype)
    squares = squares * squares
    squares = squares[:, 0] if squares.shape[1] == 1 else squares.sum(1)
    model = squares[..., 0::2] + squares[..., 1::2]
    if scale is not None:
        model *= _column(scale, model)
    if background is not None:
        model += _column(background, model)
    return model


def _column(values: Array, like: Array) -> Array:
    """One number per pattern, to be broadcast over its pixels."""
    return values.astype(like.dtype)[:, None, None]


def _evaluate_cuda(
    likelihood: Likelihood,
    waves: Array,
    counts: Array,
    mask: Array | None,
    offset: float,
    scale: Array | None = None,
    background: Array | None = None,
) -> Array:
    patterns, modes, ky, kx = waves.shape
    real = waves.real.dtype
    shift, weight = real.type(likelihood._shift(offset)), real.type(likelihood._weight)
    loss = library_of(waves).empty((patterns, parts(ky * kx)), real)
    launch(
        CUDA_SOURCE,
        f"residual<{c_type(real)}, {c_type(counts.dtype)}, {_FORMS[likelihood.name][0]}>",
        patterns,
        ky * kx,
        *(modes, in_place("waves", waves, waves.dtype), readable(counts), readable(mask, np.bool_)),
        *(readable(scale, real), readable(background, real), shift, weight, loss),
    )
    return loss.sum(1)
