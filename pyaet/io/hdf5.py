"""Arrays in HDF5 files: the data sets of .h5 files and the variables of MATLAB v7.3 files.

MATLAB writes its arrays column by column, so HDF5 lists the axes of a v7.3 variable in reverse; they are turned back
here and the same array saved as v5 or v7.3 is read the same.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from pyaet.io.errors import InputError
from pyaet.io.source import FileArray, Fits, choose_variable, reading

SIGNATURE = b"\x89HDF\r\n\x1a\n"


def is_hdf5(path: Path) -> bool:
    """Return whether the file carries the HDF5 signature at byte 0 or behind MATLAB's 512-byte header."""
    with path.open("rb") as file:
        head = file.read(512 + len(SIGNATURE))
    return head.startswith(SIGNATURE) or head[512:] == SIGNATURE


def open_hdf5(
    path: Path, variable: str | None, fits: Fits, what: str, *, hint: str = "", matlab: bool = False
) -> FileArray:
    """Describe one data set of an HDF5 file; `matlab` reverses the axes as MATLAB v7.3 files need."""
    if not is_hdf5(path):
        raise InputError(
            f"{path}: is not an HDF5 file (signature missing); check that the file has the right extension"
        )
    kind = "MATLAB v7.3 (HDF5)" if matlab else "HDF5"
    with reading(path, kind):
        datasets = _datasets(path, matlab)
        shapes = {name: shape for name, (shape, _) in datasets.items()}
        name = choose_variable(path, shapes, variable, fits, what, hint)
        shape, dtype = datasets[name]

    def read() -> np.ndarray:
        import h5py

        with reading(path, kind), h5py.File(path, "r") as file:
            values = np.asarray(file[name][()])
            return values.T if matlab else values

    return FileArray(path, name, shape, dtype, read)


def _datasets(path: Path, matlab: bool) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
    import h5py

    found: dict[str, tuple[tuple[int, ...], np.dtype]] = {}

    def visit(name: str, item: Any) -> None:
        if not isinstance(item, h5py.Dataset) or name.startswith("#"):
            return
        text = matlab and item.attrs.get("MATLAB_class", b"") in (b"char", b"cell")
        if item.dtype.kind in "biuf" and not text and "MATLAB_empty" not in item.attrs:
            found[name] = (item.shape[::-1] if matlab else item.shape, item.dtype)

    with h5py.File(path, "r") as file:
        file.visititems(visit)
    return found
