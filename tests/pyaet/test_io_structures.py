"""Structure files: what is written comes back, what users have is read, what does not fit is said."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
import scipy.io
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis import Atoms, Cell
from pyaet.io.errors import InputError
from pyaet.io.structures import read_structure, write_extxyz
from pyaet.io.xyz import read_xyz

POSITIONS = np.array([[0.1, 0.2, 0.3], [1.0, 2.0, 3.0], [-4.0, 5.5, 6.25], [7.0, 8.0, 9.0]])


@pytest.fixture
def atoms(rng):
    return Atoms(rng.normal(size=(4, 3)) * 30, ("Si", "O", "O", "X"), rng.random(4), rng.random(4), rng.random(4))


def same(a: Atoms, b: Atoms) -> bool:
    names = ("positions_A", "intensity", "sigma_A", "species_probability")
    return a.symbols == b.symbols and all(np.array_equal(getattr(a, n), getattr(b, n), equal_nan=True) for n in names)


finite = st.floats(-1e6, 1e6, allow_nan=False)


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(st.tuples(finite, finite, finite), max_size=5),
    note=st.text(st.characters(blacklist_categories=("Cs", "Cc", "Zl", "Zp")), max_size=12),
)
def test_extxyz_comes_back_without_loss(tmp_path_factory, rows, note):
    path = tmp_path_factory.mktemp("xyz") / "a.extxyz"
    n = len(rows)
    atoms = Atoms(rows, ("Si",) * n, sigma_A=np.linspace(0, 1, n) / 3, species_probability=np.full(n, np.nan))
    write_extxyz(path, atoms, note=note, made_by="abc123", dose=1.6e3)
    assert same(read_structure(path), atoms)
    info = read_xyz(path).info
    assert (info["note"], info["made_by"], float(info["dose"])) == (note, "abc123", 1.6e3)


def test_ase_reads_what_is_written(tmp_path, atoms):
    import ase.io

    write_extxyz(tmp_path / "a.extxyz", atoms, made_by="key", note='two "words"')
    other = ase.io.read(tmp_path / "a.extxyz")
    assert np.array_equal(other.positions, atoms.positions_A)
    assert other.get_chemical_symbols() == list(atoms.symbols)
    assert np.array_equal(other.arrays["sigma_A"], atoms.sigma_A)
    assert other.info["made_by"] == "key"
    assert not other.pbc.any()


def test_what_ase_writes_is_read(tmp_path):
    import ase
    import ase.io

    made = ase.Atoms("SiO2H", POSITIONS[[0, 1, 2, 3]])
    made.arrays["sigma_A"] = np.array([0.1, 0.2, 0.3, 0.4])
    for name in ("a.extxyz", "a.xyz"):
        ase.io.write(tmp_path / name, made)
        read = read_structure(tmp_path / name)
        assert read.symbols == ("Si", "O", "O", "H")
        np.testing.assert_allclose(read.positions_A, POSITIONS)
    np.testing.assert_allclose(read_structure(tmp_path / "a.extxyz").sigma_A, made.arrays["sigma_A"])


def test_cif_is_read_through_ase(tmp_path):
    from ase.build import bulk

    bulk("Si", cubic=True).write(tmp_path / "si.cif")
    read = read_structure(tmp_path / "si.cif")
    assert read.symbols == ("Si",) * 8
    np.testing.assert_allclose(
        sorted(np.linalg.norm(read.positions_A - read.positions_A[0], axis=1))[1], 2.3513, atol=1e-3
    )


def test_a_killed_write_leaves_the_old_file(tmp_path, atoms, monkeypatch):
    path = tmp_path / "a.extxyz"
    write_extxyz(path, atoms)
    before = path.read_bytes()
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        write_extxyz(path, atoms.select([0]))
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.extxyz"]


def test_axes_say_what_the_columns_are(tmp_path):
    path = tmp_path / "a.xyz"
    path.write_text("1\n\nSi 1 2 3\n")
    assert read_structure(path, axes="x,y,z").positions_A.tolist() == [[1, 2, 3]]
    assert read_structure(path, axes="z,x,y").positions_A.tolist() == [[2, 3, 1]]
    assert read_structure(path, axes="y,x,-z").positions_A.tolist() == [[2, 1, -3]]
    assert read_structure(path, axes="yx-z", unit_A=10).positions_A.tolist() == [[20, 10, -30]]
    for axes in ("x,y", "x,x,z", "x,y,w", ""):
        with pytest.raises(InputError, match="axes is"):
            read_structure(path, axes=axes)
    with pytest.raises(InputError, match="unit_A is 0"):
        read_structure(path, unit_A=0)


def test_plain_xyz_with_numbers_for_elements(tmp_path):
    path = tmp_path / "a.xyz"
    path.write_text("2\nno properties here\n14 0 0 0 0.5\n8 1 1 1 0.7\n\n")
    assert read_structure(path).symbols == ("Si", "O")
    assert read_structure(path, types={14: "Ge", 8: "S"}).symbols == ("Ge", "S")


def v73(path, **arrays) -> None:
    """MATLAB v7.3 as MATLAB writes it: 512-byte header, axes reversed."""
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, array in arrays.items():
            file[name] = np.asarray(array).T


@pytest.mark.parametrize("write", [v73, lambda path, **arrays: scipy.io.savemat(path, arrays)], ids=["v7.3", "v5"])
@pytest.mark.parametrize("turned", [False, True])
def test_mat_of_either_version_and_orientation(tmp_path, write, turned):
    path = tmp_path / "a.mat"
    write(path, pos=POSITIONS.T if turned else POSITIONS, kind=np.array([[2, 3, 3, 2]]), scale=np.array([[1.5]]))
    assert set(read_structure(path).symbols) == {"X"}
    read = read_structure(path, types={2: "O", 3: "Si"})
    assert read.symbols == ("O", "Si", "Si", "O")
    assert np.array_equal(read.positions_A, POSITIONS)
    assert np.array_equal(read_structure(path, variable="pos", unit_A=2.0).positions_A, 2 * POSITIONS)


def test_mat_says_what_it_holds(tmp_path):
    path = tmp_path / "a.mat"
    scipy.io.savemat(
        path, {"one": POSITIONS, "two": POSITIONS, "a": np.ones((1, 4)), "b": np.ones((1, 4)), "c": np.ones((2, 2))}
    )
    with pytest.raises(InputError, match=r"2 variables can be the atom positions.*one, two"):
        read_structure(path)
    with pytest.raises(InputError, match="'three' not in file; it has one"):
        read_structure(path, variable="three")
    with pytest.raises(InputError, match="'c' has shape"):
        read_structure(path, variable="c")
    with pytest.raises(InputError, match="2 variables can be the type codes"):
        read_structure(path, variable="one", types={1: "Si"})
    with pytest.raises(InputError, match="holds the codes 1; say which elements"):
        read_structure(path, variable="one", types_variable="a")
    with pytest.raises(InputError, match="no element is named for type 1; types has 2=O"):
        read_structure(path, variable="one", types_variable="a", types={2: "O"})
    with pytest.raises(InputError, match="expected one type code for each of 4 atoms"):
        read_structure(path, variable="one", types_variable="c", types={1: "Si"})


def test_text_tables(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("% 2\n% comment\n1 0 0 0\n2\t1.5  2 -3e0 # tail\n")
    assert read_structure(path).symbols == ("X", "X")
    read = read_structure(path, types={1: "Si", 2: "O"})
    assert read.symbols == ("Si", "O")
    assert read.positions_A.tolist() == [[0, 0, 0], [1.5, 2, -3]]
    path = tmp_path / "b.csv"
    path.write_text("si,1,2,3\nO,4,5,6\n")
    assert read_structure(path).symbols == ("Si", "O")
    path.write_text("1,2,3\n4,5,6\n")
    assert read_structure(path).positions_A.tolist() == [[1, 2, 3], [4, 5, 6]]


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("a.xyz", "Si 0 0 0\n", "starts with the number of its atoms"),
        ("a.xyz", "3\n\nSi 0 0 0\n", "announces 3 atoms but 1 lines follow"),
        ("a.xyz", "1\n\nSi 0 0 0\n1\n\nSi 0 0 0\n", "one structure per file"),
        ("a.xyz", "1\n\nSi 0 0\n", "line 3 has 3 columns; expected 4"),
        ("a.xyz", "1\n\nSi 0 0 zero\n", "column 'pos' holds something else than numbers"),
        ("a.xyz", "1\n\nSi 0 0 nan\n", "every coordinate must be a finite number"),
        ("a.xyz", "1\n\nQq 0 0 0\n", "'Qq' is not an element symbol"),
        ("a.xyz", "1\nProperties=species:S:1:where:R:3\nSi 0 0 0\n", "no column pos:R:3"),
        ("a.xyz", "1\nProperties=species:S\nSi 0 0 0\n", "is not understood"),
        ("a.xyz", "1\nProperties=species:S:1:pos:Q:3\nSi 0 0 0\n", "names the kind 'Q'"),
        ("a.xyz", "1\nProperties=species:S:1:pos:R:3:sigma_A:R:1\nSi 0 0 0 -1\n", "cannot be negative"),
        ("a.txt", "1 2\n", "rows have 2 columns"),
        ("a.txt", "1 2 3\n1 1 2 3\n", "rows have 3, 4 columns"),
        ("a.txt", "% nothing\n", "rows have no columns"),
        ("a.txt", "1 a b c\n", "a coordinate is not a number"),
        ("a.cif", "nonsense\n", "cannot be read as an atomic structure"),
        ("a.mat", "nonsense\n", "cannot be read as MATLAB"),
    ],
)
def test_damaged_files_are_named_in_a_sentence(tmp_path, name, text, sentence):
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=sentence) as error:
        read_structure(tmp_path / name)
    assert str(error.value).count(str(tmp_path)) == 1


def test_options_that_cannot_apply_are_refused(tmp_path):
    (tmp_path / "a.xyz").write_text("1\n\nSi 0 0 0\n")
    with pytest.raises(InputError, match=r"only \.mat files have named variables"):
        read_structure(tmp_path / "a.xyz", variable="pos")
    (tmp_path / "a.txt").write_text("0 0 0\n")
    with pytest.raises(InputError, match="no type codes"):
        read_structure(tmp_path / "a.txt", types={1: "Si"})
    with pytest.raises(InputError, match="no such file"):
        read_structure(tmp_path / "b.xyz")


def test_bad_comments_are_refused(tmp_path, atoms):
    with pytest.raises(ValueError, match="line break"):
        write_extxyz(tmp_path / "a.extxyz", atoms, note="a\nb")
    with pytest.raises(ValueError, match="cannot be a key"):
        write_extxyz(tmp_path / "a.extxyz", atoms, Lattice="1")
    assert not list(tmp_path.iterdir())


def test_published_files(shared):
    truth = read_structure(shared / "si208" / "aSi_208atoms_GT.txt", types={1: "Si"})
    assert truth.symbols == ("Si",) * 208
    model = read_structure(
        shared / "si208" / "Model_aSi2nm_FoscCenter_Dose8p0e3_cov35pm_BM3D.mat",
        types={1: "Si"},
        unit_A=0.065,
        axes="y,x,z",
    )
    assert len(model) == 199
    folder = shared / "sio2_rings"
    for name, count, types in (
        ("1p6e3_multislice_cov35pm_S1p0N1000", 7754, {2: "O", 3: "Si"}),
        ("1p6e3_single_slice_cov35pm_S2p0N1000", 6995, {1: "O", 2: "Si"}),
    ):
        path = folder / f"Rings_Model_aSiO2_Dose{name}.mat"
        with pytest.raises(InputError, match="atom_pos_all, ref_pos_all; name one"):
            read_structure(path)
        assert len(read_structure(path, variable="atom_pos_all", types=types)) == count
        known = read_structure(path, variable="ref_pos_all", types={8: "O", 14: "Si"})
        assert (known.symbols.count("Si"), known.symbols.count("O")) == (2603, 5101)
    glass = read_structure(shared / "models" / "sio2_7704_GT.mat", types={8: "O", 14: "Si"})
    assert len(glass) == 7704


def test_error_bars_of_positions_are_read_and_turned(tmp_path):
    path = tmp_path / "a.extxyz"
    head = "1\nProperties=species:S:1:pos:R:3:{}\nSi 0 0 0 {}\n"
    path.write_text(head.format("covariance_A2:R:6", "4 1 2 5 3 6"))
    expected = np.array([[4, 1, 2], [1, 5, 3], [2, 3, 6]])
    np.testing.assert_allclose(read_structure(path).covariance_A2[0], expected)
    turned = read_structure(path, axes="y,x,-z", unit_A=2).covariance_A2[0]
    np.testing.assert_allclose(turned, 4 * np.array([[5, 1, -3], [1, 4, -2], [-3, -2, 6]]))
    path.write_text(head.format("sigma_xyz_A:R:3", "1 2 3"))
    np.testing.assert_allclose(read_structure(path).covariance_A2[0], np.diag([1, 4, 9]))
    for columns, values, sentence in (
        ("covariance_A2:R:4", "1 0 0 1", "width 4; expected 6"),
        ("sigma_xyz_A:R:2", "1 1", "width 2; expected 3"),
        ("covariance_A2:R:6", "-1 0 0 1 0 1", "a variance cannot be negative"),
    ):
        path.write_text(head.format(columns, values))
        with pytest.raises(InputError, match=sentence):
            read_structure(path)


def test_a_periodic_box_is_read_and_written(tmp_path):
    edges = np.array([[4.0, 0, 0], [1, 5, 0], [0, 0, 0]])
    atoms = Atoms([[0.0, 1, 2]], ("Si",), cell=Cell(edges, (True, True, False)))
    write_extxyz(tmp_path / "a.extxyz", atoms)
    again = read_structure(tmp_path / "a.extxyz", axes="y,x,z")
    assert again.cell is not None
    np.testing.assert_allclose(again.cell.vectors_A[:2], edges[:2, [1, 0, 2]])
    assert again.cell.periodic == (True, True, False)
    for old, sentence in (("T T F", "expected three of T and F"), ("4.0 0.0 0.0", "expected nine numbers")):
        broken = (tmp_path / "a.extxyz").read_text().replace(old, "4")
        (tmp_path / "b.extxyz").write_text(broken)
        with pytest.raises(InputError, match=sentence):
            read_structure(tmp_path / "b.extxyz")


def test_a_covariance_is_written_where_it_is_known_and_more_than_sigma_tells(tmp_path):
    full = np.array([[[4.0, 1, 0], [1, 3, 0], [0, 0, 2]]]) * 1e-4
    write_extxyz(tmp_path / "full.extxyz", Atoms([[0, 0, 0]], ("Si",), sigma_A=[0.02], covariance_A2=full))
    np.testing.assert_allclose(read_structure(tmp_path / "full.extxyz").covariance_A2, full)
    unknown = Atoms([[0, 0, 0]], ("Si",), sigma_A=[0.02], covariance_A2=np.full((1, 3, 3), np.nan))
    axes = {"sigma_xyz_A": np.array([[0.01, 0.02, 0.03]])}
    write_extxyz(tmp_path / "axes.extxyz", unknown, axes)
    read = read_structure(tmp_path / "axes.extxyz").covariance_A2
    np.testing.assert_allclose(read[0], np.diag([1e-4, 4e-4, 9e-4]))
