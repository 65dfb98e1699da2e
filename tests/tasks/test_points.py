"""Learning classes and parts of clouds: metrics by hand, votes, exact resume, answers for files of every kind."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from data import points_miniatures as miniatures
from foveal import models
from foveal.cli import main
from foveal.data.points import solids
from foveal.data.points.options import PointAugmentation, PointOptions
from foveal.errors import OptionError
from foveal.tasks.clock import NoClock
from foveal.tasks.descent import Descent
from foveal.tasks.kind import Asked
from foveal.tasks.opened import open_models
from foveal.tasks.points.answers import answers
from foveal.tasks.points.kind import KIND
from foveal.tasks.points.learning import PointLearning
from foveal.tasks.points.looking import looked
from foveal.tasks.points.recipe import PointsRecipe, Voting
from foveal.tasks.points.scores import allowed_parts, part_answers, shape_ious
from foveal.tasks.points.voting import scale_of, scaled, voted
from foveal.tasks.recipe import NamedModel, OptimizerOptions
from foveal.tasks.recipe_check import check
from foveal.tasks.recipe_files import names, read_recipe
from foveal.tasks.train import plan_of, train

h5py = pytest.importorskip("h5py")
SMALL = {"channels": 8, "depth": 1, "width": 16}
PARTS = {"cup": (0, 1, 2), "pen": (3, 4), "ball": (5,)}


def by_hand(answers, parts, own, count):
    """Mean intersection over union of one cloud as it is told: part by part, point by point."""
    told = []
    for part in own:
        pairs = list(zip(answers[:count], parts[:count], strict=True))
        both = sum(a == part and b == part for a, b in pairs)
        either = sum(a == part or b == part for a, b in pairs)
        told.append(1.0 if either == 0 else both / either)
    return sum(told) / len(told)


def test_the_mean_intersection_over_union_is_the_one_counted_by_hand():
    generator = torch.Generator().manual_seed(0)
    allowed = allowed_parts(PARTS, tuple(PARTS), 6)
    categories = torch.randint(3, (40,), generator=generator)
    logits = torch.randn(40, 6, 4, generator=generator)
    answered = part_answers(logits, categories, allowed)
    own = [list(PARTS.values())[n] for n in categories.tolist()]
    # Few points, so that parts are missing in many clouds.
    parts = torch.stack([torch.tensor(p)[torch.randint(len(p), (4,), generator=generator)] for p in own])
    counts = torch.randint(1, 5, (40,), generator=generator)
    for n, cloud in enumerate(logits):
        wanted = [max(own[n], key=lambda part: float(cloud[part, k])) for k in range(4)]
        assert answered[n].tolist() == wanted
    found = shape_ious(answered, parts, categories, allowed, counts)
    rows = zip(answered.tolist(), parts.tolist(), own, counts.tolist(), strict=True)
    assert found.tolist() == pytest.approx([by_hand(*row) for row in rows])
    assert any(len(set(row)) < len(p) for row, p in zip(parts.tolist(), own, strict=True))


def test_a_part_that_is_neither_there_nor_answered_counts_one():
    allowed = allowed_parts({"cup": (0, 1)}, ("cup",), 2)
    none, both = torch.zeros(1, 4, dtype=torch.long), torch.tensor([[0, 0, 1, 1]])
    iou = [shape_ious(a, b, none[:, 0], allowed, torch.tensor([4])).item() for a, b in ((none, none), (both, none))]
    assert iou == [1.0, pytest.approx(0.5 * 0.5)]


@pytest.fixture
def sets(tmp_path):
    """A miniature in each of the layouts, and a recipe on each."""
    miniatures.modelnet_hdf5(tmp_path / "a", sizes=((8, 7), (11,)))
    miniatures.shapenet_hdf5(tmp_path / "b", sizes=((9,), (3,), (11,)))
    data = PointOptions(name="clouds", path=str(tmp_path / "a"), points=24, workers=0)
    recipe = PointsRecipe(
        data=data, model=NamedModel("spct", SMALL), optimizer=OptimizerOptions("sgd", 0.01), epochs=2, batch_size=4
    )
    parts = replace(
        recipe,
        data=replace(data, name="cloud-parts", path=str(tmp_path / "b")),
        model=NamedModel("part_segmenter", SMALL),
        best="instance_miou",
    )
    return {"classes": recipe, "parts": parts}


def task_of(recipe):
    data = KIND.load(recipe)
    task = KIND.task(recipe, data)
    torch.manual_seed(0)
    task.build()
    task.models["model"].eval()
    return task, data


def test_accuracies_are_those_counted_cloud_by_cloud(sets):
    task, data = task_of(sets["classes"])
    found = task.evaluate()
    batch = data.val.batch(range(len(data.val)))
    right = task.models["model"](batch["points"]).argmax(1) == batch["labels"]
    by_class = [float(right[batch["labels"] == n].double().mean()) for n in range(3)]
    assert found["accuracy"] == pytest.approx(float(right.double().mean()))
    assert found["class_accuracy"] == pytest.approx(sum(by_class) / 3)
    rows = KIND.by_class(task)
    assert [(row["class"], row["accuracy"]) for row in rows] == list(zip(data.classes, by_class, strict=True))
    assert sum(row["clouds"] for row in rows) == 11


@pytest.mark.parametrize("points", [24, 100])
def test_means_over_instances_and_categories_are_those_counted_cloud_by_cloud(sets, points):
    recipe = replace(sets["parts"], data=replace(sets["parts"].data, points=points))
    task, data = task_of(recipe)
    found, own = task.evaluate(), list(data.parts.values())
    ious, right = {n: [] for n in range(3)}, []
    for n in range(len(data.val)):
        item = data.val.batch([n])
        logits = task.models["model"](item["points"], item["labels"])[0].detach()
        label = int(item["labels"])
        told = [max(own[label], key=lambda part: float(logits[part, k])) for k in range(points)]
        count = min(points, 40)
        ious[label].append(by_hand(told, item["parts"][0].tolist(), own[label], count))
        right += [a == b for a, b in zip(told[:count], item["parts"][0].tolist()[:count], strict=True)]
    every = [iou for category in ious.values() for iou in category]
    assert found["instance_miou"] == pytest.approx(sum(every) / len(every))
    assert found["category_miou"] == pytest.approx(sum(sum(own) / len(own) for own in ious.values()) / 3)
    assert found["accuracy"] == pytest.approx(sum(right) / len(right))
    assert [row["miou"] for row in KIND.by_class(task)] == pytest.approx([sum(v) / len(v) for v in ious.values()])


@pytest.mark.parametrize("kind", ["classes", "parts"])
def test_a_process_whose_clouds_are_done_answers_for_one_more_that_does_not_count(sets, kind, monkeypatch):
    task, _ = task_of(replace(sets[kind], voting=Voting(2)))
    wanted, validation = task.evaluate(), task.validation

    def longer(size):
        yield from validation(size)
        yield task.val.batch([0]), []

    monkeypatch.setattr(task, "validation", longer)
    assert task.evaluate() == wanted


def test_votes_are_means_of_probabilities_over_scaled_copies():
    torch.manual_seed(0)
    model, points = models.spct(5, **SMALL).eval(), torch.randn(3, 6, 20)
    voting = Voting(4, (0.5, 2.0))
    model.trunk.embedding[0][0] = torch.nn.Conv1d(6, 8, 1)
    model.trunk.in_chans = 6
    with torch.no_grad():
        found = voted(model, points, [7, 2, 9], voting)
        for row, index in enumerate([7, 2, 9]):
            total = model(points[[row]]).softmax(1)
            for vote in (1, 2, 3):
                scale = scale_of(vote, index, voting)
                assert (scale > 0.5).all() and (scale < 2).all()
                moved = scaled(points[[row]], scale[None])
                torch.testing.assert_close(moved[0, :3], points[row, :3] * scale[:, None])
                torch.testing.assert_close(moved[0, 3:].norm(dim=0), torch.ones(20))
                total += model(moved).softmax(1)
            torch.testing.assert_close(found[row], total[0] / 4)


@pytest.mark.parametrize("kind", ["classes", "parts"])
def test_votes_are_the_same_in_batches_of_any_size(sets, kind, monkeypatch):
    recipe = replace(sets[kind], voting=Voting(3))
    found = []
    for size in (64, 3):
        monkeypatch.setattr("foveal.tasks.points.learning.EVALUATED", size)
        found.append(task_of(replace(recipe, batch_size=1))[0].evaluate())
    assert found[0] == pytest.approx(found[1], abs=1e-6)
    assert {"voted_accuracy"} < set(found[0]) <= set(KIND.metrics)
    plain = task_of(sets[kind])[0].evaluate()
    assert {name: found[0][name] for name in plain} == pytest.approx(plain)
    one = task_of(replace(recipe, voting=Voting(1)))[0].evaluate()
    assert all(one[f"voted_{name}"] == one[name] for name in plain if name != "loss")


@pytest.mark.parametrize("kind", ["classes", "parts"])
def test_a_run_that_was_cut_off_ends_with_the_same_bits(sets, kind, tmp_path):
    recipe = replace(sets[kind], data=replace(sets[kind].data, subset="random"), ema=0.9)

    def cut(epochs, metrics):
        if epochs > 1.3:
            raise ConnectionError

    whole = train(recipe, tmp_path / "whole")
    with pytest.raises(ConnectionError):
        train(recipe, tmp_path / "cut", watch=cut, save_seconds=0)
    again = train(recipe, tmp_path / "cut")
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "cut")]
    assert weights[0] == weights[1]
    left = {"train_seconds", "environment"}
    assert {k: v for k, v in whole.items() if k not in left} == {k: v for k, v in again.items() if k not in left}


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
    (folder / "m.ply").write_text("ply\nformat binary_little_endian 1.0\nend_header\n")
    (folder / "n.txt").write_text("1 2\n3 4\n")
    return folder


ERRORS = {
    "f.txt": "1 of 2 points are no finite numbers, first is point 1",
    "g.txt": "the file is empty",
    "h.txt": "line 1 holds '<html>' where a number is wanted",
    "i.npy": "points must be (n, 3), got (3, 150). Turn it around by .T",
    "j.npy": "it is no NumPy array of numbers",
    "k.h5": "is no whole HDF5 file",
    "l.ply": "150 vertices of 4 numbers, got 0 of",
    "m.ply": "it is PLY of the form binary_little_endian. Save it as ascii",
    "n.txt": "points must have 3 numbers, got an array of (2, 2)",
}


def test_a_cloud_has_the_same_answer_in_every_format_and_damage_its_own_line(runs, tmp_path):
    folder = cloud_files(tmp_path / "clouds")
    told = list(answers(open_models(runs / "classes"), [str(folder), str(tmp_path / "gone.txt")], Asked()))
    whole = [answer for answer in told if answer.error is None]
    assert [answer.image.split("/")[-1] for answer in whole] == ["a.txt", "b.csv", "c.npy", "d.h5:0", "d.h5:1", "e.ply"]
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


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"model": NamedModel("part_segmenter")}, "solids has a class for each cloud and no parts, and part_segmenter"),
        ({"data": PointOptions("solid-parts")}, "solid-parts has parts, and spct does not tell these"),
        ({"best": "instance_miou"}, "--best must be one of loss, accuracy, class_accuracy, got 'instance_miou'"),
        ({"best": "voted_accuracy"}, "--best must be one of loss, accuracy, class_accuracy, got 'voted_accuracy'"),
        ({"voting": Voting(-1)}, "--voting.votes must be at least 0, got -1"),
        ({"voting": Voting(2, (0.0, 1.0))}, "--voting.scale must be two factors above 0"),
    ],
)
def test_a_recipe_that_contradicts_itself_is_refused(changed, told):
    with pytest.raises(OptionError, match=f"^train: {told}"):
        check(replace(PointsRecipe(), **changed))


@pytest.mark.parametrize(
    ("model", "told"),
    [
        (NamedModel("resnet18"), "--model.name must be spct or npct or pct or eat, got 'resnet18'"),
        (NamedModel("spct", {"slots": 3}), "spct cannot be made with slots=3"),
        (NamedModel("pct"), "pct samples 512 points of a cloud, got clouds of 24"),
    ],
)
def test_a_network_that_does_not_fit_is_refused(sets, model, told):
    recipe = replace(sets["classes"], model=model)
    with pytest.raises(OptionError, match=f"^train: .*{told}"):
        KIND.task(recipe, KIND.load(recipe)).build()


RECIPES = [name for name in names() if "modelnet40" in name or "shapenet" in name or "/point" in name]


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_of_points_makes_its_network_for_its_data(name):
    recipe = read_recipe(name)
    check(recipe)
    told = KIND.published(recipe)
    told = told.told if told else {
        "classes": list(solids.SOLIDS), "channels": 3, "points": recipe.data.points,
        "parts": {"cone": [0, 1]} if "parts" in name else {}, "part_names": ["side", "base"],
    }  # fmt: skip
    with torch.device("meta"):
        model = KIND.networks(recipe, told)["model"]
    if name.startswith("external/"):
        assert (recipe.epochs, recipe.batch_size, recipe.optimizer.name) == (250, 32, "sgd")
        assert (recipe.optimizer.lr, recipe.schedule.least_lr, recipe.optimizer.decay) == (0.01, 1e-4, 5e-4)
        assert sum(p.numel() for p in model.parameters()) > 1e6
    assert isinstance(model, torch.nn.Module)


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_of_points_takes_two_steps(name, tmp_path):
    recipe = read_recipe(name)
    parts = recipe.model.name == "part_segmenter"
    if parts:
        miniatures.shapenet_hdf5(tmp_path)
    else:
        miniatures.modelnet_hdf5(tmp_path)
    kept = dict(recipe.model.options) | ({"groupings": [(12, 4, 16), (8, 4, 16)]} if recipe.model.name == "pct" else {})
    named = {"solids": "clouds", "solid-parts": "cloud-parts"}.get(recipe.data.name, recipe.data.name)
    data = replace(recipe.data, name=named, path=str(tmp_path), points=24, workers=0)
    small = replace(recipe, data=data, batch_size=3, model=replace(recipe.model, options={**kept, "width": 32}))
    task = KIND.task(small, KIND.load(small))
    torch.manual_seed(0)
    descent = Descent(task, plan_of(small), NoClock(), None)
    before = {key: value.clone() for key, value in descent.bare["model"].named_parameters()}
    descent.learn()
    batches = iter(task.batches(0, 0, 0))
    for done in range(2):
        told = descent.step(next(batches), done, task.schedule(recipe.schedule.warmup, recipe.epochs))
        assert torch.isfinite(told["loss"])
    still = [key for key, value in descent.bare["model"].named_parameters() if torch.equal(value, before[key])]
    # A norm takes away what a bias before it adds, so these have gradients of rounding alone.
    assert all(key.endswith("bias") for key in still)


def test_published_figures_of_the_recipes_are_those_of_the_ledger():
    from foveal.analysis.ledger import PAPERS

    tables = {table.number: table for table in PAPERS["external"][1] if table.number in ("points", "PCT")}
    cells = {row.label: row.printed.split() for table in (tables["points"], tables["PCT"]) for row in table.rows}
    for name, accuracy in (("npct", cells["NPCT"][2]), ("spct", cells["SPCT"][2]), ("pct", cells["PCT"][2])):
        assert read_recipe(f"external/modelnet40-{name}").about.published == {"accuracy": float(accuracy)}
    assert read_recipe("external/modelnet40-eat").about.published == {"accuracy": float(cells["EAT"][0])}
    for name, label in (("spct", "PCT"), ("eat", "EAT")):
        printed = {row.label: row.printed.split()[1] for row in tables["points"].rows}[label]
        assert read_recipe(f"external/shapenet-part-{name}").about.published == {"instance_miou": float(printed)}


def test_learning_takes_a_step_of_every_model_alike(sets):
    """What attention is in a network changes nothing of what is drawn for it."""
    first = []
    for name in ("spct", "eat", "npct"):
        task, _ = task_of(replace(sets["classes"], model=NamedModel(name, SMALL)))
        assert isinstance(task, PointLearning)
        ((batch, _),) = next(iter(task.batches(3, 0, 1)))
        first.append(batch)
    assert all(torch.equal(first[0]["points"], batch["points"]) for batch in first)
