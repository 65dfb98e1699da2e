"""Semantic segmentation: the loss counts pixels, runs go on exactly, files are answered, recipes make sense."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision
from PIL import Image

import foveal
from data import segmentation_miniatures as miniatures
from foveal.analysis.ledger import external
from foveal.app.shelf import Shelf
from foveal.cli import main
from foveal.data.segmentation.options import SegmentationAugmentation, SegmentationData
from foveal.errors import DataError, OptionError
from foveal.tasks.clock import NoClock
from foveal.tasks.descent import Descent
from foveal.tasks.kind import Asked
from foveal.tasks.kinds import kind_named
from foveal.tasks.opened import open_models
from foveal.tasks.recipe import NamedModel, OptimizerOptions
from foveal.tasks.recipe_check import check
from foveal.tasks.recipe_files import names, read_recipe
from foveal.tasks.segmentation import labelling
from foveal.tasks.segmentation.networks import network
from foveal.tasks.segmentation.recipe import SegmentationEvaluation, SegmentationRecipe
from foveal.tasks.segmentation.scoring import scores
from foveal.tasks.train import plan_of, train
from foveal.viz import label_maps

ROOT = Path(__file__).parents[2]
KIND = kind_named("segmentation")
NARROW = {"depth": 10, "stem": "small", "output_stride": 4, "channels": [4, 4, 8, 8], "width": 8, "drop_rate": 0.0}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return miniatures.voc(tmp_path_factory.mktemp("voc"), train=6, val=3, augmented=0, classes=4)


def recipe(path, **options):
    data = SegmentationData("voc", str(path), augmentation=SegmentationAugmentation(crop=(24, 24)), workers=0)
    given = {"data": data, "model": NamedModel("eanet", NARROW), "epochs": 2, "batch_size": 4, **options}
    return SegmentationRecipe(**given)


def task_of(asked):
    task = KIND.task(asked, KIND.load(asked))
    torch.manual_seed(0)
    task.build()
    return task


# The loss --------------------------------------------------------------------------------------------------------


def gradients(task, parts):
    model = task.models["model"].eval()  # batch statistics would differ between parts
    model.zero_grad()
    losses = [task.step(part, "model")["loss"] / len(parts) for part in parts]
    sum(losses).backward()
    return sum(float(loss.detach()) for loss in losses), [p.grad.clone() for p in model.parameters()]


def test_the_loss_of_a_step_is_the_mean_over_its_pixels_however_it_is_parted(folder):
    whole, parted = (task_of(recipe(folder, accumulate=parts)) for parts in (1, 2))
    (one,), two = (next(iter(task.batches(0, 0, 0))) for task in (whole, parted))
    images, labels, counted = one[0]
    # One half loses nearly all of its labels, so that a mean of means is another number.
    labels[2:, 2:] = 255
    for part, own in zip(two, labels.split(2), strict=True):
        part[0][1].copy_(own)
    counted = int((labels != 255).sum())
    one, two = ((*one[0][:2], counted), one[1]), [((*part[0][:2], counted), part[1]) for part in two]
    loss, grads = gradients(whole, [one])
    logits = whole.models["model"](images)
    assert loss == pytest.approx(float(F.cross_entropy(logits, labels.long(), ignore_index=255).detach()), rel=1e-5)
    halves, others = gradients(parted, two)
    assert halves == pytest.approx(loss, rel=1e-5)
    for grad, other in zip(grads, others, strict=True):
        torch.testing.assert_close(grad, other, rtol=1e-3, atol=1e-6)


def test_batches_tell_how_many_pixels_a_step_counts_over_its_parts(folder):
    task = task_of(recipe(folder, accumulate=2))
    parts = next(iter(task.batches(3, 1, 0)))
    counted = sum(int((part[0][1] != 255).sum()) for part in parts)
    assert {part[0][2] for part in parts} == {counted} and counted < 4 * 24 * 24


def test_a_batch_in_which_nothing_counts_has_no_loss_and_finite_gradients(folder):
    task = task_of(recipe(folder))
    images = torch.randn(4, 3, 24, 24)
    loss, grads = gradients(task, [((images, torch.full((4, 24, 24), 255, dtype=torch.uint8), 0), (0, 0, 0))])
    assert loss == 0.0 and all((grad == 0).all() for grad in grads)


def test_the_head_has_a_rate_of_its_own_and_biases_theirs(folder):
    options = OptimizerOptions("sgd", lr=0.1, decay=1e-4, bias_lr=2.0)
    task = task_of(recipe(folder, optimizer=options, head_lr=10.0))
    model, groups = task.models["model"], task.optimizers()["model"].param_groups
    told = {id(p): (round(g["lr"], 6), g["weight_decay"]) for g in groups for p in g["params"]}
    assert len(told) == sum(len(g["params"]) for g in groups) == len(list(model.parameters()))
    assert told[id(model.backbone.conv1.weight)] == (0.1, 1e-4)
    assert told[id(model.backbone.bn1.bias)] == (0.2, 0.0)
    assert told[id(model.fc0.conv.weight)] == told[id(model.attention.memory_key)] == (1.0, 1e-4)
    assert told[id(model.fc2.bias)] == (2.0, 0.0) and told[id(model.fc0.bn.weight)] == (1.0, 0.0)


# Evaluation and training -----------------------------------------------------------------------------------------


def test_what_is_measured_does_not_depend_on_the_batch_and_each_image_counts_once(folder):
    told = []
    for size in (1, 4, 6):
        task = task_of(recipe(folder, batch_size=size))
        task.models["model"].eval()
        told.append((task.evaluate(), task.confusion.counts))
    assert all(metrics == told[0][0] and torch.equal(counts, told[0][1]) for metrics, counts in told)
    data = KIND.load(recipe(folder)).val
    assert int(told[0][1].sum()) == sum(int((data[n][1] != 255).sum()) for n in range(len(data)))
    assert len({tuple(data[n][1].shape) for n in range(len(data))}) > 1


SEVERAL = """
import json, sys
import torch
from foveal.cli.together import leave
from foveal.tasks import distributed
from tests.tasks.test_segmentation import recipe, task_of

torch.set_num_threads(1)
with distributed.together():
    task = task_of(recipe(sys.argv[1]))
    metrics = task.models["model"].eval() and task.evaluate()
    images, labels, counted = next(iter(task.batches(0, 0, 0)))[0][0]
    loss = float(task.step(((images, labels, counted), (0, 0, 0)), "model")["loss"].detach())
    told = distributed.gathered([metrics, task.confusion.counts.tolist(), loss, len(images)])
    if distributed.is_main():
        print("TOLD" + json.dumps(told))
leave(0)
"""


def test_several_processes_count_each_image_once_and_take_the_mean_over_all_pixels(folder, tmp_path):
    task = task_of(recipe(folder))
    task.models["model"].eval()
    alone, (((images, labels, counted), moment),) = task.evaluate(), next(iter(task.batches(0, 0, 0)))
    loss = float(task.step(((images, labels, counted), moment), "model")["loss"].detach())
    (tmp_path / "several.py").write_text(SEVERAL)
    asked = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(tmp_path / "several.py")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "",
                   "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}  # fmt: skip
    done = subprocess.run(
        [sys.executable, *asked, str(folder)], cwd=ROOT, capture_output=True, text=True, env=environment, timeout=240
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(next(line for line in done.stdout.splitlines() if "TOLD" in line).partition("TOLD")[2])
    assert [entry[:2] for entry in told] == [[alone, task.confusion.counts.tolist()]] * 2
    assert [entry[3] for entry in told] == [2, 2]
    assert sum(entry[2] for entry in told) / 2 == pytest.approx(loss, rel=1e-4)


def test_a_stopped_run_ends_with_the_bits_of_a_whole_one(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(labelling, "SHOWN", 1)
    monkeypatch.setattr(label_maps, "LEAST", 20)
    options = {"epochs": 3, "accumulate": 2, "ema": 0.9, "optimizer": OptimizerOptions(lr=1e-2)}
    asked = recipe(folder, **options, model=NamedModel("eanet", {**NARROW, "drop_rate": 0.2}))
    whole = train(asked, tmp_path / "whole")

    def stop(epochs, metrics):
        if epochs >= 1.0:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(asked, tmp_path / "cut", watch=stop, save_seconds=0)
    cut = train(asked, tmp_path / "cut")
    assert len(list((tmp_path / "cut" / "label-maps").glob("*.png"))) == 3
    kept = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "cut")]
    assert kept[0] == kept[1]
    assert {k: v for k, v in cut.items() if k in KIND.metrics} == {k: v for k, v in whole.items() if k in KIND.metrics}


def test_a_network_learns_the_colours_of_classes(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(labelling, "SHOWN", 0)
    asked = recipe(folder, epochs=45, optimizer=OptimizerOptions(lr=3e-2))
    asked = replace(asked, data=replace(asked.data, val="train"), best="pixel_accuracy")
    with pytest.warns(UserWarning, match="share 6 images"):
        told = train(asked, tmp_path / "run")
    # The most frequent class has 30 % of the pixels.
    assert told["best_pixel_accuracy"] > 0.6


# Answers ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(labelling, "SHOWN", 0)
        train(recipe(folder, epochs=1), out)
    return out


def test_a_run_is_shown_by_figure_and_explore(run, tmp_path, capsys):
    asked = ["figure", "external-4", "--model", str(run), "--image", "flower", "--out", str(tmp_path / "slots")]
    assert main([*asked, "--json"]) == 0
    assert "attention, external, 1 head, 6x6 positions" in json.loads(capsys.readouterr().out)["caption"]
    page = ["explore", "--model", f"mine={run}", "--image", "flower", "--export", str(tmp_path / "page.html")]
    assert main(page) == 0
    shelf = Shelf()
    label = shelf.load(str(run))
    given = shelf.picture(shelf.add(Image.new("RGB", (50, 40), (255, 0, 0)), "red"), label)
    assert given.shape == (3, 24, 24)
    looked, opened = shelf.look("red", label, "attention", (0.5, 0.5)), open_models(run)
    with torch.no_grad(), foveal.capture(opened.model) as maps:
        mean, std = (torch.tensor(opened.told[key])[:, None, None] for key in ("mean", "std"))
        opened.model(((given - mean) / std)[None])
    torch.testing.assert_close(looked.row, maps["attention"].row(looked.position)[0])


def test_images_of_any_size_and_mode_are_answered_and_drawn_and_damaged_ones_told(run, tmp_path):
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (19, 33), np.uint8)).save(tmp_path / "a-grey.png")
    Image.new("RGBA", (7, 3), (200, 10, 10, 90)).save(tmp_path / "b-clear.png")
    Image.new("RGB", (1, 1)).save(tmp_path / "c-point.png")
    (tmp_path / "d-broken.jpg").write_bytes(b"\xff\xd8")
    Image.new("CMYK", (400, 30)).save(tmp_path / "e-print.jpg")
    opened = open_models(run)
    told = list(KIND.answers(opened, [str(tmp_path), str(tmp_path / "nothing.png")], Asked(draw=True)))
    assert [answer.error is None for answer in told] == [True, True, True, False, True, False]
    for answer in (told[0], told[1], told[2], told[4]):
        line = answer.line()
        assert sum(line["shares"].values()) == pytest.approx(1, abs=1e-4)
        assert list(line["shares"].values()) == sorted(line["shares"].values(), reverse=True)
        assert set(line["shares"]) <= set(opened.told["classes"])
        assert json.loads(json.dumps(line)) == line
        assert answer.picture.dtype == np.uint8 and answer.picture.shape[2] == 3 and max(answer.picture.shape) >= 320
    assert [told[n].record["size"] for n in (0, 1, 2, 4)] == [[19, 33], [3, 7], [1, 1], [30, 400]]


def test_the_answer_for_a_validation_image_is_what_was_counted(run, folder):
    opened = open_models(run)
    asked, data = opened.recipe, KIND.load(opened.recipe)
    image, labels = data.val[0]
    with torch.no_grad():
        told = scores(opened.model, image, asked.evaluation, crop=(24, 24), stride=4).argmax(0)
    (answer,) = KIND.answers(opened, [str(data.val.images[0])], Asked())
    counts = torch.bincount(told.flatten(), minlength=21)
    shares = {opened.told["classes"][n]: int(counts[n]) / labels.numel() for n in range(21) if counts[n]}
    assert answer.record["shares"] == pytest.approx(shares, rel=1e-5) and answer.picture is None


def test_an_image_too_large_for_its_scores_is_answered_smaller_and_says_so(run, tmp_path, monkeypatch):
    from foveal.tasks.segmentation import answers

    monkeypatch.setattr(answers, "MOST", 21 * 500)
    Image.new("RGB", (80, 40)).save(tmp_path / "a.png")
    (answer,) = KIND.answers(open_models(run), [str(tmp_path / "a.png")], Asked(draw=True))
    rows, columns = answer.record["answered_at"]
    assert rows * columns <= 500 < (rows + 1) * (columns + 2) and answer.record["size"] == [40, 80]


@pytest.mark.parametrize(
    ("scales", "window"), [((1.0,), None), ((0.5, 1.75), None), ((1.75,), (24, 24))], ids=["one", "scales", "windows"]
)
def test_an_image_too_large_for_the_memory_is_answered_smaller_at_any_scale(run, tmp_path, monkeypatch, scales, window):
    from foveal.tasks.segmentation import answers

    monkeypatch.setattr(answers, "SURE", 0)
    Image.new("RGB", (80, 60)).save(tmp_path / "a.png")
    opened = open_models(run)
    evaluation = replace(opened.recipe.evaluation, scales=scales, window=window)
    opened = replace(opened, recipe=replace(opened.recipe, evaluation=evaluation))
    network, taken = answers._Network(opened), []
    (whole,) = KIND.answers(opened, [str(tmp_path / "a.png")], Asked())
    assert "answered_at" not in whole.record
    least = 4 * 21 * 60 * 80 * max(scales) ** 2  # the scores alone
    assert least < network.bytes_of((60, 80)) < 40 * least
    monkeypatch.setattr(answers, "headroom", lambda device: network.bytes_of((60, 80)) / 3)
    asked = network.scores
    monkeypatch.setattr(answers._Network, "scores", lambda self, x, o: taken.append(x.shape[1:]) or asked(x, o))
    (smaller,) = KIND.answers(opened, [str(tmp_path / "a.png")], Asked())
    rows, columns = smaller.record["answered_at"]
    assert taken[-1] == (rows, columns) and rows * columns < 60 * 80
    assert (
        network.bytes_of((rows, columns)) <= network.bytes_of((60, 80)) / 3 < network.bytes_of((rows * 2, columns * 2))
    )


# Recipes ---------------------------------------------------------------------------------------------------------

OWN = [name for name in names() if read_recipe(name).task == "segmentation"]
WRITE = {"voc": miniatures.voc, "ade20k": miniatures.ade20k, "cityscapes": miniatures.cityscapes}


@pytest.mark.parametrize("name", OWN)
def test_a_recipe_builds_what_it_names_and_takes_a_step(name, tmp_path):
    asked = read_recipe(name)
    check(asked)
    sizes = KIND.published(asked)
    assert sizes.items >= 800 and len(sizes.told["classes"]) in (11, 19, 21, 150)
    with torch.device("meta"):
        assert KIND.networks(asked, sizes.told)["model"].output_stride in (4, 8, 16)
    small = {**asked.model.options, "depth": 10, "channels": [4, 4, 8, 8], "width": 8}
    small |= {"attention_options": {"key_channels": 4}} if small.get("attention") == "nonlocal" else {}
    path = WRITE.get(asked.data.name, lambda folder: miniatures.voc(folder, classes=11))(tmp_path)
    drawn = replace(asked.data.augmentation, crop=(33, 33))
    data = replace(asked.data, path=str(path), augmentation=drawn, workers=0)
    asked = replace(asked, data=data, model=NamedModel("eanet", small), batch_size=2, sync_norm=False)
    descent = Descent(task_of(asked), plan_of(asked), NoClock(), None)
    descent.learn()
    told = descent.step(next(iter(descent.task.batches(0, 0, 0))), 0, 1.0)
    assert torch.isfinite(told["loss"])


def test_the_recipes_of_the_paper_have_what_its_code_states():
    found = [read_recipe(name) for name in OWN if name.startswith("external/")]
    assert len(found) == 8
    for asked in found:
        made = asked.optimizer
        assert (made.name, made.lr, made.momentum, made.decay, made.bias_lr) == ("sgd", 9e-3, 0.9, 1e-4, 2.0)
        assert (asked.schedule.name, asked.schedule.power, asked.head_lr) == ("poly", 0.9, 1.0)
        assert (asked.evaluation.scales, asked.evaluation.flip) == ((0.5, 0.75, 1.0, 1.25, 1.5, 1.75), True)
        assert asked.evaluation.average == "logits"
        drawn = asked.data.augmentation
        assert (drawn.scale, drawn.scale_step, drawn.flip) == ((0.5, 2.0), 0.1, 0.5)
        steps = asked.epochs * KIND.steps(asked, KIND.published(asked).items)
        if asked.data.name == "voc":
            assert abs(steps - 45_000) < 661 and asked.batch_size == 16 and drawn.crop == (513, 513)
        assert asked.about.published["miou"] and f"{asked.about.published['miou']:g}" in asked.about.table


def test_the_figures_of_the_recipes_are_those_of_the_ledger():
    printed = {float(row.printed) for table in (external.SEGMENTATION, external.ABLATION) for row in table.rows}
    assert {read_recipe(name).about.published["miou"] for name in OWN if name.startswith("external/")} == printed


def test_small_recipes_differ_in_their_attention_alone():
    small = {name: replace(read_recipe(name), about=None) for name in OWN if name.startswith("small/")}
    assert {"small/segmentation-none", "small/segmentation-external"} < set(small)
    attentions = {asked.model.options.pop("attention") for asked in small.values()}
    assert len(attentions) == len(small)
    assert all(asked == small["small/segmentation-none"] for asked in small.values())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            {"evaluation": SegmentationEvaluation(scales=())},
            "--evaluation.scales must be above 0 and at most 10, got ()",
        ),
        ({"evaluation": SegmentationEvaluation(window=(0, 5))}, "--evaluation.window must be rows and columns"),
        (
            {"evaluation": SegmentationEvaluation(window=(5, 5), stride=1.5)},
            "--evaluation.stride must be above 0 and at most 1",
        ),
        ({"head_lr": 0.0}, "--head-lr must be above 0, got 0.0"),
        ({"best": "loss"}, "--best must be one of miou, pixel_accuracy, class_accuracy, got 'loss'"),
    ],
)
def test_options_that_make_no_sense_are_told(folder, options, words):
    with pytest.raises(OptionError) as told:
        check(recipe(folder, **options))
    assert words in str(told.value)


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (NamedModel("unet"), "--model.name must be eanet for segmentation, got 'unet'"),
        (NamedModel("eanet", {"num_classes": 3}), "num_classes follows from the data. Leave it out"),
        (NamedModel("eanet", {"depht": 50}), "eanet cannot be made with {'depht': 50}: "),
        (NamedModel("eanet", {**NARROW, "attention": "self"}), "eanet: attention must be 'none', one of 'external'"),
    ],
)
def test_networks_that_cannot_be_made_are_told(folder, model, words):
    asked = recipe(folder, model=model)
    data = KIND.load(asked)
    with pytest.raises(OptionError) as told:
        KIND.task(asked, data)
    assert words in str(told.value)


def test_weights_that_a_recipe_names_are_what_training_starts_from(folder, tmp_path):
    first = task_of(recipe(folder))
    torch.save({"net": first.models["model"].state_dict()}, tmp_path / "start.pth")
    torch.manual_seed(5)
    other = KIND.task(recipe(folder, model=NamedModel("eanet", NARROW, str(tmp_path / "start.pth"))), first.data)
    torch.manual_seed(6)
    other.build()
    for one, two in zip(first.models["model"].parameters(), other.models["model"].parameters(), strict=True):
        assert torch.equal(one, two)


def test_weights_of_a_classifier_are_what_the_backbone_starts_from(tmp_path):
    classifier = torchvision.models.resnet18().state_dict()
    torch.save(classifier, tmp_path / "resnet18.pth")
    options = {"depth": 18, "stem": "torchvision", "width": 8}
    own = network(NamedModel("eanet", options, str(tmp_path / "resnet18.pth")), 5, load=True).backbone.state_dict()
    assert all(torch.equal(own[key], value) for key, value in classifier.items() if not key.startswith("fc."))
    with pytest.raises(DataError, match=r"^weights: .*resnet18.pth does not fit .*conv1.0.weight"):
        network(NamedModel("eanet", {**options, "stem": "deep"}, str(tmp_path / "resnet18.pth")), 5, load=True)
