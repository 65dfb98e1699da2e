"""Every kind of task: its recipes make sense and come to something, and what all of them share holds."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from foveal.analysis.metrics import Metric
from foveal.cli import main
from foveal.cli.predict import Predict
from foveal.cli.predict_drawn import check as check_asked
from foveal.data import generated
from foveal.errors import DataError, NoMatchError, OptionError
from foveal.tasks.kind import Drawn, Opened
from foveal.tasks.kinds import RECIPES, kind_named, recipe_type
from foveal.tasks.opened import open_models, task_of
from foveal.tasks.preview import preview
from foveal.tasks.recipe_check import check
from foveal.tasks.recipe_files import names, read_recipe, recipe_text, write_recipe

OTHERS = [name for name in names() if read_recipe(name).task != "classification"]


@pytest.mark.parametrize("task", RECIPES)
def test_a_kind_has_the_name_of_its_recipes_and_measures_what_marks_their_best(task):
    kind, recipe = kind_named(task), recipe_type(task)()
    assert kind.name == task == recipe.task
    assert recipe.best in kind.metrics
    assert all(isinstance(metric, Metric) for metric in kind.metrics.values())
    assert kind.asks <= {"batch_size", "threshold", "right", "count", "seed", "category"}


@pytest.mark.parametrize("name", OTHERS)
def test_a_recipe_makes_sense_and_is_read_as_it_was_written(name, tmp_path):
    recipe = read_recipe(name)
    check(recipe)
    write_recipe(tmp_path / "again.yaml", recipe)
    assert read_recipe(tmp_path / "again.yaml") == recipe
    assert f"task: {recipe.task}" in recipe_text(recipe)
    assert recipe.about.not_stated
    if not name.startswith("small/"):
        assert recipe.about.paper
        assert set(recipe.about.published) <= {*kind_named(recipe.task).metrics}


@pytest.mark.parametrize("name", [name for name in OTHERS if not name.startswith("small/")])
def test_a_published_recipe_has_a_plan_without_its_data(name):
    seen = preview(read_recipe(name))
    assert not seen.counted
    assert seen.items >= seen.steps_per_epoch > 0
    assert seen.parameters > 100_000


def test_every_task_has_small_recipes_with_and_without_attention():
    small = [read_recipe(name) for name in names() if name.startswith("small/")]
    for task in RECIPES:
        assert len([recipe for recipe in small if recipe.task == task]) >= 2, task


def test_a_task_that_is_not_there_is_named(tmp_path):
    (tmp_path / "odd.yaml").write_text("task: painting\n")
    with pytest.raises(OptionError, match=r"odd.yaml, line 1: there is no task 'painting'. Use classification, detec"):
        read_recipe(tmp_path / "odd.yaml")


def test_what_is_no_run_is_said(tmp_path):
    assert task_of(tmp_path / "gone") == "classification"
    with pytest.raises(DataError, match="is no run: it has no config.json with a recipe"):
        open_models(tmp_path)


@pytest.mark.parametrize("command", ["predict", "evaluate"])
def test_a_run_of_a_task_that_is_not_here_is_one_sentence(command, tmp_path, capsys):
    (tmp_path / "config.json").write_text(json.dumps({"task": "painting", "recipe": {"task": "painting"}}))
    assert main([command, str(tmp_path)]) == 2
    assert "config.json: there is no task 'painting'. Use classification, " in capsys.readouterr().err


@pytest.mark.parametrize("task", ["detection", "segmentation"])
def test_images_that_go_alone_take_no_batch_size(task):
    with pytest.raises(OptionError, match=f"--batch-size means nothing for {task}. Leave it out"):
        check_asked(Predict("run", ("a.png",), batch_size=4), kind_named(task))
    check_asked(Predict("run", ("a.png",), batch_size=4), kind_named("stereo"))


def test_a_metric_is_printed_with_its_unit():
    assert Metric("mean IoU", percent=True).text(0.7654321) == "76.54 %"
    assert Metric("mean IoU", percent=True).printed(45.33) == "45.33 %"
    assert Metric("end-point error", least=True, unit="px").text(0.51234) == "0.5123 px"
    assert Metric("loss").text(0.25) == "0.2500"


def test_an_answer_with_an_error_is_a_line_with_nothing_else():
    assert Drawn("a.png", {"boxes": []}, "no image").line() == {"image": "a.png", "error": "no image"}
    whole = Drawn("a.png", {"boxes": []}, picture=np.zeros((1, 1, 3), np.uint8))
    assert whole.line() == {"image": "a.png", "boxes": []}


def test_a_generated_set_appears_whole_or_not_at_all(tmp_path, monkeypatch):
    def broken(folder):
        (folder / "first").write_text("one")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(generated, "_writer", lambda name: (None, broken))
    with pytest.raises(DataError, match=r"could not be written: No space left on device"):
        generated.write("solids", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_generated_set_that_another_process_writes_meanwhile_is_taken(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    asked = []

    def writer(name):
        asked.append(name)
        if len(asked) == 2:  # after the cache was found empty
            place = tmp_path / "foveal" / "data" / "solids-7"
            place.mkdir(parents=True)
            (place / "first").write_text("theirs")
        return SimpleNamespace(VERSION=7), lambda folder: (folder / "first").write_text("ours")

    monkeypatch.setattr(generated, "_writer", writer)
    assert (generated.generated("solids") / "first").read_text() == "theirs"
    assert [path.name for path in (tmp_path / "foveal" / "data").iterdir()] == ["solids-7"]


def test_a_generated_set_is_written_where_nothing_is(tmp_path):
    with pytest.raises(NoMatchError, match="there is no generated data set 'nothing'. Use "):
        generated.write("nothing", tmp_path / "out")
    (tmp_path / "file").write_text("held")
    with pytest.raises(DataError, match="is there already. Name a new folder"):
        generated.write("solids", tmp_path / "file")


def test_the_command_lists_and_writes_generated_sets(tmp_path, capsys):
    assert main(["data"]) == 0
    assert capsys.readouterr().out.split() == list(generated.GENERATED)
    assert main(["data", "solids"]) == 2
    assert "--out is missing. Write foveal data solids --out solids." in capsys.readouterr().err
    assert main(["data", "--out", str(tmp_path / "solids")]) == 2
    assert "needs the name of a set: solids, " in capsys.readouterr().err
    assert main(["data", "solids", "--out", str(tmp_path / "solids")]) == 0
    assert (tmp_path / "solids").is_dir()


def test_opened_tells_a_reader_what_it_is(tmp_path):
    recipe = recipe_type("stereo")()
    facts = Opened({}, recipe, {}, tmp_path, "psmnet", "last, epoch 3").facts()
    assert json.dumps({name: str(fact) for name, fact in facts.items()})
    assert facts["Weights"] == "last, epoch 3"
