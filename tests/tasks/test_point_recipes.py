"""Recipes of points: what is refused, what each of them makes and learns, and the figures they quote."""

from dataclasses import replace

import pytest
import torch

from data import points_miniatures as miniatures
from foveal.data.points import solids
from foveal.data.points.options import PointOptions
from foveal.errors import OptionError
from foveal.tasks.clock import NoClock
from foveal.tasks.descent import Descent
from foveal.tasks.points.kind import KIND
from foveal.tasks.points.recipe import PointsRecipe, Voting
from foveal.tasks.recipe import NamedModel
from foveal.tasks.recipe_check import check
from foveal.tasks.recipe_files import names, read_recipe
from foveal.tasks.train import plan_of

pytest.importorskip("h5py")


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


def test_the_recipe_of_modelnet40_smooths_labels_as_the_port_does():
    """Which gives 0.2 to the other 39 classes, where torch's smoothing is over all of them."""
    logits, smoothing = torch.randn(1, 40).log_softmax(1), read_recipe("external/modelnet40-pct").smoothing
    theirs = torch.full((40,), 0.2 / 39).index_fill(0, torch.tensor([7]), 0.8)
    ours = torch.nn.functional.cross_entropy(logits, torch.tensor([7]), label_smoothing=smoothing)
    torch.testing.assert_close(ours, -(theirs * logits[0]).sum())


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
