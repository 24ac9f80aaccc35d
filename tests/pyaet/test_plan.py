"""The plan: what is accepted, and the sentence for everything that is not."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import ptycho
from pyaet.io.errors import InputError
from pyaet.io.fourdstem import ABERRATIONS
from pyaet.plan import WORKFLOWS, Adf, AngleRange, Input, Plan, load_plan, plan_toml, validate_section

GOOD = """
[input]
kind = "adf"
path = "counts.npy"
angles = {start = 0, stop = 177, step = 3}
pixel_A = 0.195
[specimen]
elements = ["Si"]
min_distance_A = 1.9
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "plan.toml"
    path.write_text(text)
    return path


def sentence(folder: Path, text: str) -> str:
    with pytest.raises(InputError) as fault:
        load_plan(written(folder, text))
    return str(fault.value)


def test_a_plan_is_read_with_absolute_paths(tmp_path: Path) -> None:
    plan = load_plan(written(tmp_path, GOOD))
    assert plan.input is not None
    assert plan.input.path == str(tmp_path / "counts.npy")
    assert plan.input.angles == AngleRange(start=0, stop=177, step=3)
    assert plan.tomography.subvoxels == (2, 1, 2)
    assert plan.output.directory == str(tmp_path / "run")


def test_the_resolved_plan_reads_back_equal(tmp_path: Path) -> None:
    plan = load_plan(written(tmp_path, GOOD))
    assert load_plan(written(tmp_path, plan_toml(plan))) == plan


def test_automatic_iterations_read_back_equal(tmp_path: Path) -> None:
    said = "[tomography]\nmethod = 'sirt'\niterations = 'auto'\nheld_out = 3\nmomentum = true\nmemory_GB = 2\nquality = false\n"
    plan = load_plan(written(tmp_path, GOOD + said))
    assert plan.tomography.iterations == "auto" and plan.tomography.memory_GB == 2.0
    assert load_plan(written(tmp_path, plan_toml(plan))) == plan


def test_a_plan_cannot_be_changed(tmp_path: Path) -> None:
    plan = load_plan(written(tmp_path, GOOD))
    with pytest.raises(ValueError, match="frozen"):
        plan.tomography.iterations = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (
            "[specimen]",
            "[tomography]\niteratons = 5\n[specimen]",
            "tomography.iteratons: unknown; did you mean iterations?",
        ),
        ("[specimen]", "[tomografy]\n[specimen]", "tomografy: unknown; did you mean tomography?"),
        ("pixel_A = 0.195", "pixel_A = 0", "input.pixel_A: found 0; expected greater than 0"),
        ('elements = ["Si"]', 'elements = ["Sj"]', "specimen.elements: 'Sj' is not a chemical element; did you mean S"),
        ('elements = ["Si"]', "elements = []", "specimen.elements: found []"),
        ('elements = ["Si"]', 'elements = ["Si", "Si"]', "expected each element once"),
        ("pixel_A = 0.195", "", "input: pixel_A is missing; expected the pixel size of the images in Å"),
        ("min_distance_A = 1.9", "", "specimen.min_distance_A: missing; expected the smallest distance"),
        ('kind = "adf"', 'kind = "tem"', "input.kind: found 'tem'; expected 'adf' or '4dstem'"),
        (
            "angles = {start = 0, stop = 177, step = 3}",
            "angles = {start = 0, stop = 9, step = 0}",
            "input.angles.step: found 0",
        ),
        (
            "angles = {start = 0, stop = 177, step = 3}",
            "angles = {start = 0, stop = 9, step = 1, steps = 1}",
            "input.angles.steps: unknown; did you mean step?",
        ),
        (
            "angles = {start = 0, stop = 177, step = 3}",
            "angles = true",
            "input.angles: found True; expected a file, a list",
        ),
        (
            "angles = {start = 0, stop = 177, step = 3}",
            "angles = [0, nan]",
            "input.angles.1: found nan; expected a finite number",
        ),
        ("pixel_A = 0.195", "pixel_A = 0.195\nenergy_eV = 200", "input.energy_eV: found 200"),
        (
            "pixel_A = 0.195",
            "pixel_A = 0.195\naxes = 'xyz'",
            "input.axes: found 'xyz'; expected an order of the letters",
        ),
        ("[specimen]", "[ptychography]\nslices = 3\n[specimen]", "ptychography: slice_A is missing"),
        ("[specimen]", "[ptychography]\nstep = 3\n[specimen]", "ptychography: step is 3.0; expected a number above 0"),
        (
            "[specimen]",
            "[ptychography]\nsolver = 'epie'\n[specimen]",
            "ptychography.solver: found 'epie'; expected 'grad",
        ),
        (
            "[specimen]",
            "[ptychography]\nupdate_prob = 1\n[specimen]",
            "ptychography.update_prob: unknown; did you mean upd",
        ),
        (
            "[specimen]",
            "[[ptychography.regularisers]]\nkind = 'layers'\nweight = 0.5\n[specimen]",
            'ptychography.regularisers.0: sigma_A is missing for "layers"',
        ),
        (
            "[specimen]",
            "[[ptychography.regularisers]]\nkind = 'tv'\nweight = 0.5\nstrat = 2\n[specimen]",
            "ptychography.regularisers.0.strat: unknown; did you mean start?",
        ),
        (
            "[specimen]",
            "[ptychography]\nprior_rad2_A2 = 'of'\n[specimen]",
            "ptychography.prior_rad2_A2: found 'of'; expected",
        ),
        ("[specimen]", "[specimen", "not valid TOML"),
        (
            "[specimen]",
            "[tomography]\niterations = 2.5\n[specimen]",
            "tomography.iterations: found 2.5; expected a whole number or 'auto'",
        ),
        (
            "[specimen]",
            "[tomography]\niterations = 'aut'\n[specimen]",
            "tomography.iterations: found 'aut'; expected a whole number or 'auto'",
        ),
        (
            "[specimen]",
            "[tomography]\niterations = 0\n[specimen]",
            "tomography.iterations: found 0; expected greater than or equal to 1",
        ),
        (
            "[specimen]",
            "[tomography]\nmethod = 'art'\n[specimen]",
            "tomography.method: found 'art'; expected 'resire', 's",
        ),
        (
            "[specimen]",
            "[tomography]\nmemory_GB = 0\n[specimen]",
            "tomography.memory_GB: found 0; expected greater than 0",
        ),
        ("[specimen]", "[tomography]\nheld_out = 0\n[specimen]", "tomography.held_out: found 0; expected greater than"),
        (
            "[specimen]",
            "[tomography]\nmethod = 'fbp'\nmomentum = true\n[specimen]",
            'tomography: momentum with method "fbp"; expected method "resire" or "sirt", which iterate',
        ),
        (
            "[specimen]",
            "[tomography]\nmethod = 'fbp'\niterations = 'auto'\n[specimen]",
            'tomography: iterations "auto" with method "fbp"; expected method "resire" or "sirt", which iterate',
        ),
        (
            "[specimen]",
            "[tomography]\nmethod = 'sirt'\nstep = 0.5\n[specimen]",
            'tomography: step is 0.5 with method "sirt"; expected a step with "resire" alone',
        ),
        (
            "[specimen]",
            "[tomography]\nmomentum = true\nstep = 1.5\n[specimen]",
            "tomography: step is 1.5 with momentum; expected at most 1",
        ),
        (
            "[input]",
            "workflow = 'liao2062'\n[input]",
            "workflow: found 'liao2062'; expected 'pyaet' or 'liao2026'; did you mean",
        ),
        (
            "[specimen]",
            "[adf]\nnoise = 'imag'\n[specimen]",
            "adf.noise: found 'imag'; expected 'series' or 'image'; did you",
        ),
        ("[input]", "workflow = 3\n[input]", "workflow: found 3; expected 'pyaet' or 'liao2026'"),
        ("[input]", "workflow = 'liao2026'\nadf = 3\n[input]", "adf: found 3; expected a table"),
        ("[specimen]", "[adf]\ndenoise = 'bm4d'\n[specimen]", "adf.denoise: found 'bm4d'; expected 'none', 'wavelet'"),
    ],
)
def test_a_fault_is_one_sentence_with_the_path_of_its_key(tmp_path: Path, old: str, new: str, expected: str) -> None:
    assert old in GOOD
    text = sentence(tmp_path, GOOD.replace(old, new))
    assert expected in text
    assert len(text.splitlines()) == 1
    assert "pydantic" not in text


def test_all_faults_are_told_at_once(tmp_path: Path) -> None:
    text = sentence(tmp_path, GOOD.replace("0.195", "-1").replace('"Si"', '"Xy"'))
    assert len(text.splitlines()) == 2


def test_a_workflow_fills_in_what_the_plan_leaves_open(tmp_path: Path) -> None:
    plan = load_plan(written(tmp_path, "workflow = 'liao2026'\n" + GOOD))
    for name, defaults in WORKFLOWS["liao2026"].items():
        section = getattr(plan, name)
        assert {key: getattr(section, key) for key in defaults} == defaults
    assert load_plan(written(tmp_path, plan_toml(plan))) == plan
    assert load_plan(written(tmp_path, GOOD)).workflow == "pyaet"
    assert load_plan(tmp_path / "plan.toml").adf == Adf()


def test_what_the_plan_says_wins_over_its_workflow_key_by_key(tmp_path: Path) -> None:
    said = "workflow = 'liao2026'\n" + GOOD + "[adf]\ndenoise = 'nlm'\n[tomography]\nmethod = 'fbp'\n"
    plan = load_plan(written(tmp_path, said))
    assert (plan.adf.denoise, plan.adf.noise, plan.adf.mask) == ("nlm", "image", "edge_preserving")
    assert (plan.tomography.method, plan.tomography.step) == ("fbp", None)
    assert load_plan(written(tmp_path, plan_toml(plan))) == plan


def test_the_workflow_of_images_refuses_diffraction_patterns(tmp_path: Path) -> None:
    text = sentence(tmp_path, "workflow = 'liao2026'\n" + GOOD.replace('"adf"', '"4dstem"'))
    assert text.endswith(
        'workflow "liao2026" is the road of dark-field images; expected kind "adf", or workflow "pyaet"'
    )


PTYCHOGRAPHY = """
[ptychography]
slices = 3
slice_A = [6.0, 7.0]
tilt_mrad = [1, -2]
probe_modes = 2
likelihood = "anscombe"
read_noise = 0.4
prior_rad2_A2 = "off"
update_affine = 3
held_out = 0.05
[[ptychography.regularisers]]
kind = "layers"
weight = 0.3
sigma_A = 4.0
start = 2
"""


def test_the_plan_speaks_to_the_engine_in_its_own_words(tmp_path: Path) -> None:
    settings = load_plan(written(tmp_path, GOOD + PTYCHOGRAPHY)).ptychography.engine(threads=3)
    assert settings == ptycho.Settings(
        slices=3, slice_A=(6.0, 7.0), tilt_mrad=(1.0, -2.0), probe_modes=2, likelihood="anscombe", read_noise=0.4,
        prior_rad2_A2=None, update_affine=3, held_out=0.05, threads=3,
        regularisers=(ptycho.Regulariser("layers", 0.3, start=2, sigma_A=4.0),),
    )  # fmt: skip
    assert (
        load_plan(written(tmp_path, plan_toml(load_plan(tmp_path / "plan.toml")))).ptychography.engine(threads=3)
        == settings
    )


def test_what_the_plan_leaves_open_is_the_default_of_the_engine(tmp_path: Path) -> None:
    section = load_plan(written(tmp_path, GOOD)).ptychography
    assert section.engine() == ptycho.Settings()
    assert not section.refines_probe
    own = {"calibrate", "share_probe", "vacuum_radius_A", "blur_A"}
    known = {field.name for field in fields(ptycho.Settings)}
    assert set(type(section).model_fields) - own == known - {"threads", "device_bytes"}


def test_every_aberration_of_the_engine_can_be_stated() -> None:
    known = {field.name for field in fields(ptycho.Optics)}
    assert known == {"energy_eV", "semiangle_mrad", "defocus_A", *ABERRATIONS}
    assert known <= set(Input.model_fields)


def test_a_missing_plan_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere\.toml: no such file"):
        load_plan(tmp_path / "nowhere.toml")


@given(
    st.recursive(
        st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5)),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
        max_leaves=6,
    )
)
def test_whatever_stands_in_a_plan_gives_a_plan_or_a_sentence(value: object) -> None:
    for data in ({"input": value}, {"specimen": {"elements": value, "min_distance_A": value}}, {"tomography": value}):
        with pytest.raises(InputError) as fault:
            validate_section(Plan, data, "plan")
        assert str(fault.value).startswith("plan: ")
