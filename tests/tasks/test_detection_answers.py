"""What a trained detector answers: a run measured again, objects in new images, drawings."""

import json
from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from data.detection_miniatures import coco
from foveal.cli import main
from foveal.data.detection.rle import decode, encode
from foveal.errors import OptionError
from foveal.tasks.detection.answers import answers
from foveal.tasks.detection.kind import KIND
from foveal.tasks.kind import Asked
from foveal.tasks.opened import open_models
from foveal.tasks.train import train
from foveal.viz.detections import COLOURS, LEAST, Seen, drawn
from tests.tasks.detection_sample import small

pytest.importorskip("faster_coco_eval")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return coco(tmp_path_factory.mktemp("coco") / "coco")


@pytest.fixture(scope="module")
def run(folder, tmp_path_factory):
    """A run that has learned nothing, whose every answer is told."""
    out = tmp_path_factory.mktemp("run") / "run"
    train(small(folder, epochs=1), out, save_seconds=1e9)
    return out


def test_a_run_is_measured_again_as_it_was(run, folder, tmp_path, capsys):
    assert main(["evaluate", str(run), "--json", "--results", str(tmp_path / "x.json")]) == 0
    told = json.loads(capsys.readouterr().out)
    recorded = told["recorded"]
    assert recorded and {name: told[name] for name in recorded if name in told} == {
        name: value for name, value in recorded.items() if name in told
    }
    assert {"box_ap", "mask_ap"} <= set(told) and len(told["classes"]) == 3
    assert (tmp_path / "x.json").exists()


def test_answers_name_box_and_mask_each_object_and_go_past_damaged_files(run, folder, tmp_path, capsys):
    given = tmp_path / "in"
    given.mkdir()
    Image.new("L", (70, 33), 90).save(given / "grey.png")
    Image.new("RGBA", (20, 200)).save(given / "tall.png")
    (given / "broken.jpg").write_bytes(b"\xff\xd8nothing")
    asked = ["predict", str(run), str(given), "--draw", str(tmp_path / "out"), "--threshold", "0"]
    assert main(asked) == 2
    told = {line["image"].rpartition("/")[2]: line for line in map(json.loads, capsys.readouterr().out.splitlines())}
    assert set(told) == {"grey.png", "tall.png", "broken.jpg"}
    assert "error" in told["broken.jpg"] and "objects" not in told["broken.jpg"]
    assert told["grey.png"]["size"] == [33, 70] and told["grey.png"]["objects"]
    for each in told["grey.png"]["objects"]:
        assert each["class"] in ("person", "dog", "toothbrush") and 0 <= each["score"] <= 1
        assert len(each["box"]) == 4 and decode(each["mask"]).shape == (33, 70)
    with Image.open(tmp_path / "out" / "grey.png") as picture:
        assert max(picture.size) >= LEAST
    most = max(each["score"] for line in told.values() for each in line.get("objects", ()))
    main([*asked[:-1], str(min(1.0, most + 1e-4))])
    kept = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert not any(line.get("objects") for line in kept)


def test_a_threshold_below_the_detectors_own_is_kept_to(run, folder):
    opened = open_models(run)
    opened.model.roi_heads.score_thresh = 0.99
    asked = next(iter((folder / "val2017").iterdir()))

    low = next(KIND.answers(opened, [str(asked)], Asked(threshold=0.0)))
    high = next(KIND.answers(opened, [str(asked)], Asked(threshold=0.99)))
    assert len(low.record["objects"]) > len(high.record["objects"])
    assert opened.model.roi_heads.score_thresh == 0.99
    with pytest.raises(OptionError, match="--threshold must be at least 0 and at most 1, got 1.5"):
        KIND.answers(opened, [str(asked)], Asked(threshold=1.5))


@pytest.mark.parametrize(("labels", "seen"), [("ids", ["dog"]), ("dense", ["N/A", "dog"])])
def test_what_is_found_of_a_class_that_no_category_has_is_no_answer(folder, labels, seen):
    def model(images):
        boxes = torch.tensor([[0.0, 0.0, 4.0, 4.0], [2.0, 2.0, 9.0, 9.0]])
        return [{"boxes": boxes, "scores": torch.tensor([0.9, 0.8]), "labels": torch.tensor([2, 3])}]

    detector = torch.nn.Module()
    detector.forward = model
    opened = SimpleNamespace(
        model=detector, told={"classes": ["cat", "N/A", "dog"]}, device="cpu", autocast=nullcontext, source="run",
        recipe=SimpleNamespace(data=SimpleNamespace(labels=labels)),
    )  # fmt: skip
    (answer,) = answers(opened, [str(sorted((folder / "val2017").iterdir())[0])], Asked())
    assert [each["class"] for each in answer.record["objects"]] == seen


def test_a_drawing_shows_box_mask_and_name_in_the_colour_of_the_class():
    picture = np.zeros((60, 80, 3), np.uint8)
    mask = np.zeros((60, 80), bool)
    mask[25:45, 30:60] = True
    seen = Seen("dog", 0.9, (20.0, 15.0, 50.0, 40.0), encode(mask), colour=1)
    image = drawn(picture, [seen])
    factor = image.shape[0] // 60
    assert image.shape == (60 * factor, 80 * factor, 3) and max(image.shape) >= LEAST
    colour = np.array(COLOURS[1])
    assert np.array_equal(image[15 * factor, 40 * factor], colour)  # upper side of the box
    inside = image[35 * factor, 45 * factor]
    assert inside.any() and (inside < colour).all()  # tinted
    assert not image[50 * factor, 25 * factor].any()  # in the box, outside the mask
    assert (image[: 15 * factor] == colour).all(-1).sum() > 200  # the name's ground, above the box
    assert not drawn(picture, []).any()


def test_names_beside_each_other_do_not_hide_each_other():
    picture = np.zeros((640, 640, 3), np.uint8)
    objects = [
        Seen("one", 0.9, (100.0, 100.0, 200.0, 200.0), colour=0),
        Seen("two", 0.8, (102.0, 101.0, 198.0, 200.0), colour=1),
    ]
    image = drawn(picture, objects)
    areas = [(image == np.array(COLOURS[n])).all(-1).sum() for n in (0, 1)]
    alone = [(drawn(picture, [each]) == np.array(COLOURS[each.colour])).all(-1).sum() for each in objects]
    assert all(both > 0.6 * one for both, one in zip(areas, alone, strict=True))
