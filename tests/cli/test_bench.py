"""``foveal bench``: a table, JSON beside it, and no figure for what computes something else."""

import json
import subprocess
import sys

import pytest
from PIL import Image
from torch import nn

from foveal.analysis import sides
from foveal.analysis.sides import SIDES, SUITES, Built, Side
from foveal.cli import main
from foveal.cli.bench import ABOUT

SMALL = ["--size", "7", "--channels", "16", "--batch", "1", "--seconds", "0.02", "--threads", "1"]


def test_the_table_has_a_row_a_side_and_states_threads_and_versions(capsys, tmp_path):
    out, plot = tmp_path / "bench.json", tmp_path / "bench.png"
    asked = ["bench", "local", "local:tiled", "halo", "natten", "kernel_size=3", *SMALL]
    assert main([*asked, "--out", str(out), "--plot", str(plot)]) == 0
    told = capsys.readouterr().out
    for words in (
        "threads 1",
        "torch 2.",
        "local:tiled",
        "halo",
        "ratios within a round, to local.",
        f"Written: {out}",
    ):
        assert words in told
    records = json.loads(out.read_text())
    assert [side["name"] for side in records["sides"]] == ["local", "local:tiled", "halo", "natten"]
    assert records["sides"][1]["error"] < 2e-4 and records["sides"][0]["forward_ms"]["ratio"] == 1.0
    assert records["environment"]["threads"] == 1 and records["environment"]["packages"]["torch"]
    assert Image.open(plot).width > 1000


def test_json_is_all_there_is_on_standard_output(capsys):
    assert main(["bench", "efficient", "efficient:published", "--json", *SMALL]) == 0
    records = json.loads(capsys.readouterr().out)
    assert records["shape"] == [1, 16, 7, 7]
    assert all(side["training_ms"]["q1"] <= side["training_ms"]["q3"] for side in records["sides"])


def test_a_side_that_computes_something_else_is_an_error_after_the_table(capsys, monkeypatch):
    wrong = Side("wrong", "", lambda setting: Built(nn.Identity(), nn.ReLU()))
    monkeypatch.setitem(sides.SIDES, "wrong", wrong)
    assert main(["bench", "conv3x3", "wrong", *SMALL]) == 2
    shown = capsys.readouterr()
    assert "conv3x3" in shown.out
    assert shown.err.splitlines()[-1].startswith("FovealError: bench: wrong was not timed: its result is off by")


def test_no_side_that_could_be_measured_is_an_error(capsys, tmp_path):
    assert main(["bench", "LocalAttention", *SMALL, "--channels", "7", "--plot", str(tmp_path / "x.png")]) == 2
    told = capsys.readouterr().err.splitlines()[-1]
    assert told.startswith("FovealError: bench: no side could be measured; local: LocalAttention: heads must divide")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["lokal"], "NoMatchError: bench: there is no suite or side 'lokal'. Did you mean local"),
        (["local:fast"], "NoMatchError: bench: local has no backend 'fast'. It has native,"),
        (["--size", "0"], "ShapeError: foveal: --size must be one to three positive numbers, got '0'."),
        (["--batch", "0"], "OptionError: bench: --seconds, --batch and --channels must be positive."),
        (["--channels", "0"], "OptionError: bench: --seconds, --batch and --channels must be positive."),
        (["--seconds", "-1"], "OptionError: bench: --seconds, --batch and --channels must be positive."),
        (["--threads", "0"], "OptionError: foveal: --threads must be at least 1, got 0."),
        (["--device", "tpu"], "OptionError: bench: --device must be cpu or cuda, got 'tpu'."),
        (["LocalAttention", "kernelsize=3"], "OptionError: LocalAttention: there is no option 'kernelsize'."),
        (["--plot", "x.pdf"], "OptionError: foveal: --plot must end in .svg or .png, got 'x.pdf'."),
        (["--out", "/no/x.json"], "DataError: foveal: --out '/no/x.json' lies in a folder that does not exist."),
    ],
)
def test_what_is_wrong_is_one_line_and_status_2(capsys, options, told):
    assert main(["bench", *options]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.splitlines()[-1].startswith(told)


def test_the_help_names_every_suite_and_comes_without_torch():
    for name in SUITES:
        assert f"\n  {name} " in ABOUT
    heavy = "import sys; from foveal.cli import main\ntry: main(['bench', '--help'])\nexcept SystemExit: pass\n"
    heavy += "print([name for name in ('torch', 'timm', 'numpy', 'PIL') if name in sys.modules])"
    told = subprocess.run([sys.executable, "-c", heavy], capture_output=True, text=True, check=True).stdout
    assert told.splitlines()[-1] == "[]"


def test_the_list_has_every_suite_and_side(capsys):
    assert main(["bench", "--list", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert list(told["suites"]) == list(SUITES) and list(told["sides"]) == list(SIDES)
    assert main(["bench", "--list"]) == 0
    assert "timm's HaloAttn" in capsys.readouterr().out


def test_streaming_prints_a_row_a_layer_and_leaves_nothing(tmp_path, capsys):
    assert main(["bench", "streaming", "efficient", "--size", "40", "--channels", "4", "--folder", str(tmp_path)]) == 0
    told = capsys.readouterr().out
    assert "40 x 40 x 4 of float32" in told
    assert "efficient" in told and "1024 MiB" in told
    assert list(tmp_path.iterdir()) == []


def test_streaming_refuses_in_a_sentence(tmp_path, capsys):
    assert main(["bench", "streaming", "local"]) == 2
    assert "bench streaming: there is no layer 'local'. Give some of efficient, external" in capsys.readouterr().err
    assert main(["bench", "streaming", "--folder", str(tmp_path / "none")]) == 2
    assert "is no folder. Make it, or leave it out." in capsys.readouterr().err
