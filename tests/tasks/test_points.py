"""Learning classes and parts of clouds: metrics by hand, votes, exact resume, networks that do not fit."""

from dataclasses import replace

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from data import points_miniatures as miniatures
from foveal import models
from foveal.data.points.options import PointOptions
from foveal.errors import OptionError
from foveal.tasks.points.kind import KIND
from foveal.tasks.points.learning import PointLearning
from foveal.tasks.points.recipe import PointsRecipe, Voting
from foveal.tasks.points.scores import allowed_parts, part_answers, shape_ious
from foveal.tasks.points.voting import scale_of, scaled, voted
from foveal.tasks.recipe import NamedModel, OptimizerOptions
from foveal.tasks.train import train

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


def test_learning_takes_a_step_of_every_model_alike(sets):
    """What attention is in a network changes nothing of what is drawn for it."""
    first = []
    for name in ("spct", "eat", "npct"):
        task, _ = task_of(replace(sets["classes"], model=NamedModel(name, SMALL)))
        assert isinstance(task, PointLearning)
        ((batch, _),) = next(iter(task.batches(3, 0, 1)))
        first.append(batch)
    assert all(torch.equal(first[0]["points"], batch["points"]) for batch in first)


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


def test_a_point_gets_a_part_of_its_category_even_where_all_of_them_have_probability_0():
    allowed = allowed_parts(PARTS, tuple(PARTS), 6)
    answered = part_answers(torch.full((1, 6, 2), -torch.inf), torch.tensor([1]), allowed)
    assert answered.tolist() == [[3, 3]]


def test_metrics_of_parts_make_no_float64_on_a_device_that_may_lack_it():
    made = []

    class Seen(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            made.append((out.device.type, out.dtype) if isinstance(out, torch.Tensor) else None)
            return out

    with FakeTensorMode(), torch.device("cuda"), torch.no_grad():
        parts, counts = torch.zeros(2, 9, dtype=torch.long), torch.full((2,), 9)
        allowed = torch.ones(3, 6, dtype=torch.bool)
        with Seen():
            found = shape_ious(parts, parts, counts, allowed, counts)
    assert (found.device.type, found.dtype) == ("cpu", torch.float64)
    assert ("cuda", torch.bool) in made and ("cuda", torch.float64) not in made
