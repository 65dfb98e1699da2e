"""``foveal ledger``: tables, Markdown, JSON and a figure; the user's runs; what is wrong is one line."""

import json
import subprocess
import sys
from xml.etree import ElementTree

import pytest

from foveal.analysis.ledger import Cell, Verdict, ledger
from foveal.cli import main
from foveal.tasks.finished import data_of, finished_runs, model_of
from foveal.tasks.run_folder import write_metrics


def write_run(folder, accuracy, *, seed=0, epochs=3, status="done", **config):
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"seed": seed, **config}))
    (folder / "result.json").write_text(json.dumps({"status": status}))
    lines = [{"epoch": n + 1, "accuracy": accuracy * (n + 1) / epochs} for n in range(epochs)]
    write_metrics(folder, lines)


def test_the_tables_end_with_the_counts(capsys):
    assert main(["ledger", "external"]) == 0
    told = capsys.readouterr()
    assert told.err == ""
    assert "EAMLP-14" in told.out and "= equal" in told.out and "≠ differs" in told.out and "· not run" in told.out
    assert told.out.splitlines()[-1].startswith(f"{len(ledger(['external']))} cells: ")


def test_json_is_complete_and_comes_back_as_the_same_cells(capsys):
    assert main(["ledger", "external", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    back = [Cell(**{**cell, "verdict": Verdict(cell["verdict"])}) for cell in told["cells"]]
    assert back == ledger(["external"])
    assert told["summary"]["cells"] == len(back)
    assert set(told["rules"]) == {cell.rule for cell in back if cell.ours is not None}


def test_markdown_is_a_page_that_says_its_command(capsys):
    assert main(["ledger", "external", "--markdown"]) == 0
    told = capsys.readouterr().out
    assert told.startswith("# The ledger\n")
    assert "made by `foveal ledger external --markdown`" in told


def test_the_figure_is_an_svg_file(tmp_path, capsys):
    path = tmp_path / "figure.svg"
    assert main(["ledger", "efficient", "--figure", str(path)]) == 0
    assert ElementTree.parse(path).getroot().tag.endswith("svg")
    told = capsys.readouterr().out
    assert "Figure 3" in told
    assert told.splitlines()[-1] == f"Written: {path}"


def test_a_run_stands_beside_the_published_accuracy_of_its_model_on_its_data(tmp_path, capsys):
    asked = {"mechanism": "none", "data": "/data/ImageNet"}
    write_run(tmp_path / "a" / "0", 0.78, backbone="foveal_eamlp_14", seed=0, **asked)
    write_run(tmp_path / "a" / "1", 0.80, backbone="foveal_eamlp_14", seed=1, **asked)
    write_run(tmp_path / "b", 0.5, backbone="foveal_eamlp_19", data="digits", mechanism="none")
    write_run(tmp_path / "c", 0.5, backbone="foveal_eamlp_19", data="imagenet", mechanism="se")
    write_run(tmp_path / "d", 0.5, backbone="foveal_eamlp_19", data="imagenet", status="failed")
    assert main(["ledger", "external", "--json", "--runs", str(tmp_path)]) == 0
    shown = capsys.readouterr()
    assert shown.err == "ledger: no cell here is about foveal_eamlp_19 on digits; its run is not shown.\n"
    cells = json.loads(shown.out)["cells"]
    found = {cell["row"]: cell for cell in cells if cell["title"] == "EAMLP, ImageNet" and cell["column"] == "top-1"}
    assert found["EAMLP-14"]["ours"] == pytest.approx(79.0)
    assert found["EAMLP-14"]["verdict"] == "differs"
    assert found["EAMLP-14"]["why"] == "your run: 3 epochs, 2 seeds; training is not the paper's"
    assert found["EAMLP-19"]["verdict"] == "not run"


@pytest.mark.parametrize(
    ("config", "model"),
    [
        ({"model": "foveal_eamlp_14"}, "foveal_eamlp_14"),
        ({"backbone": "resnet50", "mechanism": "none"}, "resnet50"),
        ({"backbone": "resnet50"}, "resnet50"),
        ({"backbone": "resnet50", "mechanism": "se"}, None),
        ({}, None),
    ],
)
def test_a_run_s_model_is_what_its_configuration_names(config, model):
    assert model_of(config) == model


@pytest.mark.parametrize(
    ("given", "name"),
    [("/data/ImageNet", "imagenet"), ("ILSVRC2012", "imagenet"), ("cifar-10", "cifar10"), ("digits", "digits"),
     ("tiny-imagenet-200", "tinyimagenet")],
)  # fmt: skip
def test_a_run_s_data_is_the_last_part_of_its_path(given, name):
    assert data_of({"data": given}) == name


def test_the_longest_of_a_model_s_runs_is_taken(tmp_path):
    write_run(tmp_path / "short", 0.9, model="resnet50", data="imagenet", epochs=2)
    write_run(tmp_path / "long", 0.7, model="resnet50", data="imagenet", epochs=5)
    assert [run.epochs for run in finished_runs(tmp_path)] == [5, 2]


def test_what_was_measured_before_the_first_step_is_no_epoch(tmp_path):
    recipe = {"evaluation": {"features": "inception"}}
    write_run(tmp_path / "gan", 0.0, model="sagan", data="cifar10", task="generation", recipe=recipe)
    write_metrics(tmp_path / "gan", [{"epoch": n, "fid": 300.0 - n} for n in range(4)])
    (run,) = finished_runs(tmp_path)
    assert (run.epochs, run.metrics) == (3, {"fid": 297.0})


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (
            ["resnet"],
            "OptionError: ledger: there is no paper 'resnet'. Use one of explicit, augmented, efficient, local,",
        ),
        (["local", "--figure", "a.svg"], "OptionError: ledger: --figure draws a figure of efficient, got the paper"),
        (["efficient", "--figure", "a.png"], "OptionError: ledger: --figure writes SVG, got 'a.png'. Use a name that"),
        (["--json", "--markdown"], "OptionError: ledger: --markdown and --json are two forms of the same. Give one"),
        (["external", "--runs", "/none"], "DataError: ledger: --runs '/none' is no folder. Give one"),
        (
            ["efficient", "--figure", "/none/a.svg"],
            "DataError: foveal: --figure '/none/a.svg' lies in a folder that does not exist. Make it first.",
        ),
    ],
)
def test_what_is_wrong_is_one_line_and_status_2(capsys, options, told):
    assert main(["ledger", *options]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(told)
    assert err.count("\n") == 1


def test_a_folder_without_a_finished_run_is_one_line(tmp_path, capsys):
    write_run(tmp_path / "run", 0.5, model="resnet50", data="imagenet", status="failed")
    assert main(["ledger", "external", "--runs", str(tmp_path)]) == 2
    assert "holds no finished run" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [("config.json", "{", "config.json is damaged: "), ("metrics.csv", "{\n", "metrics.csv is damaged: ")],
)
def test_a_damaged_run_is_named(tmp_path, capsys, name, content, told):
    write_run(tmp_path / "run", 0.5, model="resnet50", data="imagenet")
    (tmp_path / "run" / name).write_text(content)
    assert main(["ledger", "external", "--runs", str(tmp_path)]) == 2
    assert told in capsys.readouterr().err


def test_files_of_another_kind_are_no_runs(tmp_path):
    write_run(tmp_path / "run", 0.5, model="resnet50", data="imagenet")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.json").write_text("[1, 2]")
    assert len(finished_runs(tmp_path)) == 1


def test_help_has_examples_and_comes_without_torch():
    script = (
        "import sys; from foveal.cli import main\n"
        "try: main(['ledger', '--help'])\nexcept SystemExit: pass\nprint('torch' in sys.modules)"
    )
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert "foveal ledger efficient --figure figure3.svg" in told
    assert told.splitlines()[-1] == "False"
