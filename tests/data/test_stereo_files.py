"""Disparity files byte for byte, and those that are damaged."""

import struct

import numpy as np
import pytest
from PIL import Image

from data.stereo_miniatures import plain_pfm, sixteen_bits
from foveal.data.stereo.disparity import read_disparity, write_disparity
from foveal.data.stereo.pfm import check_pfm, pfm_bytes, read_pfm, write_pfm
from foveal.errors import DataError, OptionError, ShapeError

GREY = np.array([[1.5, -2.0, 3.25], [0.0, 1e-3, 192.0]], np.float32)
# The bottom row comes first.
LITTLE = b"Pf\n3 2\n-1.0\n" + struct.pack("<6f", 0.0, 1e-3, 192.0, 1.5, -2.0, 3.25)
BIG = b"Pf\n3 2\n1.0\n" + struct.pack(">6f", 0.0, 1e-3, 192.0, 1.5, -2.0, 3.25)
COLOUR = np.arange(12, dtype=np.float32).reshape(2, 2, 3)
COLOURED = b"PF\n2 2\n-1.0\n" + struct.pack("<12f", 6, 7, 8, 9, 10, 11, 0, 1, 2, 3, 4, 5)


@pytest.mark.parametrize(
    ("values", "raw", "little"), [(GREY, LITTLE, True), (GREY, BIG, False), (COLOUR, COLOURED, True)]
)
def test_a_map_is_read_and_written_byte_for_byte(values, raw, little):
    read, scale = read_pfm(raw)
    assert scale == 1.0
    assert read.dtype == np.float32 and read.flags.c_contiguous
    np.testing.assert_array_equal(read, values)
    assert pfm_bytes(values, little_endian=little) == raw


@pytest.mark.parametrize(
    "head",
    [b"Pf\r\n3 2\r\n-1.0\r\n", b"Pf 3 2 -1.0\n", b"Pf\n3\n2\n-1.000000\n", b"Pf\n 3  2\t\n-1e0 ", b"Pf\n3 2\n-1\r"],
)
def test_headers_are_read_whatever_whitespace_parts_them(head, tmp_path):
    raw = head + LITTLE[len(b"Pf\n3 2\n-1.0\n") :]
    np.testing.assert_array_equal(read_pfm(raw)[0], GREY)
    (tmp_path / "a.pfm").write_bytes(raw)
    assert check_pfm(tmp_path / "a.pfm") is None


def test_values_that_look_like_whitespace_are_values():
    # 0x0a0a0a0a and 0x0d0a0a0a begin with a newline and with a carriage return and a newline.
    for first in (b"\n\n\n\n", b"\r\n\n\n"):
        values = first + struct.pack("<f", 2.0)
        for head in (b"Pf\n2 1\n-1.0\n", b"Pf\n2 1\n-1.0\r\n", b"Pf\n2 1\n-1.0\r"):
            assert read_pfm(head + values)[0].tobytes() == values


def test_the_scale_is_told_and_multiplies_nothing():
    raw = LITTLE.replace(b"-1.0", b"-0.003922")
    values, scale = read_pfm(raw)
    assert scale == 0.003922
    np.testing.assert_array_equal(values, GREY)
    assert read_pfm(pfm_bytes(GREY, scale=0.003922))[1] == 0.003922


@pytest.mark.parametrize("values", [GREY[:1], GREY[:, :1], np.full((1, 1), np.inf), np.array([[np.nan, -np.inf]])])
def test_what_is_written_is_read_again(values, tmp_path):
    for little in (True, False):
        write_pfm(tmp_path / "a.pfm", values, little_endian=little)
        np.testing.assert_array_equal(read_pfm(tmp_path / "a.pfm")[0], values.astype(np.float32))


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"", "is no portable float map"),
        (b"P6\n3 2\n255\n", "is no portable float map"),
        (b"Pf\n# a comment\n3 2\n-1.0\n", "is no portable float map"),
        (b"Pf\n-3 2\n-1.0\n", "is no portable float map"),
        (LITTLE[:-1], "3 x 2 x 1 values in 24 bytes, it has 23"),
        (LITTLE + b"\0", "24 bytes, it has 25"),
        (COLOURED[:-4], "2 x 2 x 3 values in 48 bytes, it has 44"),
        (b"Pf\n0 2\n-1.0\n", "0 x 2 x 1 values"),
        (LITTLE.replace(b"-1.0", b"0.0"), "scale 0.0"),
        (LITTLE.replace(b"-1.0", b"1e999"), "scale 1e999"),
        (LITTLE.replace(b"-1.0", b"-1-1"), "scale -1-1"),
    ],
)
def test_a_damaged_map_is_refused_in_a_sentence(raw, said, tmp_path):
    (tmp_path / "a.pfm").write_bytes(raw)
    with pytest.raises(DataError, match=rf"^load: \S+a\.pfm .*{said}.*Fetch it anew\.$"):
        read_pfm(tmp_path / "a.pfm")
    if "scale" not in said:
        assert check_pfm(tmp_path / "a.pfm")


def test_what_cannot_be_written_or_opened_is_said(tmp_path):
    with pytest.raises(ShapeError, match=r"^write: values must be \(rows, columns\)"):
        pfm_bytes(np.zeros((2, 2, 2)))
    with pytest.raises(DataError, match="^write: the scale of a map must be above 0, got -1"):
        pfm_bytes(GREY, scale=-1)
    with pytest.raises(DataError, match=r"^write: \S+ cannot be written"):
        write_pfm(tmp_path / "no" / "a.pfm", GREY)
    with pytest.raises(DataError, match=r"^load: \S+ cannot be opened: No such file"):
        read_pfm(tmp_path / "a.pfm")
    with pytest.raises(DataError, match=r"^load: disparities are read from \.pfm and \.png, got a\.tif"):
        read_disparity("a.tif")


def test_of_a_float_map_what_is_no_number_is_unknown_and_the_sign_is_made_one(tmp_path):
    raw = np.array([[1.0, np.inf, 2.0], [0.0, np.nan, -np.inf]], np.float32)
    wanted = np.array([[1.0, np.nan, 2.0], [0.0, np.nan, np.nan]], np.float32)
    for sign in (1, -1):
        (tmp_path / "a.pfm").write_bytes(plain_pfm(sign * raw))
        read = read_disparity(tmp_path / "a.pfm")
        np.testing.assert_array_equal(read, wanted)
        assert not np.signbit(read[1, 0])
    (tmp_path / "a.pfm").write_bytes(plain_pfm(np.array([[3.0, -1.0, 2.0]], np.float32)))
    np.testing.assert_array_equal(read_disparity(tmp_path / "a.pfm"), [[3.0, np.nan, 2.0]])


def test_a_colour_map_is_a_disparity_where_its_channels_are_one(tmp_path):
    write_pfm(tmp_path / "a.pfm", np.repeat(abs(GREY)[..., None], 3, 2))
    np.testing.assert_array_equal(read_disparity(tmp_path / "a.pfm"), abs(GREY))
    write_pfm(tmp_path / "a.pfm", COLOUR)
    with pytest.raises(DataError, match="three channels that differ"):
        read_disparity(tmp_path / "a.pfm")


def test_a_png_of_kitti_is_read_in_256ths_with_0_unknown(tmp_path):
    steps = np.array([[0, 1, 256], [65535, 32768, 300]])
    (tmp_path / "a.png").write_bytes(sixteen_bits(steps))
    wanted = np.where(steps == 0, np.nan, steps / 256).astype(np.float32)
    np.testing.assert_array_equal(read_disparity(tmp_path / "a.png"), wanted)
    write_disparity(tmp_path / "b.png", wanted)
    with Image.open(tmp_path / "b.png") as image:
        np.testing.assert_array_equal(np.asarray(image), steps)
    np.testing.assert_array_equal(read_disparity(tmp_path / "b.png"), wanted)


def test_a_disparity_too_small_for_16_bits_stays_known_and_one_too_large_is_refused(tmp_path):
    write_disparity(tmp_path / "a.png", np.array([[0.0, 1e-6, np.nan]]))
    np.testing.assert_array_equal(
        read_disparity(tmp_path / "a.png"), np.array([[1 / 256, 1 / 256, np.nan]], np.float32)
    )
    for wrong in (256.0, -1.0):
        with pytest.raises(OptionError, match=r"^write: a 16-bit PNG holds disparities from 0 to 255\.996 pixels, got"):
            write_disparity(tmp_path / "a.png", np.array([[wrong]]))
    with pytest.raises(OptionError, match=r"must end in \.pfm or \.png"):
        write_disparity(tmp_path / "a.tif", GREY)
    with pytest.raises(ShapeError, match=r"must be \(rows, columns\)"):
        write_disparity(tmp_path / "a.png", COLOUR)
    write_disparity(tmp_path / "a.pfm", wanted := np.array([[300.0, np.nan]], np.float32))
    np.testing.assert_array_equal(read_disparity(tmp_path / "a.pfm"), wanted)


@pytest.mark.parametrize("what", ["empty", "cut", "words", "eight bits", "colour"])
def test_a_png_that_is_no_disparity_is_refused_in_a_sentence(what, tmp_path):
    path = tmp_path / "a.png"
    whole = sixteen_bits(np.random.default_rng(0).integers(0, 65536, (64, 64)))
    if what == "eight bits":
        Image.new("L", (4, 4)).save(path)
    elif what == "colour":
        Image.new("RGB", (4, 4)).save(path)
    else:
        path.write_bytes({"empty": b"", "cut": whole[:4000], "words": b"not an image"}[what])
    with pytest.raises(
        DataError, match=r"^load: \S+a\.png (is no whole image: .|must be a grey PNG of 16 bits)"
    ) as told:
        read_disparity(path)
    assert "\n" not in str(told.value)
