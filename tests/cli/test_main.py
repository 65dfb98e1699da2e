"""The command line: what a user can cause is one line and a status, never a traceback."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import foveal
from foveal.cli import main

FOVEAL = [sys.executable, "-c", "import sys; from foveal.cli import main; sys.exit(main())"]
ENV = {**os.environ, "OMP_NUM_THREADS": "1"}
CORES = max(os.cpu_count() or 1, 2)
SMALL = ["--mechanisms", "none", "--epochs", "1", "--seeds", "1", "--batch-size", "256"]


def test_the_version_is_the_package_s(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"foveal {foveal.__version__}\n"


def test_help_comes_without_anything_heavy():
    heavy = "import sys; from foveal.cli import main\ntry: main(['compare', '--help'])\nexcept SystemExit: pass\n"
    heavy += "print([name for name in ('torch', 'timm', 'torchvision', 'sklearn', 'numpy') if name in sys.modules])"
    told = subprocess.run([sys.executable, "-c", heavy], capture_output=True, text=True, check=True).stdout
    assert "examples:" in told
    assert "--mechanisms" in told
    assert told.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--epochs", "0"], "OptionError: compare: --epochs must be at least 1, got 0. Use 1 or more."),
        (["--seeds", "-1"], "OptionError: compare: --seeds must be at least 1, got -1. Use 1 or more."),
        (["--threads", "0"], "OptionError: foveal: --threads must be at least 1, got 0."),
        (["--threads", "100000"], f"OptionError: foveal: --threads must be at most the cores ({CORES}), got 100000."),
        (["--jobs", "100000"], f"OptionError: compare: --jobs must be at most the cores ({CORES}), got 100000."),
        (["--epochs", "100001"], "OptionError: compare: --epochs must be at most 100000, got 100001."),
        (["--size", "100000"], "OptionError: compare: --size must be at most 4096, got 100000."),
        (["--out", ""], "OptionError: compare: --out is empty. Give the path of a folder."),
        (["--data", ""], "OptionError: compare: --data is empty. Use digits,"),
        (["--data", __file__], f"DataError: load: {__file__} is a file, a folder of images is wanted. Give"),
        (["--out", __file__], f"DataError: compare: {__file__} is a file, a folder is wanted. Use another path"),
        (["--mechanisms", "lokal"], "OptionError: compare: there is no mechanism 'lokal'. Did you mean local"),
        (["--data", "digit"], "DataError: load: there is no data set or folder 'digit'. Did you mean digits?"),
        (["--weights", "/none"], "DataError: compare: --weights '/none' is no file."),
        (["--backbone", "resnet19"], "OptionError: backbone: timm has no model 'resnet19'. Did you mean resnet1"),
    ],
)
def test_what_is_wrong_is_one_line_and_status_2(tmp_path, capsys, options, told):
    assert main(["compare", "--out", str(tmp_path / "out"), *options]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.splitlines()[-1].startswith(told)
    assert "Traceback" not in shown.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("arguments", [["cmpare"], ["compare"], ["compare", "--out", "x", "--epochs", "many"], []])
def test_what_cannot_be_parsed_is_status_2(arguments):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2


def test_info_tells_versions_and_threads(capsys):
    assert main(["info", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["foveal"] == foveal.__version__
    assert told["threads"] >= 1
    assert "torch" in told["packages"]


def test_info_tells_the_cache_and_why_a_backend_is_not_taken(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (tmp_path / "foveal").mkdir()
    (tmp_path / "foveal" / "speeds-0.json").touch()
    assert main(["info", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["cache"] == str(tmp_path / "foveal")
    assert told["calibrations"] == ["speeds-0.json"]
    assert "windows (the definition: in ONNX graphs alone)" in told["not_by_itself"]


def test_ctrl_c_is_one_line_and_the_same_command_goes_on(tmp_path):
    out = tmp_path / "out"
    asked = [*FOVEAL, "compare", "--out", str(out), *SMALL, "--json"]
    asked[asked.index("--epochs") + 1] = "8"
    running = subprocess.Popen(asked, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=ENV)
    metrics = out / "runs" / "none-0" / "metrics.csv"
    until = time.monotonic() + 90
    while not metrics.exists() and running.poll() is None and time.monotonic() < until:
        time.sleep(0.02)
    running.send_signal(signal.SIGINT)
    _, said = running.communicate(timeout=60)
    assert running.returncode == 130, said
    assert said == f"Interrupted. The same command goes on where {out} stands.\n"
    assert not (out / "results.json").exists()
    stood = len(metrics.read_text().splitlines()) - 1
    done = subprocess.run(asked, capture_output=True, text=True, env=ENV)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)[0]["status"] == "done"
    assert 1 <= stood < 8
    assert len(metrics.read_text().splitlines()) == 1 + 8
    assert Path(out / "report.html").exists()


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_runs_that_all_failed_are_one_sentence_and_status_2_with_results(tmp_path, capsys, form):
    out = tmp_path / "out"
    assert main(["compare", "--out", str(out), *SMALL, "--lr", "1e30", *form]) == 2
    shown = capsys.readouterr()
    told = "FovealError: compare: every run failed, 1 of 1; the first with DivergedError: fit: loss became nan"
    assert shown.err.splitlines()[-1].startswith(told)
    assert (json.loads(shown.out)[0]["status"] if form else "failed") == "failed"
    assert json.loads((out / "results.json").read_text())["records"][0]["status"] == "failed"
    assert (out / "report.html").exists()


def test_the_table_names_every_mechanism_and_the_report(tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["compare", "--out", str(out), *SMALL]) == 0
    shown = capsys.readouterr().out
    assert "none" in shown
    assert str(out / "report.html") in shown


def test_a_warning_of_the_library_is_one_line_and_others_are_left_alone(capsys):
    import warnings

    from foveal.cli import said

    with warnings.catch_warnings(record=True) as others, said.plain_warnings():
        warnings.warn_explicit("checkpoint is damaged", UserWarning, said.__file__, 1)
        warnings.warn_explicit("of another package", UserWarning, "/elsewhere/module.py", 7)
    assert capsys.readouterr().err == "warning: checkpoint is damaged\n"
    assert [str(warning.message) for warning in others] == ["of another package"]
