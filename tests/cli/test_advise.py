"""``foveal advise``: what fits is said to, what is wrong is one line and status 2."""

import json
import subprocess
import sys

import pytest

from foveal.analysis.calibration import Calibration, save, this_place
from foveal.analysis.prediction import Speeds
from foveal.cli import main

KINDS = ("product", "elementwise", "convolution", "1x1 convolution", "reduction", "normalization", "exponential")
ASKED = ["advise", "resnet10t", "--size", "32", "--mechanisms", "efficient,nonlocal,se"]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def calibrated():
    speeds = {f"{kind} {unit}": 1e-10 for kind in KINDS for unit in ("macs", "near")}
    return save(Calibration(this_place(), Speeds({**speeds, **{f"{kind} calls": 1e-6 for kind in KINDS}}), 9, 0.07))


def test_candidates_crossovers_and_one_sentence_are_printed(capsys):
    assert main([*ASKED, "--budget", "macs=+1%", "params=+1%"]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "candidates fit within macs=+1% and params=+1%, least macs with" in told
    assert "efficient nonlocal 128" in told
    assert "macs +" in told and "yes" in told
    assert "the speeds of this machine were not measured. Add --calibrate." in told


def test_nothing_that_fits_is_said_with_what_is_nearest(capsys):
    assert main([*ASKED, "--budget", "params=1k"]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "None of" in told and "fits within params=1k; nearest is" in told


def test_time_is_predicted_from_the_calibration_and_its_file_is_named(capsys):
    path = calibrated()
    assert main([*ASKED, "--budget", "latency=+5%"]) == 0
    told = capsys.readouterr().out
    assert "predicted" in told and "within latency=+5%" in " ".join(told.split())
    assert str(path) in told


def test_json_has_every_candidate_and_nothing_else(capsys):
    calibrated()
    assert main([*ASKED, "--budget", "latency=+5%", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert {"mechanism", "where", "sites", "costs", "exceeds", "fits"} <= told["advice"]["candidates"][0].keys()
    assert all(row["costs"]["latency"] > 0 for row in told["advice"]["candidates"])
    assert told["crossovers"][0]["by_time"] is None or told["crossovers"][0]["by_time"] > 0
    assert told["calibration"]["path"].startswith("/")


def test_a_damaged_calibration_is_told_and_stops_only_what_needs_it(capsys):
    calibrated().write_text("{")
    assert main([*ASKED, "--budget", "macs=+1%"]) == 0
    assert "is damaged" in capsys.readouterr().out
    assert main([*ASKED, "--budget", "latency=+1%"]) == 2
    assert capsys.readouterr().err.startswith("DataError: advise: the calibration")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ([], "OptionError: advise: name a model, as in foveal advise resnet50, or measure this machine"),
        (["resnet5"], "NoMatchError: find: neither foveal nor timm has a layer or model 'resnet5'. Did you mean"),
        (["local"], "OptionError: advise: 'local' is a layer; a model is wanted that it goes into"),
        (["resnet18", "--budget", "latency=fast"], "OptionError: advise: --budget 'latency=fast' must be latency= and"),
        (["resnet18", "--budget", "flops=1G"], "OptionError: advise: --budget 'flops=1G' limits 'flops', which is not"),
        (["resnet10t", "--budget", "latency=+5%"], "OptionError: advise: a latency budget needs the speeds of this"),
        (["spct"], "OptionError: advise: no mechanism has a place in spct: "),
        (["resnet18", "--size", "0"], "ShapeError: foveal: --size must be one to three positive numbers, got '0'"),
        (["test_vit", "--size", "50"], "ShapeError: advise: test_vit does not take an input of 1 x 3 x 50 x 50"),
        (["resnet18", "--mechanisms", "locl"], "OptionError: with_attention: there is no mechanism 'locl'. Did you"),
        (["resnet18", "--each", "block"], "OptionError: advise: --each must be model, stage or site, got 'block'"),
        (["resnet18", "--batch", "0"], "OptionError: advise: --batch must be at least 1, got 0"),
        (["resnet18", "--device", "tpu"], "OptionError: advise: --device must be cpu or cuda, got 'tpu'"),
        (["resnet10t", "--sites", "no.*"], "NoMatchError: "),
        (["--check"], "OptionError: advise: --check needs the speeds of this machine, not measured yet."),
    ],
)
def test_what_is_wrong_is_one_line_and_status_2(capsys, options, told):
    assert main(["advise", *options]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.splitlines()[-1].startswith(told)
    assert "Traceback" not in shown.err


def test_help_comes_without_torch():
    heavy = "import sys; from foveal.cli import main\ntry: main(['advise', '--help'])\nexcept SystemExit: pass\n"
    heavy += "print([name for name in ('torch', 'timm', 'numpy', 'PIL') if name in sys.modules])"
    told = subprocess.run([sys.executable, "-c", heavy], capture_output=True, text=True, check=True).stdout
    assert "foveal advise resnet50 --budget macs=+10%" in told
    assert told.splitlines()[-1] == "[]"
