"""``foveal cost``: the figures a person reads are those of the analysis; what is wrong is one line and status 2."""

import json
import subprocess
import sys

import pytest
from PIL import Image

from foveal.cli import main


def test_the_known_figures_of_resnet50_are_printed(capsys):
    assert main(["cost", "resnet50"]) == 0
    told = capsys.readouterr().out
    for words in ("25,557,032", "4.09 G MACs = 8.18 G FLOPs", "equal: 4,089,184,256 MACs", "53 Conv2d, 1 Linear"):
        assert words in told
    assert told.index("(all)") < told.index("conv1") < told.index("layer4") < told.index("fc ")
    assert "layer1.0" not in told


def test_deeper_levels_are_shown_where_they_are_asked_for(capsys):
    assert main(["cost", "torchvision.models:resnet18", "num_classes=10", "--size", "64", "--depth", "2"]) == 0
    assert "layer1.0 " in capsys.readouterr().out
    assert main(["cost", "local", "--depth", "0"]) == 0
    assert "query" not in capsys.readouterr().out


def test_what_a_model_was_fed_and_what_was_assumed_is_printed(capsys):
    small = ["backbone=resnet10t", "backbone_options={'channels': (8, 8, 8, 8)}", "pyramid_channels=8", "min_size=64"]
    assert main(["cost", "mask_rcnn", *small, "max_size=64"]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert (
        "mask_rcnn: batch 1, 3 channels, 64 x 64, inference assumed images resized to 64 x 64 1,000 proposals" in told
    )
    assert main(["cost", "eagan", "width=8"]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "eagan: inputs 1 x 128 and 1, inference" in told
    assert "generator Generator" in told and "discriminator Discriminator" in told


def test_json_has_every_module_and_nothing_else_on_standard_output(capsys):
    asked = ["cost", "local", "kernel_size=3", "--channels", "16", "--size", "5", "7", "--batch", "2", "--train"]
    assert main([*asked, "--sizes", "8", "16", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["shape"] == [2, 16, 5, 7]
    assert told["modules"][0]["macs"] == 2 * 35 * (3 * 16 * 16 + 9 * 3 * 16)
    assert [row["name"] for row in told["modules"]][:4] == ["", "query", "key", "value"]
    assert told["growth"]["macs_exponent"] == pytest.approx(1.0)
    assert "torch" in told["versions"]


def test_growth_is_printed_with_its_exponent(capsys):
    assert main(["cost", "local", "--sizes", "32", "64", "128", "256"]) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = [line.split() for line in lines if line.strip().startswith(("64 x 64", "all sizes"))]
    assert [row[-1] for row in rows] == ["1.00", "1.00"]


@pytest.mark.parametrize("kind", ["png", "svg"])
def test_the_plot_is_written_and_named(tmp_path, capsys, kind):
    path = tmp_path / f"growth.{kind}"
    assert main(["cost", "efficient", "--sizes", "8", "16", "--plot", str(path)]) == 0
    assert f"Written: {path}" in capsys.readouterr().out
    if kind == "png":
        assert Image.open(path).width > 800
    else:
        assert "efficient: cost against" in path.read_text()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["resnet5"], "NoMatchError: find: neither foveal nor timm has a layer or model 'resnet5'. Did you mean"),
        (["local", "--size", "0", "7"], "ShapeError: foveal: --size must be one to three positive numbers, got '0 7'"),
        (["local", "--batch", "0"], "OptionError: cost: --batch must be at least 1, got 0"),
        (["local", "--depth", "-1"], "OptionError: cost: --depth must be at least 0, got -1"),
        (["local", "--sizes", "32"], "OptionError: cost: --sizes must be two or more different numbers"),
        (["local", "kernel_size=4"], "OptionError: LocalAttention: kernel_size must be odd, got 4."),
        (["local", "kernelsize=3"], "OptionError: LocalAttention: there is no option 'kernelsize'. Did you mean"),
        (["no.such:Thing"], "NoMatchError: find: 'no.such:Thing' cannot be imported: ModuleNotFoundError"),
        (["vit_tiny_patch16_224", "--size", "100"], "ShapeError: cost: vit_tiny_patch16_224 does not take an input of"),
        (
            ["eannet"],
            "NoMatchError: find: neither foveal nor timm has a layer or model 'eannet'. Did you mean eanet or",
        ),
        (["torch.nn:ModuleList"], "OptionError: cost: torch.nn:ModuleList cannot be run, since ModuleList has no"),
        (["spct", "--size", "3", "4"], "ShapeError: spct: --size must be one number of points, got '3 4'"),
        (["local", "--plot", "x.png"], "OptionError: cost: --plot draws cost against size, and there is no list."),
        (["local", "--sizes", "8", "16", "--plot", "x.pdf"], "OptionError: foveal: --plot must end in .svg or .png"),
        (
            ["local", "--sizes", "8", "16", "--plot", "/no/x.png"],
            "DataError: foveal: --plot '/no/x.png' lies in a fold",
        ),
    ],
)
def test_what_is_wrong_is_one_line_and_status_2(capsys, options, told):
    assert main(["cost", *options]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.splitlines()[-1].startswith(told)
    assert "Traceback" not in shown.err


def test_an_operator_that_cannot_be_counted_is_named_on_standard_error(tmp_path, capsys, monkeypatch):
    (tmp_path / "distances.py").write_text(
        "import torch\n"
        "class Distances(torch.nn.Module):\n"
        "    def forward(self, x):\n"
        "        return torch.cdist(x.flatten(2), x.flatten(2))\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    assert main(["cost", "distances:Distances", "--size", "8"]) == 0
    assert "warning: cost: aten._cdist_forward ran without a formula" in capsys.readouterr().err


def test_help_comes_without_torch():
    heavy = "import sys; from foveal.cli import main\ntry: main(['cost', '--help'])\nexcept SystemExit: pass\n"
    heavy += "print([name for name in ('torch', 'timm', 'numpy', 'PIL') if name in sys.modules])"
    told = subprocess.run([sys.executable, "-c", heavy], capture_output=True, text=True, check=True).stdout
    assert "foveal cost resnet50" in told
    assert told.splitlines()[-1] == "[]"
