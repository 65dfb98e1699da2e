"""Recipes and grids of detection: each builds what it names, takes two steps small, and says what its paper says."""

from dataclasses import replace

import pytest
import torch

from data.detection_miniatures import coco
from foveal.analysis.ledger import PAPERS
from foveal.layers import EfficientAttention, ExternalAttention, LocalAttention, NonLocal
from foveal.tasks.clock import NoClock
from foveal.tasks.descent import Descent
from foveal.tasks.detection.kind import KIND
from foveal.tasks.grid import names as grids
from foveal.tasks.grid import read_grid
from foveal.tasks.recipe_check import check
from foveal.tasks.recipe_files import names, read_recipe
from foveal.tasks.train import plan_of

NAMES = [name for name in names() if read_recipe(name).task == "detection"]
PUBLISHED = [name for name in NAMES if not name.startswith("small/")]
GRIDS = [name for name in grids() if read_grid(name).base.task == "detection"]
LAYERS = {"efficient": EfficientAttention, "nonlocal": NonLocal, "external": ExternalAttention}
TITLES = {
    "box_ap": ("box AP", "mAP", "AP"), "mask_ap": ("mask AP",), "box_ap50": ("AP50",), "box_ap75": ("AP75",),
    "box_ap_small": ("AP small",), "box_ap_medium": ("AP medium",), "box_ap_large": ("AP large",),
}  # fmt: skip


def built(recipe):
    with torch.device("meta"):
        told = {"classes": [str(n) for n in range(80)]}
        return KIND.networks(recipe, told)["model"]


def attending(model):
    return {type(m) for m in model.backbone.modules() if isinstance(m, tuple(LAYERS.values()))}


def printed(row, table):
    """What a row of the ledger has for each metric."""
    cells = dict(zip((column.name for column in table.columns), row.printed.split(), strict=True))
    told = {name: next((cells[t] for t in titles if t in cells), "-") for name, titles in TITLES.items()}
    return {name: float(cell) for name, cell in told.items() if cell[0].isdigit()}


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_of_detection_builds_what_it_names(name):
    recipe = read_recipe(name)
    check(recipe)
    model, options = built(recipe), recipe.model.options
    kind = options.get("attention", "none")
    assert attending(model) == ({LAYERS[kind]} if kind != "none" else set())
    assert bool(options.get("local_heads")) == any(isinstance(m, LocalAttention) for m in model.modules()) or (
        "local" in options.get("backbone", "")
    )


SMALL = {
    "mask_rcnn": {"mask_channels": 8, "box_channels": 16, "rpn_post_nms_top_n_train": 20},
    "retinanet": {},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return coco(tmp_path_factory.mktemp("coco") / "coco")


@pytest.mark.parametrize(
    "name", ["efficient/coco", "local/coco-heads", "external/coco", "augmented/coco-resnet50", "small/detection-none"]
)
def test_a_recipe_of_detection_takes_two_steps(name, folder):
    recipe = read_recipe(name)
    shrunk = {"backbone": "resnet10t", "pyramid_channels": 16, "min_size": 64, "max_size": 96}
    options = {**recipe.model.options, **shrunk, **SMALL[recipe.model.name]}
    crop = None if recipe.data.crop is None else 64
    data = replace(recipe.data, name="coco", path=str(folder), crop=crop, workers=0)
    recipe = replace(recipe, data=data, batch_size=2, sync_norm=False, model=replace(recipe.model, options=options))
    torch.manual_seed(0)
    task = KIND.task(recipe, KIND.load(recipe))
    descent = Descent(task, plan_of(recipe), NoClock(), None)
    before = {key: value.clone() for key, value in descent.bare["model"].named_parameters()}
    descent.learn()
    batches = iter(task.batches(0, 0, 0))
    for done in range(2):
        # From the end of the warm-up on, gently: a narrow network that has just begun.
        told = descent.step(next(batches), done, 0.1 * task.schedule(recipe.schedule.warmup, recipe.epochs))
        assert torch.isfinite(told["loss"])
    moved = [key for key, value in descent.bare["model"].named_parameters() if not torch.equal(value, before[key])]
    # Values of local heads start so small that hardly a gradient comes through five of them at first.
    assert len(moved) > (0.6 if recipe.model.options.get("local_heads") else 0.8) * len(before)


def test_what_the_papers_state_is_in_their_recipes():
    for recipe in map(read_recipe, PUBLISHED):
        assert recipe.data.name == "coco" and recipe.data.flip == 0.5 and recipe.optimizer.name == "sgd"
    for name in PUBLISHED:
        recipe = read_recipe(name)
        if name.startswith("efficient/"):
            size = 64 if name in ("efficient/coco", "efficient/coco-none") else 32
            assert (recipe.epochs, recipe.batch_size, recipe.sync_norm) == (24, size, True)
            # At the start of the 18th and 21st epochs.
            assert (recipe.schedule.name, recipe.schedule.steps, recipe.schedule.factor) == ("step", (17, 20), 0.1)
            assert recipe.optimizer.lr == pytest.approx(1.25e-4 * size)
        if name.startswith("local/"):
            assert (recipe.epochs, recipe.batch_size, recipe.optimizer.lr) == (150, 64, 0.12)
            assert (recipe.schedule.name, recipe.schedule.warmup, recipe.data.crop) == ("cosine", 1, 640)


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_published_figures_of_a_detector_are_those_of_the_ledger(name):
    recipe = read_recipe(name)
    tables = PAPERS[name.partition("/")[0]][1]
    rows = [printed(row, table) for table in tables for row in table.rows if "AP" in str(table.columns)]
    assert recipe.about.published and dict(recipe.about.published) in rows
    assert all(f"{value:g}" in recipe.about.table or f"{value:.1f}" in recipe.about.table
               for value in recipe.about.published.values())  # fmt: skip
    assert recipe.about.not_stated and recipe.about.paper


def test_every_row_of_the_detection_tables_is_a_recipe_or_a_row_of_a_grid():
    assert {name.partition("/")[0] for name in GRIDS} == {"efficient", "local", "small"}
    assert len([name for name in GRIDS if name.startswith("efficient/")]) == 5
    for name in GRIDS:
        if name.startswith("small/"):
            continue
        made = read_grid(name)
        paper, _, title = made.about.ledger.partition(", ")
        table = next(table for table in PAPERS[paper][1] if table.title == title)
        held = {row.label: row for row in table.rows}
        assert set(made.rows) <= held.keys()
        assert all(any(line.startswith(label) for line in made.about.missing) for label in held.keys() - set(made.rows))
        for row in made.rows:
            assert dict(made.published[row]) == printed(held[row], table), (name, row)


@pytest.mark.parametrize("name", [name for name in GRIDS if name.startswith("efficient/")])
def test_sites_mechanisms_and_backbones_of_the_rows_are_those_of_their_labels(name):
    for run in read_grid(name).runs:
        options = run.recipe.model.options
        sites = set(options.get("sites", ())) if options.get("attention", "none") != "none" else set()
        for site in ("res3", "res4", "fpn1", "fpn2", "fpn3", "fpn4", "fpn5"):
            alone = run.row.endswith(site)
            assert not alone or site in sites
        if run.row.startswith("NL"):
            assert options["attention"] == "nonlocal"
        if run.row.startswith(("EA", "dk", "fpn", "res", "best EA")) or run.row.endswith("EA"):
            assert options["attention"] == "efficient"
        if run.row.startswith("dk"):
            assert options["key_channels"] == int(run.row.split()[-1])
        if "1-5" in run.row or "best" in run.row or run.row.endswith("with EA"):
            assert {f"fpn{n}" for n in range(1, 6)} <= sites
        assert ("none" in run.row) <= (not sites)


def test_small_recipes_differ_in_attention_alone():
    one, *others = (read_recipe(name) for name in NAMES if name.startswith("small/"))
    assert len(others) >= 3
    for other in others:
        plain = {
            k: v for k, v in other.model.options.items() if k not in ("attention", "sites", "key_channels", "slots")
        }
        theirs = {
            k: v for k, v in one.model.options.items() if k not in ("attention", "sites", "key_channels", "slots")
        }
        assert plain == theirs
        assert replace(other, about=one.about, model=one.model) == one
