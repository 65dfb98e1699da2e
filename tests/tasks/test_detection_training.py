"""Learning to find objects: losses, exact resume, weights to start from."""

from dataclasses import replace

import pytest
import torch
from torchvision.models.detection.backbone_utils import BackboneWithFPN

from data.detection_miniatures import coco
from foveal.errors import DataError, OptionError
from foveal.tasks import checkpoint
from foveal.tasks.detection.kind import network
from foveal.tasks.detection.recipe import DetectionModel
from foveal.tasks.recipe_files import recipe_text
from foveal.tasks.run_folder import read_metrics
from foveal.tasks.train import check_same, train
from tests.tasks.detection_sample import MODELS, small, task_of

pytest.importorskip("faster_coco_eval")
LOSSES = {"mask_rcnn": {"loss", "loss_classifier", "loss_box_reg", "loss_mask", "loss_objectness", "loss_rpn_box_reg"}}
LOSSES |= {"faster_rcnn": LOSSES["mask_rcnn"] - {"loss_mask"}, "retinanet": {"loss", "loss_classifier", "loss_box_reg"}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return coco(tmp_path_factory.mktemp("coco") / "coco")


@pytest.mark.parametrize("name", MODELS)
def test_a_step_on_images_of_several_sizes_and_without_objects_tells_every_loss(name, folder):
    task = task_of(small(folder, name, batch_size=6))
    (batch,) = next(iter(task.batches(0, 0, 0)))
    (images, targets), _ = batch
    assert len({image.shape for image in images}) > 3 and any(len(each["boxes"]) == 0 for each in targets)
    assert ("masks" in targets[0]) is (name == "mask_rcnn")
    task.models["model"].train()
    told = task.step(batch, "model")
    assert set(told) == LOSSES[name] and all(value.isfinite() for value in told.values())
    assert told["loss"].item() == pytest.approx(sum(v.item() for k, v in told.items() if k != "loss"), rel=1e-5)
    told["loss"].backward()
    assert task.size(batch) == 6


def test_a_step_without_a_single_object_is_finite(folder):
    task = task_of(small(folder))
    images, targets = task.train.batch([4, 5])
    assert [len(each["boxes"]) for each in targets] == [0, 0]
    task.models["model"].train()
    told = task.step(((images, targets), (0, 0, 0)), "model")
    assert all(value.isfinite() for value in told.values())
    told["loss"].backward()


@pytest.mark.parametrize("which", ["mask_rcnn", "retinanet"])
def test_a_run_that_was_stopped_ends_with_the_same_bits(folder, tmp_path, which):
    recipe = small(folder, which, epochs=2, accumulate=2, ema=0.9)
    train(recipe, tmp_path / "whole", save_seconds=1e9)
    stops = iter((1 / 3, 5 / 3))

    def watch(epochs, metrics):
        if epochs >= watch.until:
            raise KeyboardInterrupt

    for watch.until in stops:
        with pytest.raises(KeyboardInterrupt):
            train(recipe, tmp_path / "cut", watch=watch, save_seconds=0)
    train(recipe, tmp_path / "cut", save_seconds=0)
    one, other = (checkpoint.weights(tmp_path / name) for name in ("whole", "cut"))
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
    lines = [[{**line, "seconds": 0} for line in read_metrics(tmp_path / name)] for name in ("whole", "cut")]
    assert lines[0] == lines[1] and len(lines[0]) == 2


def test_weights_to_start_from_are_loaded_where_training_begins(folder, tmp_path):
    from safetensors.torch import save_file

    recipe = small(folder)
    torch.manual_seed(5)
    first = network(recipe.model, 3)
    save_file({name: tensor.contiguous() for name, tensor in first.state_dict().items()}, tmp_path / "w.safetensors")
    recipe = replace(recipe, model=replace(recipe.model, weights=str(tmp_path / "w.safetensors")))
    second = task_of(recipe).models["model"]
    assert all(
        torch.equal(a, b) for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    )


@pytest.mark.parametrize("identity", [True, False])
def test_attention_that_starts_as_the_identity_starts_from_weights_without_it(tmp_path, identity):
    plain = DetectionModel("retinanet", MODELS["retinanet"])
    first = network(plain, 3).eval()
    torch.save(first.state_dict(), tmp_path / "w.pth")
    options = {**plain.options, "attention": "efficient", "sites": ["res3", "fpn1"], "identity": identity}
    asked = DetectionModel("retinanet", options, str(tmp_path / "w.pth"))
    if not identity:
        with pytest.raises(DataError, match="does not fit RetinaNet.*missing .*attention"):
            network(asked, 3, load=True)
        return
    second, image = network(asked, 3, load=True).eval(), torch.rand(3, 40, 60)
    with torch.no_grad():
        (one,), (two,) = first([image]), second([image])
    assert len(one["boxes"]) and all(torch.equal(one[name], two[name]) for name in one)


def test_a_seed_draws_the_same_weights_whatever_attends():
    def weights(**options):
        torch.manual_seed(3)
        kept = {**MODELS["mask_rcnn"], "attention": "none", "sites": [], **options}
        return network(DetectionModel("mask_rcnn", kept), 3).state_dict()

    plain = weights()
    for attention in ("efficient", "nonlocal", "external"):
        other = weights(attention=attention, sites=["res3", "fpn1"])
        theirs = {name.replace(".inner.", ".").replace(".module.", "."): value for name, value in other.items()}
        shared = [name for name in plain if name in other or name in theirs]
        assert len(shared) > 0.8 * len(plain)
        assert all(torch.equal(plain[name], other.get(name, theirs.get(name))) for name in shared)


def test_a_step_takes_images_that_lie_the_same_way_unless_asked_otherwise(folder):
    task = task_of(small(folder))
    assert task.train.upright.tolist() == [False, True, False, False, False, False]
    # One image of six is higher than wide, so of three steps of two the one that has it is the only one of both kinds.
    own = task_of(replace(small(folder), data=replace(small(folder).data, aspect_ratio_grouping=False)))
    orders = {(seed, epoch): task.order(seed, epoch).tolist() for seed in range(4) for epoch in range(4)}
    assert all(sorted(order) == list(range(6)) for order in orders.values())
    assert len(set(map(tuple, orders.values()))) > 12
    assert orders == {key: task_of(small(folder)).order(*key).tolist() for key in orders}
    assert own.order(0, 0).tolist() == own.train.order(0, 0).tolist()
    taken = [index for step in task.batches(0, 1, 0) for (_, targets), _ in step for index in places(targets)]
    assert taken == orders[0, 1]
    cropped = task_of(replace(small(folder), data=replace(small(folder).data, crop=32)))
    assert cropped.order(0, 0).tolist() == cropped.train.order(0, 0).tolist()


def places(targets):
    return [int(each["image"]) for each in targets]


def test_a_run_of_before_images_were_grouped_goes_on_without(folder, tmp_path):
    recipe = small(folder)
    without = replace(recipe, data=replace(recipe.data, aspect_ratio_grouping=False))
    lines = recipe_text(without).splitlines(keepends=True)
    (tmp_path / "recipe.yaml").write_text("".join(line for line in lines if "aspect_ratio_grouping" not in line))
    check_same(tmp_path, without)
    with pytest.raises(OptionError, match=r"its data\.aspect_ratio_grouping is False, asked for is True"):
        check_same(tmp_path, recipe)


def test_a_compiled_detector_is_compiled_up_to_its_pyramid(folder, tmp_path, monkeypatch):
    compiled = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self: compiled.append(type(self)))
    train(small(folder, "faster_rcnn", epochs=1, compile=True), tmp_path / "run")
    assert compiled == [BackboneWithFPN]
