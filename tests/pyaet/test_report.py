"""The report of a full and of half-finished runs: what it shows, what it says is missing, that it loads nothing from outside."""

from __future__ import annotations

import base64
import gzip
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from plotly.offline import get_plotlyjs
from scipy.spatial import cKDTree

from pyaet.io.errors import InputError
from pyaet.plots.overview import draw_overview
from pyaet.plots.results import missing_stages, read_projections, read_ptychography, read_volume, run_kind
from pyaet.report import write_report
from pyaet.report.html import duration, number, quantity

PARTS = (
    "atoms", "surface_atoms", "counted", "pair_distribution", "structure_factor", "bond_lengths_A", "bond_angles_deg",
    "dihedral_angles_deg", "coordination", "ring_sizes", "ring_statistics", "alternating_share", "former", "former_sizes", "ring_shape",
    "q_n", "defects", "names_by_neighbours", "short_range_order", "bond_order", "voronoi",
)  # fmt: skip
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


def render(
    points: np.ndarray, weights: np.ndarray, shape: tuple[int, int], pixel_A: float, width_A: float = 0.45
) -> np.ndarray:
    """Add up one Gaussian blob per point (y, x) in Å about index n // 2."""
    y, x = ((np.arange(n) - n // 2) * pixel_A for n in shape)
    rows = np.exp(-((y[:, None] - points[:, 0]) ** 2) / (2 * width_A**2)) * weights
    return (rows @ np.exp(-((x[:, None] - points[:, 1]) ** 2) / (2 * width_A**2)).T).astype(np.float32)


def banded(values: Any) -> dict[str, list[float]]:
    """A statistic with limits of a tenth around it."""
    value = np.asarray(values, dtype=float)
    return {"value": value.tolist(), "low": (0.9 * value).tolist(), "high": (1.1 * value).tolist()}


class Run:
    """A made-up run: a silica ball and everything a run directory would hold of it."""

    def __init__(
        self, directory: Path, *, kind: str = "4dstem", radius_A: float = 9.0, side: int = 96, tilts: int = 13
    ) -> None:
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
        probe = np.stack(
            [np.fft.fftshift(np.fft.ifft2(aperture)), 0.2 * np.fft.fftshift(np.fft.ifft2(aperture * np.sign(q - 0.06)))]
        )
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
            file.attrs["kind"] = self.kind
            if self.kind == "4dstem":
                file["raw"] = np.full((16, 16), 7.0, np.float32)
            else:
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
            self._judge(file)

    def _judge(self, file: h5py.File) -> None:
        frequency = np.arange(1, 25) / (24 * 2 * self.pixel_A)
        file["angles_deg"], file["plane_deg"] = self._angles(), np.mod(self.tilts, 180)
        file["tilt_r"] = 0.08 + 0.0001 * np.arange(len(self.tilts))
        file["unseen_r"], file["stray_tilts"] = file["tilt_r"][:] + 0.02, [4]
        file["fsc_frequency_per_A"] = frequency
        for name, end in (("fsc", 1.2), ("fsc_x", 1.3), ("fsc_y", 1.3), ("fsc_z", 0.7)):
            file[name] = 1 / (1 + (frequency / end) ** 8)
        file.attrs.update(resolution_A=0.8, resolution_x_A=0.7, resolution_y_A=0.7, resolution_z_A=1.25, wedge_deg=36.0)

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
        self._write_atoms(
            "truth.extxyz", self.positions + self.rng.normal(0, 0.05, self.positions.shape), per_atom=False
        )

    def rings(self) -> None:
        ring = self.bonds[:8].ravel().tolist()[:12]
        record = {"definition": "primitive", "bonds": self.bonds.tolist(), "sizes": {"10": 12, "12": 181, "14": 7},
                  "rings": [ring], "truth_sizes": {"12": 190}}  # fmt: skip
        (self.directory / "rings.json").write_text(json.dumps(record))

    def structure(self, reference: bool = True) -> None:
        lengths = np.linalg.norm(np.diff(self.positions[self.bonds], axis=1)[:, 0], axis=1)
        record = {"found": self._statistics(lengths, 1.0), "reference_name": "truth",
                  "reference": self._statistics(lengths + 0.02, 0.9) if reference else None}  # fmt: skip
        (self.directory / "structure.json").write_text(json.dumps(record))

    def _statistics(self, lengths: np.ndarray, factor: float) -> dict[str, Any]:
        r = np.arange(0.05, 8, 0.05)
        g = {
            pair: factor * (1 + 6 * np.exp(-((r - d) ** 2) / 0.02)) * (r > d - 0.3)
            for pair, d in [("O-O", 2.6), ("O-Si", 1.6), ("Si-Si", 3.1)]
        }
        counts, edges = np.histogram(lengths, bins=20)
        degrees = np.linspace(60, 180, 41)
        angles = np.exp(-((degrees[1:] - 110) ** 2) / 200) * 90
        return {
            "atoms": {symbol: self.symbols.count(symbol) for symbol in ("O", "Si")},
            "surface_atoms": 120, "counted": "atoms below the surface",
            "pair_distribution": {"r_A": r.tolist(), "g": {pair: banded(values) for pair, values in g.items()}},
            "structure_factor": {"q_per_A": r.tolist(), "S": {w: g["O-O"].tolist() for w in ("xray", "neutron", "electron")}},
            "bond_lengths_A": {"O-Si": banded(counts) | {"edges": edges.tolist(),
                "mean": {"value": 1.614, "best": 1.612, "low": 1.611, "high": 1.613},
                "spread": {"value": 0.081, "best": 0.026, "low": 0.02, "high": 0.031}}},
            "bond_angles_deg": {"O-Si-O": banded(angles) | {"edges": degrees.tolist(),
                "mean": {"value": 109.27}, "spread": {"value": 9.41}}},
            "dihedral_angles_deg": {"O-Si-O-Si": banded(angles) | {"edges": degrees.tolist()}},
            "coordination": {"O": {"mean": 1.9, "counts": banded([0, 12, 160])}, "Si": {"mean": 3.9, "counts": banded([0, 0, 1, 9, 77])}},
            "ring_sizes": {"10": {"value": 12, "low": 11, "high": 15}, "12": {"value": 181, "low": 178, "high": 183}},
            "ring_statistics": {"r_n": {"12": 0.654}, "p_n": {"12": 0.9}, "p_min": {}, "p_max": {}},
            "alternating_share": {"10": 1.0, "12": 0.995}, "former": "Si", "former_sizes": {"5": 12, "6": 181},
            "ring_shape": {"12": {"roundness": 0.81, "out_of_plane_A": 0.34, "radius_A": 2.56}}, "q_n": {"3": 10, "4": 78},
            "defects": {"under": [4, 17], "over": [], "dangling": list(range(20)), "homopolar": [[3, 9]]},
            "names_by_neighbours": {"11": "Si", "12": "O"},
            "short_range_order": {"Si-O": -0.321}, "voronoi": {"icosahedron <0,0,12,0>": 3},
            "bond_order": {"q4": {"Si": 0.234}, "q6": {"Si": 0.345}, "solid_like_share": 0.0},
        }  # fmt: skip

    def summary(self) -> None:
        names = (
            "ptychography" if self.kind == "4dstem" else "adf",
            "alignment",
            "tomography",
            "tracing",
            "refinement",
            "rings",
        )
        stages: dict[str, dict[str, Any]] = {name: {"seconds": 10.0 + k} for k, name in enumerate(names)}
        stages["adf" if self.kind == "adf" else "ptychography"] |= {"image_px": [96, 96], "warnings": ["told above"]}
        stages["simulation"] = {"seconds": 1000.0}
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
        for write in (
            self.projections,
            self.aligned,
            self.volume,
            self.candidates,
            self.atoms,
            self.truth,
            self.rings,
            self.structure,
            self.summary,
        ):
            write()
        return self.directory


class Page(HTMLParser):
    """Collect what a browser would load, the anchors, and the text; fail on elements that are not closed in order."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loads: list[str] = []
        self.links: list[str] = []
        self.ids: list[str] = []
        self.words: list[str] = []
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)
        self.close()
        self.text = " ".join(self.words)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        for name, value in attrs:
            if name in ("src", "href", "xlink:href", "srcset", "data", "action", "poster"):
                (self.links if tag == "a" else self.loads).append(value or "")
            if name == "id":
                self.ids.append(value or "")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] not in ("script", "style"):
            self.words.append(data.strip())


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Page:
    return Page(write_report(Run(tmp_path_factory.mktemp("full") / "silica").finish()))


def test_full_report_has_all_sections_in_the_order_of_the_road(full: Page) -> None:
    expected = ["overview", "warnings", "input", "ptychography", "alignment", "sinogram", "volume", "candidates", "atoms", "errors",
                "structure", "plan"]  # fmt: skip
    assert re.findall(r'<section id="(\w+)">', full.source) == expected
    assert full.links == [f"#{name}" for name in expected]
    assert "could not be drawn" not in full.text
    assert "Missing stages" not in full.text


def test_html_is_closed_and_identifiers_are_unique(full: Page) -> None:
    assert full.open == []
    assert len(full.ids) == len(set(full.ids)) > 100


def test_report_loads_nothing_from_any_host(full: Page) -> None:
    assert all(reference.startswith(("#", "data:")) for reference in full.loads), full.loads
    styles = " ".join(re.findall(r"<style>(.*?)</style>", full.source, re.DOTALL))
    assert "url(" not in styles and "@import" not in styles
    assert not re.search(r"url\((?!#)", re.sub(r"<script.*?</script>", "", full.source, flags=re.DOTALL))


def test_numbers_of_the_summary_appear(full: Page) -> None:
    expected = (
        "98.2 %",
        "99.7 %",
        "6.5 pm",
        "0.9965",
        "284",
        "4.321",
        "8.765 pm",
        "96 × 96 px",
        "1 min 15 s",
        "0.083",
        "9.8.7",
        "1.17.0",
        "cutoff 1 Å",
    )
    for text in expected:
        assert text in full.text, text
    silica = silica_sphere(9.0, np.random.default_rng(3))[1]
    assert f"{silica.count('O')} O · {silica.count('Si')} Si" in full.text


def test_the_worth_of_the_volume_is_shown_with_a_sentence_for_each_picture(full: Page) -> None:
    expected = (
        "Fourier shell correlation",
        "all directions: 0.8 Å",
        "along z: 1.25 Å",
        "0.143",
        "tilt 4, −24°",
        "Missing wedge: 36°",
        "details are real down to where the two volumes agree",
        "nobody measured what is shaded",
    )
    for text in expected:
        assert text in full.text, text


def test_a_volume_of_which_nothing_is_told_is_still_shown(tmp_path: Path) -> None:
    run = Run(tmp_path / "old", kind="adf", side=48)
    run.projections()
    run.volume()
    with h5py.File(run.directory / "volume.h5", "a") as file:
        for name in [name for name in file if name != "volume"]:
            del file[name]
        file["r_factor"] = [0.5, 0.4]
    page = Page(write_report(run.directory))
    assert "could not be drawn" not in page.text
    assert "R-factor: mismatch between the measured images" in page.text
    assert "Fourier shell correlation" not in page.text


def test_the_structure_is_told_with_limits_and_beside_the_truth(full: Page) -> None:
    expected = (
        "95 of 100 cases",
        "181 (178–183)",
        "0.654",
        "99.5 %",
        "Qⁿ",
        "0, 1, 2, 3, 4, 5, 6, 7 …",
        "3–9",
        "11 (Si), 12 (O)",
        "−0.321",
        "icosahedron <0,0,12,0>",
        "0.234",
        "truth: mean (Å)",
        "1.612 (1.611–1.613)",
        "2.6 (2.0–3.1)",
        "9.4",
        "atoms below the surface",
        "Si, mean 3.90, truth 3.90",
        "hidden until their name in the legend is clicked",
    )
    for text in expected:
        assert text in full.text, text


def test_structure_without_a_reference_or_without_its_file(tmp_path: Path) -> None:
    run = Run(tmp_path / "alone", kind="adf", side=48)
    run.atoms()
    run.rings()
    without = Page(write_report(run.directory))
    run.structure(reference=False)
    alone = Page(write_report(run.directory))
    for page in (without, alone):
        assert "could not be drawn" not in page.text and 'id="structure"' in page.source
    assert "95 of 100 cases" in alone.text and "truth:" not in alone.text
    assert "95 of 100 cases" not in without.text and "181" in without.text


@pytest.mark.parametrize("part", PARTS)
def test_any_part_of_the_structure_may_be_missing(tmp_path: Path, part: str) -> None:
    """Nothing but this part is told of the model, and all but this part of the reference."""
    run = Run(tmp_path / "part", kind="adf", radius_A=6.0, side=32)
    run.structure()
    path = run.directory / "structure.json"
    whole = json.loads(path.read_text())["found"]
    others = {name: value for name, value in whole.items() if name != part}
    path.write_text(json.dumps({"found": {part: whole[part]}, "reference": others, "reference_name": "glass"}))
    assert "could not be drawn" not in Page(write_report(run.directory)).text


def test_text_of_the_run_is_escaped(full: Page) -> None:
    assert "tilt 7 is <darker> than its neighbours" in full.text
    assert "told above" not in full.text
    assert "<darker>" not in full.source and "<secret>" not in full.source


def test_turning_view_holds_every_atom_and_bond(full: Page) -> None:
    data = re.search(r'id="atoms-data">(.*?)</script>', full.source, re.DOTALL)
    assert data is not None
    traces = json.loads(data.group(1))["data"]
    names = [trace["name"] for trace in traces]
    _, symbols, bonds = silica_sphere(9.0, np.random.default_rng(3))
    assert names == [
        f"bonds ({len(bonds)})",
        f"O ({symbols.count('O')})",
        f"Si ({symbols.count('Si')})",
        "truth",
        "rings of 12 (1)",
    ]
    assert [trace.get("visible", True) for trace in traces] == [True, True, True, "legendonly", "legendonly"]
    library = re.findall(r'id="plotly-gzip">(.*?)</script>', full.source, re.DOTALL)
    assert len(library) == 1
    assert gzip.decompress(base64.b64decode(library[0])).decode() == get_plotlyjs()
    assert len(full.source) < 4e6


def test_pictures_follow_light_and_dark(full: Page) -> None:
    pictures = re.findall(r"<svg.*?</svg>", full.source, re.DOTALL)
    drawn = [picture for picture in pictures if "aria-label" in picture]
    assert len(drawn) == 19
    assert all("var(--ink)" in picture and "#22303c" not in picture for picture in drawn)
    assert "prefers-color-scheme: dark" in full.source


def test_report_of_a_run_stopped_after_the_volume(tmp_path: Path) -> None:
    run = Run(tmp_path / "half", kind="adf", side=48)
    for write in (run.projections, run.aligned, run.volume):
        write()
    page = Page(write_report(run.directory))
    assert "Missing stages: tracing (candidates.h5), refinement (atoms.extxyz), rings (rings.json)." in page.text
    assert re.findall(r'<section id="(\w+)">', page.source) == [
        "overview",
        "warnings",
        "input",
        "alignment",
        "sinogram",
        "volume",
        "plan",
    ]
    assert "unprocessed, tilt −48.0°" in page.text
    assert len(page.source) < 2e6  # nothing to turn, so no script


def test_report_of_an_empty_directory_names_every_stage(tmp_path: Path) -> None:
    page = Page(write_report(tmp_path))
    for stage in ("adf", "alignment", "tomography", "tracing", "refinement", "rings"):
        assert re.search(rf"Missing stages:.*\b{stage} \(", page.text)


def test_a_damaged_file_costs_only_its_own_section(tmp_path: Path) -> None:
    run = Run(tmp_path / "bad", kind="adf", side=48)
    run.projections()
    run.aligned()
    (run.directory / "volume.h5").write_bytes(b"not an HDF5 file")
    page = Page(write_report(run.directory))
    assert re.search(r"could not be drawn: InputError: .*volume\.h5: not a readable HDF5 file", page.text)
    assert "along y (tilt axis)" in page.text


def test_report_replaces_an_older_one_and_leaves_no_temporary_file(tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text("old")
    write_report(tmp_path)
    assert (tmp_path / "report.html").read_text() != "old"
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
    with pytest.raises(InputError, match="no such directory"):
        write_report(tmp_path / "absent")


def test_results_read_only_what_is_drawn(tmp_path: Path) -> None:
    run = Run(tmp_path / "run", side=32, tilts=5)
    run.ptychography()
    run.projections()
    run.volume()
    made, series, volume = (read_ptychography(run.directory), read_projections(run.directory / "projections.h5"),
                            read_volume(run.directory / "volume.h5"))  # fmt: skip
    assert made is not None and series is not None and volume is not None
    assert made.shown == (0, 2, 4)
    assert made.wall_s == pytest.approx(5 * 14.5)
    assert made.detector_pixel_per_A == pytest.approx(1 / (48 * run.pixel_A))
    assert series.central_rows.shape == (5, 32)
    assert series.raw is None and series.mean_pattern is not None and series.mean_pattern[0, 0] == 7
    with h5py.File(run.directory / "volume.h5") as file:
        whole = file["volume"][:]
    for found, expected in zip(volume.slices, (whole[16], whole[:, 16], whole[:, :, 16]), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_kind_comes_from_the_summary_then_the_plan_then_the_folder(tmp_path: Path) -> None:
    assert run_kind(tmp_path, {"kind": "4dstem"}) == "4dstem"
    assert run_kind(tmp_path, {}) == "adf"
    (tmp_path / "ptychography").mkdir()
    assert run_kind(tmp_path, {}) == "4dstem"
    (tmp_path / "plan.toml").write_text('[input]\nkind = "adf"\n')
    assert run_kind(tmp_path, {}) == "adf"
    assert missing_stages(tmp_path, "4dstem")[0] == ("ptychography", "projections.h5")


def test_overview_of_a_run_has_five_panels_and_of_nothing_is_an_error(tmp_path: Path) -> None:
    run = Run(tmp_path / "run", side=32, tilts=5)
    figure = draw_overview(run.finish())
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert titles[0] == "diffraction pattern" and titles[1] == "projection, 1 of 5 (0°)" and len(titles) == 5
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="found no result to draw"):
        draw_overview(tmp_path / "empty")


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("rmsd_pm", 6.5432, ("RMSD", "6.543 pm")),
        ("dose_e_per_A2", 1600, ("dose", "1600 e⁻/Å²")),
        ("pixel_A", 0.195, ("pixel", "0.195 Å")),
        ("largest tilt_deg", -70.0, ("largest tilt", "−70°")),
        ("seconds", 250.4, ("time", "4 min 10 s")),
        ("log_likelihood", None, ("log likelihood", "–")),
        ("denoise", "bm3d", ("denoise", "bm3d")),
    ],
)
def test_quantities_carry_the_unit_of_their_key(key: str, value: Any, expected: tuple[str, str]) -> None:
    assert quantity(key, value) == expected


def test_numbers_and_durations() -> None:
    assert number(True) == "yes" and number([1, 2.5]) == "1, 2.5" and number(-3) == "−3"
    assert duration(0.419) == "0.42 s" and duration(11100) == "3 h 05 min" and duration(59.97) == "60.0 s"
