"""Are `ptycho`, `tomo` and `analysis` our own? Their names are common, and a folder of the user's can hide them."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

ROOMS = ("ptycho", "tomo", "analysis")


def foreign_room() -> str | None:
    """A sentence about the first library of ours that another folder hides, or None."""
    home = Path(__file__).resolve().parents[1]
    for name in ROOMS:
        spec = find_spec(name)
        found = [] if spec is None else spec.submodule_search_locations or [spec.origin or ""]
        places = [Path(place).resolve() for place in found]
        if places == [home / name]:
            continue
        if not places:
            return f"the package '{name}' of pyaet is not installed in {home}; install pyaet again"
        return (
            f"{places[0]} hides the package '{name}' of pyaet; "
            f"rename that folder or file, or start pyaet from another folder"
        )
    return None
