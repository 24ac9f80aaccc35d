"""Who may import whom: the front imports the three libraries, they import neither it nor each other."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LIBRARIES = ("ptycho", "tomo", "analysis")
FORBIDDEN_IN_LIBRARIES = {"matplotlib", "h5py", "plotly", "typer", "rich", "pydantic", "argparse", "tifffile"}


def imported(tree: ast.Module, depth: int) -> Iterator[tuple[str, int]]:
    """Top-level name and line of every import, also inside functions; `depth` is that of the file's folder."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name.split(".")[0], node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.level > depth:
                yield "outside", node.lineno
            elif node.level == 0 and node.module:
                yield node.module.split(".")[0], node.lineno
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", "")) == "import_module":
            names = [argument.value for argument in node.args[:1] if isinstance(argument, ast.Constant)]
            yield from ((str(name).split(".")[0], node.lineno) for name in names)


def imports_of(path: Path) -> Iterator[tuple[str, int]]:
    return imported(ast.parse(path.read_text()), len(path.relative_to(ROOT).parts) - 1)


def calls(path: Path) -> Iterator[tuple[str, int]]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            yield node.func.id, node.lineno


@pytest.mark.parametrize("library", LIBRARIES)
def test_library_imports_no_other_room_and_no_file_or_plot_library(library: str) -> None:
    files = sorted((ROOT / library).rglob("*.py"))
    assert files
    banned = (set(LIBRARIES) - {library}) | {"pyaet", "outside"} | FORBIDDEN_IN_LIBRARIES
    faults = [
        f"{f.relative_to(ROOT)}:{line} imports {name}" for f in files for name, line in imports_of(f) if name in banned
    ]
    assert not faults, faults


@pytest.mark.parametrize("library", LIBRARIES)
def test_library_neither_prints_nor_opens_files(library: str) -> None:
    faults = [
        f"{f.relative_to(ROOT)}:{line} calls {name}"
        for f in sorted((ROOT / library).rglob("*.py"))
        for name, line in calls(f)
        if name in ("print", "open", "input")
    ]
    assert not faults, faults


@pytest.mark.parametrize("package", (*LIBRARIES, "pyaet"))
def test_cupy_is_imported_only_inside_functions(package: str) -> None:
    faults = [
        f"{f.relative_to(ROOT)}:{node.lineno}"
        for f in sorted((ROOT / package).rglob("*.py"))
        for node in ast.parse(f.read_text()).body
        if isinstance(node, ast.Import | ast.ImportFrom)
        and any(n.startswith("cupy") for n in [getattr(node, "module", "") or "", *(a.name for a in node.names)])
    ]
    assert not faults, faults


def test_the_rule_sees_a_breach() -> None:
    """Imports are found at the top, inside functions, through importlib, and when they climb out of the room."""
    source = """
import tomo.resire
from ...outside import thing
def f():
    from pyaet import plan
    import_module('ptycho.engine')
"""
    assert {name for name, _ in imported(ast.parse(source), depth=1)} == {"tomo", "outside", "pyaet", "ptycho"}
