"""``foveal figure`` as a user gives it."""

import json

import pytest
from PIL import Image

from foveal.cli import main


def test_a_figure_is_written_as_png_and_svg(tmp_path, capsys):
    asked = ["figure", "efficient-1", "--model", "foveal_efficient_resnet50_res1_early", "--image", "flower"]
    assert main([*asked, "--at", "50,60", "100,120", "--out", str(tmp_path / "points"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["points.png", "points.svg"]
    assert "act1.attention, efficient, 1 head, 112x112 positions" in told["caption"]
    assert "Weights: drawn at random, seed 0" in told["caption"]
    assert Image.open(tmp_path / "points.png").size[0] == 2 * (2 * 24 + 3 * 168 + 2 * 10)


def test_the_cost_figure_needs_no_model(tmp_path):
    assert main(["figure", "efficient-3", "--out", str(tmp_path / "cost.svg")]) == 0
    assert "64x64x32" in (tmp_path / "cost.svg").read_text()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nope"], "NoMatchError: figure: there is no figure 'nope'. There are explicit-1,"),
        (["efficient-3", "--model", "resnet18"], "efficient-3 is drawn from the paper's formulas"),
        (["efficient-1", "--out", "a.jpg"], "--out must end in .png or .svg, or in neither for both, got 'a.jpg'"),
        (["efficient-1", "--model", "resnet19"], "there is no run and no model 'resnet19'"),
        (["efficient-1", "--model", "runs/x"], "there is no run 'runs/x'"),
        (["efficient-1", "--model", "local"], "'local' is a layer, a whole model is wanted"),
        (["efficient-1", "--model", "a=resnet18", "--model", "b=resnet18"], "efficient-1 shows one model, got a, b"),
        (["efficient-1", "--model", "resnet18"], "no attention that can be read matches '*'. The model has none"),
        (["efficient-1", "--image", "none.jpg"], "there is no image 'none.jpg'"),
        (["explicit-3", "--model", "resnet18"], "no layer of the model learns a radius"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(words, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["figure", *words]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("task", ["detection", "stereo", "generation", "points"])
@pytest.mark.parametrize("command", [["figure", "efficient-1"], ["explore"]])
def test_a_run_that_cannot_be_drawn_names_what_gives_its_maps(command, task, tmp_path, capsys):
    (tmp_path / "config.json").write_text(json.dumps({"task": task}))
    assert main([*command, "--model", str(tmp_path)]) == 2
    told = capsys.readouterr().err.strip().splitlines()[-1]
    assert told == (
        f"OptionError: {command[0]}: {tmp_path} is a run of {task}, which is not drawn here. In Python foveal.capture "
        f"gives the maps of each network in foveal.open_models({str(tmp_path)!r}).models."
    )


@pytest.mark.parametrize(
    "words",
    [
        ["predict", "{}", "x.png"],
        ["evaluate", "{}"],
        ["figure", "efficient-1", "--model", "{}"],
        ["explore", "--model", "{}"],
    ],
    ids=lambda words: words[0],
)
@pytest.mark.parametrize("there", [True, False])
def test_a_wrong_path_is_told_by_the_command_that_was_typed(words, there, tmp_path, capsys):
    path = str(tmp_path if there else tmp_path / "gone")
    assert main([word.format(path) for word in words]) == 2
    assert capsys.readouterr().err.strip().splitlines()[-1].startswith(f"DataError: {words[0]}: ")
