"""How well atoms can be placed at all, before any of them was measured.

No unbiased method has smaller errors than the inverse of the Fisher information (Cramér and Rao; Kay, Fundamentals of Statistical
Signal Processing I, 1993). It needs no data, only how bright atoms will be, on which ground, at which tilts.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from analysis.atoms import Atoms
from analysis.likelihood.fit import LEAST_DEFOCUS_A, WIDEST_A
from analysis.likelihood.model import Model, State
from analysis.likelihood.psf import Optics, Spread
from analysis.likelihood.result import position_covariance
from analysis.uncertainty import available_threads

Array = NDArray[np.float64]


def bound(
    atoms: Atoms,
    rotations: ArrayLike,
    image_shape: tuple[int, int],
    pixel_A: float,
    *,
    electrons: ArrayLike,
    ground: float,
    optics: Optics | None,
    width_A: float,
    defocus_A: float = 0.0,
    threads: int | None = None,
) -> Array:
    """Least standard deviation (n, 3) in Å along x, y, z of the atoms' positions in images (y, x) at rotations (tilts, 3, 3).

    electrons: of each element in one image, lightest first. ground: electrons per pixel beside the particle. width_A: blur
    beyond the probe. Raises ValueError where the numbers do not fit.
    """
    turned, bright = np.asarray(rotations, np.float64), np.asarray(electrons, np.float64)
    elements: Sequence[str] = atoms.elements
    if bright.shape != (len(elements),) or not (bright > 0).all() or not (ground >= 0 and width_A > 0):
        raise ValueError(
            f"electrons are {bright.tolist()} for {', '.join(elements)}, ground {ground} and width_A {width_A}; expected a positive "
            "number for each element, a ground of zero or more and a positive width."
        )
    n = len(turned)
    state = State(
        atoms.positions_A, np.array([elements.index(s) for s in atoms.symbols]), bright, np.full(len(elements), width_A),
        np.ones(n), np.zeros((n, 2)), np.full(n, max(defocus_A, LEAST_DEFOCUS_A)), np.full(n, float(ground)),
    )  # fmt: skip
    spread = Spread.of(optics, pixel_A, max(width_A, WIDEST_A))
    model = Model(
        np.zeros((n, *image_shape)), turned, pixel_A, spread, 1.0, available_threads() if threads is None else threads
    )
    model, tables = model.glowing(state), model.tables(state)
    covariance, _ = position_covariance(model, state, model.expected(state, tables), tables)
    return np.sqrt(np.einsum("aii->ai", covariance))
