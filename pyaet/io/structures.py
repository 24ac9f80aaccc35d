"""Atomic structures in and out: XYZ, MATLAB arrays, text tables, and whatever ASE reads.

Every reader ends in the same `analysis.Atoms`: positions in Å as (x, y, z), one element symbol per atom, "X" where the
file does not say. `axes` says what the file's three columns are: "y,x,-z" means that its first column is y, its second x
and its third −z. ASE is imported only for formats that nothing here reads: it takes seconds.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pyaet.io.errors import InputError
from pyaet.io.source import readable_path, reading
from pyaet.io.xyz import read_xyz, xyz_text

if TYPE_CHECKING:
    from analysis import Atoms

Types = Mapping[int, str]

UNKNOWN = "X"

_PER_ATOM = ("intensity", "sigma_A", "species_probability")
_TABLES = (".txt", ".dat", ".csv", ".tsv")


def read_structure(
    path: str | Path,
    *,
    variable: str | None = None,
    types_variable: str | None = None,
    types: Types | None = None,
    unit_A: float = 1.0,
    axes: str = "x,y,z",
) -> Atoms:
    """Read the atoms of one structure file.

    path: .xyz, .extxyz, .mat (any version), a text table (.txt, .dat, .csv) of x y z or type x y z, or a format of ASE.
    variable, types_variable: for .mat, the arrays of positions, (n, 3) or (3, n), and of n type codes; found by shape
    where there is only one. types: element symbol of each type code; without it codes give "X".
    unit_A: length of the file's unit in Å. axes: what the three columns of the file are, with sign, as in "y,x,-z".
    A periodic box is read too.
    InputError says what does not fit.
    """
    import analysis

    path = readable_path(path)
    turn = _axes(axes)
    if not 0 < unit_A < np.inf:
        raise InputError(f"unit_A is {unit_A}; expected the length of the file's unit in Å, a positive number")
    suffix = path.suffix.lower()
    if suffix != ".mat" and (variable or types_variable):
        raise InputError(f"{path}: only .mat files have named variables; leave variable and types_variable out")
    if suffix == ".mat":
        positions, species, extra = _read_mat(path, variable, types_variable, types)
    elif suffix in (".xyz", ".extxyz"):
        positions, species, extra = _read_xyz(path, types)
    elif suffix in _TABLES:
        positions, species, extra = _read_table(path)
    else:
        positions, species, extra = _read_ase(path)
    cell = extra.pop("cell", None)
    if "covariance_A2" in extra:
        extra["covariance_A2"] = turn.T @ extra["covariance_A2"] @ turn * unit_A**2
    symbols = _symbols(path, species, types, len(positions))
    try:
        if not np.isfinite(positions).all():
            analysis.Atoms(positions, symbols)  # says which atom
        box = None if cell is None else analysis.Cell(cell[:3] @ turn * unit_A, tuple(cell[3] > 0))
        return analysis.Atoms(positions @ turn * unit_A, symbols, cell=box, **extra)
    except ValueError as error:
        raise InputError(f"{path}: {error}") from error


def write_extxyz(path: str | Path, atoms: Atoms, columns: Mapping[str, np.ndarray] | None = None, **info: Any) -> None:
    """Write atoms as extended XYZ, whole or not at all, with intensity, sigma_A and species_probability per atom.

    covariance_A2 is written where sigma_A does not tell it. columns: further numbers per atom, (n,) or (n, width). info: further
    `key=value` pairs of the comment line. `read_structure` gives the same float64 numbers back.
    """
    from pyaet.artifacts import write_text

    own = {"pos": atoms.positions_A, **{name: getattr(atoms, name) for name in _PER_ATOM}}
    alike = atoms.sigma_A[:, None, None] ** 2 * np.eye(3)
    known = np.isfinite(atoms.covariance_A2).all(axis=(1, 2))
    if not np.allclose(atoms.covariance_A2[known], alike[known], rtol=1e-9, atol=0):
        own["covariance_A2"] = atoms.covariance_A2[:, [0, 0, 0, 1, 1, 2], [0, 1, 2, 1, 2, 2]]
    box = None if atoms.cell is None else (atoms.cell.vectors_A, atoms.cell.periodic)
    write_text(Path(path), xyz_text(atoms.symbols, {**own, **(columns or {})}, info, box))


def _axes(axes: str) -> np.ndarray:
    """Matrix (file column, x y z) of signs that brings columns called `axes` to x, y, z."""
    names = re.fullmatch(r"\s*([+-]?)([xyz])\s*,?\s*([+-]?)([xyz])\s*,?\s*([+-]?)([xyz])\s*", axes)
    if names is None or len(set(names.groups()[1::2])) != 3:
        raise InputError(f"axes is {axes!r}; expected what the three columns are, each of x, y, z once, as in 'y,x,-z'")
    turn = np.zeros((3, 3))
    for column, (sign, name) in enumerate(zip(names.groups()[::2], names.groups()[1::2], strict=True)):
        turn[column, "xyz".index(name)] = -1.0 if sign == "-" else 1.0
    return turn


def _symbols(path: Path, species: np.ndarray | None, types: Types | None, n: int) -> tuple[str, ...]:
    """Element symbols from text or from numeric codes, which `types` names; "X" where nothing names them."""
    if species is None:
        if types is not None:
            raise InputError(f"{path}: types names elements, but the file has no type codes")
        return (UNKNOWN,) * n
    if species.dtype.kind == "U":
        if types is not None:
            raise InputError(f"{path}: types names elements, but the file names them itself; leave types out")
        return tuple(species.tolist())
    codes = [int(code) if float(code).is_integer() else float(code) for code in species.tolist()]
    if types is None:
        return (UNKNOWN,) * n
    if missing := sorted(set(codes) - set(types)):
        named = ", ".join(f"{code}={symbol}" for code, symbol in types.items())
        raise InputError(f"{path}: no element is named for type {missing[0]:g}; types has {named or 'nothing'}")
    return tuple(types[int(code)] for code in codes)


def _named(words: np.ndarray) -> np.ndarray:
    """Species as text symbols, "si" as "Si"; a column of whole numbers becomes numbers."""
    if all(word.isdigit() for word in words.tolist()):
        return words.astype(np.float64)
    return np.char.capitalize(words)


def _read_xyz(path: Path, types: Types | None) -> tuple[np.ndarray, np.ndarray | None, dict[str, np.ndarray]]:
    table = read_xyz(path)
    positions = table.columns.get("pos")
    if positions is None or positions.shape[1:] != (3,) or positions.dtype.kind != "f":
        raise InputError(f"{path}: Properties names no column pos:R:3; there are {', '.join(table.columns)}")
    species = table.columns.get("species")
    extra = {name: table.columns[name] for name in _PER_ATOM if name in table.columns}
    extra |= _covariances(path, table.columns) | _box(path, table.info)
    if species is not None:
        species = _named(species)
        if species.dtype.kind == "f" and types is None:
            species = _from_atomic_numbers(path, species)
    return positions, species, extra


def _covariances(path: Path, columns: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Covariance of every position, from covariance_A2 (xx, xy, xz, yy, yz, zz) or else from sigma_xyz_A."""
    for name, width in (("covariance_A2", 6), ("sigma_xyz_A", 3)):
        if name in columns and columns[name].shape[1:] != (width,):
            found = columns[name].shape[1] if columns[name].ndim == 2 else 1
            raise InputError(f"{path}: column {name} has width {found}; expected {width} numbers per atom")
    if (six := columns.get("covariance_A2")) is not None:
        return {"covariance_A2": six[:, [0, 1, 2, 1, 3, 4, 2, 4, 5]].reshape(-1, 3, 3)}
    if (axes := columns.get("sigma_xyz_A")) is not None:
        return {"covariance_A2": axes[:, :, None] ** 2 * np.eye(3)}
    return {}


def _box(path: Path, info: Mapping[str, str]) -> dict[str, np.ndarray]:
    """Edges of the box and a row of flags, (4, 3), where the comment has a Lattice that repeats."""
    if "Lattice" not in info:
        return {}
    try:
        edges = np.array([float(word) for word in info["Lattice"].split()]).reshape(3, 3)
    except ValueError:
        raise InputError(f"{path}: Lattice={info['Lattice']!r} is not understood; expected nine numbers in Å") from None
    flags = [word.upper() in ("T", "TRUE", "1") for word in info.get("pbc", "T T T").split()]
    if len(flags) != 3:
        raise InputError(f"{path}: pbc={info['pbc']!r} is not understood; expected three of T and F")
    return {"cell": np.vstack([edges, flags])} if any(flags) else {}


def _from_atomic_numbers(path: Path, numbers: np.ndarray) -> np.ndarray:
    """Numbers in the species column of an XYZ file are atomic numbers unless types says otherwise."""
    from analysis.atoms import SYMBOLS

    if len(numbers) and numbers.max() >= len(SYMBOLS):
        raise InputError(f"{path}: {numbers.max():g} is no atomic number; name the elements of the codes with types")
    return np.array([SYMBOLS[int(number)] for number in numbers], dtype=np.str_)


def _read_table(path: Path) -> tuple[np.ndarray, np.ndarray | None, dict[str, np.ndarray]]:
    """Rows `x y z` or `type x y z`, the type a symbol or a number; % and # begin comments."""
    with reading(path, "a text table"):
        lines = [re.split("[%#]", line)[0].replace(",", " ").split() for line in path.read_text().splitlines()]
    rows = [row for row in lines if row]
    widths = {len(row) for row in rows}
    if widths not in ({3}, {4}):
        found = ", ".join(map(str, sorted(widths))) or "no"
        raise InputError(f"{path}: rows have {found} columns; expected x y z or type x y z in every row")
    try:
        positions = np.array([[float(word) for word in row[-3:]] for row in rows])
    except ValueError as error:
        raise InputError(f"{path}: a coordinate is not a number ({error})") from None
    species = _named(np.array([row[0] for row in rows])) if widths == {4} else None
    return positions, species, {}


def _read_mat(
    path: Path, variable: str | None, types_variable: str | None, types: Types | None
) -> tuple[np.ndarray, np.ndarray | None, dict[str, np.ndarray]]:
    from pyaet.io.mat import open_mat

    def is_cloud(shape: tuple[int, ...]) -> bool:
        return len(shape) == 2 and 3 in shape and max(shape) > 3

    found = open_mat(path, variable, is_cloud, "the atom positions, (n, 3) or (3, n)")
    positions = np.asarray(found.read(), dtype=np.float64)
    if positions.ndim != 2 or 3 not in positions.shape:
        raise InputError(
            f"{path}: '{found.variable}' has shape {positions.shape}; expected positions, (n, 3) or (3, n)"
        )
    if positions.shape[1] != 3:
        positions = positions.T
    if types is None and types_variable is None:
        return positions, None, {}
    n = len(positions)

    def is_codes(shape: tuple[int, ...]) -> bool:
        return sorted(shape) in ([n], [1, n])

    codes = open_mat(
        path, types_variable, is_codes, f"the type codes of the {n} atoms of '{found.variable}'", hint="type"
    )
    if not is_codes(codes.shape):
        raise InputError(
            f"{path}: '{codes.variable}' has shape {codes.shape}; expected one type code for each of {n} atoms"
        )
    values = np.asarray(codes.read(), dtype=np.float64).ravel()
    if types is None:
        listed = ", ".join(f"{code:g}" for code in np.unique(values)[:8])
        raise InputError(f"{path}: '{codes.variable}' holds the codes {listed}; say which elements they are with types")
    return positions, values, {}


def _read_ase(path: Path) -> tuple[np.ndarray, np.ndarray | None, dict[str, np.ndarray]]:
    with reading(path, "an atomic structure"):
        from ase.io import read

        atoms: Any = read(path, index=-1)
    extra = {name: np.asarray(atoms.arrays[name], dtype=float) for name in _PER_ATOM if name in atoms.arrays}
    if atoms.pbc.any():
        extra["cell"] = np.vstack([atoms.cell.array, atoms.pbc])
    return np.asarray(atoms.positions, dtype=np.float64), np.array(atoms.get_chemical_symbols()), extra
