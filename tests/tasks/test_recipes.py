"""Every recipe of classification: builds what it names, takes two steps, and says what its paper says."""

from dataclasses import replace
from functools import cache

import pytest
import timm
import torch
from timm.models.resnet import Bottleneck

import foveal.models  # noqa: F401  registers its networks
from data import miniatures
from foveal.analysis.ledger import PAPERS
from foveal.models.catalog import CATALOG
from foveal.models.resnets import DEPTHS
from foveal.tasks.clock import NoClock
from foveal.tasks.descent import Descent
from foveal.tasks.kinds import kind_of
from foveal.tasks.recipe_check import check
from foveal.tasks.recipe_files import folders, names, read_recipe
from foveal.tasks.train import plan_of

NAMES = [name for name in names() if read_recipe(name).task == "classification"]
SIZE = {"cifar10": 16, "cifar100": 16, "tiny-imagenet": 32, "imagenet": 32}
WRITE = {
    "cifar10": miniatures.cifar10,
    "cifar100": miniatures.cifar100,
    "tiny-imagenet": miniatures.tiny_imagenet,
    "imagenet": miniatures.imagenet,
}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """The folder of a data set's miniature, in the format of the published one."""

    @cache
    def written(name):
        return str(WRITE[name](tmp_path_factory.mktemp(name)))

    return written


def small(recipe, data):
    """The same recipe on a miniature, with one block in each stage of its network and small images."""
    kept, name = dict(recipe.model.options), recipe.model.name
    if name.startswith("resnet") or name.startswith("foveal_local"):
        kept["layers"] = (1, 1, 1, 1)
    elif name.startswith("foveal_eamlp"):
        kept["depth"] = 1
    elif "wrn28" in name:
        kept["depth"] = 10
    recipe = replace(recipe, data=replace(recipe.data, workers=0))
    if recipe.data.name in WRITE:
        size = SIZE[recipe.data.name]
        kept |= {"img_size": size} if "img_size" in kept else {}
        recipe = replace(recipe, data=replace(recipe.data, path=data(recipe.data.name), size=size))
    return replace(recipe, batch_size=4, model=replace(recipe.model, options=kept))


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_builds_what_it_names_and_takes_two_steps(name, data, monkeypatch):
    for depth, (block, _) in list(DEPTHS.items()):
        monkeypatch.setitem(DEPTHS, depth, (block, (1, 1, 1, 1)))
    torch.manual_seed(0)
    recipe = read_recipe(name)
    check(recipe)
    assert timm.is_model(recipe.model.name)
    recipe = small(recipe, data)
    kind = kind_of(recipe)
    task = kind.task(recipe, kind.load(recipe))
    descent = Descent(task, plan_of(recipe), NoClock(), None)
    before = {key: value.clone() for key, value in descent.bare["model"].named_parameters()}
    descent.learn()
    batches = iter(task.batches(0, 0, 0))
    # From the end of the warm-up on, where the first rates are no longer zero.
    for done in range(2):
        epoch = recipe.schedule.warmup + done / task.steps_per_epoch
        told = descent.step(next(batches), done, task.schedule(epoch, recipe.epochs))
        assert torch.isfinite(told["loss"])
    moved = [key for key, value in descent.bare["model"].named_parameters() if not torch.equal(value, before[key])]
    assert len(moved) > 0.9 * len(before)


def test_shrunk_networks_are_those_of_the_recipes_with_fewer_blocks():
    assert all(block[1] != (1, 1, 1, 1) for block in DEPTHS.values())
    assert DEPTHS[152] == (Bottleneck, (3, 8, 36, 3))


# Epochs, highest rate, warm-up, batch of what the papers and the released log state; None where they state nothing.
STATED = {
    "explicit/cifar": ("sgd", 450, 0.05, 15, None),
    "explicit/imagenet": ("sgd", 164, 0.05, 15, None),
    "explicit/tiny-imagenet": ("sgd", 324, 0.05, 15, None),
    "local/imagenet": ("sgd", 130, 1.6, 10, 4096),
    "external/imagenet-eamlp7-384": ("adamw", 310, 1e-3, 5, None),
    "augmented/cifar100": ("sgd", 500, None, 25, None),
    "augmented/imagenet": ("sgd", 100, None, 5, None),
}
PUBLISHED = [name for name in NAMES if not name.startswith("small/")]


@pytest.mark.parametrize("prefix", STATED)
def test_stated_numbers_are_in_every_recipe_of_the_paper(prefix):
    rule, epochs, lr, warmup, batch = STATED[prefix]
    found = [name for name in PUBLISHED if name.startswith(prefix)]
    assert found
    for recipe in map(read_recipe, found):
        assert (recipe.optimizer.name, recipe.epochs, recipe.schedule.warmup) == (rule, epochs, warmup)
        assert lr is None or recipe.optimizer.lr == lr
        assert batch is None or recipe.batch_size == batch


def test_what_else_the_papers_state_is_in_the_recipes():
    for name in PUBLISHED:
        recipe = read_recipe(name)
        if name.startswith("explicit/"):
            assert recipe.schedule.name == "restarts"
            assert recipe.schedule.restarts == (25, 45, 85, 165, 325)
            assert recipe.schedule.tail_lr == (2e-4 if "cifar" in name else None)
            assert (recipe.optimizer.momentum, recipe.optimizer.nesterov) == (0.9, False)
        if name.startswith("local/"):
            assert (recipe.optimizer.nesterov, recipe.ema, recipe.schedule.name) == (True, 0.9999, "cosine")
            assert recipe.model.norm_momentum == pytest.approx(1 - 0.9999)
        if name.startswith("augmented/"):
            assert (recipe.schedule.name, recipe.optimizer.momentum) == ("cosine", 0.9)
            assert recipe.schedule.warmup == 0.05 * recipe.epochs


def test_the_recipe_of_eamlp_is_the_one_of_the_released_log():
    recipe = read_recipe("external/imagenet-eamlp7-384")
    schedule, drawn = recipe.schedule, recipe.data.augmentation
    assert (schedule.name, schedule.warmup_lr, schedule.least_lr, schedule.cooldown) == ("cosine", 1e-6, 1e-5, 10)
    assert (recipe.optimizer.decay, recipe.smoothing, recipe.drop_path, recipe.seed) == (0.03, 0.1, 0.1, 42)
    assert (recipe.ema, recipe.ema_warmup, recipe.batch_size % 64) == (0.99996, False, 0)
    assert (recipe.data.size, recipe.data.crop_share, recipe.data.interpolation) == (384, 0.9, "bicubic")
    assert (drawn.mixup, drawn.cutmix, drawn.switch, drawn.policy) == (0.8, 1.0, 0.5, "rand-m9-mstd0.5-inc1")
    assert (drawn.erasing, drawn.erasing_mode) == (0.25, "pixel")


def rows():
    """Every printed accuracy of the ledger: paper, data set, model, metric to figure."""
    for paper, (_, tables) in PAPERS.items():
        for table in tables:
            for row in table.rows:
                if row.model is not None and table.data:
                    cells = zip(table.columns, row.printed.split(), strict=True)
                    told = {
                        column.metric: float(cell) for column, cell in cells if column.metric and cell not in "-OOM"
                    }
                    yield paper, table.data.replace("-", ""), row.model, told


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_published_figures_of_a_recipe_are_those_of_the_ledger(name):
    recipe = read_recipe(name)
    key = (name.partition("/")[0], recipe.data.name.replace("-", ""), recipe.model.name)
    found = [told for *row, told in rows() if tuple(row) == key]
    assert recipe.about.published
    digits = 1 if name.startswith(("local/", "external/", "augmented/")) else 3
    shown = {metric: round(value, digits) for metric, value in recipe.about.published.items()}
    assert shown in found


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_recipe_says_where_it_comes_from_and_what_was_chosen(name):
    about = read_recipe(name).about
    assert about.paper
    assert any(f"{value:g}" in about.table for value in about.published.values())
    assert about.not_stated
    assert all(":" in line for line in about.not_stated) or name.startswith("external/")


def test_every_accuracy_of_the_explicit_and_local_main_tables_has_a_recipe():
    named = {(read_recipe(name).data.name.replace("-", ""), read_recipe(name).model.name) for name in PUBLISHED}
    wanted = {
        (data, model)
        for paper, data, model, told in rows()
        if paper in ("explicit", "efficient", "external") and "accuracy" in told and model in {*CATALOG, "resnet50"}
    }
    missing = {pair for pair in wanted if "nonlocal" not in pair[1] and pair not in named}
    assert not missing


def test_parts_are_used_and_every_file_is_read():
    files = {path for folder in folders() for path in folder.rglob("_*.yaml")}
    bases = "".join(path.read_text() for folder in folders() for path in folder.rglob("*.yaml"))
    assert all(f"base: ./{path.name}" in bases for path in files)
