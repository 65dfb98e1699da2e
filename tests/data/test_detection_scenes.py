"""Scenes: the same ones always, masks that are where the digits are, nothing shared between the sides."""

import numpy as np
import pytest

from foveal.data.detection import digit_scenes, scenes
from foveal.data.detection.coco import load_detection
from foveal.data.detection.options import DetectionData
from foveal.data.detection.rle import decode, from_segmentation
from foveal.data.detection.scenes import CLASSES, CROWD, scene


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_scene_follows_from_its_split_and_number_alone(split):
    for index in (0, CROWD):
        first, again = scene(index, split), scene(index, split)
        assert all(np.array_equal(a, b) for a, b in zip(vars(first).values(), vars(again).values(), strict=True))
    assert not np.array_equal(scene(0, "train").image[:90, :90], scene(0, "val").image[:90, :90])


def test_masks_do_not_overlap_and_hold_what_stands_out_of_the_background():
    for index in range(30):
        made = scene(index, "train")
        assert made.image.shape[:2] in scenes.SIZES and made.image.dtype == np.uint8
        assert made.masks.shape == (len(made.labels), *made.image.shape[:2]) and len(made.crowd) == len(made.labels)
        assert made.masks.sum(0).max(initial=0) <= 1
        assert all(20 <= mask.sum() < 60 * 60 for mask in made.masks)
        assert set(made.labels.tolist()) <= set(range(len(CLASSES)))


def test_a_digit_has_the_class_of_its_source():
    glyphs, labels = scenes._digits("val")
    canvas = scenes._Canvas(np.full((64, 64, 3), 90.0))
    canvas.paste(glyphs[5], int(labels[5]), np.random.default_rng(0), (40, 41))
    made = canvas.finished()
    rows, columns = (np.flatnonzero(made.masks[0].any(axis)) for axis in (1, 0))
    box = made.masks[0][rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    ink = scenes._scaled(glyphs[5], 40, 1.0) > scenes.INK
    assert made.labels.tolist() == [labels[5]]
    assert box.shape[0] == ink.shape[0] and abs(box.mean() - ink.mean()) < 0.1
    assert (made.image[made.masks[0]].mean() > 180) and np.all(made.image[~made.masks[0]] >= 90)


def test_every_split_has_a_scene_without_digits_and_one_with_a_crowd_of_one_class():
    for split, count in scenes.COUNTS.items():
        empty = scene(scenes.EMPTY_EVERY - 1, split)
        assert count >= scenes.EMPTY_EVERY and len(empty.labels) == 0 == len(empty.masks)
        assert scene(CROWD, split).crowd.tolist()[0] and scene(CROWD, split).crowd.sum() == 1
        assert not scene(CROWD + 1, split).crowd.any()


def test_training_and_validation_share_no_digit_and_no_part_of_a_photograph():
    train, val = ({glyph.tobytes() for glyph in scenes._digits(side)[0]} for side in ("train", "val"))
    assert len(train | val) == 1797 and len(val) > 300
    assert not train & val
    assert scenes.COLUMNS["train"][1] <= scenes.COLUMNS["val"][0]


def test_scenes_on_disk_are_coco_with_masks_to_the_pixel(tmp_path, monkeypatch):
    monkeypatch.setattr(digit_scenes, "COUNTS", {"train": CROWD + 1, "val": 2})
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        digit_scenes.write(tmp_path / name)
    written = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*.*"))
    assert all((tmp_path / "a" / path).read_bytes() == (tmp_path / "b" / path).read_bytes() for path in written)
    assert len(written) == CROWD + 1 + 2 + 2
    data = load_detection(DetectionData(name="folder", path=str(tmp_path / "a"), flip=0.0), masks=True)
    assert data.classes == CLASSES and data.category_ids == digit_scenes.CATEGORY_IDS
    for index in (0, CROWD):
        made, (image, target) = scene(index, "train"), data.train.item(index)
        single = ~made.crowd
        assert np.array_equal(target["masks"].bool().numpy(), made.masks[single])
        assert target["labels"].tolist() == (made.labels[single] + 1).tolist()
        assert np.abs(image.permute(1, 2, 0).numpy().astype(int) - made.image).mean() < 6
    told = data.train.annotations
    crowd = told.shapes[int(np.flatnonzero(told.crowds)[0])]
    rows, columns = made.image.shape[:2]
    assert np.array_equal(decode(from_segmentation(crowd, rows, columns)).astype(bool), made.masks[0])
