"""Cloud files of the formats that people have: the same points from each, and a sentence for what is none."""

import re
import struct

import numpy as np
import pytest

from foveal.data.picture import UnreadableError
from foveal.data.points.files import read_clouds
from foveal.data.points.hdf5 import Hdf5Clouds
from foveal.errors import DataError

XYZ = [[0.5, -1.25, 2.0], [3.0, 0.0, -0.75], [1e-3, 8.0, 4.5]]
FACES = [(0, 1, 2), (0, 1, 2, 1)]


def read(path, content, channels=3, **asked):
    """Points of the only cloud of a file with these bytes."""
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    (cloud,) = read_clouds(path, channels, **({"drawn": 64} | asked))
    assert cloud.points.dtype == np.float64
    return cloud.points


def refused(path, content, channels=3):
    with pytest.raises(UnreadableError) as raised:
        read(path, content, channels)
    one = re.sub(r"\. (Save|Turn|Fetch) ", " ", str(raised.value))  # what to do about it may follow
    assert "\n" not in one and ". " not in one
    return str(raised.value)


def header(form, *lines, end="\n"):
    return end.join(["ply", f"format {form} 1.0", *lines, "end_header", ""]).encode()


def axes(kind="float", names="xyz"):
    return [f"property {kind} {name}" for name in names]


def packed(order, kind, rows=XYZ):
    return b"".join(struct.pack(f"{order}3{kind}", *row) for row in rows)


LITTLE = header("binary_little_endian", "element vertex 1", *axes()) + b"\0\0\0\x3f\0\0\x80\xbf\0\0\x80\x42"
BIG = header("binary_big_endian", "element vertex 1", *axes()) + b"\x3f\0\0\0\xbf\x80\0\0\x42\x80\0\0"


@pytest.mark.parametrize("content", [LITTLE, BIG])
def test_bytes_of_a_point_are_read_in_the_order_that_the_header_tells(content, tmp_path):
    assert read(tmp_path / "a.ply", content).tolist() == [[0.5, -1.0, 64.0]]


def faces(order):
    return b"".join(struct.pack(f"{order}B{len(face)}i", len(face), *face) for face in FACES)


LISTS = ["element face 2", "property list uchar int vertex_indices"]
MIXED = ["property uchar red", *axes("double", "z"), "property short n", *axes("float", "xy"), "property int8 last"]


def mixed(order):
    return b"".join(struct.pack(f"{order}Bdhffb", 7, z, -3, x, y, -1) for x, y, z in XYZ)


def listed(order):
    """Vertices with lists of one and two numbers among their properties."""
    return b"".join(struct.pack(f"{order}fH{n}dff", x, n, *[9] * n, y, z) for n, (x, y, z) in enumerate(XYZ))


LIST_AMONG = [*axes(names="x"), "property list ushort double more", *axes(names="yz")]
PLY = {
    "comments and objects": lambda form, order: (
        header(form, "comment element vertex 9", "obj_info end_header", "", "element vertex 3", *axes())
        + packed(order, "f")
    ),
    "lines of Windows": lambda form, order: (
        header(form, "element vertex 3", *axes("float64"), end="\r\n") + packed(order, "d")
    ),
    "lines of an old Mac": lambda form, order: (
        header(form, "element vertex 3", *axes("float32"), end="\r") + packed(order, "f")
    ),
    "types of every width in any order": lambda form, order: (
        header(form, "element vertex 3", *MIXED) + mixed(order)
    ),
    "faces behind": lambda form, order: (
        header(form, "element vertex 3", *axes(), *LISTS) + packed(order, "f") + faces(order)
    ),
    "faces and a camera before": lambda form, order: (
        header(form, *LISTS, "element camera 1", "property ushort f", "element vertex 3", *axes())
        + faces(order) + struct.pack(f"{order}H", 50) + packed(order, "f")
    ),
    "lists among the numbers of a vertex": lambda form, order: (
        header(form, "element vertex 3", *LIST_AMONG) + listed(order)
    ),
}  # fmt: skip


@pytest.mark.parametrize(("form", "order"), [("binary_little_endian", "<"), ("binary_big_endian", ">")])
@pytest.mark.parametrize("case", PLY)
def test_vertices_of_binary_ply_are_read_whatever_stands_around_them(case, form, order, tmp_path):
    np.testing.assert_allclose(read(tmp_path / "a.ply", PLY[case](form, order)), XYZ, rtol=1e-6)


def test_vertices_of_ply_in_text_are_read_whatever_stands_around_them(tmp_path):
    rows = "".join(f"{z} 7 {x} {y}\n" for x, y, z in XYZ).encode()
    head = ["element vertex 3", *axes("float", "z"), "property uchar red", *axes("double", "xy")]
    behind = header("ascii", *head, *LISTS) + rows + b"3 0 1 2\n4 0 1 2 1\n"
    before = header("ascii", *LISTS, *head, end="\r\n") + b"3 0 1 2\r\n4 0 1 2 1\r\n" + rows.replace(b"\n", b"\r\n")
    among = "".join(f"{x} {n} {'9 ' * n}{y} {z}\n" for n, (x, y, z) in enumerate(XYZ)).encode()
    for content in (behind, before, header("ascii", "element vertex 3", *LIST_AMONG) + among):
        np.testing.assert_allclose(read(tmp_path / "a.ply", content), XYZ)


@pytest.mark.parametrize("kind", ["float", "double"])
def test_normals_of_ply_are_read_where_the_network_takes_them(kind, tmp_path):
    head = header("binary_little_endian", "element vertex 1", *axes(kind, ["nx", "ny", "nz", "x", "y", "z"]))
    row = head + struct.pack("<6" + kind[0], 0, 0, 1, 2, 3, 4)
    assert read(tmp_path / "a.ply", row, 6).tolist() == [[2, 3, 4, 0, 0, 1]]
    assert read(tmp_path / "a.ply", row, 3).tolist() == [[2, 3, 4]]
    told = refused(tmp_path / "a.ply", LITTLE, 6)
    assert told == "its vertices must have x, y, z, nx, ny, nz, they have x, y, z"


def form(*lines, rows=b"", of="binary_little_endian"):
    return header(of, *lines) + rows


NO_PLY = {
    "cut off": (LITTLE[:-1], "its header tells of 1 rows of element vertex, the file ends after 0"),
    "cut off in text": (form("element vertex 2", *axes(), rows=b"1 2 3          \n", of="ascii"),
                        "2 rows of element vertex, the file ends after 1"),
    "cut off in faces before": (form(*LISTS, "element vertex 1", *axes(), rows=b"\3\0\0\0\0\1"),
                                "2 rows of element face, the file ends after 1"),
    "a list longer than the file": (form(*LISTS, "element vertex 1", *axes(), rows=b"\3" + bytes(12) + b"\xff"),
                                    "2 rows of element face, the file ends after 1"),
    "a list of fewer than none": (
        form("element vertex 1", *axes(), "property list char int x", rows=bytes(12) + b"\xfe"),
        "row 0 of element vertex has a list of -2 numbers",
    ),
    "vertices with a list cut off": (form("element vertex 3", *LIST_AMONG, rows=listed("<")[:-1]),
                                     "3 rows of element vertex, the file ends after 2"),
    "more than told": (LITTLE + b"1234", "its header tells of 1 vertices, 4 bytes more follow them"),
    "more than told in text": (form("element vertex 1", *axes(), rows=b"1 2 3\n4 5 6\n", of="ascii"),
                               "its header tells of 1 vertices, more lines follow them"),
    "an untold number": (form("element vertex 1", *axes(), rows=b"1 2 3 4\n", of="ascii"),
                         "its vertices must have 3 numbers each, got 4"),
    "a word": (form("element vertex 1", *axes(), rows=b"1 2 three\n", of="ascii"), "a vertex is no row of numbers"),
    "a lie": (form("element vertex 999999999999999", *axes(), rows=bytes(24)), "the file ends after 2"),
    "a lie in text": (form("element vertex 999999999999", *axes(), rows=b"1 2 3\n", of="ascii"),
                      "999999999999 rows of element vertex, fewer fit into the file"),
    "a lie before": (form("element face 999999999999", *LISTS[1:], "element vertex 1", *axes(), rows=bytes(40)),
                     "999999999999 rows of element face, the file ends after 40"),
    "no points": (form("element vertex 0", *axes()), "it holds no points"),
    "no points in text": (form("element vertex 0", *axes(), of="ascii"), "it holds no points"),
    "no z": (form("element vertex 1", *axes(names="xy")), "its vertices must have x, y, z, they have x, y"),
    "z of lists": (form("element vertex 1", *axes(names="xy"), "property list uchar int z"), "they have x, y"),
    "no vertices": (form(*LISTS), "its header names no element vertex"),
    "no form": (b"ply\nelement vertex 1\nend_header\n", "its header has no line format"),
    "another form": (header("binary_middle_endian"), "the line 'format binary_middle_endian 1.0', which PLY does not"),
    "another type": (form("element vertex 1", "property half x"), "the line 'property half x'"),
    "lengths that are no integers": (form("element vertex 1", "property list float int x"), "'property list float"),
    "a count that is none": (form("element vertex -1"), "the line 'element vertex -1'"),
    "no end": (b"ply\nformat ascii 1.0\n", "its header does not end"),
    "no beginning": (b"solid cube\n", "it does not begin with a line ply"),
    "NaN": (LITTLE[:-4] + b"\0\0\xc0\x7f", "1 of 1 points are no finite numbers"),
}  # fmt: skip


@pytest.mark.parametrize("case", NO_PLY)
def test_what_is_no_whole_ply_file_is_refused_in_a_sentence(case, tmp_path):
    content, told = NO_PLY[case]
    assert told in refused(tmp_path / "a.ply", content)


def test_places_on_a_map_keep_their_digits(tmp_path):
    content = header("binary_little_endian", "element vertex 1", *axes("double")) + struct.pack("<3d", 4e6 + 0.25, 1, 2)
    assert read(tmp_path / "a.ply", content)[0, 0] == 4e6 + 0.25


ROWS = [" ".join(map(str, row)) for row in XYZ]
COMMAS = [row.replace(" ", ",") for row in ROWS]
TABLES = {
    "spaces": ROWS,
    "a comment and empty lines": ["# x y z", "", *ROWS, ""],
    "tabs": [row.replace(" ", "\t") for row in ROWS],
    "semicolons": [row.replace(" ", "; ") for row in ROWS],
    "the mark of UTF-8": ["\ufeff" + COMMAS[0], *COMMAS[1:]],
    "names": ["x,y,z", *COMMAS],
    "names and an index, as pandas writes": [",x,y,z", *(f"{n},{row}" for n, row in enumerate(COMMAS))],
    "names in another order": ['"Z","intensity","X","Y"', *(f"{z},9,{x},{y}" for x, y, z in XYZ)],
    "names as CloudCompare writes": ["//X Y Z R G B", *(f"{row} 1 2 3" for row in ROWS)],
    "a count, as scanners write": ["3", *(f"{row} -1204" for row in ROWS)],
    "names and a count": ["//X Y Z", "3", *ROWS],
}


@pytest.mark.parametrize("case", TABLES)
def test_points_are_read_from_text_as_programs_write_it(case, tmp_path):
    assert read(tmp_path / "a.txt", "\n".join(TABLES[case]) + "\n").tolist() == XYZ


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        (["x,y,w", "1,2,3"], "line 1 names x, y, w, wanted are x, y, z"),
        (["4", "1 2 3", "4 5 6"], "its first line tells of 4 points, 2 follow"),
        (["# note", "1 2 3", "", "1 2 x"], "line 4 holds 'x' where a number is wanted"),
        (["# note", "1 2 3", "", "1 2"], "line 4 holds 2 numbers, those before 3"),
        (["x y z", "1 2 3", "1 2"], "line 3 holds 2 numbers, 3 or more are wanted"),
        (["1.5;2.5;abc"], "line 1 holds 'abc' where a number is wanted"),
    ],
)
def test_a_line_that_does_not_fit_is_told_by_its_number(lines, told, tmp_path):
    assert told in refused(tmp_path / "a.csv", "\n".join(lines) + "\n")


def test_arrays_of_numpy_are_read_alone_or_by_the_name_points(tmp_path):
    for name, arrays in (("a", [XYZ]), ("b", [])):
        np.savez_compressed(tmp_path / f"{name}.npz", *arrays, **({} if arrays else {"points": XYZ, "normals": [0]}))
        (cloud,) = read_clouds(tmp_path / f"{name}.npz", 3, drawn=1)
        assert cloud.points.tolist() == XYZ
    np.savez(tmp_path / "c.npz", one=XYZ, two=XYZ)
    whole = (tmp_path / "c.npz").read_bytes()
    assert "one array, or one named points, it holds one, two" in refused(tmp_path / "c.npz", whole)
    half = b"\x93NUMPY\1\0\x76\0" + b"{'descr': '<f8', 'shape': (3,".ljust(117) + b"\n"
    for content in (whole[:200], b"PK\3\4 and no more", half):
        assert "it is no NumPy array of numbers" in refused(tmp_path / "c.npz", content)
    lie = b"\x93NUMPY\1\0\x76\0" + b"{'descr':'<f4','fortran_order':False,'shape':(999999999999,3)}".ljust(117) + b"\n"
    assert re.search("more numbers than the memory holds|no NumPy array", refused(tmp_path / "a.npy", lie + bytes(24)))


@pytest.mark.parametrize("mark", [b"HEAP", b"SNOD", b"TREE"])
def test_a_garbled_table_of_an_hdf5_file_is_told_when_it_is_read_and_when_it_is_learned_from(mark, tmp_path):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "a.h5", "w", libver="earliest") as file:
        file["data"], file["label"] = np.array([XYZ]), np.array([[0]])
    whole = (tmp_path / "a.h5").read_bytes()
    assert read(tmp_path / "a.h5", whole).tolist() == XYZ
    assert "is no whole HDF5 file" in refused(tmp_path / "a.h5", whole.replace(mark, b"gone"))
    with pytest.raises(DataError, match="^load: .*a.h5 is no whole HDF5 file: .* Fetch or unpack it anew.$"):
        Hdf5Clouds([tmp_path / "a.h5"], tmp_path, ("cup",), {}, False)


SQUARE = "4 2 5\n0 0 1\n2 0 1\n2 2 1\n0 2 1\n"
OFF = {
    "as it is told": f"OFF\n{SQUARE}3 0 1 2\n3 0 2 3\n",
    "counts behind the word, as in ModelNet40": f"OFF{SQUARE}3 0 1 2\n3 0 2 3\n",
    "four corners, a comment and colours": f"COFF # a square\n\n{SQUARE}4 0 1 2 3 255 0 0\n2 0 1\n",
}


@pytest.mark.parametrize("case", OFF)
def test_points_of_a_surface_are_spread_evenly_over_it(case, tmp_path):
    points = read(tmp_path / "a.off", OFF[case], 6, drawn=4000)
    assert points.shape == (4000, 6) and (points[:, 2:] == [1, 0, 0, 1]).all()
    counts = np.histogram2d(points[:, 0], points[:, 1], 4, [[0, 2], [0, 2]])[0]
    assert counts.sum() == 4000 and np.abs(counts - 250).max() < 5 * 250**0.5
    assert (read(tmp_path / "a.off", OFF[case], 3, drawn=4000, seed=1) != points[:, :3]).any()
    assert (read(tmp_path / "a.off", OFF[case], 3, drawn=4000) == points[:, :3]).all()


def test_a_large_face_has_as_many_times_the_points_as_the_area_of_a_small_one(tmp_path):
    content = "OFF\n6 2 0\n0 0 0\n3 0 0\n0 3 0\n0 0 9\n1 0 9\n0 1 9\n3 0 1 2\n3 3 4 5\n"
    assert (read(tmp_path / "a.off", content, drawn=5000)[:, 2] == 9).mean() == pytest.approx(0.1, abs=0.02)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("ply\n", "it does not begin with a line OFF"),
        ("OFF BINARY\n", "its counts of vertices and faces are no numbers"),
        ("OFF\n", "its counts of vertices and faces are no numbers"),
        ("OFF\n3 1 0\n0 0 0\n1 0 0\n", "its header tells of 3 vertices, the file ends after 2"),
        ("OFF\n1 999999999999 0\n0 0 0\n", "its header tells of 999999999999 faces, the file ends after 0"),
        ("OFF\n2 1 0\n0 0 0\n1 0\n", "of its vertices the one after 1 others is '1 0'"),
        ("OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1\n", "of its faces the one after 0 others is '3 0 1'"),
        ("OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1 3\n", "a face names vertices 0 to 3 of 3"),
        ("OFF\n3 1 0\n0 0 0\n1 0 0\n2 0 0\n3 0 1 2\n", "its faces have no area to draw points from"),
        ("OFF\n3 1 0\n0 0 0\n1e400 0 0\n0 1 0\n3 0 1 2\n", "its faces have no area to draw points from"),
        ("OFF\n3 0 0\n0 0 0\n1 0 0\n2 0 0\n", "its faces have no area to draw points from"),
        ("OFF\n3 1 0\n0 0 0\nnan 0 0\n2 0 0\n3 0 1 2\n", "its faces have no area to draw points from"),
    ],
)
def test_what_is_no_whole_surface_is_refused_in_a_sentence(content, told, tmp_path):
    assert told in refused(tmp_path / "a.off", content)


def test_other_formats_are_refused_by_their_names(tmp_path):
    told = refused(tmp_path / "a.pcd", "VERSION .7\n")
    assert "clouds are read from .csv, .h5, " in told and told.endswith("got .pcd. Save it as .ply, which Open3D, "
                                                                       "CloudCompare and MeshLab do")  # fmt: skip
