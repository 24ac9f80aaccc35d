"""A foreign folder that hides a library of pyaet is reported by its name."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pyaet
from pyaet.rooms import foreign_room

ROOT = Path(pyaet.__file__).parents[1]


def foreign(folder: Path) -> Path:
    place = folder / "analysis"
    place.mkdir()
    (place / "__init__.py").write_text("mine = True\n")
    return place


def test_our_own_rooms_are_recognised() -> None:
    assert foreign_room() is None


def test_the_command_names_the_folder_that_hides_analysis(tmp_path: Path) -> None:
    place = foreign(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.append({str(ROOT)!r}); from pyaet.cli import main; main(['--version'])"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert f"{place} hides the package 'analysis' of pyaet" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_script_beside_a_foreign_folder_is_told_too(tmp_path: Path) -> None:
    place = foreign(tmp_path)
    script = tmp_path / "script.py"
    script.write_text(f"import sys; sys.path.append({str(ROOT)!r}); import pyaet; pyaet.load_plan('plan.toml')")
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert f"ImportError: {place} hides the package 'analysis'" in done.stderr
