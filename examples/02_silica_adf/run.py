"""Simulate an ADF tilt series of silica and run the whole road on it; results go to `silica-adf`."""

from pathlib import Path

import pyaet

if __name__ == "__main__":
    plan = pyaet.load_plan(Path(__file__).with_name("plan.toml"))
    summary = pyaet.run_plan(plan, Path("silica-adf"))
    print(summary["stages"]["rings"]["ring_sizes"])
    print(summary["score"]["strict"])
