"""Slow drift of the dose along the acquisition, told apart from electrons that the specimen scatters off the detector.

The electrons of each pattern are modelled as Poisson counts of mean exp(Σ_j a_j L_j(t) + b s), with L_j the Legendre
polynomials of the acquisition order t in [−1, 1] and s the share of electrons in the dark field: where the specimen scatters
strongly, more electrons miss the detector; the vacuum around it has s = 0. The order of the polynomial is the one of the
lowest Bayesian information criterion, the fit is iteratively reweighted least squares with stray patterns weighted down
(McCullagh and Nelder, doi:10.1201/9780203753736).

Standard shapes: totals, scattered, kept, scales (n,) in acquisition order.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.polynomial import legendre
from scipy import ndimage

_HIGHEST_ORDER = 8
_LEAST_RANGE, _LEAST_SIGMAS = 0.02, 4.0
_STRAY = 3.0
_SMOOTHING = 1.5


@dataclass(frozen=True, eq=False)
class Dose:
    """Relative dose of each pattern, scales (n,) of mean 1, and how far it ranges, highest less lowest, with its sigma."""

    scales: np.ndarray
    range: float
    range_sigma: float

    @property
    def significant(self) -> bool:
        """Whether the drift is beyond 2 % and beyond 4 standard deviations."""
        return self.range > max(_LEAST_RANGE, _LEAST_SIGMAS * self.range_sigma)


def measure_dose(
    totals: np.ndarray, scattered: np.ndarray, kept: np.ndarray, scan_shape: tuple[int, int] | None = None
) -> Dose:
    """Drift of totals (n,), electrons per pattern, with scattered (n,) the share of them in the dark field.

    kept (n,): True = good. scan_shape (ny, nx): the share is smoothed over neighbours in the scan when it is given.
    """
    time = np.linspace(-1, 1, len(totals))
    share = _smoothed(np.where(kept, scattered, np.median(scattered[kept])), scan_shape)
    share = share - share[kept].mean()
    highest = min(_HIGHEST_ORDER, max(1, int(kept.sum()) // 20))
    basis = np.column_stack([share, legendre.legvander(time, highest)])
    dispersion = _fit(basis[kept], totals[kept], None)[2]
    fits = [_fit(basis[kept, : order + 2], totals[kept], dispersion) for order in range(highest + 1)]
    criteria = [misfit + order * np.log(kept.sum()) for order, (*_, misfit) in enumerate(fits)]
    order = int(np.argmin(criteria))
    coefficients, covariance = fits[order][0][1:], fits[order][1][1:, 1:]
    drift = legendre.legvander(time, order)
    scales = np.exp(drift @ coefficients)
    ends = drift[int(scales.argmax())] - drift[int(scales.argmin())]
    sigma = float(np.sqrt(max(ends @ covariance @ ends, 0)))
    scales /= scales[kept].mean()
    return Dose(scales, float(np.ptp(scales)), sigma)


def _smoothed(share: np.ndarray, scan_shape: tuple[int, int] | None) -> np.ndarray:
    shape = (len(share),) if scan_shape is None else scan_shape
    return ndimage.gaussian_filter(share.reshape(shape), _SMOOTHING, mode="nearest").ravel()


def _fit(
    basis: np.ndarray, totals: np.ndarray, dispersion: float | None
) -> tuple[np.ndarray, np.ndarray, float, float]:
    """Coefficients of ln(mean), their covariance, the dispersion (measured when None is given) and the misfit in units of
    it."""
    coefficients = np.zeros(basis.shape[1])
    coefficients[1] = np.log(max(float(totals.mean()), 1e-30))
    for _ in range(6):
        mean = np.exp(np.clip(basis @ coefficients, -60, 60))
        residual = (totals - mean) / np.sqrt(mean)
        scale = dispersion or max(1.4826 * float(np.median(np.abs(residual))), 1e-12)
        weight = 1 / np.maximum(np.abs(residual) / (_STRAY * scale), 1.0)
        normal = np.linalg.pinv(basis.T @ (basis * (weight * mean)[:, None]), hermitian=True)
        coefficients = coefficients + normal @ (basis.T @ (weight * (totals - mean)))
    return coefficients, normal * scale**2, scale, float((weight * residual**2).sum() / scale**2)
