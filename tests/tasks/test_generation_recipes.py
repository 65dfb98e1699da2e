"""Recipes of generation: what they name is built and takes steps, what is stated and published is in them."""

import json
from dataclasses import replace
from functools import cache

import pytest
import torch

from data import miniatures
from foveal.tasks.clock import NoClock
from foveal.tasks.descent import Descent
from foveal.tasks.finished import finished_runs
from foveal.tasks.generation.adversarial import Adversarial
from foveal.tasks.generation.kind import KIND
from foveal.tasks.recipe_check import check
from foveal.tasks.recipe_files import names, read_recipe
from foveal.tasks.train import plan_of
from tests.tasks.generation_sample import Sums

NAMES = [name for name in names() if read_recipe(name).task == "generation"]
OF_PAPERS = [name for name in NAMES if name.startswith("external/")]
WRITE = {"cifar10": miniatures.cifar10, "tiny-imagenet": miniatures.tiny_imagenet}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    @cache
    def written(name):
        return str(WRITE[name](tmp_path_factory.mktemp(name))) if name in WRITE else None

    return written


def test_there_is_a_recipe_of_every_kind_of_attention_for_each_data_set():
    kinds = ("gan-none", "sagan", "eagan")
    assert set(OF_PAPERS) == {f"external/{name}-{kind}" for name in WRITE for kind in kinds}
    assert {name for name in NAMES if name.startswith("small/")} == {
        "small/gan-digits", "small/gan-digits-self", "small/gan-digits-external"
    }  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_builds_what_it_names_and_both_networks_take_a_step(name, data):
    recipe = read_recipe(name)
    check(recipe)
    model = replace(recipe.model, options={**recipe.model.options, "width": 2, "latent": 4})
    source = replace(recipe.data, path=data(recipe.data.name), workers=0)
    recipe = replace(recipe, data=source, model=model, batch_size=2)
    images = KIND.load(recipe)
    told = KIND.told(recipe, images)
    task = Adversarial(images, lambda: KIND.networks(recipe, told), Sums, replace(recipe, batch_size=1))
    descent = Descent(task, plan_of(recipe), NoClock(), None)
    descent.learn()
    before = {key: [p.clone() for p in model.parameters()] for key, model in descent.bare.items()}
    for done, parts in zip(range(recipe.discriminator.steps), task.batches(0, 0, 0), strict=False):
        written = descent.step(parts, done, 1.0)
    assert set(written) == {"discriminator_loss", "generator_loss"}
    assert all(torch.isfinite(value) for value in written.values())
    for key, model in descent.bare.items():
        moved = [not torch.equal(new, old) for new, old in zip(model.parameters(), before[key], strict=True)]
        # What follows gamma, which is zero at first, has no gradient yet; nor have the classes that were not drawn.
        assert sum(moved) >= 0.5 * len(moved)


def test_what_studiogan_states_is_in_the_recipes():
    for name in OF_PAPERS:
        recipe = read_recipe(name)
        rates = recipe.optimizer.lr, recipe.discriminator.lr or recipe.optimizer.lr
        shown = recipe.batch_size, *rates, recipe.optimizer.betas, recipe.discriminator.steps
        cifar = "cifar10" in name
        assert shown == ((64, 2e-4, 2e-4, (0.5, 0.999), 5) if cifar else (256, 1e-4, 4e-4, (0.0, 0.999), 1))
        assert (recipe.ema, recipe.ema_start) == (0.9999, 1000 if cifar else 20_000)
        images = KIND.published(recipe).items
        steps = KIND.steps(recipe, images) * recipe.epochs / recipe.discriminator.steps
        assert abs(steps - 100_000) < 500


def test_variants_differ_in_their_attention_alone():
    for group in ("external/cifar10-", "external/tiny-imagenet-", "small/gan-digits"):
        read = [read_recipe(name) for name in NAMES if name.startswith(group)]
        alike = {repr(replace(recipe, about=read[0].about, model=read[0].model)) for recipe in read}
        assert len(read) == 3
        assert len(alike) == 1


def test_the_recipes_say_what_is_published_and_how_certain_that_is():
    for name in OF_PAPERS:
        about = read_recipe(name).about
        assert bool(about.published) == ("gan-none" not in name)
        for value in about.published.values():
            assert f"{value:g}" in about.table and "certainty" in about.table


@pytest.mark.parametrize("features", ["inception", "runs/own"])
def test_a_run_counts_for_the_ledger_where_inception_measured_it(tmp_path, features):
    config = {
        "task": "generation", "model": "eagan", "data": "cifar10", "recipe": {"evaluation": {"features": features}}
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "result.json").write_text('{"status": "done"}')
    (tmp_path / "metrics.csv").write_text("epoch,fid,inception_score\n0,300.0,1.0\n1,15.5,8.25\n")
    (run,) = finished_runs(tmp_path)
    assert run.metrics == ({"fid": 15.5, "inception_score": 8.25} if features == "inception" else {})
