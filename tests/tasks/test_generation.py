"""Adversarial training: turns, draws, losses, averages, exact resume; what is measured, drawn and kept."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.utils import parametrize

from foveal.errors import DataError, OptionError
from foveal.models.gan import resnet_gan
from foveal.tasks import checkpoint, distributed, train
from foveal.tasks.averaging import settle_
from foveal.tasks.clock import NoClock
from foveal.tasks.descent import Descent
from foveal.tasks.generation import adversarial
from foveal.tasks.generation.draws import TURNS, sample_draw, training_draw
from foveal.tasks.generation.kind import KIND
from foveal.tasks.generation.networks import networks
from foveal.tasks.generation.recipe import DiscriminatorOptions, EvaluationOptions, GenerationData, GenerationRecipe
from foveal.tasks.loop import fit
from foveal.tasks.opening import load_weights_
from foveal.tasks.recipe import NamedModel, OptimizerOptions
from foveal.tasks.recipe_check import check
from foveal.tasks.run_folder import append_metrics, read_metrics
from tests.tasks.generation_sample import IMAGES, RECIPE, STEPS, Sums, images, kept, plan, task

ROOT = Path(__file__).parents[2]
ALONE = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """A folder with a whole run and one that was killed, and what the program said."""
    if not hasattr(os, "fork"):
        pytest.skip("attempts are forked")
    top = tmp_path_factory.mktemp("gan")
    asked = [sys.executable, "-m", "tests.tasks.generation_sample", str(top)]
    done = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, env={**os.environ, **ALONE})
    assert done.returncode == 0, done.stderr
    return top, json.loads(done.stdout)


@pytest.fixture
def trained(killed):
    """The whole run: its folder, and the metrics of its end."""
    folder = killed[0] / "whole"
    return folder, read_metrics(folder)[-1]


def test_a_run_that_is_killed_again_and_again_ends_with_the_same_bits(killed):
    top, told = killed
    assert told == {"whole": 0, "statuses": [-9, -9, -9, -9, -9, 0]}
    whole, cut = kept(top / "whole"), kept(top / "cut")
    assert whole["metrics"] == cut["metrics"]
    assert whole["pictures"] == cut["pictures"]
    vectors = [name for name in whole["weights"]["generator"] if name.endswith((".0._u", ".0._v"))]
    assert len(vectors) > 10  # those of spectral norms are among what is compared
    assert not list(_unlike(whole, cut))
    assert list(_unlike(whole["state"], {**cut["state"], "averaged": {"generator": 0}})) == ["averaged/generator"]


def _unlike(one, other, name=""):
    """Names of the values that are not the same."""
    if isinstance(one, (dict, list, tuple)):
        assert len(one) == len(other)
        for key in one if isinstance(one, dict) else range(len(one)):
            yield from _unlike(one[key], other[key], f"{name}/{key}".lstrip("/"))
    elif not (torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other):
        yield name


def test_the_discriminator_learns_in_each_step_and_the_generator_after_so_many(tmp_path):
    recipe = replace(RECIPE, epochs=2, ema=None, accumulate=1)
    own = task(recipe)
    descent = Descent(own, plan(recipe), NoClock(), None)
    descent.learn()
    moved = []
    for epoch in range(2):
        for step, parts in enumerate(own.batches(0, epoch, 0)):
            before = {name: [p.clone() for p in model.parameters()] for name, model in descent.bare.items()}
            told = descent.step(parts, epoch * STEPS + step, 1.0)
            moved.append({n for n, m in descent.bare.items() if any(map(_differ, m.parameters(), before[n]))})
            assert {name.partition("_")[0] for name in told} == moved[-1]
    assert moved == [{"discriminator"} if (n + 1) % 3 else {"discriminator", "generator"} for n in range(2 * STEPS)]


def _differ(one, other):
    return not torch.equal(one, other)


def test_the_losses_are_hinges_over_real_images_and_those_drawn_for_the_step():
    own = task()
    own.build()
    own.models["generator"].eval()
    own.models["discriminator"].eval()
    (part, *_) = next(iter(own.batches(7, 2, 1)))
    ((real, labels), moment, first) = part
    assert (moment, first) == ((7, 2, 1), 0)
    generator, discriminator = own.models["generator"], own.models["discriminator"]
    codes, kinds = (drawn[:2] for drawn in training_draw(moment, "discriminator", 4, 3, 2))
    scores = discriminator(real, labels), discriminator(generator(codes, kinds), kinds)
    wanted = (1 - scores[0]).relu().mean() + (1 + scores[1]).relu().mean()
    torch.testing.assert_close(own.step(part, "discriminator")["loss"], wanted)
    codes, kinds = (drawn[:2] for drawn in training_draw(moment, "generator", 4, 3, 2))
    wanted = -discriminator(generator(codes, kinds), kinds).mean()
    torch.testing.assert_close(own.step(part, "generator")["loss"], wanted)


def test_each_turn_gives_gradients_to_its_own_network_alone():
    own = task()
    own.build()
    part = next(iter(own.batches(0, 0, 0)))[0]
    for turn, other in (TURNS, TURNS[::-1]):
        own.step(part, turn)["loss"].backward()
        assert all(p.grad is None for p in own.models[other].parameters())
        assert all(p.requires_grad for p in own.models[other].parameters())
        assert any(p.grad is not None and p.grad.any() for p in own.models[turn].parameters())
        own.models[turn].zero_grad()


def test_draws_follow_from_seed_epoch_step_and_turn_alone():
    told = [
        training_draw((seed, epoch, step), turn, 5, 4, 3)[0]
        for seed in (0, 1) for epoch in (0, 1) for step in (0, 1) for turn in TURNS
    ]  # fmt: skip
    assert len({tuple(codes.flatten().tolist()) for codes in told}) == len(told)
    torch.manual_seed(123)
    torch.testing.assert_close(training_draw((1, 1, 1), "generator", 5, 4, 3)[0], told[-1])
    codes, kinds = training_draw((0, 0, 0), "generator", 40_000, 2, 4)
    assert codes.mean(0).abs().max() < 0.02
    assert (codes.std(0) - 1).abs().max() < 0.02
    assert ((kinds.bincount(minlength=4) / 40_000) - 0.25).abs().max() < 0.01


def test_processes_and_parts_share_what_one_process_draws_for_a_step(monkeypatch):
    recipe = replace(RECIPE, batch_size=8, discriminator=DiscriminatorOptions(2))
    seen = []
    for rank in range(2):
        monkeypatch.setattr(distributed, "world", lambda: 2)
        monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
        own = task(recipe)
        parts = next(iter(own.batches(0, 0, 1)))
        seen += [(first, batch[1]) for batch, _, first in parts]
    monkeypatch.undo()
    assert [first for first, _ in seen] == [0, 2, 4, 6]
    whole = task(replace(recipe, accumulate=1))
    ((_, labels), _, _) = next(iter(whole.batches(0, 0, 1)))[0]
    assert torch.cat([part for _, part in seen]).equal(labels)


def test_samples_are_the_same_however_many_are_asked_for_and_of_each_class_in_turn():
    codes, kinds = sample_draw(3, range(7), 4, 3)
    assert kinds.tolist() == [0, 1, 2, 0, 1, 2, 0]
    again, _ = sample_draw(3, [5, 2], 4, 3)
    assert torch.equal(again, codes[[5, 2]])
    assert not torch.equal(sample_draw(4, range(7), 4, 3)[0], codes)


def test_the_metrics_are_those_of_the_samples_and_the_start_is_measured_too(trained):
    folder, metrics = trained
    lines = read_metrics(folder)
    assert [line["epoch"] for line in lines] == [0, 1, 2, 3, 4]
    assert lines[0]["fid_share"] == 1
    for line in lines:
        assert line["fid_share"] == pytest.approx(line["fid"] / lines[0]["fid"])
        assert 0 <= line["recognised"] <= 1
        assert 1 <= line["inception_score"] <= 2
    assert {"train_generator_loss", "train_discriminator_loss"} <= metrics.keys()


def test_fid_of_the_real_images_themselves_is_zero_and_all_are_recognised(monkeypatch):
    data = images()
    recipe = replace(RECIPE, evaluation=EvaluationOptions(count=IMAGES), ema=None)
    own = task(recipe)
    own.build()
    whole = data.within(data.reference.batch(range(IMAGES))[0])
    monkeypatch.setattr(own, "samples", lambda numbers: (whole[list(numbers)], torch.tensor(numbers) % 2))
    told = own.evaluate()
    assert told["fid"] == pytest.approx(0, abs=1e-12)
    assert told["recognised"] == 1
    assert "fid_share" not in told  # nobody has seen the start
    monkeypatch.setattr(own, "samples", lambda numbers: (whole[list(numbers)] + 0.5, 1 - torch.tensor(numbers) % 2))
    told = own.evaluate()
    assert told["fid"] == pytest.approx(4 * 0.25, rel=1e-5)
    assert told["recognised"] == 0


def test_a_judge_that_has_to_be_trained_first_moves_no_generator():
    own = task(judge=lambda: (torch.rand(3), Sums())[1])
    before = torch.get_rng_state()
    assert isinstance(own.judge, Sums)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_judge_of_other_classes_recognises_nothing():
    class Others(Sums):
        classes = ("low", "left")

    own = task(judge=Others)
    own.build()
    assert "recognised" not in own.evaluate()


def test_a_picture_of_every_epoch_has_a_row_for_each_class(trained):
    folder, _ = trained
    shown = [Image.open(path) for path in sorted((folder / "samples").iterdir())]
    assert len(shown) == 5
    assert len({picture.tobytes() for picture in shown}) == 5
    width, height = shown[0].size
    assert height >= 2 * 40
    assert width >= 3 * 40


def test_a_run_measured_again_tells_what_it_measured_itself(trained):
    own = task()
    own.models = networks(RECIPE.model, classes=2, channels=1, size=8)
    saved = kept(trained[0])["weights"]
    own.models["generator"].load_state_dict(saved["generator.average"])
    told = own.models["generator"].eval() and own.evaluate()
    assert told == {name: trained[1][name] for name in ("fid", "inception_score", "recognised")}


def largest_values(model):
    """Of every weight that has a spectral norm."""
    normed = [module for module in model.modules() if parametrize.is_parametrized(module)]
    weights = [getattr(module, name) for module in normed for name in module.parametrizations]
    return torch.stack([torch.linalg.matrix_norm(weight.flatten(1), 2) for weight in weights])


def test_what_is_kept_is_the_average_with_singular_vectors_of_its_own(trained):
    own = networks(RECIPE.model, classes=2, channels=1, size=8)["generator"]
    own.load_state_dict(kept(trained[0])["weights"]["generator.average"])
    largest = largest_values(own.eval())
    torch.testing.assert_close(largest, torch.ones_like(largest), rtol=2e-2, atol=0)


def test_settling_gives_weights_the_norm_that_they_should_have():
    generator = resnet_gan(8, width=2, latent=3, in_chans=1).generator
    with torch.no_grad():
        for name, weight in generator.named_parameters():
            if "original" in name:
                weight.normal_()
    settle_(generator.eval())
    weight = generator.blocks[0].conv2.weight.detach()
    assert float(torch.linalg.matrix_norm(weight.flatten(1), 2)) == pytest.approx(1, rel=2e-2)
    assert not any(module.training for module in generator.modules())


class Stopped(Exception): ...


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """The folder of a run that ends within its second epoch."""
    folder, forwards = tmp_path_factory.mktemp("stopped"), []
    fast = replace(RECIPE, optimizer=replace(RECIPE.optimizer, lr=0.05))  # singular vectors turn in a few steps
    made = task(fast)

    def stop(*_):
        forwards.append(1)
        if len(forwards) > 2 * (STEPS + 4):  # two parts a step, and the turns of the generator
            raise Stopped

    build = made.build
    made.build = lambda: (build(), made.models["discriminator"].register_forward_pre_hook(stop))
    with pytest.raises(Stopped):
        fit(made, plan(fast, save_steps=1), folder)
    return folder


def test_opening_a_run_within_an_epoch_finds_the_average_s_singular_vectors_anew(stopped):
    models = networks(RECIPE.model, classes=2, channels=1, size=8)
    before = {path.name: path.read_bytes() for path in stopped.rglob("*.safetensors")}
    words, recorded = load_weights_(models, stopped, "last")
    assert "steps" in words and recorded == {}
    own = networks(RECIPE.model, classes=2, channels=1, size=8)["generator"]
    own.load_state_dict(checkpoint.read(stopped).tensors("generator.average"))
    opened = models["generator"].eval()
    averaged = largest_values(own.eval())
    assert all(map(torch.equal, opened.parameters(), own.parameters()))
    settle_(own)
    assert all(map(torch.equal, opened.buffers(), own.buffers()))
    assert (largest_values(opened) - 1).abs().max() < 0.3 * (averaged - 1).abs().max()
    assert before == {path.name: path.read_bytes() for path in stopped.rglob("*.safetensors")}


def test_measuring_seldom_leaves_out_epochs_but_neither_the_first_nor_the_last(tmp_path):
    recipe = replace(RECIPE, evaluation=replace(RECIPE.evaluation, every=2), epochs=3)
    fit(task(recipe), plan(recipe), tmp_path)
    assert [line["epoch"] for line in read_metrics(tmp_path) if "fid" in line] == [0, 2, 3]
    assert len(list((tmp_path / "samples").iterdir())) == 4


@pytest.mark.parametrize("best", ["fid_share", "inception_score", "recognised"])
def test_every_metric_may_mark_the_best_epoch_where_few_are_measured(best, tmp_path):
    recipe = replace(RECIPE, evaluation=replace(RECIPE.evaluation, every=2), epochs=3, best=best)
    fit(task(recipe), plan(recipe), tmp_path)
    assert checkpoint.read(tmp_path, "best").state()["epoch"] in (2, 3)


def test_recognised_marks_no_best_where_nobody_knows_the_classes(tmp_path):
    class Stranger(Sums):
        classes = None

    recipe = replace(RECIPE, best="recognised")
    with pytest.raises(OptionError, match="--best recognised needs a network that knows the classes of lights, got"):
        fit(task(recipe, judge=Stranger), plan(recipe), tmp_path)


def test_the_best_epoch_of_a_result_is_one_that_has_a_checkpoint(tmp_path):
    for epoch, fid in enumerate((5.0, 9.0, 7.0, 7.0)):
        append_metrics(tmp_path, {"epoch": epoch, "fid": fid})
    assert train._best(tmp_path, RECIPE) == {"best_fid": 7.0, "best_epoch": 2}


def test_moments_are_joined_before_processes_tell_each_other(monkeypatch):
    told = []
    monkeypatch.setattr(adversarial, "MEASURED", 2)
    monkeypatch.setattr(distributed, "gathered", lambda item: told.append(item) or [item])
    own = task()
    own.build()
    own.models["generator"].eval()
    found = own.evaluate()
    (moments, _), real = told
    assert (moments.count, real.count) == (9, IMAGES)  # of 2,048 features a part of each batch would be gigabytes
    monkeypatch.setattr(adversarial, "MEASURED", 100)
    own._real = None
    assert own.evaluate()["fid"] == pytest.approx(found["fid"])


def test_a_run_does_not_go_on_with_another_judge(tmp_path):
    fit(task(), replace(plan(), epochs=1), tmp_path)

    class Other(Sums):
        def __init__(self):
            super().__init__()
            torch.nn.init.ones_(self.model.bias)

    # A run's folder may hold another one now.
    mine = replace(RECIPE, evaluation=replace(RECIPE.evaluation, features=str(tmp_path)))
    with pytest.raises(OptionError, match="is not the one that this run was measured by before"):
        fit(task(mine, judge=Other), plan(), tmp_path)
    with pytest.warns(UserWarning, match="the classifier of small/digits-judge was trained anew, with other bits"):
        fit(task(judge=Other), replace(plan(), epochs=2), tmp_path)


def test_both_optimisers_have_their_own_rates_and_betas():
    recipe = replace(
        RECIPE, optimizer=OptimizerOptions("adam", lr=1e-4, decay=0.0, betas=(0.0, 0.9)),
        discriminator=DiscriminatorOptions(2, lr=4e-4, betas=(0.5, 0.99)),
    )  # fmt: skip
    own = task(recipe)
    own.build()
    made = {name: each.param_groups for name, each in own.optimizers().items()}
    assert {(g["lr"], g["betas"], g["weight_decay"]) for g in made["generator"]} == {(1e-4, (0.0, 0.9), 0.0)}
    assert {(g["lr"], g["betas"], g["weight_decay"]) for g in made["discriminator"]} == {(4e-4, (0.5, 0.99), 0.0)}


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"evaluation": EvaluationOptions(count=0)}, "--evaluation.count must be at least 1, got 0"),
        ({"evaluation": EvaluationOptions(count=5, splits=6)}, "--evaluation.splits must be at most"),
        ({"discriminator": DiscriminatorOptions(steps=0)}, "--discriminator.steps must be at least 1, got 0"),
        ({"discriminator": DiscriminatorOptions(lr=0.0)}, "--discriminator.lr must be above 0, got 0.0"),
        ({"discriminator": DiscriminatorOptions(betas=(0.0, 1.0))}, "--discriminator.betas must be at least 0"),
        ({"data": GenerationData(flip=1.5)}, "--data.flip must be from 0 to 1, got 1.5"),
        ({"ema_start": -1}, "--ema_start|--ema-start must be at least 0"),
        ({"model": NamedModel("sagan", weights="some.pth")}, "start from new weights, got --model.weights some.pth"),
        ({"shard": True}, "--shard splits no weights"),
        ({"best": "accuracy"}, "--best must be one of fid, fid_share, recognised, inception_score"),
    ],
)
def test_recipes_that_contradict_themselves_are_refused(changed, told):
    check(GenerationRecipe())
    with pytest.raises(OptionError, match=told):
        check(replace(GenerationRecipe(), **changed))


def test_networks_that_are_not_there_are_refused():
    with pytest.raises(OptionError, match="--model.name must be one of resnet_gan, sagan, eagan, got 'dcgan'"):
        networks(NamedModel("dcgan"), classes=2, channels=1, size=8)
    with pytest.raises(OptionError, match="makes images of 8, 16, 32, 64 pixels, got 24. Use --data.size."):
        networks(NamedModel("sagan"), classes=2, channels=1, size=24)
    with pytest.raises(OptionError, match="sagan takes width, latent, slots, got depth=3"):
        networks(NamedModel("sagan", {"depth": 3}), classes=2, channels=1, size=8)
    with pytest.raises(OptionError, match="--discriminator.steps must be at most the 5 steps of an epoch, got 6"):
        task(replace(RECIPE, discriminator=DiscriminatorOptions(6)))


def test_images_come_as_generators_make_them_whatever_their_data_set_normalises_by(tmp_path):
    from tests.data.miniatures import cifar10

    recipe = GenerationRecipe(data=GenerationData("cifar10", str(cifar10(tmp_path)), flip=0.5, workers=0))
    data = KIND.load(recipe)
    assert len(data.reference) == 10
    batch, _ = data.train.batch([0, 7])
    shown = data.within(batch)
    wanted = torch.stack([data.train.picture(n) * 2 - 1 for n in (0, 7)])
    flipped = [torch.allclose(a, b, atol=1e-5) or torch.allclose(a, b.flip(-1), atol=1e-5)
               for a, b in zip(shown, wanted, strict=True)]  # fmt: skip
    assert all(flipped)
    real = KIND.load(replace(recipe, evaluation=EvaluationOptions(reference="train"))).reference
    assert len(real) == 50
    torch.testing.assert_close(data.within(real.batch([0, 7])[0]), wanted, rtol=0, atol=1e-5)


def test_features_that_are_missing_are_told_before_the_run_has_a_folder():
    recipe = replace(RECIPE, evaluation=EvaluationOptions("inception"))
    with pytest.raises(DataError, match="need --evaluation.weights, the file pt_inception"):
        KIND.task(recipe, images())


def test_what_autocast_does_to_a_step_keeps_its_losses_finite():
    recipe = replace(RECIPE, precision="bf16", accumulate=1)
    own = task(recipe)
    descent = Descent(own, plan(recipe), NoClock(), None)
    descent.learn()
    for step, parts in enumerate(own.batches(0, 0, 0)):
        assert all(bool(value.isfinite()) for value in descent.step(parts, step, 1.0).values())
    descent.show()
    with descent.autocast():
        assert np.isfinite(list(own.evaluate().values())).all()
