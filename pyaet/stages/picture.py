"""A picture of a reconstruction under way, drawn so seldom that it costs next to nothing.

Several processes may share one picture: whoever finds it old enough draws it anew.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

import ptycho
from pyaet.artifacts import replacing

INTERVAL_S = 10.0
LARGEST_SHARE = 0.05
"""Of the time, what drawing may take."""


class LivePicture:
    """Says when the picture is due and draws it: a PNG, replaced whole."""

    def __init__(self, path: Path, mean_pattern: np.ndarray, name: str, interval_s: float = INTERVAL_S) -> None:
        self._path, self._mean_pattern, self._name = path, mean_pattern, name
        self._interval_s = interval_s
        self._since = time.time()

    @property
    def due(self) -> bool:
        """Whether this reconstruction has worked for the interval and nobody else has drawn the picture meanwhile."""
        try:
            drawn = self._path.stat().st_mtime
        except OSError:
            drawn = 0.0
        return time.time() - max(drawn, self._since) >= self._interval_s

    def draw(self, result: ptycho.Result) -> None:
        from pyaet.plots.live import draw_live

        started = time.perf_counter()
        figure = draw_live(result, self._mean_pattern, self._name)
        with replacing(self._path) as temporary:
            figure.savefig(temporary, format="png", dpi=110, facecolor="white")
        self._since = time.time()
        self._interval_s = max(self._interval_s, (time.perf_counter() - started) / LARGEST_SHARE)
