"""Answers for cloud files of every kind, pictures of them, and the commands that give them."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from foveal import models
from foveal.cli import main
from foveal.data.points import solids
from foveal.data.points.options import PointAugmentation, PointOptions
from foveal.tasks.kind import Asked
from foveal.tasks.opened import open_models
from foveal.tasks.points.answers import answers
from foveal.tasks.points.learning import PointLearning
from foveal.tasks.points.looking import looked
from foveal.tasks.points.recipe import PointsRecipe
from foveal.tasks.recipe import NamedModel
from foveal.tasks.train import train

h5py = pytest.importorskip("h5py")
SMALL = {"channels": 8, "depth": 1, "width": 16}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A trained run on solids of each kind, and the solids."""
    top = tmp_path_factory.mktemp("solids")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(top / "cache"))
        patch.setattr(solids, "SIDES", {"train": 10, "test": 2})
        data = PointOptions("solids", points=64, augmentation=PointAugmentation(dropout=0, rotation="any"))
        recipe = PointsRecipe(data=data, model=NamedModel("eat", SMALL), epochs=1, batch_size=5)
        train(recipe, top / "classes")
        parts = replace(data, name="solid-parts")
        train(replace(recipe, data=parts, model=NamedModel("part_segmenter", SMALL)), top / "parts")
    return top


def cloud_files(folder):
    """The same cone in every format, and what is none."""
    folder.mkdir()
    xyz, _ = solids.solid("cone", (1,), 150, cut=True)
    np.savetxt(folder / "a.txt", xyz)
    np.savetxt(folder / "b.csv", xyz, delimiter=",")
    np.save(folder / "c.npy", xyz)
    with h5py.File(folder / "d.h5", "w") as file:
        file["data"], file["label"] = np.stack([xyz, xyz]), np.array([[0], [4]], np.uint8)
    head = "ply\nformat ascii 1.0\nelement camera 1\nproperty float f\nelement vertex 150\n"
    head += "".join(f"property float {axis}\n" for axis in ("z", "x", "y", "red")) + "end_header\n7\n"
    rows = np.concatenate((xyz[:, [2, 0, 1]], np.ones((150, 1))), 1)
    (folder / "e.ply").write_text(head + "\n".join(" ".join(map(str, row)) for row in rows) + "\n")
    (folder / "f.txt").write_text("1 2 3\nnan 0 0\n")
    (folder / "g.txt").write_text("")
    (folder / "h.txt").write_text("<html>\n")
    np.save(folder / "i.npy", xyz.T)
    np.save(folder / "j.npy", np.array([{}]), allow_pickle=True)
    (folder / "k.h5").write_bytes((folder / "d.h5").read_bytes()[:500])
    (folder / "l.ply").write_text(head)
    head = head.replace("ascii", "binary_little_endian").replace("camera 1", "camera 0")
    (folder / "m.ply").write_bytes(head.removesuffix("7\n").encode() + rows.astype("<f4").tobytes())
    (folder / "n.txt").write_text("1 2\n3 4\n")
    return folder


ERRORS = {
    "f.txt": "1 of 2 points are no finite numbers, first is point 1",
    "g.txt": "the file is empty",
    "h.txt": "line 1 holds '<html>' where a number is wanted",
    "i.npy": "points must be (n, 3), got (3, 150). Turn it around by .T",
    "j.npy": "it is no NumPy array of numbers",
    "k.h5": "is no whole HDF5 file",
    "l.ply": "150 rows of element vertex, ",
    "n.txt": "points must have 3 numbers, got an array of (2, 2)",
}


def test_a_cloud_has_the_same_answer_in_every_format_and_damage_its_own_line(runs, tmp_path):
    folder = cloud_files(tmp_path / "clouds")
    told = list(answers(open_models(runs / "classes"), [str(folder), str(tmp_path / "gone.txt")], Asked()))
    whole = [answer for answer in told if answer.error is None]
    names = ["a.txt", "b.csv", "c.npy", "d.h5:0", "d.h5:1", "e.ply", "m.ply"]
    assert [answer.image.split("/")[-1] for answer in whole] == names
    shares = [{row["class"]: row["probability"] for row in answer.record["top"]} for answer in whole]
    assert all(share == pytest.approx(shares[0], abs=1e-4) for share in shares)
    assert sum(shares[0].values()) == pytest.approx(1, abs=1e-4) and set(shares[0]) == set(solids.SOLIDS)
    errors = {answer.image.split("/")[-1]: answer.error for answer in told if answer.error is not None}
    assert errors.pop("gone.txt") == "there is no such file"
    assert errors.keys() == ERRORS.keys()
    assert all(ERRORS[name] in errors[name] for name in ERRORS)


def test_a_damaged_row_has_its_own_line_and_the_rows_after_it_their_answers(runs, tmp_path):
    xyz = np.stack([solids.solid("cone", (n,), 70)[0] for n in range(3)])
    xyz[1, 5, 0] = np.nan
    np.save(tmp_path / "rows.npy", xyz)
    told = list(answers(open_models(runs / "classes"), [str(tmp_path / "rows.npy")], Asked()))
    assert [answer.error is None for answer in told] == [True, False, True]
    assert told[1].error == "1 of 70 points are no finite numbers, first is point 5"
    assert told[1].image.endswith("rows.npy:1")


def test_every_point_has_a_part_of_what_the_cloud_is_said_to_be(runs, tmp_path):
    folder = cloud_files(tmp_path / "torus")  # named after what they are
    opened = open_models(runs / "parts")
    one = next(iter(answers(opened, [str(folder / "a.txt")], Asked()))).record
    assert (one["category"], one["guessed"]) == ("torus", False)
    assert {row["part"] for row in one["parts"]} == {"torus outside", "torus inside"}
    assert sum(row["points"] for row in one["parts"]) == 150
    assert sum(row["share"] for row in one["parts"]) == pytest.approx(1, abs=1e-4)
    kinds = [answer.record["category"] for answer in answers(opened, [str(folder / "d.h5")], Asked())]
    assert kinds == ["cone", "torus"]
    (folder / "a.txt").rename(tmp_path / "a.txt")
    guessed = next(iter(answers(opened, [str(tmp_path / "a.txt")], Asked()))).record
    assert guessed["guessed"] and guessed["category"] in solids.SOLIDS


def test_a_category_that_is_asked_for_is_taken_for_all_clouds(runs, tmp_path, capsys):
    folder, asked = cloud_files(tmp_path / "torus"), ["--category", "Cube"]
    assert main(["predict", str(runs / "parts"), str(folder / "a.txt"), str(folder / "d.h5"), *asked]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(line["category"], line["guessed"]) for line in lines] == [("cube", False)] * 3
    assert all({row["part"] for row in line["parts"]} == {"cube faces", "cube edges"} for line in lines)
    for run, said in (("classes", "tells what a cloud is of and no parts"), ("parts", "must be one of cone, cube, ")):
        assert main(["predict", str(runs / run), str(folder / "a.txt"), "--category", "chair"]) == 2
        told = capsys.readouterr()
        assert told.out == "" and said in told.err and told.err.count("\n") == 1


def test_a_cloud_far_from_the_origin_has_the_answer_of_the_same_at_it(runs, tmp_path):
    xyz, _ = solids.solid("cone", (1,), 150)
    for name, shift in (("near", 0), ("far", 4e6)):
        np.save(tmp_path / f"{name}.npy", xyz.astype(np.float64) + shift)
    told = answers(open_models(runs / "classes"), [str(tmp_path / f"{n}.npy") for n in ("near", "far")], Asked())
    near, far = ({row["class"]: row["probability"] for row in answer.record["top"]} for answer in told)
    assert near == pytest.approx(far, abs=1e-5)


def test_answers_of_parts_do_not_depend_on_how_many_go_together(runs, tmp_path):
    folder, opened = cloud_files(tmp_path / "cone"), open_models(runs / "parts")
    told = [next(iter(answers(opened, [str(folder / "a.txt")], Asked(batch_size=n)))).record for n in (1, 2, 8)]
    assert told[0] == told[1] == told[2]


@pytest.mark.parametrize("kind", ["classes", "parts"])
def test_an_answer_is_drawn_where_it_is_asked_for(runs, kind, tmp_path):
    folder = cloud_files(tmp_path / "clouds")
    (drawn,) = answers(open_models(runs / kind), [str(folder / "c.npy")], Asked(draw=True))
    assert drawn.picture.dtype == np.uint8 and drawn.picture.shape[2] == 3
    assert drawn.picture.std() > 10


def test_commands_measure_vote_and_draw(runs, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(runs / "cache"))
    folder = cloud_files(tmp_path / "clouds")
    assert main(["evaluate", str(runs / "parts"), "--votes", "2", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert {"instance_miou", "category_miou", "voted_instance_miou", "voted_category_miou"} < set(told)
    assert told["clouds"] == 10 == sum(row["clouds"] for row in told["classes"])
    assert told["instance_miou"] == told["recorded"]["instance_miou"]
    assert main(["evaluate", str(runs / "parts"), "--votes", "0"]) == 2
    assert "evaluate: --votes must be at least 1, got 0." in capsys.readouterr().err
    monkeypatch.setattr(PointLearning, "evaluate", lambda task: pytest.fail("it was measured first"))
    assert main(["evaluate", str(runs / "parts"), "--results", str(tmp_path / "boxes.json")]) == 2
    assert "evaluate: --results is for detection, points has no such file." in capsys.readouterr().err
    for option, value, said in (("top", "3", "is of classification, not of points"), ("seed", "-1", "must be at")):
        assert main(["predict", str(runs / "classes"), str(folder / "a.txt"), f"--{option}", value]) == 2
        assert f"predict: --{option} {said}" in capsys.readouterr().err
    asked = ["predict", str(runs / "parts"), str(folder / "a.txt"), str(folder / "g.txt"), "--draw"]
    assert main([*asked, str(tmp_path / "drawn")]) == 2
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert (tmp_path / "drawn" / "a.png").is_file() and lines[0]["drawn"].endswith("a.png")
    assert lines[1] == {"image": str(folder / "g.txt"), "error": "the file is empty"}
    assert main(["bench", "points", "--points", "100"]) == 2
    assert "--points must be at least 512, got 100" in capsys.readouterr().err


def test_the_weights_that_are_drawn_are_those_of_the_farthest_point():
    torch.manual_seed(0)
    model = models.pct(5, groupings=[(12, 4, 8), (6, 3, 8)], depth=2, width=16).eval()
    points = torch.randn(1, 3, 30)
    look = looked(model, points, torch.zeros(1, dtype=torch.long))
    own = {tuple(row) for row in points[0].mT.tolist()}
    assert look.places.shape == (6, 3) and all(tuple(row) in own for row in look.places.tolist())
    away = np.linalg.norm(look.places - look.places.mean(0), axis=1)
    assert look.mark == away.argmax() and look.weights.sum() == pytest.approx(1, abs=1e-5)
    assert looked(models.spct(5, attention="none", **SMALL).eval(), points, torch.zeros(1, dtype=torch.long)) is None
