"""The report of a full and of half-finished runs: what it shows, what it says is missing, that it loads nothing from outside."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from scipy.spatial import cKDTree

from pyaet.io.errors import InputError
from pyaet.plots.overview import draw_overview
from pyaet.plots.results import missing_stages, read_projections, read_ptychography, read_volume, run_kind
from pyaet.report import write_report
from pyaet.report.html import duration, number, quantity

VOID = {"meta", "link", "br", "hr", "img", "input", "col", "source"}


def silica_sphere(radius_A: float, rng: np.random.Generator) -> tuple[np.ndarray, list[str], np.ndarray]:
    """Cut a jittered ball of beta-cristobalite (a = 7.16 Å); return positions (x, y, z), symbols and Si-O bonds."""
    a = 7.16
    base = np.array([(0, 0, 0), (0, 2, 2), (2, 0, 2), (2, 2, 0), (1, 1, 1), (1, 3, 3), (3, 1, 3), (3, 3, 1)]) / 4
    n = int(radius_A / a) + 2
    cells = np.stack(np.meshgrid(*[np.arange(-n, n)] * 3, indexing="ij"), axis=-1).reshape(-1, 1, 3)
    silicon = ((cells + base) * a).reshape(-1, 3)
    pairs = cKDTree(silicon).query_pairs(a * 0.44, output_type="ndarray")
    oxygen = silicon[pairs].mean(axis=1)
    everything = np.concatenate([silicon, oxygen])
    symbols = np.array(["Si"] * len(silicon) + ["O"] * len(oxygen))
    inside = np.linalg.norm(everything, axis=1) < radius_A
    positions, names = everything[inside] + rng.normal(0, 0.12, (int(inside.sum()), 3)), symbols[inside]
    near = cKDTree(positions).query_pairs(2.2, output_type="ndarray")
    bonds = near[names[near[:, 0]] != names[near[:, 1]]]
    return positions, names.tolist(), bonds


def render(points: np.ndarray, weights: np.ndarray, shape: tuple[int, int], pixel_A: float, width_A: float = 0.45) -> np.ndarray:
    """Add up one Gaussian blob per point (y, x) in Å about index n // 2."""
    y, x = ((np.arange(n) - n // 2) * pixel_A for n in shape)
    rows = np.exp(-((y[:, None] - points[:, 0]) ** 2) / (2 * width_A**2)) * weights
    return (rows @ np.exp(-((x[:, None] - points[:, 1]) ** 2) / (2 * width_A**2)).T).astype(np.float32)


class Run:
    """A made-up run: a silica ball and everything a run directory would hold of it."""

    def __init__(self, directory: Path, *, kind: str = "4dstem", radius_A: float = 9.0, side: int = 96, tilts: int = 13) -> None:
        self.directory, self.kind, self.side, self.pixel_A = directory, kind, side, 2.6 * radius_A / side
        self.rng = np.random.default_rng(3)
        self.positions, self.symbols, self.bonds = silica_sphere(radius_A, self.rng)
        self.weights = np.where(np.array(self.symbols) == "Si", 1.0, 0.55)
        self.tilts = np.linspace(-72, 72, tilts)
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "plan.toml").write_text(f'[input]\nkind = "{kind}"\npath = "tilts <secret>"\n')

    def _angles(self) -> np.ndarray:
        return np.stack([0 * self.tilts, self.tilts, 0 * self.tilts], axis=1)

    def _images(self) -> np.ndarray:
        images = []
        for tilt in np.radians(self.tilts):
            x = self.positions[:, 0] * np.cos(tilt) + self.positions[:, 2] * np.sin(tilt)
            seen = np.stack([self.positions[:, 1], x], axis=1)
            images.append(render(seen, 0.08 * self.weights, (self.side, self.side), self.pixel_A))
        return np.stack(images)

    def ptychography(self) -> None:
        (self.directory / "ptychography").mkdir()
        n = 48
        q = np.hypot(*np.meshgrid(*[np.fft.fftfreq(n)] * 2))
        aperture = (q < 0.12) * np.exp(900j * q**2)
        probe = np.stack([np.fft.fftshift(np.fft.ifft2(aperture)), 0.2 * np.fft.fftshift(np.fft.ifft2(aperture * np.sign(q - 0.06)))])
        pattern = np.fft.fftshift(np.maximum(q < 0.12, 0.01 * np.exp(-8 * q))) * 40
        for k, (tilt, image) in enumerate(zip(self.tilts, self._images(), strict=True)):
            with h5py.File(self.directory / "ptychography" / f"tilt_{k:03d}.h5", "w") as file:
                file["phase"] = image + self.rng.normal(0, 0.01, image.shape).astype(np.float32)
                file["object"] = np.exp(1j * image)[None].astype(np.complex64)
                file["probe"] = probe.astype(np.complex64)
                file["positions_A"] = np.zeros((4, 2))
                file["loss"] = (1 + 0.002 * abs(tilt)) * (0.2 + np.exp(-np.arange(30) / 5))
                file["cpu_s"] = file["wall_s"] = np.arange(30) * 0.5
                file["mean_pattern"] = pattern.astype(np.float32)
                file.attrs.update(pixel_A=self.pixel_A, slice_A=0.0, angles_deg=(0.0, tilt, 0.0))

    def projections(self) -> None:
        images = self._images()
        with h5py.File(self.directory / "projections.h5", "w") as file:
            shifts = self.rng.integers(-2, 3, len(images))
            file["projections"] = np.stack([np.roll(i, s, axis=1) for i, s in zip(images, shifts, strict=True)])
            file["angles_deg"] = self._angles()
            file.attrs.update(pixel_A=self.pixel_A, unit="rad" if self.kind == "4dstem" else "electrons")
            if self.kind == "adf":
                file["raw"] = self.rng.poisson(images[2] * 60 + 1).astype(np.float32)
                file.attrs["raw_index"] = 2

    def aligned(self) -> None:
        n = len(self.tilts)
        with h5py.File(self.directory / "aligned.h5", "w") as file:
            file["projections"], file["angles_deg"] = self._images(), self._angles()
            file["shifts_A"] = self.rng.normal(0, 0.5, (n, 2))
            file["scales"], file["backgrounds"] = self.rng.normal(1, 0.01, n), self.rng.normal(0.01, 0.002, n)
            file.attrs["pixel_A"] = self.pixel_A

    def volume(self) -> None:
        n, p = self.side, self.positions
        z = (np.arange(n) - n // 2) * self.pixel_A
        depth = np.exp(-((z[:, None] - p[:, 2]) ** 2) / (2 * 0.45**2)) * self.weights
        with h5py.File(self.directory / "volume.h5", "w") as file:
            store = file.create_dataset("volume", (n, n, n), np.float32)
            for k in range(n):
                near = depth[k] > 1e-3
                store[k] = render(p[near][:, [1, 0]], depth[k][near], (n, n), self.pixel_A)
            file["r_factor"] = 0.083 + 0.5 * np.exp(-np.arange(60) / 8)
            file.attrs["voxel_A"] = self.pixel_A

    def candidates(self) -> None:
        intensity = self.weights + self.rng.normal(0, 0.05, len(self.weights))
        with h5py.File(self.directory / "candidates.h5", "w") as file:
            file["positions_A"] = np.concatenate([self.positions, self.rng.normal(0, 5, (20, 3))])
            file["intensity"] = np.concatenate([intensity, self.rng.normal(0.2, 0.06, 20)])
            label = np.where(np.array(self.symbols) == "Si", 1, 0)
            file["label"], file["boundaries"] = np.concatenate([label, np.full(20, -1)]), [0.35, 0.78]
            file.attrs["elements"] = ["O", "Si"]

    def _write_atoms(self, name: str, positions: np.ndarray, per_atom: bool) -> None:
        columns = ":sigma_A:R:1:species_probability:R:1:intensity:R:1" if per_atom else ""
        lines = [f"{len(positions)}", f'Properties=species:S:1:pos:R:3{columns} pbc="F F F"']
        for symbol, position, weight in zip(self.symbols, positions, self.weights, strict=True):
            extra = f" {0.06 / weight + self.rng.normal(0, 0.004):.5f} 0.987 {weight:.4f}" if per_atom else ""
            lines.append(f"{symbol} {position[0]:.5f} {position[1]:.5f} {position[2]:.5f}{extra}")
        (self.directory / name).write_text("\n".join(lines) + "\n")

    def atoms(self) -> None:
        self._write_atoms("atoms.extxyz", self.positions, per_atom=True)

    def truth(self) -> None:
        self._write_atoms("truth.extxyz", self.positions + self.rng.normal(0, 0.05, self.positions.shape), per_atom=False)

    def rings(self) -> None:
        r = np.arange(0.05, 8, 0.05)
        g = {pair: (1 + 6 * np.exp(-((r - d) ** 2) / 0.02)) * (r > d - 0.3) for pair, d in [("O-O", 2.6), ("O-Si", 1.6), ("Si-Si", 3.1)]}
        lengths = np.linalg.norm(np.diff(self.positions[self.bonds], axis=1)[:, 0], axis=1)
        record: dict[str, Any] = {
            "definition": "primitive", "bonds": self.bonds.tolist(), "sizes": {"10": 12, "12": 181, "14": 7}, "rings": [],
            "truth_sizes": {"12": 190}, "pair_distribution": {"r_A": r.tolist(), "g": {k: v.tolist() for k, v in g.items()}},
            "truth_pair_distribution": {"r_A": r.tolist(), "g": {k: (0.9 * v).tolist() for k, v in g.items()}},
            "bond_lengths_A": {"O-Si": lengths.tolist()}, "truth_bond_lengths_A": {"O-Si": (lengths + 0.02).tolist()},
        }  # fmt: skip
        (self.directory / "rings.json").write_text(json.dumps(record))

    def summary(self) -> None:
        names = ("ptychography" if self.kind == "4dstem" else "adf", "alignment", "tomography", "tracing", "refinement", "rings")
        stages: dict[str, dict[str, Any]] = {name: {"seconds": 10.0 + k} for k, name in enumerate(names)}
        stages["refinement"] |= {"median_sigma_pm": 8.765, "log_likelihood": -12345.5}
        elements = {s: {"truth": 90, "found": 88, "right": 87, "rmsd_pm": 4.321} for s in ("O", "Si")}
        record = {
            "pyaet_version": "9.8.7", "created": "2026-01-02T03:04:05", "kind": self.kind, "device": "cpu",
            "versions": {"numpy": "2.4.6", "scipy": "1.17.0"}, "stages": stages, "warnings": ["tilt 7 is <darker> than its neighbours"],
            "score": {"paper": {"matched": 284, "share": 0.993, "rmsd_pm": 6.5}, "elements": elements, "cutoff_A": 1.0,
                      "strict": {"found": 283, "recall": 0.9895, "precision": 0.9965, "f1": 0.993, "rmsd_pm": 6.54,
                                 "right_element": 0.9825}, "truth_path": "truth.xyz"},
        }  # fmt: skip
        (self.directory / "summary.json").write_text(json.dumps(record))

    def finish(self) -> Path:
        if self.kind == "4dstem":
            self.ptychography()
        for write in (self.projections, self.aligned, self.volume, self.candidates, self.atoms, self.truth, self.rings, self.summary):
            write()
        return self.directory
