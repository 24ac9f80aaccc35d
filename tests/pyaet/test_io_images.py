"""Image stacks: every format and axis order reads the same, every damaged or wrong file is answered with a sentence."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.io
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pyaet.io.errors import InputError
from pyaet.io.images import inspect_stack, natural_key, read_stack
from pyaet.io.mat import read_variable

AXES = ["".join(order) for order in itertools.permutations("nyx")]
MRC_MODES = {np.dtype("i1"): 0, np.dtype("i2"): 1, np.dtype("f4"): 2, np.dtype("u2"): 6, np.dtype("f2"): 12}


def write_npy(path: Path, array: np.ndarray) -> None:
    np.save(path, array)


def write_h5(path: Path, array: np.ndarray) -> None:
    with h5py.File(path, "w") as file:
        file["scan/images"] = array
        file["scan/angles_deg"] = np.zeros((len(array), 3))


def write_mat5(path: Path, array: np.ndarray, compress: bool = True) -> None:
    scipy.io.savemat(path, {"images": array, "dose": 8e3, "note": "counts"}, do_compression=compress)


def write_mat73(path: Path, array: np.ndarray) -> None:
    """As MATLAB does: 512 bytes of its own before the HDF5 signature, axes reversed, the class as an attribute."""
    with h5py.File(path, "w", userblock_size=512) as file:
        file["images"] = array.T
        file["images"].attrs["MATLAB_class"] = np.bytes_("double")
        file["note"] = np.frombuffer(b"counts", np.uint8).astype(np.uint16)[:, None]
        file["note"].attrs["MATLAB_class"] = np.bytes_("char")
    with path.open("r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file".ljust(124) + struct.pack("<HH", 0x0200, 0x4D49))


def write_tif(path: Path, array: np.ndarray) -> None:
    tifffile.imwrite(path, array, photometric="minisblack")


def write_tif_pages(path: Path, array: np.ndarray) -> None:
    with tifffile.TiffWriter(path) as file:
        for image in array:
            file.write(image, photometric="minisblack", contiguous=False, compression="zlib", metadata=None)


def write_tif_imagej(path: Path, array: np.ndarray) -> None:
    tifffile.imwrite(path, array, imagej=True, metadata={"axes": "TYX"[-array.ndim :]})


def write_mrc(path: Path, array: np.ndarray, *, extended: int = 0, pixel_A: float = 0.0, order: str = "<") -> None:
    nz, ny, nx = array.shape
    header = bytearray(1024)
    struct.pack_into(order + "4i", header, 0, nx, ny, nz, MRC_MODES[array.dtype])
    struct.pack_into(order + "3i3f", header, 28, nx, ny, nz, nx * pixel_A, ny * pixel_A, nz * pixel_A)
    struct.pack_into(order + "3i", header, 64, 1, 2, 3)
    struct.pack_into(order + "i", header, 92, extended)
    header[208:212] = b"MAP "
    header[212:214] = b"\x44\x44" if order == "<" else b"\x11\x11"
    values = array.astype(array.dtype.newbyteorder(order)).tobytes()
    path.write_bytes(bytes(header) + b"\x07" * extended + values)


Writer = Callable[[Path, np.ndarray], None]
WRITERS: dict[str, tuple[str, Writer]] = {
    "npy": ("stack.npy", write_npy),
    "h5": ("stack.h5", write_h5),
    "mat v5": ("stack.mat", write_mat5),
    "mat v5 uncompressed": ("stack.mat", lambda path, array: write_mat5(path, array, compress=False)),
    "mat v7.3": ("stack.mat", write_mat73),
    "tif": ("stack.tif", write_tif),
    "tif pages": ("stack.tif", write_tif_pages),
    "tif ImageJ": ("stack.tif", write_tif_imagej),
    "mrc": ("stack.mrc", write_mrc),
}
formats = pytest.mark.parametrize("kind", WRITERS)


@pytest.fixture
def stack() -> np.ndarray:
    return np.random.default_rng(0).poisson(3.0, (4, 6, 5)).astype(np.float32)


def written(folder: Path, kind: str, array: np.ndarray) -> Path:
    name, write = WRITERS[kind]
    write(folder / name, array)
    return folder / name


@formats
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    shape=st.tuples(*[st.integers(2, 7)] * 3),
    axes=st.sampled_from(AXES),
    dtype=st.sampled_from(["u1", "i2", "u2", "f4", "f8"]),
)
def test_every_format_and_axis_order_gives_the_same_stack(tmp_path, kind, shape, axes, dtype):
    if kind == "mrc" and np.dtype(dtype) not in MRC_MODES:
        dtype = "u2"
    if kind == "tif ImageJ" and dtype not in ("u1", "u2", "f4"):
        dtype = "f4"
    images = np.random.default_rng(sum(shape)).integers(0, 120, shape).astype(dtype)
    in_file = images.transpose(["nyx".index(axis) for axis in axes])
    path = written(tmp_path, kind, in_file)
    read = read_stack(path, axes=axes)
    np.testing.assert_array_equal(read, images)
    assert read.flags.c_contiguous and read.dtype.kind == "f"
    info = inspect_stack(path, axes=axes)
    assert (info.shape, info.file_shape) == (shape, in_file.shape)


def test_matlab_axes_are_those_of_its_size(tmp_path, stack):
    # size(images) = [5 6 4] in MATLAB, that is (x, y, tilt): image 3 at row y = 2, column x = 1 is images(2, 3, 4) there.
    in_matlab = stack.transpose(2, 1, 0)
    write_mat5(tmp_path / "v5.mat", in_matlab)
    write_mat73(tmp_path / "v73.mat", in_matlab)
    for name in ("v5.mat", "v73.mat"):
        assert read_stack(tmp_path / name, axes="xyn")[3, 2, 1] == in_matlab[1, 2, 3]
    np.testing.assert_array_equal(read_variable(tmp_path / "v5.mat", "images"), in_matlab)
    np.testing.assert_array_equal(read_variable(tmp_path / "v73.mat", "images"), in_matlab)


@formats
def test_a_cut_file_is_refused_never_read_as_something_else(tmp_path, kind):
    images = np.random.default_rng(1).poisson(3.0, (4, 24, 20)).astype(np.float32)
    path = written(tmp_path, kind, images)
    whole = path.read_bytes()
    refused = 0
    for size in np.unique(np.linspace(1, len(whole) - 1, 60).astype(int)):
        path.write_bytes(whole[:size])
        try:
            read = read_stack(path)
        except InputError as error:
            assert str(path) in str(error)
            refused += 1
        else:  # padding at the end may be missed by nobody
            np.testing.assert_array_equal(read, images)
    assert refused > 50


def test_a_tif_cut_between_two_pages_is_no_shorter_stack(tmp_path, stack):
    write_tif_pages(tmp_path / "stack.tif", stack)
    whole = (tmp_path / "stack.tif").read_bytes()
    with tifffile.TiffFile(tmp_path / "stack.tif") as file:
        ends = [page.dataoffsets[0] + page.databytecounts[0] for page in file.pages]
        starts = [page.offset for page in file.pages]
    for size in {end for position in (*starts[1:], *ends[:-1]) for end in (position - 1, position, position + 1)}:
        (tmp_path / "stack.tif").write_bytes(whole[:size])
        with pytest.raises(InputError):
            read_stack(tmp_path / "stack.tif")


@formats
def test_noise_in_place_of_a_file_is_refused(tmp_path, kind, rng):
    path = tmp_path / WRITERS[kind][0]
    path.write_bytes(rng.bytes(5000))
    with pytest.raises(InputError, match="stack"):
        read_stack(path)


@formats
def test_three_axes_are_expected(tmp_path, kind):
    if kind in ("mrc", "tif pages"):
        pytest.skip("the format always has three axes")
    path = written(tmp_path, kind, np.ones((6, 5), np.float32))
    with pytest.raises(InputError, match=r"three axes"):
        read_stack(path)


def test_tif_in_colour_is_refused(tmp_path):
    tifffile.imwrite(tmp_path / "photo.tif", np.zeros((4, 6, 5, 3), np.uint8), photometric="rgb")
    with pytest.raises(InputError, match="colour"):
        read_stack(tmp_path / "photo.tif")


def test_tif_pages_of_two_sizes_are_refused(tmp_path):
    with tifffile.TiffWriter(tmp_path / "mixed.tif") as file:
        file.write(np.zeros((8, 8), np.uint8), metadata=None)
        file.write(np.zeros((9, 8), np.uint8), metadata=None)
    with pytest.raises(InputError, match="one size"):
        read_stack(tmp_path / "mixed.tif")


@pytest.mark.parametrize("dtype", ["i1", "i2", "f4", "u2", "f2"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_mrc_modes_byte_orders_and_extended_header(tmp_path, dtype, order):
    images = (np.arange(60).reshape(3, 4, 5) - (0 if dtype == "u2" else 20)).astype(dtype)
    write_mrc(tmp_path / "stack.mrc", images, extended=256, pixel_A=0.5, order=order)
    np.testing.assert_array_equal(read_stack(tmp_path / "stack.mrc"), images)
    assert inspect_stack(tmp_path / "stack.mrc").pixel_A == pytest.approx(0.5)


def test_mrc_bytes_of_imod_are_unsigned(tmp_path):
    path = tmp_path / "stack.mrc"
    write_mrc(path, np.full((2, 3, 3), -56, np.int8))
    assert read_stack(path).max() == -56
    content = bytearray(path.read_bytes())
    struct.pack_into("<2i", content, 152, 1146047817, 0)
    path.write_bytes(content)
    assert read_stack(path).min() == 200


def test_mrc_of_an_unknown_mode_is_named(tmp_path):
    write_mrc(tmp_path / "stack.mrc", np.zeros((2, 3, 3), np.float32))
    content = bytearray((tmp_path / "stack.mrc").read_bytes())
    struct.pack_into("<i", content, 12, 4)
    (tmp_path / "stack.mrc").write_bytes(content)
    with pytest.raises(InputError, match="mode 4"):
        read_stack(tmp_path / "stack.mrc")


def test_pixel_size_is_checked_and_compared_with_the_header(tmp_path, stack, caplog):
    write_mrc(tmp_path / "stack.mrc", stack, pixel_A=0.35)
    for wrong in (0.0, -0.2, float("nan")):
        with pytest.raises(InputError, match="pixel_A is"):
            read_stack(tmp_path / "stack.mrc", pixel_A=wrong)
    read_stack(tmp_path / "stack.mrc", pixel_A=0.35)
    assert not caplog.text
    read_stack(tmp_path / "stack.mrc", pixel_A=3.5)
    assert "0.35 Å" in caplog.text


@pytest.mark.parametrize("suffix", [".tif", ".npy", ".mat", ".h5", ".mrc"])
def test_a_folder_is_a_stack_in_natural_order(tmp_path, stack, suffix):
    for name, image in zip(("t_-10", "t_-2", "t_+0", "t_+30"), stack, strict=True):
        path = tmp_path / f"{name}{suffix}"
        if suffix == ".mrc":
            write_mrc(path, image[None])
        else:
            {".tif": write_tif, ".npy": write_npy, ".mat": write_mat5, ".h5": write_h5_image}[suffix](path, image)
    (tmp_path / "angles.txt").write_text("-10\n-2\n0\n30\n")
    np.testing.assert_array_equal(read_stack(tmp_path), stack)
    info = inspect_stack(tmp_path, axes="nxy")
    assert info.shape == (4, 5, 6) and [path.stem for path in info.files] == ["t_-10", "t_-2", "t_+0", "t_+30"]
    np.testing.assert_array_equal(read_stack(tmp_path, axes="nxy"), stack.transpose(0, 2, 1))


def write_h5_image(path: Path, image: np.ndarray) -> None:
    with h5py.File(path, "w") as file:
        file["image"] = image


def test_a_list_keeps_its_order(tmp_path, stack):
    paths = [tmp_path / f"{name}.npy" for name in "dbca"]
    for path, image in zip(paths, stack, strict=True):
        np.save(path, image)
    np.testing.assert_array_equal(read_stack(paths), stack)
    np.testing.assert_array_equal(read_stack([str(path) for path in paths[:1]]), stack[:1])


@pytest.mark.parametrize(
    ("names", "ordered"),
    [
        (["a10", "a9", "a100"], ["a9", "a10", "a100"]),
        (["img-2", "img-10", "img-1"], ["img-1", "img-2", "img-10"]),
        (["tilt_+00", "tilt_-03", "tilt_+06", "tilt_-72"], ["tilt_-72", "tilt_-03", "tilt_+00", "tilt_+06"]),
        (["x_1.5", "x_1.25", "x_-0.5"], ["x_-0.5", "x_1.25", "x_1.5"]),
        (["10", "b", "2", "A1"], ["2", "10", "A1", "b"]),
    ],
)
def test_natural_order(names, ordered):
    assert sorted(names, key=lambda name: natural_key(Path(name + ".tif"))) == ordered


@given(st.lists(st.text(alphabet="ab_-+ .019", min_size=1, max_size=8), max_size=8))
def test_natural_order_compares_any_names(names):
    assert len(sorted(names, key=lambda name: natural_key(Path("x" + name)))) == len(names)


def test_folders_that_are_no_stack_are_named(tmp_path, stack):
    with pytest.raises(InputError, match="no image file"):
        read_stack(tmp_path)
    np.save(tmp_path / "a.npy", stack[0])
    write_tif(tmp_path / "b.tif", stack[1])
    with pytest.raises(InputError, match=r"several types \(\.npy, \.tif\)"):
        read_stack(tmp_path)
    np.save(tmp_path / "c.npy", stack[0, :3])
    with pytest.raises(InputError, match=r"c\.npy: image of shape \(3, 5\); a\.npy has \(6, 5\)"):
        read_stack([tmp_path / "a.npy", tmp_path / "c.npy"])
    np.save(tmp_path / "d.npy", stack)
    with pytest.raises(InputError, match=r"d\.npy.*one 2D image"):
        read_stack([tmp_path / "a.npy", tmp_path / "d.npy"])
    with pytest.raises(InputError, match="list of image files is empty"):
        read_stack([])


@pytest.mark.parametrize("kind", ["h5", "mat v5", "mat v7.3"])
def test_a_wrong_variable_is_answered_with_what_is_there(tmp_path, kind, stack):
    path = written(tmp_path, kind, stack)
    with pytest.raises(
        InputError, match=r"variable 'Imags' not in file; it has .*images \(4, 6, 5\).*did you mean '.*images'"
    ):
        read_stack(path, variable="Imags")


def test_several_stacks_in_a_file_need_a_name(tmp_path, stack):
    scipy.io.savemat(tmp_path / "two.mat", {"before": stack, "after": stack + 1})
    with pytest.raises(InputError, match=r"2 variables can be an image stack \(three axes\): before, after"):
        read_stack(tmp_path / "two.mat")
    np.testing.assert_array_equal(read_stack(tmp_path / "two.mat", variable="after"), stack + 1)


def test_a_file_without_a_stack_lists_what_it_has(tmp_path):
    scipy.io.savemat(tmp_path / "other.mat", {"Angle": np.zeros((60, 3))})
    with pytest.raises(InputError, match=r"the file has Angle \(60, 3\)"):
        read_stack(tmp_path / "other.mat")


def test_files_that_cannot_be_opened(tmp_path, stack, monkeypatch):
    np.save(tmp_path / "stack.npy", stack)
    with pytest.raises(InputError, match=r"no such file or folder; did you mean stack\.npy"):
        read_stack(tmp_path / "stak.npy")
    with pytest.raises(InputError, match="does not exist either"):
        read_stack(tmp_path / "nowhere" / "stack.npy")
    (tmp_path / "empty.npy").touch()
    with pytest.raises(InputError, match="is empty"):
        read_stack(tmp_path / "empty.npy")
    (tmp_path / "stack.xyz").write_text("1 2 3")
    with pytest.raises(InputError, match=r"unknown file type '\.xyz'; expected one of \.mat"):
        read_stack(tmp_path / "stack.xyz")

    def denied(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", denied)
    with pytest.raises(InputError, match="permission denied; make the file readable"):
        read_stack(tmp_path / "stack.npy")


@pytest.mark.parametrize("axes", ["nyxx", "zyx", "ny", "n,y,x", ""])
def test_axes_must_be_a_permutation(tmp_path, axes, stack):
    np.save(tmp_path / "stack.npy", stack)
    with pytest.raises(InputError, match=f"axes is '{axes}'"):
        read_stack(tmp_path / "stack.npy", axes=axes)


def test_values_that_are_no_counts_are_located(tmp_path, stack):
    broken = stack.copy()
    broken[2, 3, 1], broken[3, 0, 0] = np.nan, np.inf
    np.save(tmp_path / "stack.npy", broken)
    with pytest.raises(
        InputError, match=r"2 of 120 values are NaN or infinite; the first is in image 2 at row 3, column 1"
    ):
        read_stack(tmp_path / "stack.npy")
    np.save(tmp_path / "stack.npy", stack - 1)
    assert read_stack(tmp_path / "stack.npy").min() == -1
    with pytest.raises(InputError, match="negative, which electron counts cannot be"):
        read_stack(tmp_path / "stack.npy", counts=True)
    np.save(tmp_path / "stack.npy", stack + 1j)
    with pytest.raises(InputError, match="values of type complex64; expected real numbers"):
        read_stack(tmp_path / "stack.npy")


def test_a_pickle_in_a_npy_file_is_not_executed(tmp_path):
    np.save(tmp_path / "stack.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match="cannot be read as NumPy"):
        read_stack(tmp_path / "stack.npy")


def test_published_counts_have_the_tilt_axis_along_y(shared):
    file = shared / "si208" / "aSi_2nmFosCetr_Dose8p0e3_cov35pm_ForBM3D.mat"
    images = read_stack(file, axes="xyn", counts=True, pixel_A=0.195)
    assert images.shape == (60, 128, 128)
    assert images.mean() == pytest.approx(1.1815, abs=1e-4)
    # Along the tilt axis all tilts show the same profile, across it they do not.
    along, across = images.sum(axis=2), images.sum(axis=1)
    assert np.corrcoef(along).mean() > np.corrcoef(across).mean()
    info = inspect_stack(file, axes="xyn")
    assert info.shape == (60, 128, 128) and info.variable == "Trunc_projections_forBM3D"
