"""The number of iterations: chosen by held-out tilts, which are spread and never at a rim."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from tomo import Projector, Reconstruction, chosen_iterations, resire, sirt
from tomo.stopping import spread_tilts

N = 24
ANGLES = np.column_stack([np.zeros(25), np.linspace(-72, 72, 25), np.zeros(25)])


def noisy(sigma: float) -> tuple[np.ndarray, np.ndarray]:
    """A volume of blobs and its projections with noise."""
    rng = np.random.default_rng(2)
    z, y, x = np.indices((N, N, N)) - N // 2
    truth = sum(np.exp(-((z - a) ** 2 + (y - b) ** 2 + (x - c) ** 2) / 4.5) for a, b, c in rng.uniform(-7, 7, (9, 3)))
    A = Projector(ANGLES, (N, N))
    return truth, A(truth.astype(np.float32)) + rng.normal(0, sigma, A.range_shape).astype(np.float32)


@pytest.mark.parametrize("method", [resire, sirt])
def test_noise_asks_for_an_early_end_near_the_best_volume(method: Callable[..., Reconstruction]) -> None:
    truth, images = noisy(1.0)
    found = chosen_iterations(images, ANGLES, method=method, tilts=5, patience=15, most=300)
    assert found.turned
    assert found.trial.mismatch_free is not None
    assert len(found.trial.r_factor) == found.iterations + 15 < 300
    errors = [np.linalg.norm(method(images, ANGLES, iterations=i).volume - truth)
              for i in (found.iterations, found.iterations // 4, 8 * found.iterations)]  # fmt: skip
    assert errors[0] < min(errors[1:])


def test_without_noise_there_is_no_end_to_it() -> None:
    found = chosen_iterations(noisy(0.0)[1], ANGLES, tilts=4, most=25)
    assert found.iterations == 25
    assert not found.turned


def test_squares_decide_where_absolute_values_mislead() -> None:
    # Sparse counts: their median is 0, and so is the volume that explains them best in absolute values.
    _, images = noisy(0.0)
    counts = np.random.default_rng(0).poisson(0.1 * images).astype(np.float32)
    found = chosen_iterations(counts, ANGLES, tilts=5, patience=10, most=200)
    assert found.trial.r_free is not None and found.trial.mismatch_free is not None
    assert found.iterations == found.trial.mismatch_free.argmin() + 1 > found.trial.r_free.argmin() + 1


@pytest.mark.parametrize("count", [1, 3, 5, 12])
def test_held_out_tilts_are_spread_and_never_at_a_rim(count: int) -> None:
    shuffled = np.random.default_rng(1).permutation(25)
    out = spread_tilts(ANGLES[shuffled], count)
    held = np.sort(ANGLES[shuffled][out, 1])
    assert len(held) == count
    assert held.min() > -72 and held.max() < 72
    steps = np.diff(np.concatenate([[-72.0], held, [72.0]]))
    assert steps.max() - steps.min() <= 6.0 + 1e-9


@pytest.mark.parametrize("count", [0, 13])
def test_a_count_that_leaves_no_volume_is_refused(count: int) -> None:
    with pytest.raises(ValueError, match=f"held-out tilts: {count} of 25; expected at least 1 and less than half"):
        spread_tilts(ANGLES, count)
