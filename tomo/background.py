"""Where the particle is in an image, and what the image would show without it.

The mask is the particle grown by a margin; the background is known outside and carried inside either as a constant or
as the solution of ∇²u = 0 with the smoothed surroundings as boundary values. Images and masks are (y, x), stacks
(n, y, x); a mask is True on the particle. All lengths are in pixels.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from scipy import ndimage, sparse
from scipy.sparse.linalg import spsolve

Smoothing = Literal["gaussian", "edge_preserving"]
_LEAST_OUTSIDE = 0.02
_UNEVEN_SHARE = 0.03
_TV_WEIGHT = 2.0
"""Total variation against squared error, in units of the noise: flat parts come out flat at an electron per pixel."""


def particle_mask(
    image: np.ndarray,
    *,
    smoothing: Smoothing = "gaussian",
    smooth_px: float | None = None,
    grow_px: float | None = None,
) -> np.ndarray:
    """Return a mask (y, x) that is True on the particle and a margin around it.

    A slope of the background is fitted to the surroundings and taken off before the particle is looked for again.
    smoothing : before Otsu's threshold; "gaussian" with σ smooth_px, None for 1/40 of the image, rounds corners and
    notches of the outline off, "edge_preserving" (least total variation, Chambolle, doi:10.1023/B:JMIV.0000011325.36760.1e)
    keeps them. Pieces smaller than 1 % of the image are dropped and holes filled. grow_px : the margin, None for three times
    smooth_px; it shrinks where less than a tenth of the image would remain outside. Raises ValueError if nothing remains
    outside or inside.
    """
    smooth_px = min(image.shape) / 40 if smooth_px is None else smooth_px
    grow_px = 3 * smooth_px if grow_px is None else grow_px
    smooth = _smoothed(np.asarray(image, dtype=np.float64), smoothing, smooth_px)
    mask = _grown(_core(smooth), grow_px)
    for _ in range(2):
        if mask.all():
            break
        mask = _grown(_core(smooth - _plane(smooth, ~mask)), grow_px)
    return mask


def _smoothed(values: np.ndarray, smoothing: Smoothing, smooth_px: float) -> np.ndarray:
    if smoothing == "gaussian":
        return ndimage.gaussian_filter(values, smooth_px, mode="nearest")
    if smoothing != "edge_preserving":
        raise ValueError(f"smoothing is '{smoothing}'; expected 'gaussian' or 'edge_preserving'")
    from skimage.restoration import denoise_tv_chambolle, estimate_sigma

    noise = float(estimate_sigma(values))
    return noise * denoise_tv_chambolle(values / noise, weight=_TV_WEIGHT) if noise > 0 else values


def _core(smooth: np.ndarray) -> np.ndarray:
    from skimage.filters import threshold_otsu

    if smooth.max() == smooth.min():
        raise ValueError("the image is constant, so that no particle can be found in it; give a mask")
    core = _large_pieces(smooth > threshold_otsu(smooth), 0.01 * smooth.size)
    if not core.any():
        raise ValueError("no piece above the threshold is as large as 1 % of the image; give a mask")
    return core


def _grown(core: np.ndarray, grow_px: float) -> np.ndarray:
    distance = ndimage.distance_transform_edt(~core)
    return distance <= min(grow_px, float(np.quantile(distance, 0.9)))


def _plane(values: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Return the least-squares plane of the known pixels, over the whole image."""
    y, x = np.indices(values.shape)
    terms = np.stack([np.ones(values.shape), y, x], axis=-1)
    return terms @ np.linalg.lstsq(terms[known], values[known], rcond=None)[0]


def check_masks(masks: np.ndarray) -> None:
    """Raise ValueError unless each mask (n, y, x) leaves surroundings to see the background in."""
    outside = 1 - masks.mean(axis=(1, 2))
    worst = int(np.argmin(outside))
    if outside[worst] < _LEAST_OUTSIDE:
        raise ValueError(
            f"the particle mask of image {worst} leaves {outside[worst]:.1%} of the image as surroundings; expected "
            f"{_LEAST_OUTSIDE:.0%} or more: give a tighter mask, or the background as a number"
        )


def constant_background(image: np.ndarray, mask: np.ndarray) -> tuple[float, float]:
    """Return level and standard error of the surroundings: the mean of their half farthest from the particle.

    Far, because the tails of a focused probe carry signal well beyond the particle. Outliers are left out.
    """
    distance = ndimage.distance_transform_edt(~mask)
    outside = distance > 0
    values = np.asarray(image, dtype=np.float64)[outside & (distance >= np.median(distance[outside]))]
    for _ in range(3):
        values = values[np.abs(values - values.mean()) <= 6 * values.std()]
    return float(values.mean()), float(values.std() / np.sqrt(values.size))


def constant_backgrounds(images: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Return the level (n,) of each image of a stack (n, y, x), drawn to the common mean as far as noise explains it.

    The error of one image's level, summed over its pixels, can exceed the noise of the image. Levels that scatter no
    more than their standard errors are replaced by their mean; levels that truly differ stay (empirical Bayes, Efron &
    Morris, doi:10.1080/01621459.1975.10479864).
    """
    pairs = zip(images, masks, strict=True)
    level, error = np.array([constant_background(image, mask) for image, mask in pairs]).T
    noise2 = float(np.mean(error**2))
    spread2 = float(np.var(level, ddof=1)) if len(level) > 1 else np.inf
    own = 1 - noise2 / spread2 if spread2 > noise2 else 0.0
    return level.mean() + own * (level - level.mean())


def laplace_background(image: np.ndarray, mask: np.ndarray, *, smooth_px: float | None = None) -> np.ndarray:
    """Return a background (y, x): the smoothed surroundings outside the mask, ∇²u = 0 inside.

    smooth_px : Gaussian σ of the smoothing, None for 1/16 of the image, 0 for none. Nothing of the particle enters.
    """
    smooth_px = min(image.shape) / 16 if smooth_px is None else smooth_px
    values = np.asarray(image, dtype=np.float64)
    return fill_harmonic(_local_plane(values, ~mask, smooth_px) if smooth_px else values, mask)


def _local_plane(values: np.ndarray, known: np.ndarray, smooth_px: float) -> np.ndarray:
    """Return at each pixel the plane fitted to the known pixels around it, with Gaussian weights of σ smooth_px.

    A plain weighted mean would be off by slope times σ beside the mask and at the edge of the image.
    """
    y, x = np.indices(values.shape) / smooth_px

    def mean(field: np.ndarray) -> np.ndarray:
        return ndimage.gaussian_filter(field * known, smooth_px, mode="constant")

    weight = np.maximum(mean(np.ones(values.shape)), 1e-12)
    my, mx, mz = (mean(field) / weight for field in (y, x, values))
    yy, xx, xy = (mean(a * b) / weight - ma * mb for a, b, ma, mb in ((y, y, my, my), (x, x, mx, mx), (x, y, mx, my)))
    zy, zx = mean(values * y) / weight - mz * my, mean(values * x) / weight - mz * mx
    yy, xx = yy + 0.02, xx + 0.02  # little is known of a slope across a thin strip: keep it near zero
    determinant = yy * xx - xy**2
    slope_y, slope_x = (zy * xx - zx * xy) / determinant, (zx * yy - zy * xy) / determinant
    return mz + slope_y * (y - my) + slope_x * (x - mx)


def fill_harmonic(values: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return values (y, x) with the masked pixels replaced by the solution of ∇²u = 0 (five-point stencil).

    Pixels beside the mask are the boundary values; the edge of the image lets nothing through (∂u/∂n = 0). Raises
    ValueError for a mask that covers the whole image.
    """
    if mask.all():
        raise ValueError("the mask covers the whole image; expected unmasked pixels as boundary values")
    result = np.array(values, dtype=np.float64)
    if not mask.any():
        return result
    number = np.full(mask.shape, -1)
    number[mask] = np.arange(np.count_nonzero(mask))
    degree = np.zeros(mask.shape)
    right_side = np.zeros(mask.shape)
    rows, columns = [], []
    for axis, step in ((0, 1), (0, -1), (1, 1), (1, -1)):
        here, there = _neighbours(axis, step)
        degree[here] += 1
        right_side[here] += np.where(mask[there], 0.0, result[there])
        both = mask[here] & mask[there]
        rows.append(number[here][both])
        columns.append(number[there][both])
    n = np.count_nonzero(mask)
    links = (np.concatenate(rows), np.concatenate(columns))
    matrix = sparse.diags_array(degree[mask]) - sparse.coo_array((np.ones(len(links[0])), links), shape=(n, n))
    result[mask] = spsolve(matrix.tocsc(), right_side[mask], permc_spec="MMD_AT_PLUS_A")
    return result


def is_uneven(images: np.ndarray, masks: np.ndarray) -> bool:
    """Return whether the surroundings in a stack (n, y, x) vary by more than noise and 3 % of the particle's contrast.

    Means over a 4 × 4 grid of blocks; their variance, less what pixel noise explains, is pooled over the stack.
    """
    excess, error2, contrast = 0.0, 0.0, 0.0
    for image, mask in zip(images, masks, strict=True):
        levels, noise2 = _block_levels(np.asarray(image, dtype=np.float64), ~mask)
        contrast += float(image[mask].mean() - image[~mask].mean()) / len(images) if mask.any() else 0.0
        if len(levels) > 2:
            excess += (float(np.var(levels, ddof=1)) - float(noise2.mean())) / len(images)
            error2 += 2 * float(noise2.mean()) ** 2 / (len(levels) - 1) / len(images) ** 2
    return bool(excess > 4 * np.sqrt(error2) and excess > (_UNEVEN_SHARE * contrast) ** 2)


def _block_levels(image: np.ndarray, outside: np.ndarray, blocks: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and squared standard error of each block with enough surroundings in it."""
    ny, nx = image.shape
    rows, columns = np.arange(ny) * blocks // ny, np.arange(nx) * blocks // nx
    label = rows[:, None] * blocks + columns
    count = np.bincount(label[outside], minlength=blocks**2)
    enough = np.flatnonzero(count >= max(16, 0.1 * image.size / blocks**2))
    samples = [image[outside & (label == block)] for block in enough]
    means = np.array([values.mean() for values in samples])
    return means, np.array([values.var(ddof=1) / values.size for values in samples])


def _large_pieces(core: np.ndarray, least_px: float) -> np.ndarray:
    labels, _ = ndimage.label(core)
    large = np.bincount(labels.ravel()) >= least_px
    large[0] = False
    return ndimage.binary_fill_holes(large[labels])


def _neighbours(axis: int, step: int) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    here = [slice(None), slice(None)]
    there = [slice(None), slice(None)]
    here[axis], there[axis] = (slice(1, None), slice(None, -1)) if step < 0 else (slice(None, -1), slice(1, None))
    return tuple(here), tuple(there)
