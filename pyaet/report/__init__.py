"""The report of a run: one HTML file that opens offline, drawn from whatever the run directory holds."""

from __future__ import annotations

from pathlib import Path


def write_report(directory: Path) -> Path:
    """Write `report.html` into a run directory, replacing an older one at once, and return its path.

    A run that stopped half-way gives a shorter report that names the missing stages. Raises `InputError` when the
    directory is absent.
    """
    from pyaet.report.page import write_page

    return write_page(Path(directory))
