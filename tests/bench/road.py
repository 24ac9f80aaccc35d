"""Whole runs on known specimens: what is found, how exactly, in how many seconds and how much memory.

    python tests/bench/road.py [demo] [si208] [silica286] [--out DIR]

Each run is a fresh `pyaet` process; the published model of the same data stands beside it where there is one. The table
is printed and written to tests/bench/results/road.md.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
PUBLISHED = {"si208": "found 208, false 0, 17.3 pm (published model)"}


def measured(name: str, folder: Path) -> dict[str, Any]:
    """Run one specimen from scratch; numbers of its summary with wall seconds and peak memory of the largest process."""
    plan = HERE / "plans" / f"{name}.toml"
    return timed(["demo"] if name == "demo" else ["run", str(plan)], folder)


def timed(arguments: list[str], folder: Path) -> dict[str, Any]:
    """Run `pyaet` with these arguments into a folder, from scratch; the numbers of `measured`."""
    command = [sys.executable, "-m", "pyaet", *arguments]
    started = time.perf_counter()
    process = subprocess.Popen([*command, "--out", str(folder), "--fresh"], stdout=subprocess.DEVNULL)
    peak_kB = 0
    while process.poll() is None:
        peak_kB = max(peak_kB, tree_memory_kB(process.pid))
        time.sleep(0.2)
    if process.returncode:
        raise SystemExit(f"{folder}: pyaet ended with exit code {process.returncode}")
    summary = json.loads((folder / "summary.json").read_text())
    return {"seconds": time.perf_counter() - started, "peak_GB": peak_kB / 1e6, "summary": summary}


def tree_memory_kB(pid: int) -> int:
    """Resident memory of a process and all its children, now (Linux)."""
    total, todo = 0, [pid]
    while todo:
        this = todo.pop()
        try:
            status = Path(f"/proc/{this}/status").read_text()
            total += next((int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS")), 0)
            for task in Path(f"/proc/{this}/task").iterdir():
                todo += [int(child) for child in (task / "children").read_text().split()]
        except OSError:
            continue
    return total


def row(name: str, run: dict[str, Any]) -> str:
    score = run["summary"]["score"]
    strict = score["strict"]
    total = sum(element["truth"] for element in score["elements"].values())
    false = round(strict["found"] / strict["precision"]) - strict["found"]
    per_element = ", ".join(f"{symbol} {e['rmsd_pm']:.1f}" for symbol, e in score["elements"].items() if e["rmsd_pm"])
    right = "–" if strict["right_element"] is None else f"{strict['right_element']:.3f}"
    return (
        f"| {name} | {strict['found']} of {total} | {false} | {strict['rmsd_pm']:.1f} ({per_element}) | {right} "
        f"| {run['seconds']:.0f} | {run['peak_GB']:.2f} | {PUBLISHED.get(name, '')} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=["demo", "si208", "silica286"])
    parser.add_argument("--out", type=Path, default=Path("bench-runs"))
    options = parser.parse_args()
    lines = [
        f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
        "",
        "| run | found | false | RMSD pm | right element (of all) | wall s | memory GB | reference |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name in options.names:
        lines.append(row(name, measured(name, options.out / name)))
        print("\n".join(lines) if len(lines) == 5 else lines[-1], flush=True)
    results = HERE / "results" / "road.md"
    results.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
