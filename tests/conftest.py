"""Fixtures every room shares: the array backend, published data where it is at hand, a seeded generator."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    # A shell starts what runs in the background deaf to interruptions, and so would be all that tests start and interrupt.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _cupy_with_gpu() -> ModuleType:
    cupy = pytest.importorskip("cupy", reason="cupy is not installed")
    try:
        cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError as error:
        pytest.skip(f"no CUDA device: {error}")
    return cupy


@pytest.fixture(params=["numpy", pytest.param("cupy", marks=pytest.mark.gpu)])
def xp(request: pytest.FixtureRequest) -> ModuleType:
    """Array module of the backend under test."""
    return np if request.param == "numpy" else _cupy_with_gpu()


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder with the published data sets; the test is skipped where they are absent."""
    folder = Path(os.environ.get("PYAET_SHARED_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"published data not found in {folder}")
    return folder


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20260)
