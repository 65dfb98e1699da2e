"""A run answers without its data set, as it answered in training; what is no run is told apart in a sentence."""

import json
import shutil

import pytest
import timm
import torch
from PIL import Image

import foveal
from foveal import models
from foveal.data import load
from foveal.data.picture import UnreadableError
from foveal.data.preparation import Preparation
from foveal.errors import DataError, OptionError, ShapeError
from foveal.tasks import checkpoint, opening, runs
from foveal.tasks.settings import Settings
from foveal.tasks.subject import Subject
from foveal.tasks.trained import open_run
from tests.tasks.trained_sample import RECIPE, digit_files, trained

GREY = Preparation(8, 1.0, "bilinear", (0.5,), (0.5,), 1)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "digits"
    trained(folder)
    return folder


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return digit_files(tmp_path_factory.mktemp("digits"))


@pytest.fixture
def no_data(monkeypatch):
    """Whoever asks for the data set fails."""

    def absent(*_, **__):
        raise AssertionError("the data set was read")

    monkeypatch.setattr("foveal.data.catalog.load_options", absent)
    monkeypatch.setattr("foveal.data.digits.sources", absent)


def validation_logits(model):
    val = load("digits").val
    with torch.no_grad():
        return model(torch.stack([val[n][0] for n in range(len(val))]))


@pytest.mark.usefixtures("no_data")
def test_a_run_opens_and_answers_without_its_data(run, files):
    opened = open_run(run)
    assert opened.classes == tuple("0123456789")
    assert opened.preparation == GREY
    assert opened.weights == "last, epoch 2"
    assert not opened.model.training
    (best,) = opened.predict([files[0]], top=3)
    assert len(best) == 3 and best[0][1] >= best[1][1] >= best[2][1]


def test_files_of_digits_get_the_answers_of_validation(run, files):
    opened = open_run(run)
    wanted = validation_logits(opened.model).softmax(1)
    got = opened.predict(files, top=10, batch_size=100)
    shares = torch.tensor([[dict(best)[name] for name in opened.classes] for best in got])
    # A file holds 256 greys where the data have 17: values differ by half a grey at most.
    torch.testing.assert_close(shares, wanted, atol=5e-3, rtol=0)
    clear = wanted.topk(2, 1).values.diff(dim=1).abs()[:, 0] > 0.01
    assert clear.float().mean() > 0.8
    names = [opened.classes[n] for n in wanted.argmax(1).tolist()]
    assert all(best[0][0] == name for best, name, sure in zip(got, names, clear, strict=True) if sure)


def test_an_image_in_any_mode_is_what_validation_makes_of_it(run, files):
    opened = open_run(run)
    grey = Image.open(files[3])
    assert torch.equal(opened.prepare(files[3]), opened.prepare(grey))
    for mode in ("RGB", "RGBA", "P", "CMYK", "I;16"):
        other = grey.convert("I").point(lambda v: v * 257).convert("I;16") if mode == "I;16" else grey.convert(mode)
        torch.testing.assert_close(opened.prepare(other), opened.prepare(grey), atol=0.01, rtol=0)
    assert opened.prepare(grey.resize((50, 31))).shape == (1, 8, 8)


def test_the_evaluated_weights_are_taken_not_those_that_were_learning(run):
    average = checkpoint.weights(run)
    assert all(torch.equal(value.cpu(), average[name]) for name, value in open_run(run).model.state_dict().items())
    learning = checkpoint.read(run).tensors("model")
    assert not all(torch.equal(average[name], learning[name]) for name in average)


def test_a_run_without_checkpoints_has_the_weights_of_its_end(run, files, tmp_path):
    shutil.copytree(run, tmp_path / "light", ignore=shutil.ignore_patterns("checkpoints"))
    assert open_run(tmp_path / "light").predict(files[:4]) == open_run(run).predict(files[:4])
    with pytest.raises(DataError, match=r"open_run: .*light has no best checkpoint"):
        open_run(tmp_path / "light", which="best")


def test_one_run_of_a_comparison_opens(tmp_path, files):
    subject = Subject(Settings(mechanisms=("cbam",), epochs=1, batch_size=256), load("digits"))
    runs.run(subject, tmp_path, "cbam", 0, lambda *_: None)
    opened = open_run(tmp_path / "runs" / "cbam-0")
    model, _ = subject.model("cbam")
    model.load_state_dict(checkpoint.weights(tmp_path / "runs" / "cbam-0"))
    torch.testing.assert_close(validation_logits(opened.model), validation_logits(model.eval()))
    assert opened.name == "foveal_resnet_mini with cbam"
    with pytest.raises(DataError, match=r"open_run: .* holds 1 runs. Give one of them: .*runs/cbam-0, say"):
        open_run(tmp_path)


def test_a_file_of_models_save_opens_with_what_was_saved_beside_it(tmp_path, files):
    model = timm.create_model("foveal_resnet_mini", num_classes=3, in_chans=1).eval()
    models.save(model, tmp_path / "m.safetensors", classes=["a", "b", "c"], preparation=GREY.record())
    opened = open_run(tmp_path / "m.safetensors")
    (best,) = opened.predict([files[0]])
    with torch.no_grad():
        wanted = model(GREY(Image.open(files[0]))[None]).softmax(1)[0]
    assert [name for name, _ in best] == [("a", "b", "c")[n] for n in wanted.argsort(descending=True).tolist()]
    with pytest.raises(OptionError, match="holds one model, no best one"):
        open_run(tmp_path / "m.safetensors", which="best")


def test_a_file_without_more_has_numbers_for_classes_and_the_preparation_that_timm_tells(tmp_path):
    models.save(timm.create_model("test_resnet", num_classes=4), tmp_path / "m.safetensors")
    opened = open_run(tmp_path / "m.safetensors")
    shown = opened.model.default_cfg
    assert opened.classes == ("0", "1", "2", "3")
    assert opened.preparation.mean == tuple(shown["mean"]) and opened.preparation.size == shown["input_size"][-1]
    models.save(timm.create_model("test_resnet", in_chans=1), tmp_path / "grey.safetensors")
    with pytest.raises(DataError, match=r"grey.safetensors does not say how images for it are prepared. Save it with"):
        open_run(tmp_path / "grey.safetensors")


def test_a_grey_model_that_timm_knows_takes_grey_images(tmp_path):
    model = timm.create_model("test_resnet", in_chans=1)
    model.default_cfg = {**model.default_cfg, "input_size": (1, 32, 32), "mean": (0.1,), "std": (0.3,)}
    assert opening._preparation_of_file(tmp_path, model, {}).channels == 1


def test_names_that_do_not_match_the_head_are_refused(tmp_path):
    model = timm.create_model("foveal_resnet_mini", num_classes=3, in_chans=1)
    models.save(model, tmp_path / "m.safetensors", classes=["a", "b"], preparation=GREY.record())
    with pytest.raises(DataError, match="names 2 classes, its model answers with 3"):
        open_run(tmp_path / "m.safetensors")


def test_a_run_of_other_weights_is_refused(run, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    config = json.loads((run / "config.json").read_text())
    config["recipe"]["model"]["mechanism"] = "none"
    (tmp_path / "run" / "config.json").write_text(json.dumps(config))
    with pytest.raises(DataError, match="was made by another model"):
        open_run(tmp_path / "run")


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda path: path, r"open_run: there is no run '.*gone'. Give the folder that foveal train wrote to."),
        (lambda path: path.mkdir() or path, r"gone is no run: it has no config.json"),
        (lambda path: path.write_text("x") and path, r"gone is no .safetensors file"),
    ],
)
def test_what_is_no_run_is_one_sentence(tmp_path, make, told):
    with pytest.raises(DataError, match=told):
        open_run(make(tmp_path / "gone"))


def test_a_run_of_an_older_foveal_is_told_so(run, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    config = json.loads((run / "config.json").read_text())
    del config["classes"]
    (tmp_path / "run" / "config.json").write_text(json.dumps(config))
    with pytest.raises(DataError, match=r"config.json has no classes, as runs of an older foveal have none"):
        open_run(tmp_path / "run")


def test_wrong_use_is_one_sentence(run, files, tmp_path):
    opened = open_run(run)
    with pytest.raises(OptionError, match="which must be last or best, got 'first'"):
        open_run(run, which="first")
    with pytest.raises(OptionError, match="--top must be at least 1, got 0"):
        opened.predict(files[:1], top=0)
    with pytest.raises(ShapeError, match=r"images must be \(n, 1, height, width\), got \(2, 3, 8, 8\)"):
        opened.probabilities(torch.zeros(2, 3, 8, 8))
    (tmp_path / "empty.png").write_text("")
    with pytest.raises(UnreadableError, match="the file is empty"):
        opened.prepare(tmp_path / "empty.png")


def test_the_package_has_open_run():
    assert foveal.open_run is open_run
    assert RECIPE.ema is not None  # the test of the average above means something
