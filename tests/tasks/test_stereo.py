"""Stereo: its loss and metrics against plain loops, runs on miniatures, recipes, and what predict says of pairs."""

import json
import math
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from data import stereo_miniatures
from foveal.analysis.ledger.efficient import STEREO
from foveal.cli.main import main
from foveal.data.stereo.options import StereoData
from foveal.data.stereo.pfm import read_pfm
from foveal.errors import DataError, OptionError
from foveal.models.stereo import crop_to, pad_to
from foveal.tasks import checkpoint
from foveal.tasks.clock import NoClock
from foveal.tasks.descent import Descent
from foveal.tasks.measure import measure
from foveal.tasks.opened import open_models
from foveal.tasks.recipe import NamedModel, OptimizerOptions
from foveal.tasks.recipe_check import check
from foveal.tasks.recipe_files import names, read_recipe
from foveal.tasks.run_folder import read_metrics
from foveal.tasks.stereo.kind import KIND
from foveal.tasks.stereo.matching import disparities, disparity_loss
from foveal.tasks.stereo.metrics import METRICS, summary, sums
from foveal.tasks.stereo.recipe import StereoRecipe
from foveal.tasks.train import plan_of, train

TINY = NamedModel("psmnet", {"trunk": "stacked", "max_disparity": 16, "width": 4})
NAN = math.nan


def maps(seed, shape=(2, 5, 7)):
    return 20 * torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def holed(disparity, seed=9):
    """With NaN in a third of the pixels."""
    gone = torch.rand(disparity.shape, generator=torch.Generator().manual_seed(seed)) < 1 / 3
    return torch.where(gone, NAN, disparity)


def plain_loss(outputs, true, limit, weights):
    total = 0.0
    for output, weight in zip(outputs, weights, strict=True):
        parts = []
        for found, wanted in zip(output.flatten().tolist(), true.flatten().tolist(), strict=True):
            if not math.isnan(wanted) and wanted < limit:
                off = abs(found - wanted)
                parts.append(0.5 * off**2 if off < 1 else off - 0.5)
        total += weight * sum(parts) / len(parts)
    return total


def test_the_loss_is_the_weighted_smooth_distance_over_known_near_pixels():
    outputs, true = [maps(n) for n in range(3)], holed(maps(3))
    assert (true > 16).any() and (true < 16).any()
    told = disparity_loss(outputs, true, 16, (0.5, 0.7, 1.0))
    assert float(told) == pytest.approx(plain_loss(outputs, true, 16, (0.5, 0.7, 1.0)), rel=1e-5)
    alone = disparity_loss(outputs[:1], true, 16, (0.5, 0.7, 1.0))
    assert float(alone) == pytest.approx(plain_loss(outputs[:1], true, 16, (1.0,)), rel=1e-5)


@pytest.mark.parametrize("true", [torch.full((2, 5, 7), NAN), torch.full((2, 5, 7), 16.0)])
def test_without_a_pixel_that_counts_the_loss_and_its_gradients_are_zero(true):
    outputs = [maps(n).requires_grad_() for n in range(3)]
    loss = disparity_loss(outputs, true, 16, (0.5, 0.7, 1.0))
    loss.backward()
    assert loss.item() == 0.0
    assert all(output.grad is not None and not output.grad.any() for output in outputs)


def test_unknown_pixels_get_no_gradient_and_spoil_no_other():
    output, true = maps(0).requires_grad_(), holed(maps(1))
    disparity_loss([output], true, 16, (1.0,)).backward()
    counts = true < 16
    assert output.grad.isfinite().all()
    assert not output.grad[~counts].any() and output.grad[counts].all()
    wanted = F.smooth_l1_loss(output[counts], true[counts])
    torch.testing.assert_close(output.grad, torch.autograd.grad(wanted, output)[0])


class Plain(torch.nn.Module):
    """Three maps of a pair, each pixel by itself, so that nothing but the loss can differ between parts."""

    def __init__(self):
        super().__init__()
        self.factor = torch.nn.Parameter(torch.tensor(3.0))

    def forward(self, left, right):
        return tuple(self.factor * n * (left - right).abs().sum(1) for n in (1, 2, 3))


def test_the_loss_of_a_step_is_the_mean_over_its_pixels_however_it_is_parted(recipe):
    told = []
    for parts in (1, 2):
        asked = replace(recipe, accumulate=parts)
        task = KIND.task(asked, KIND.load(asked))
        task.models = {"model": Plain()}
        step = next(iter(task.batches(0, 0, 0)))
        assert {part[0][3] for part in step} == {sum(int((part[0][2] < 16).sum()) for part in step)}
        known = torch.cat([part[0][2] for part in step])
        known[1, 1:] = NAN  # nearly all of one pair is unknown, so that a mean of means is another number
        counted = int((known < 16).sum())
        owns = known.split(2 // parts)
        step = [((*part[0][:2], own, counted), part[1]) for part, own in zip(step, owns, strict=True)]
        losses = [task.step(part, "model")["loss"] / parts for part in step]
        sum(losses).backward()
        told.append((sum(float(loss.detach()) for loss in losses), float(task.models["model"].factor.grad)))
    assert told[0] == pytest.approx(told[1], rel=1e-5)


def counted(found, true, limit):
    """Distances with their disparities, pixel by pixel."""
    pairs = zip(found.flatten().tolist(), true.flatten().tolist(), strict=True)
    return [(abs(f - t), t) for f, t in pairs if not math.isnan(t) and t < limit]


def test_metrics_are_those_of_a_loop_over_pixels():
    images = []
    for n in range(19):
        shape = (4 + n % 3, 6)
        found, true = maps(n, shape) * 4, maps(100 + n, shape) * 4
        images.append((found, torch.full(shape, NAN) if n in (3, *range(8, 16)) else holed(true, n)))
    told = summary({n: sums(*image, 64) for n, image in reversed(list(enumerate(images)))})
    assert list(told) == list(METRICS)
    near, every = ([counted(*image, limit) for image in images] for limit in (64, math.inf))
    assert any(len(a) < len(b) for a, b in zip(near, every, strict=True)), "some pixels are of the largest disparities"

    def mean(values):
        values = list(values)
        return sum(values) / len(values)

    def share(pixels, wrong):
        return mean(wrong(off, true) for off, true in pixels)

    pooled, pooled_all = ([pixel for image in side for pixel in image] for side in (near, every))
    batches = [[pixel for image in near[n : n + 8] for pixel in image] for n in (0, 8, 16)]
    assert batches[1] == []
    wanted = {
        "epe": mean(mean(off for off, _ in image) for image in near if image),
        "epe_pixels": mean(off for off, _ in pooled),
        "epe_batches": mean(mean(off for off, _ in batch) if batch else 0.0 for batch in batches),
        **{f"bad{n}": share(pooled, lambda off, _, n=n: off > n) for n in (1, 2, 3)},
        "d1": share(pooled, lambda off, true: off > 3 and off > 0.05 * true),
        "epe_all": mean(off for off, _ in pooled_all),
        "d1_all": share(pooled_all, lambda off, true: off > 3 and off > 0.05 * true),
    }
    assert told == pytest.approx(wanted, rel=1e-9)
    assert len({round(told[name], 6) for name in ("epe", "epe_pixels", "epe_batches", "epe_all")}) == 4


def test_d1_asks_for_three_pixels_and_five_per_cent():
    true = torch.tensor([[100.0, 100.0, 40.0, 40.0]])
    told = summary({0: sums(true + torch.tensor([[4.9, 5.1, 3.1, 3.0]]), true, 192)})
    assert (told["d1"], told["bad3"], told["bad2"]) == (0.5, 0.75, 1.0)


def test_a_split_without_known_pixels_is_refused():
    with pytest.raises(DataError, match="^evaluate: none of 2 pairs has a known disparity below"):
        summary({n: sums(maps(n), torch.full((2, 5, 7), NAN), 16) for n in range(2)})


@pytest.fixture(scope="module")
def flow(tmp_path_factory):
    return stereo_miniatures.scene_flow(tmp_path_factory.mktemp("flow"))


@pytest.fixture(scope="module")
def recipe(flow):
    return StereoRecipe(
        data=StereoData("scene-flow", str(flow), crop=(16, 32), workers=0),
        model=TINY, optimizer=OptimizerOptions("adam", lr=1e-3, decay=0.0), epochs=2, batch_size=2,
    )  # fmt: skip


@pytest.fixture(scope="module")
def run(recipe, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "one"
    return out, train(recipe, out)


def test_a_run_keeps_its_metrics_and_is_measured_again_to_the_bit(run):
    out, record = run
    assert record["status"] == "done" and set(METRICS) <= set(record)
    assert record["best_epe"] == min(line["epe"] for line in read_metrics(out)), "the least is the best"
    again = measure(open_models(out))
    assert {name: again.metrics[name] for name in METRICS} == {name: record[name] for name in METRICS}
    assert (again.items, again.word) == (2, "pairs")


@pytest.mark.parametrize("after", [2, 4])
def test_a_run_that_was_cut_off_ends_with_the_same_weights(run, recipe, tmp_path, after):
    steps = []

    def watch(at, metrics):
        steps.append(at)
        if len(steps) == after:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        train(recipe, tmp_path / "cut", watch=watch, save_seconds=0)
    record = train(recipe, tmp_path / "cut", save_seconds=0)
    whole, other = checkpoint.weights(run[0]), checkpoint.weights(tmp_path / "cut")
    assert all(torch.equal(value, other[key]) for key, value in whole.items())
    assert {name: record[name] for name in METRICS} == {name: run[1][name] for name in METRICS}


def test_pairs_of_odd_sizes_are_padded_on_the_top_and_on_the_right_and_cropped_again(tmp_path):
    torch.manual_seed(0)
    own = StereoRecipe(
        data=StereoData("kitti2015", str(stereo_miniatures.kitti2015(tmp_path)), (16, 32), train_pairs=2, workers=0),
        model=TINY, batch_size=2,
    )  # fmt: skip
    task = KIND.task(own, data := KIND.load(own))
    task.build()
    model = task.models["model"].eval()
    told, wanted = task.evaluate(), {}
    for n in range(3):
        left, right, disparity = data.val[n]
        found = model(pad_to(left[None]), pad_to(right[None]))
        wanted[n] = sums(crop_to(found, disparity.shape)[0].detach(), disparity, 16)
    assert len({x.shape for x in data.val.batch([0, 1, 2])[0]}) == 3
    assert told == summary(wanted)


def test_a_disparity_range_wider_than_the_image_runs():
    torch.manual_seed(0)
    model = KIND.networks(StereoRecipe(model=replace(TINY, options={**TINY.options, "max_disparity": 64})), {})["model"]
    found = disparities(model.eval(), torch.randn(1, 3, 20, 9), torch.randn(1, 3, 20, 9))
    assert found.shape == (1, 20, 9) and found.isfinite().all()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model": NamedModel("raft")}, "--model.name must be psmnet"),
        ({"model": NamedModel("psmnet", {"depth": 3})}, "psmnet cannot be made: got an unexpected keyword argument"),
        ({"model": NamedModel("psmnet", {"max_disparity": 100})}, "max_disparity must be a multiple of 16"),
        (
            {"loss_weights": (1.0,)},
            "--loss-weights must be 3 numbers of at least 0, not all 0, for the stacked trunk, got 1.0",
        ),
        ({"loss_weights": (1.0, -1.0, 1.0)}, "--loss-weights must be 3 numbers"),
        ({"loss_weights": (1.0, 1.0, 1.0, 1.0)}, "--loss-weights must be 3 numbers"),
        ({"loss_weights": (1.0, math.nan, 1.0)}, "--loss-weights must be 3 numbers"),
        ({"loss_weights": (0.0, 0.0, 0.0)}, "--loss-weights must be 3 numbers of at least 0, not all 0,"),
        (
            {"model": NamedModel("psmnet", {"trunk": "basic"}), "loss_weights": (0.1, 1.0)},
            "must be 1 number of at least",
        ),
        ({"best": "accuracy"}, "--best must be one of epe, d1"),
    ],
)
def test_a_recipe_that_contradicts_itself_is_refused_in_a_sentence(changes, said):
    with pytest.raises(OptionError, match=said):
        check(replace(StereoRecipe(), **changes))


RECIPES = [name for name in names() if read_recipe(name).task == "stereo"]


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_builds_what_it_names_and_takes_a_step(name, tmp_path):
    torch.manual_seed(0)
    own = read_recipe(name)
    check(own)
    kind = own.data.name
    path = getattr(stereo_miniatures, kind.replace("-", "_").replace("photo_planes", "scene_flow"))(tmp_path)
    data = replace(own.data, name="scene-flow" if kind == "photo-planes" else kind, path=str(path), crop=(16, 32),
                   train_pairs=3 if "kitti" in kind else 160, workers=0)  # fmt: skip
    model = replace(own.model, options={**own.model.options, "max_disparity": 16, "width": 4})
    own = replace(own, data=data, model=model, batch_size=2)
    task = KIND.task(own, KIND.load(own))
    descent = Descent(task, plan_of(own), NoClock(), None)
    before = {key: value.clone() for key, value in descent.bare["model"].named_parameters()}
    descent.learn()
    batches = iter(task.batches(0, 0, 0))
    for done in range(1 + ("nonlocal" in name)):  # whose block starts as the identity
        epoch = own.schedule.warmup + done / task.steps_per_epoch
        assert torch.isfinite(descent.step(next(batches), done, task.schedule(epoch, own.epochs))["loss"])
    moved = [key for key, value in descent.bare["model"].named_parameters() if not torch.equal(value, before[key])]
    assert len(moved) > 0.9 * len(before)


def test_what_the_papers_state_is_in_the_recipes():
    printed = {"none": 0.513, "efficient": 0.477, "nonlocal": None, "psmnet": 1.09}
    rows = {
        "none": "PSMNet (baseline)",
        "efficient": "EA-PSMNet",
        "nonlocal": "Nonlocal-PSMNet",
        "psmnet": "PSMNet (original)",
    }
    ledger = {row.label: row.printed for row in STEREO.rows}
    assert {rows[name]: "OOM" if epe is None else f"{epe:g}" for name, epe in printed.items()} == ledger
    for name, epe in printed.items():
        own = read_recipe(f"efficient/stereo-{name}")
        assert own.about.published == ({} if epe is None else {"epe": epe})
        assert epe is None or f"{epe:g}" in own.about.table
        stated = (12, 1e-3, 10) if name == "psmnet" else (24, 2e-3, 100)
        assert (own.batch_size, own.optimizer.lr, own.epochs) == stated
        assert (own.optimizer.name, own.optimizer.betas, own.optimizer.decay) == ("adam", (0.9, 0.999), 0)
        assert (own.schedule.name, own.data.crop, own.loss_weights) == ("constant", (256, 512), (0.5, 0.7, 1.0))
        assert own.model.options["max_disparity"] == 192 and own.model.options["trunk"] == "stacked"
        assert own.model.options.get("attention", "psmnet" if name == "psmnet" else "none") == name
    for year in (2012, 2015):
        own = read_recipe(f"efficient/stereo-kitti{year}")
        assert (own.epochs, own.optimizer.lr, own.schedule.steps, own.schedule.factor) == (300, 1e-3, (200,), 0.1)
        assert (own.batch_size, own.data.train_pairs, own.data.name) == (12, 160, f"kitti{year}")
    assert all(read_recipe(name).about.not_stated and read_recipe(name).about.paper for name in RECIPES)


def test_recipes_with_attention_differ_from_those_without_in_nothing_else():
    for folder in ("efficient", "small"):
        plain = read_recipe(f"{folder}/stereo-none")
        for name in [name for name in RECIPES if name in (f"{folder}/stereo-efficient", f"{folder}/stereo-nonlocal")]:
            own = read_recipe(name)
            options = {k: v for k, v in own.model.options.items() if k not in ("attention", "sites", "key_channels")}
            assert own.model.options["attention"] == name.rpartition("-")[2]
            assert replace(own, about=plain.about, model=replace(own.model, options=options)) == plain


def test_a_recipe_starts_from_weights_that_are_named(run, recipe):
    weights = str(run[0] / "model.safetensors")
    task = KIND.task(own := replace(recipe, model=replace(TINY, weights=weights)), KIND.load(own))
    task.build()
    kept = checkpoint.weights(run[0])
    assert all(torch.equal(value, kept[key]) for key, value in task.models["model"].state_dict().items())


# What predict says -----------------------------------------------------------------------------------------------


@pytest.fixture
def sides(tmp_path):
    """Folders of left and right images: of odd sizes, grey, with a palette, broken, unequal, and without a partner."""
    sizes = {"odd.png": (21, 35), "grey.png": (16, 32), "palette.png": (16, 32), "same.png": (16, 32)}
    for side, seed in (("left", 0), ("right", 1)):
        (tmp_path / side / "in").mkdir(parents=True)
        for n, (name, size) in enumerate(sizes.items()):
            image = Image.fromarray(stereo_miniatures.pair(10 * n, size)[seed])
            image = image.convert({"grey.png": "L", "palette.png": "P"}.get(name, "RGB"))
            image.save(tmp_path / side / name)
        Image.new("RGB", (32, 16)).save(tmp_path / side / "in" / "same.png")
    return tmp_path


def said(capsys):
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_folders_are_paired_by_names_and_each_pair_is_answered_and_drawn(run, sides, capsys):
    folders = [str(sides / "left"), "--right", str(sides / "right")]
    assert main(["predict", str(run[0]), *folders, "--draw", str(sides / "drawn")]) == 0
    lines = said(capsys)
    assert [line["image"] for line in lines] == [
        str(sides / "left" / name) for name in ("grey.png", "odd.png", "palette.png", "same.png", "in/same.png")
    ]
    model = open_models(run[0]).model
    for line in lines:
        values, _ = read_pfm(line["drawn"].replace(".png", ".pfm"))
        assert values.shape == (line["rows"], line["columns"])
        told = line["disparity"]
        assert (told["min"], told["max"]) == pytest.approx((values.min(), values.max()), rel=1e-5)
        assert told["min"] <= told["median"] <= told["max"] < 16
        with Image.open(line["drawn"]) as picture:
            assert picture.mode == "RGB" and picture.width % line["columns"] == 0
        assert line["right"] == line["image"].replace("/left/", "/right/")
    assert (lines[1]["rows"], lines[1]["columns"]) == (21, 35)
    images = []
    for side in ("left", "right"):
        pixels = np.asarray(Image.open(sides / side / "odd.png"), np.float32) / 255
        mean, std = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])
        images.append(torch.from_numpy((pixels - mean) / std).permute(2, 0, 1)[None])
    wanted = disparities(model, *images)[0].detach().numpy()
    np.testing.assert_allclose(read_pfm(lines[1]["drawn"].replace(".png", ".pfm"))[0], wanted, atol=1e-3)


def test_what_cannot_be_paired_or_read_has_a_line_and_the_others_go_on(run, sides, capsys):
    (sides / "left" / "alone.png").write_bytes((sides / "left" / "same.png").read_bytes())
    (sides / "right" / "other.png").write_bytes((sides / "left" / "same.png").read_bytes())
    Image.new("RGB", (31, 16)).save(sides / "right" / "grey.png")
    (sides / "right" / "palette.png").write_bytes(b"no image")
    assert main(["predict", str(run[0]), str(sides / "left"), "--right", str(sides / "right")]) == 2
    lines = {line["image"]: line.get("error") for line in said(capsys)}
    told = {str(path).removeprefix(f"{sides}/"): error for path, error in lines.items()}
    assert told == {
        "left/alone.png": f"{sides}/right holds no image of that name",
        "left/grey.png": f"it has 16 x 32 pixels and {sides}/right/grey.png 16 x 31, not one size",
        "left/odd.png": None,
        "left/palette.png": f"{sides}/right/palette.png: no image format is recognised",
        "left/same.png": None,
        "left/in/same.png": None,
        "right/other.png": f"{sides}/left holds no image of that name",
    }


def test_folders_without_images_are_told(run, sides, capsys):
    (sides / "none").mkdir()
    assert main(["predict", str(run[0]), str(sides / "none"), "--right", str(sides / "none")]) == 2
    assert said(capsys) == [{"image": str(sides / "none"), "error": "the folder holds no images"}]
    assert main(["predict", str(run[0]), str(sides / "left" / "in"), "--right", str(sides / "none")]) == 2
    assert [line["error"] for line in said(capsys)] == [f"{sides}/none holds no image of that name"]


def test_files_and_globs_are_paired_in_order(run, sides, capsys):
    left, right = str(sides / "left"), str(sides / "right")
    files = [f"{left}/odd.png", f"{left}/[gs]*.png", "--right", f"{right}/odd.png", f"{right}/[gs]*.png"]
    assert main(["predict", str(run[0]), *files, "--batch-size", "1"]) == 0
    one = said(capsys)
    assert [line["right"].removeprefix(f"{right}/") for line in one] == ["odd.png", "grey.png", "same.png"]
    assert main(["predict", str(run[0]), *files]) == 0
    for a, b in zip(one, said(capsys), strict=True):
        assert a["disparity"] == pytest.approx(b["disparity"], abs=1e-3)


@pytest.mark.parametrize(
    ("left", "right", "told"),
    [
        (["left"], [], "needs the right image of each pair. Add --right"),
        (["left/odd.png", "left/same.png"], ["right/odd.png"], "as there are left ones, 2, got 1"),
        (["left"], ["right/odd.png"], "must be two files or two folders"),
        (["left/*.png"], ["right/o*.png"], "stands for 4 files, .* for 1"),
    ],
)
def test_sides_of_unequal_kinds_or_numbers_are_refused(run, sides, left, right, told, capsys):
    given = [str(sides / name) for name in left]
    other = ["--right", *(str(sides / name) for name in right)] if right else []
    assert main(["predict", str(run[0]), *given, *other]) == 2
    out = capsys.readouterr()
    assert not out.out
    assert re.search(told, out.err.replace("\n", " "))


def test_a_pair_too_large_for_the_memory_has_a_line_and_smaller_ones_share_what_there_is(
    run, sides, capsys, monkeypatch
):
    from foveal.tasks.stereo import answers

    left, right = str(sides / "left"), str(sides / "right")
    files = [f"{left}/odd.png", f"{left}/[gs]*.png", "--right", f"{right}/odd.png", f"{right}/[gs]*.png"]
    assert main(["predict", str(run[0]), *files]) == 0
    whole, asked = said(capsys), answers.disparities
    monkeypatch.setattr(answers, "SURE", 1)
    monkeypatch.setattr(answers._Costs, "_bytes_a_pixel", 2.0**20)
    monkeypatch.setattr(answers, "headroom", lambda device: 16 * 32 * 2.0**20)
    taken = []
    monkeypatch.setattr(answers, "disparities", lambda *of: taken.append(len(of[1])) or asked(*of))
    assert main(["predict", str(run[0]), *files]) == 2
    odd, *others = said(capsys)
    rows, columns = whole[0]["rows"], whole[0]["columns"]
    told = f"{rows} x {columns} pixels take {rows * columns / 1024:.1f} GiB of memory to match, and 0.5 GiB can be had"
    assert odd["error"] == f"{told}: shrink both images"
    assert [line["disparity"] for line in others] == [pytest.approx(line["disparity"], abs=1e-3) for line in whole[1:]]
    assert taken == [1, 1]


def test_what_a_pair_takes_is_measured(run):
    from foveal.tasks.stereo.answers import _Costs

    opened = open_models(run[0])
    outputs = 4 * opened.model.max_disparity  # of a pixel: the softmax over all disparities alone
    assert outputs < _Costs(opened)._bytes_a_pixel < 100 * outputs
