"""Files of labels: one class a pixel in whatever form it is stored, and what is no class is said."""

import numpy as np
import pytest
from PIL import Image

from data import segmentation_miniatures as miniatures
from foveal.data.segmentation.labels import Coding, read_labels
from foveal.errors import DataError

MARKED = np.array([[0, 1, 2], [2, 255, 1]], np.uint8)


def encoded(mode, path):
    """``MARKED`` in one of the forms that users have."""
    if mode == "P":
        return miniatures.palette_png(MARKED, path)
    if mode == "renumbered":
        # As tools that save space write it: only the colours that are used, in another order.
        colours = miniatures.voc_colours(256)
        image = Image.fromarray(np.select([MARKED == 2, MARKED == 255, MARKED == 0], [0, 1, 2], 3).astype(np.uint8))
        image = image.convert("P")
        image.putpalette([v for number in (2, 255, 0, 1) for v in colours[number]])
        return miniatures.save(image, path)
    if mode == "other palette":
        image = Image.fromarray(MARKED).convert("P")
        image.putpalette([v for number in range(256) for v in (number, 255 - number, 77)])
        return miniatures.save(image, path)
    if mode == "16 bits":
        return miniatures.save(Image.fromarray(MARKED.astype(np.uint16)), path)
    if mode == "three greys":
        return miniatures.save(Image.fromarray(MARKED).convert("RGB"), path)
    if mode in ("RGB", "RGBA"):
        colours = np.array(miniatures.voc_colours(256), np.uint8)
        return miniatures.save(Image.fromarray(colours[MARKED]).convert(mode), path)
    return miniatures.grey_png(MARKED, path)


@pytest.mark.parametrize("mode", ["P", "renumbered", "other palette", "L", "16 bits", "three greys", "RGB", "RGBA"])
def test_labels_are_the_same_in_whatever_form_they_are_stored(tmp_path, mode):
    np.testing.assert_array_equal(read_labels(encoded(mode, tmp_path / "a.png"), Coding.plain(3)), MARKED)


def test_labels_of_one_bit_are_numbers(tmp_path):
    image = Image.fromarray(np.array([[True, False]]))
    assert image.mode == "1"
    path = miniatures.save(image, tmp_path / "a.png")
    assert read_labels(path, Coding.plain(2)).tolist() == [[1, 0]]


WRONG = {
    "outside": (lambda p: miniatures.grey_png(np.array([[0, 3]], np.uint8), p), "has the label 3 in row 0, column 1, wa"
                r"nted are 0 to 2, and 255 for what does not count\. Map it to a class or to what does not count, or"),
    "16 bits": (lambda p: miniatures.save(Image.fromarray(np.array([[7, 300]], np.uint16)), p), "has the label 7 in row"
                " 0, column 0"),
    "wide": (lambda p: miniatures.save(Image.fromarray(np.array([[0], [256]], np.uint16)), p), "label 256 in row 1"),
    "colours": (lambda p: miniatures.save(Image.fromarray(np.array([[[0, 0, 0], [9, 8, 7]]], np.uint8)), p), r"holds co"
                r"lours, with \(9, 8, 7\) in row 0, column 1; the colours of VOC's classes or one value a pixel are"),
    "jpeg": (lambda p: Image.fromarray(MARKED).save(p, "JPEG"), "holds labels as JPEG, which changes values"),
    "float": (lambda p: Image.fromarray(MARKED.astype(np.float32)).save(p, "TIFF"), "Pillow's mode F, one grey value"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_wrong_labels_are_told_with_their_file_value_and_place(tmp_path, case):
    write, words = WRONG[case]
    write(tmp_path / "a.png")
    with pytest.raises(DataError, match=f"^load: {tmp_path / 'a.png'} ?.*{words}"):
        read_labels(tmp_path / "a.png", Coding.plain(3))
