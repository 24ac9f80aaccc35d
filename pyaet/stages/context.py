"""What every stage is given besides its files and its settings."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from pyaet.console import Console
from pyaet.device import Device


@dataclass(frozen=True)
class Context:
    """Device, worker count, seed, console, and the key that the artifacts of this stage carry."""

    device: Device
    workers: int
    seed: int
    console: Console
    key: str = ""

    def keyed(self, key: str) -> Context:
        return replace(self, key=key)

    def rng(self) -> np.random.Generator:
        return np.random.default_rng(self.seed)
