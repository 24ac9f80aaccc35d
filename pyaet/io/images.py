"""Image stacks from .mat, .h5, .npy, .tif and .mrc files, brought to (n, y, x).

`axes` says what the axes of the file are, slowest first as the file's own tools show its shape: a MATLAB array
(x, y, tilt) is "xyn". A list of files or a folder holds one 2D image per file; there the letter n is ignored.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pyaet.io.errors import InputError
from pyaet.io.hdf5 import open_hdf5
from pyaet.io.mat import open_mat
from pyaet.io.mrc import open_mrc
from pyaet.io.source import FileArray, Fits, readable_path, reading
from pyaet.io.tiff import open_tiff

logger = logging.getLogger(__name__)

StackPath = str | Path | Sequence[str | Path]

_HDF5 = (".h5", ".hdf5", ".hdf", ".emd")
_TIFF = (".tif", ".tiff")
_MRC = (".mrc", ".mrcs", ".st", ".ali", ".rec")
SUFFIXES = (".mat", *_HDF5, ".npy", *_TIFF, *_MRC)


@dataclass(frozen=True)
class StackInfo:
    """What a stack is, known from headers alone: shape (n, y, x), dtype in the file, files in order."""

    shape: tuple[int, int, int]
    file_shape: tuple[int, ...]
    dtype: np.dtype
    files: tuple[Path, ...]
    variable: str | None
    pixel_A: float | None


def read_stack(
    path: StackPath,
    *,
    variable: str | None = None,
    axes: str = "nyx",
    pixel_A: float | None = None,
    counts: bool = False,
) -> np.ndarray:
    """Return the images of a file, a folder or a list of files as a stack (n, y, x), C-contiguous.

    path : .mat (all versions), .h5, .npy, .tif, .mrc; a folder (natural order of the names) or a list of 2D files.
    variable : name in a .mat or .h5 file; may be left out where only one array fits.
    axes : the file's axes, a permutation of 'n', 'y', 'x'.
    pixel_A : pixel size in Å; checked, and compared with the header where a file has one.
    counts : the values are electron counts, negative ones are an error.

    Integers to 16 bits and float32 come as float32, everything wider as float64: nothing is rounded, and subtracting
    a background cannot wrap around. Raises InputError.
    """
    check_pixel(pixel_A)
    sources = _open_stack(path, variable, axes)
    _warn_other_pixel(sources[0], pixel_A)
    stack = np.empty(_stack_shape(sources, axes), _working_dtype(sources[0]))
    if sources[0].shape[2:]:
        stack[:] = _reordered(sources[0].read(), axes, "nyx")
    else:
        for image, source in zip(stack, sources, strict=True):
            image[:] = _reordered(source.read(), axes.replace("n", ""), "yx")
    _check_values(stack, sources, counts)
    return stack


def inspect_stack(
    path: StackPath, *, variable: str | None = None, axes: str = "nyx", pixel_A: float | None = None
) -> StackInfo:
    """Return shape, dtype, files and header pixel size of a stack without loading its values; raise InputError."""
    check_pixel(pixel_A)
    sources = _open_stack(path, variable, axes)
    first = sources[0]
    files = tuple(source.path for source in sources)
    return StackInfo(_stack_shape(sources, axes), first.shape, first.dtype, files, first.variable, first.pixel_A)


def open_array(path: str | Path, variable: str | None, fits: Fits, what: str, *, hint: str = "") -> FileArray:
    """Describe one array of a file of any known format; `fits` and `hint` choose where the file names several."""
    path = readable_path(path)
    suffix = path.suffix.lower()
    if suffix == ".mat":
        return open_mat(path, variable, fits, what, hint=hint)
    if suffix in _HDF5:
        return open_hdf5(path, variable, fits, what, hint=hint)
    openers: dict[tuple[str, ...], Callable[[Path], FileArray]] = {
        (".npy",): _open_npy,
        _TIFF: open_tiff,
        _MRC: open_mrc,
    }
    for suffixes, opener in openers.items():
        if suffix in suffixes:
            return opener(path)
    raise InputError(f"{path}: unknown file type '{path.suffix}'; expected one of {' '.join(SUFFIXES)}")


def check_pixel(pixel_A: float | None) -> None:
    """Raise InputError for a pixel size that is not a positive finite number of Å."""
    if pixel_A is not None and not (np.isfinite(pixel_A) and pixel_A > 0):
        raise InputError(f"pixel_A is {pixel_A}; expected the size of a pixel in Å, a positive number")


def natural_key(path: Path) -> list[tuple[int, float, str]]:
    """Return a sort key by which tilt_9 comes before tilt_10 and tilt_-3 before tilt_+0.

    A sign counts where it opens the name or follows '_', ' ' or '='; in img-3 the dash separates.
    """
    parts = re.split(r"((?:(?<![^_ =])[+-])?\d+(?:\.\d+)?)", path.stem)
    return [(1, float(part), "") if i % 2 else (0, 0.0, part.lower()) for i, part in enumerate(parts)]


def _open_stack(path: StackPath, variable: str | None, axes: str) -> list[FileArray]:
    if sorted(axes) != ["n", "x", "y"]:
        raise InputError(f"axes is '{axes}'; expected the letters n, y, x once each in the order of the file")
    if isinstance(path, str | Path):
        path = readable_path(path)
        if not path.is_dir():
            return [_open_3d(path, variable)]
        path = _folder_images(path)
    if not path:
        raise InputError("the list of image files is empty; give at least one file")
    sources = [_open_2d(file, variable) for file in path]
    for source in sources:
        if source.shape != sources[0].shape:
            raise InputError(
                f"{source.path}: image of shape {source.shape}; {sources[0].path.name} has {sources[0].shape}; "
                "all images of a stack must have one size"
            )
    return sources


def _open_3d(path: Path, variable: str | None) -> FileArray:
    source = open_array(path, variable, lambda shape: len(shape) == 3, "an image stack (three axes)")
    if len(source.shape) != 3 or 0 in source.shape:
        name = f"'{source.variable}' has" if source.variable else "the array has"
        advice = "; give several 2D images as a list of files or a folder" if len(source.shape) == 2 else ""
        raise InputError(f"{path}: {name} shape {source.shape}; expected a stack with three axes{advice}")
    _check_real(source)
    return source


def _open_2d(path: str | Path, variable: str | None) -> FileArray:
    def fits(shape: tuple[int, ...]) -> bool:
        return len(shape) - shape.count(1) == 2 if len(shape) > 2 else len(shape) == 2 and min(shape) > 1

    source = open_array(path, variable, fits, "an image (two axes)")
    shape = tuple(n for n in source.shape if n != 1) if len(source.shape) > 2 else source.shape
    if len(shape) != 2 or 0 in shape:
        raise InputError(f"{path}: the array has shape {source.shape}; expected one 2D image in each file of a list")
    _check_real(source)
    return FileArray(
        source.path, source.variable, shape, source.dtype, lambda: source.read().reshape(shape), source.pixel_A
    )


def _folder_images(folder: Path) -> list[Path]:
    try:
        files = [file for file in folder.iterdir() if file.suffix.lower() in SUFFIXES and not file.name.startswith(".")]
    except PermissionError:
        raise InputError(f"{folder}: permission denied; make the folder readable (chmod u+rx)") from None
    if not files:
        raise InputError(f"{folder}: the folder holds no image file ({' '.join(SUFFIXES)})")
    kinds = sorted({file.suffix.lower() for file in files})
    if len(kinds) > 1:
        raise InputError(f"{folder}: files of several types ({', '.join(kinds)}); give the images as a list of files")
    return sorted(files, key=lambda file: (natural_key(file), file.name))


def _open_npy(path: Path) -> FileArray:
    with reading(path, "NumPy"):
        values = np.load(path, mmap_mode="r", allow_pickle=False)

    def read() -> np.ndarray:
        with reading(path, "NumPy"):
            return np.load(path, allow_pickle=False)

    return FileArray(path, None, values.shape, values.dtype, read)


def _check_real(source: FileArray) -> None:
    if source.dtype.kind not in "biuf":
        raise InputError(f"{source.path}: values of type {source.dtype}; expected real numbers")


def _stack_shape(sources: list[FileArray], axes: str) -> tuple[int, int, int]:
    first = sources[0].shape
    if len(first) == 2:
        axes, first = "n" + axes.replace("n", ""), (len(sources), *first)
    n, y, x = (first[axes.index(axis)] for axis in "nyx")
    return n, y, x


def _working_dtype(source: FileArray) -> type[np.floating]:
    narrow = source.dtype.itemsize <= (4 if source.dtype.kind == "f" else 2)
    return np.float32 if narrow else np.float64


def _reordered(values: np.ndarray, axes: str, order: str) -> np.ndarray:
    return values.transpose([axes.index(axis) for axis in order])


def _warn_other_pixel(source: FileArray, pixel_A: float | None) -> None:
    found = source.pixel_A
    if pixel_A and found and abs(found / pixel_A - 1) > 0.01:
        logger.warning("%s: its header gives a pixel of %.4g Å; %.4g Å, as given, is used", source.path, found, pixel_A)


def _check_values(stack: np.ndarray, sources: list[FileArray], counts: bool) -> None:
    problems = {"NaN or infinite": lambda image: ~np.isfinite(image)}
    if counts:
        problems["negative, which electron counts cannot be"] = lambda image: image < 0
    for problem, test in problems.items():
        bad = [int(np.count_nonzero(test(image))) for image in stack]
        if any(bad):
            n = int(np.flatnonzero(bad)[0])
            y, x = np.argwhere(test(stack[n]))[0]
            file = sources[n if len(sources) > 1 else 0].path
            raise InputError(
                f"{file}: {sum(bad)} of {stack.size} values are {problem}; the first is in image {n} at row {y}, "
                f"column {x} (from 0); repair or leave out {sum(map(bool, bad))} image(s)"
            )
