"""The whole run as one frozen, validated record.

A plan is a TOML file with the sections below. `load_plan` checks all of it before anything runs and gathers every fault
into one `InputError`, a line per fault, each with the path of its key (`tomography.iteratons: unknown; did you mean
iterations?`). Relative paths are relative to the folder of the plan.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Collection
from dataclasses import MISSING, fields
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, TypeVar, get_args, get_type_hints

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    create_model,
    field_validator,
    model_validator,
)

import ptycho
from analysis.atoms import SYMBOLS
from pyaet.faults import did_you_mean, sentence
from pyaet.io.errors import InputError

Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]
EnergyEV = Annotated[float, Field(ge=1e4, le=3e6)]
SemiangleMrad = Annotated[float, Field(gt=0, le=200)]
Triple = tuple[float, float, float]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, str_strip_whitespace=True)


SomeSection = TypeVar("SomeSection", bound=Section)


class AngleRange(Section):
    """Tilts about y from `start` to `stop` (included) every `step` degrees."""

    start: float
    stop: float
    step: float

    @field_validator("step")
    @classmethod
    def _moves(cls, step: float) -> float:
        if step == 0:
            raise ValueError("found 0; expected a step in degrees that is not zero")
        return step


def _kind_of_angles(value: Any) -> str:
    if isinstance(value, dict | AngleRange):
        return "range"
    if isinstance(value, list | tuple):
        return "triples" if len(value) and isinstance(value[0], list | tuple) else "list"
    return "file"


Angles = Annotated[
    Annotated[str, Tag("file")]
    | Annotated[AngleRange, Tag("range")]
    | Annotated[tuple[float, ...], Tag("list")]
    | Annotated[tuple[Triple, ...], Tag("triples")],
    Discriminator(_kind_of_angles),
]


class Input(Section):
    """The tilt series: what kind, where, and what its numbers mean."""

    kind: Literal["adf", "4dstem"]
    path: str | tuple[str, ...]
    variable: str | None = None
    axes: str = "nyx"
    angles: Angles | None = None
    angles_variable: str | None = None
    pixel_A: Positive | None = None
    energy_eV: EnergyEV | None = None
    semiangle_mrad: SemiangleMrad | None = None
    defocus_A: float | None = None
    pixel_mrad: Positive | None = None
    c12_A: float | None = None
    phi12_deg: float | None = None
    c21_A: float | None = None
    phi21_deg: float | None = None
    c23_A: float | None = None
    phi23_deg: float | None = None
    c30_A: float | None = None
    focal_spread_A: NonNegative | None = None
    source_size_A: NonNegative | None = None

    @field_validator("axes")
    @classmethod
    def _names_each_axis_once(cls, axes: str) -> str:
        if sorted(axes) != ["n", "x", "y"]:
            raise ValueError(f"found {axes!r}; expected an order of the letters n, y, x such as 'nyx' or 'xyn'")
        return axes

    @model_validator(mode="after")
    def _images_need_scale_and_angles(self) -> Input:
        if self.kind == "adf":
            if self.pixel_A is None:
                raise ValueError("pixel_A is missing; expected the pixel size of the images in Å")
            if self.angles is None:
                raise ValueError("angles is missing; expected a file, a list in degrees or {start, stop, step}")
        return self


class Specimen(Section):
    """What is known of the specimen: its elements and how near two atoms can come."""

    elements: Annotated[tuple[str, ...], Field(min_length=1)]
    min_distance_A: Positive

    @field_validator("elements")
    @classmethod
    def _are_elements(cls, elements: tuple[str, ...]) -> tuple[str, ...]:
        for symbol in elements:
            if symbol not in SYMBOLS[1:]:
                raise ValueError(f"{symbol!r} is not a chemical element{did_you_mean(symbol, SYMBOLS[1:])}")
        if len(set(elements)) < len(elements):
            raise ValueError(f"found {list(elements)}; expected each element once")
        return elements


def engine_section(name: str, engine: type[Any], leave_out: Collection[str] = (), **instead: Any) -> type[Section]:
    """A section with the fields of a frozen dataclass of an engine, all optional: None keeps the engine's default.

    Where the engine takes None for "no" and its default is another, the plan says "off". `instead` gives other types.
    """
    types = get_type_hints(engine)
    keys: dict[str, Any] = {}
    for item in fields(engine):
        if item.name in leave_out:
            continue
        kind = instead.get(item.name, types[item.name])
        if item.default is not None and NoneType in get_args(kind):
            kind |= Literal["off"]
        required = item.default is MISSING and item.default_factory is MISSING
        keys[item.name] = (kind, ...) if required else (kind | None, None)
    return create_model(name, __base__=Section, **keys)


def stated(section: Section, engine: type[Any]) -> dict[str, Any]:
    """What a section says of the fields of an engine's dataclass, in the engine's words."""
    given = {item.name: getattr(section, item.name, None) for item in fields(engine)}
    return {name: None if value == "off" else value for name, value in given.items() if value is not None}


class Regulariser(engine_section("RegulariserFields", ptycho.Regulariser)):  # type: ignore[misc]
    """A constraint of object or probe with its schedule; the keys are those of `ptycho.Regulariser`."""

    @model_validator(mode="after")
    def _suits_the_engine(self) -> Regulariser:
        self.engine()
        return self

    def engine(self) -> ptycho.Regulariser:
        return ptycho.Regulariser(**stated(self, ptycho.Regulariser))


class Ptychography(
    engine_section(  # type: ignore[misc]
        "EngineSettings",
        ptycho.Settings,
        leave_out=("threads", "device_bytes"),
        regularisers=tuple[Regulariser, ...],
    )
):
    """Diffraction patterns of one tilt to its phase projection; the engine's keys are those of `ptycho.Settings`.

    share_probe: where something of the probe is refined, the least tilted tilt is reconstructed first and its probe is the
    start of all others. calibrate: "auto" puts right what the patterns say is wrong with the stated numbers (bad pixels, centre,
    dose, pixel, frame, defocus), "report" only tells it.
    """

    calibrate: Literal["auto", "report", "off"] = "auto"
    share_probe: bool = True
    vacuum_radius_A: Positive | None = None
    blur_A: NonNegative = 0.0

    @model_validator(mode="after")
    def _suits_the_engine(self) -> Ptychography:
        try:
            self.engine()
        except ValueError as error:
            raise ValueError(str(error).replace(" is None", " is missing")) from None
        return self

    def engine(self, **given: Any) -> ptycho.Settings:
        """The engine's settings: what the plan leaves open keeps the engine's default."""
        said = stated(self, ptycho.Settings)
        if "regularisers" in said:
            said["regularisers"] = tuple(one.engine() for one in said["regularisers"])
        return ptycho.Settings(**said, **given)

    @property
    def refines_probe(self) -> bool:
        """Whether the probe at the end is another than at the start."""
        return any(getattr(self, f"update_{name}") is not None for name in ("probe", "defocus", "astigmatism"))


class Adf(Section):
    """Annular dark-field counts to projections proportional to scattering power.

    noise: estimated from the whole series or from each image. mask: what finds the particle before Otsu's threshold, a
    Gaussian or an edge-preserving smoothing. denoise_strength: what a denoiser takes for noise, in units of the noise.
    """

    gain: Literal["auto"] | Positive = "auto"
    read_noise: Literal["auto"] | NonNegative = "auto"
    noise: Literal["series", "image"] = "series"
    mask: Literal["otsu", "edge_preserving"] = "otsu"
    background: Literal["auto", "laplace", "none"] | float = "auto"
    denoise: Literal["none", "wavelet", "nlm", "bm3d"] = "none"
    denoise_strength: Positive = 1.0


class Alignment(Section):
    """Where the rotation centre lies in every image, how bright every image is, and with `calibrate` how it was turned.

    tilt_axis: "search" takes its direction in the images (φ of all tilts) from the images instead of from the angles given.
    """

    tilt_axis: Literal["given", "search"] = "given"
    centre_of_mass: bool = True
    common_line: bool = True
    match: bool = True
    normalise: bool = True
    calibrate: bool = False


class Tomography(Section):
    """Aligned projections to a volume.

    iterations: "auto" stops where `held_out` tilts, spread over the series, are explained best; the search for that ends when
    it has not become better for `patience` iterations. memory_GB: for the volumes, worked slab by slab; by itself as much as
    is free. quality: judge the volume by two halves of the series.
    """

    method: Literal["resire", "sirt", "fbp"] = "resire"
    iterations: Count | Literal["auto"] = 200
    held_out: Count = 5
    patience: Count = 20
    momentum: bool = False
    subvoxels: tuple[Count, Count, Count] = (2, 1, 2)
    positivity: bool = True
    step: Annotated[float, Field(gt=0, lt=2)] | None = None
    depth: Count | None = None
    memory_GB: Positive | None = None
    quality: bool = True

    @model_validator(mode="after")
    def _suits_the_method(self) -> Tomography:
        if self.method == "fbp" and (self.iterations == "auto" or self.momentum):
            said = "momentum" if self.momentum else 'iterations "auto"'
            raise ValueError(f'{said} with method "fbp"; expected method "resire" or "sirt", which iterate')
        if self.step is not None and self.method != "resire":
            raise ValueError(f'step is {self.step} with method "{self.method}"; expected a step with "resire" alone')
        if self.step is not None and self.step > 1 and self.momentum:
            raise ValueError(f"step is {self.step} with momentum; expected at most 1, where accelerated steps converge")
        return self


class Tracing(Section):
    """Volume to atoms: maxima, sub-voxel fit, minimum distance, elements.

    classify: by a Gaussian mixture of the intensities, or by k-means in stages, the last of them within `local_radius_A`.
    """

    blur_A: Literal["auto"] | NonNegative = "auto"
    radius_A: Positive | None = None
    classify: Literal["mixture", "kmeans"] = "mixture"
    local_radius_A: Positive = 10.0


class Refinement(Section):
    """Coordinates refined against the data, with error bars.

    method: "likelihood" fits all atoms to the electrons counted, "least_squares" to the aligned projections; "auto" takes the counts
    where there are any (dark-field images that were not denoised). Of the likelihood: search, whether atoms are added and dropped, in
    at most so many rounds; defocus, widths, shifts, scales, what is fitted beside positions and brightness; quality, whether two halves
    of the series are fitted apart as well, to tell whether they agree. iterations: of least squares.
    """

    enabled: bool = True
    method: Literal["auto", "likelihood", "least_squares"] = "auto"
    search: bool = True
    rounds: Count = 10
    defocus: bool = True
    widths: bool = True
    shifts: bool = True
    scales: bool = True
    quality: bool = True
    iterations: Count = 60


FEWEST_DRAWS = 4
"""Models drawn for error bars, at least."""


class Structure(Section):
    """Bonds, rings and order of the refined atoms.

    pairs: which pairs of elements may be bonded, where `bonds` are left out. coordination: bonds an element should have, its most
    common number where left out. surface: whether atoms on the surface count in statistics of bonds, angles and order. draws:
    models drawn for the error bars, 4 or more; 0 leaves them out. reference: a structure file whose statistics are set beside.
    """

    bonds: tuple[str, ...] = ()
    pairs: Literal["unlike", "all"] = "unlike"
    tolerance_A: Positive | None = None
    definition: Literal["primitive", "king", "guttman", "mcb"] = "primitive"
    min_size: Annotated[int, Field(ge=3)] = 3
    max_size: Annotated[int, Field(ge=3)] = 24
    preset: Literal["liao2026"] | None = None
    coordination: dict[str, Annotated[int, Field(ge=0)]] = {}
    surface: Literal["count", "exclude"] = "count"
    draws: Annotated[int, Field(ge=0, le=1000)] = 8
    reference: str | None = None

    @field_validator("bonds")
    @classmethod
    def _are_bond_rules(cls, bonds: tuple[str, ...]) -> tuple[str, ...]:
        if bonds:
            from analysis import BondRule

            for text in bonds:
                BondRule.parse(text)
        return bonds

    @field_validator("draws")
    @classmethod
    def _are_enough(cls, draws: int) -> int:
        if 0 < draws < FEWEST_DRAWS:
            raise ValueError(
                f"expected {FEWEST_DRAWS} or more, from which a spread can be told, or 0 for no error bars"
            )
        return draws

    @field_validator("coordination")
    @classmethod
    def _are_elements(cls, coordination: dict[str, int]) -> dict[str, int]:
        for symbol in coordination:
            if symbol not in SYMBOLS:
                raise ValueError(f"{symbol!r} is not an element symbol")
        return coordination

    @model_validator(mode="after")
    def _sizes_in_order(self) -> Structure:
        if self.min_size > self.max_size:
            raise ValueError(f"min_size is {self.min_size} and max_size {self.max_size}; expected min_size ≤ max_size")
        if self.tolerance_A is not None and not self.bonds and self.preset is None:
            raise ValueError(
                "tolerance_A is given without bonds; expected the bond lengths it belongs to, such as Si-O:1.66"
            )
        if self.pairs == "all" and (self.bonds or self.preset is not None):
            raise ValueError(
                'pairs is "all", and which pairs are bonded is given by bonds or preset; expected one of them, or a rule for each pair'
            )
        return self


class Truth(Section):
    """A known structure to compare the result with; read only after the atoms are written."""

    path: str
    axes: str = "x,y,z"
    cutoff_A: Positive = 1.0
    variable: str | None = None
    types_variable: str | None = None
    types: dict[str, str] | None = None


class Simulation(Section):
    """A tilt series made from a known cluster (`pyaet simulate`, `pyaet demo`), or planned (`pyaet limit`).

    cross_sections_A2: of elements into the annulus, for the linear model and the bound: electrons of an atom, as a run finds them, over
    the dose. Rutherford's where left out.
    """

    kind: Literal["4dstem", "adf"] = "4dstem"
    structure: str | None = None
    diameter_A: Positive = 12.0
    angles: Angles = AngleRange(start=-72, stop=72, step=6)
    energy_eV: EnergyEV = 80e3
    semiangle_mrad: SemiangleMrad = 30.0
    defocus_A: float | None = None
    field_A: Positive = 18.0
    step_A: Positive = 0.5
    max_angle_mrad: Positive = 60.0
    inner_mrad: Positive = 38.0
    outer_mrad: Positive = 190.0
    slice_A: Positive = 2.0
    phonons: Count = 2
    phonon_sigma_A: NonNegative = 0.07
    dose_e_per_A2: Positive = 1e4
    background_e: NonNegative = 1.0
    model: Literal["multislice", "linear"] = "multislice"
    cross_sections_A2: dict[str, Positive] = {}


class Compute(Section):
    """Where the numbers are crunched."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    workers: Count | None = None
    seed: Annotated[int, Field(ge=0)] = 0


class Output(Section):
    directory: str = "run"


NO_INPUT = "plan: [input] is missing; expected a table [input] with the tilt series, or [simulation]"


WORKFLOWS: dict[str, dict[str, dict[str, Any]]] = {
    "pyaet": {},
    "liao2026": {
        "adf": {
            "noise": "image",
            "mask": "edge_preserving",
            "background": "auto",
            "denoise": "bm3d",
            # Fewest atoms lost of other, random particles (tests/bench/adf_liao2026.py --choose).
            "denoise_strength": 0.5,
        },
        "alignment": {"centre_of_mass": True, "common_line": True, "match": True, "normalise": True},
        # Their step of 0.25 is four times ours.
        "tomography": {
            "method": "resire", "iterations": 200, "step": 0.0625, "momentum": False, "subvoxels": (2, 1, 2), "positivity": True
        },
        "tracing": {"classify": "kmeans"},
        "refinement": {"enabled": True, "method": "least_squares"},
    },
}  # fmt: skip
"""Defaults of the sections by workflow; what a plan says itself wins, key by key.

liao2026: the published way from dark-field images to atoms, doi:10.1038/s41586-025-09857-4.
"""


class Plan(Section):
    """A whole run. `input` may be left out only where `simulation` makes it; `workflow` sets the defaults of sections."""

    workflow: Literal["pyaet", "liao2026"] = "pyaet"
    input: Input | None = None
    specimen: Specimen
    ptychography: Ptychography = Ptychography()
    adf: Adf = Adf()
    alignment: Alignment = Alignment()
    tomography: Tomography = Tomography()
    tracing: Tracing = Tracing()
    refinement: Refinement = Refinement()
    structure: Structure = Structure()
    truth: Truth | None = None
    simulation: Simulation | None = None
    compute: Compute = Compute()
    output: Output = Output()

    @model_validator(mode="before")
    @classmethod
    def _takes_the_defaults_of_its_workflow(cls, data: Any) -> Any:
        if not isinstance(data, dict) or not isinstance(data.get("workflow"), str):
            return data
        filled = dict(data)
        for name, defaults in WORKFLOWS.get(data["workflow"], {}).items():
            given = data.get(name, {})
            if isinstance(given, dict):
                # A step belongs to RESIRE: a plan that names another method has not asked for it.
                other = name == "tomography" and given.get("method", "resire") != "resire"
                filled[name] = {key: value for key, value in defaults.items() if not (other and key == "step")} | given
        return filled

    @model_validator(mode="after")
    def _suits_the_images(self) -> Plan:
        source = self.input or self.simulation
        if self.workflow == "liao2026" and source is not None and source.kind != "adf":
            raise ValueError(
                'workflow "liao2026" is the road of dark-field images; expected kind "adf", or workflow "pyaet"'
            )
        if self.refinement.method == "likelihood" and (
            self.adf.denoise != "none" or getattr(source, "kind", "adf") != "adf"
        ):
            raise ValueError(
                f'refinement.method "likelihood" needs electrons as they were counted; found kind "{getattr(source, "kind", "adf")}" and '
                f'adf.denoise "{self.adf.denoise}"; expected kind "adf" and denoise "none", or method "least_squares"'
            )
        return self


def load_plan(path: str | Path) -> Plan:
    """Read and validate a plan file; paths inside it come back absolute.

    Raises
    ------
    InputError
        the file is missing, unreadable or no TOML, or any key or value is wrong; every fault has its own line.
    """
    path = Path(path)
    try:
        text = path.read_bytes().decode("utf-8")
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; expected a plan in TOML") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as a plan ({getattr(error, 'strerror', None) or error})") from None
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{path}: not valid TOML: {error}") from None
    return _absolute(validate_section(Plan, data, str(path)), path.resolve().parent)


def validate_section(model: type[SomeSection], data: dict[str, Any], source: str) -> SomeSection:
    """Build `model` from a plain dictionary; every fault becomes one line of a single `InputError`."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        told: dict[str, str] = {}
        for line in (sentence(model, fault) for fault in error.errors()):
            told.setdefault(line.partition(": ")[0], line)
        raise InputError("\n".join(f"{source}: {line}" for line in told.values())) from None


def plan_toml(plan: Plan) -> str:
    """The resolved plan as TOML text that `load_plan` reads back to an equal plan."""
    import tomli_w

    return tomli_w.dumps(plan.model_dump(mode="json", exclude_none=True))


def _absolute(plan: Plan, folder: Path) -> Plan:
    def resolve(name: str) -> str:
        return os.path.abspath(folder / Path(name).expanduser())

    changes: dict[str, Any] = {"output": plan.output.model_copy(update={"directory": resolve(plan.output.directory)})}
    if plan.input is not None:
        paths = plan.input.path
        update: dict[str, Any] = {"path": resolve(paths) if isinstance(paths, str) else tuple(map(resolve, paths))}
        if isinstance(plan.input.angles, str):
            update["angles"] = resolve(plan.input.angles)
        changes["input"] = plan.input.model_copy(update=update)
    if plan.truth is not None:
        changes["truth"] = plan.truth.model_copy(update={"path": resolve(plan.truth.path)})
    if plan.structure.reference is not None:
        reference = resolve(plan.structure.reference)
        changes["structure"] = plan.structure.model_copy(update={"reference": reference})
    if plan.simulation is not None and plan.simulation.structure is not None:
        structure = resolve(plan.simulation.structure)
        changes["simulation"] = plan.simulation.model_copy(update={"structure": structure})
    return plan.model_copy(update=changes)
