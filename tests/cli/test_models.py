"""The list of networks on the command line, and the page that it makes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from foveal.cli import main

DOCS = Path(__file__).parents[2] / "docs"


def told(capsys, *options):
    assert main(["models", *options]) == 0
    return capsys.readouterr().out


def test_the_page_is_what_the_command_prints(capsys):
    page = told(capsys, "--markdown")
    assert (DOCS / "models.md").read_text() == page, "run foveal models --markdown > docs/models.md"


def test_every_network_is_listed_with_its_counts(capsys):
    from foveal.models.catalog import CATALOG

    shown = told(capsys)
    listed = [line.split()[:2] for line in shown.splitlines() if line.startswith("foveal_")]
    assert listed == [[name, f"{CATALOG[name].parameters:,}"] for name in sorted(CATALOG)]


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("cbam_resnet5", ["foveal_cbam_resnet50"]),
        ("*_wrn28_10", ["foveal_augmented_wrn28_10", "foveal_wrn28_10"]),
        ("foveal_resnet??", ["foveal_resnet26", "foveal_resnet38", "foveal_resnet50"]),
    ],
)
def test_a_pattern_keeps_the_names_that_match(capsys, pattern, names):
    rows = json.loads(told(capsys, pattern, "--json"))
    assert [row["name"] for row in rows] == names
    assert set(rows[0]) == {"name", "paper", "what", "parameters", "classes", "size"}
    assert told(capsys, pattern, "--markdown").count("| `foveal_") == len(names)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["resnet51"], "NoMatchError: models: none of the "),
        (["--json", "--markdown"], "OptionError: models: --markdown and --json are two forms of the same."),
    ],
)
def test_what_is_wrong_is_one_sentence_and_status_2(capsys, options, said):
    assert main(["models", *options]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith(said) and shown.err.count("\n") == 1


def test_its_help_has_examples_and_imports_nothing_heavy():
    code = "import sys; from foveal.cli import main\ntry: main(['models', '--help'])\nexcept SystemExit: pass\n"
    code += "print([name for name in ('torch', 'timm', 'numpy') if name in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "foveal models '*_resnet50_cifar*'" in shown and "[PATTERN]" in shown
    assert shown.splitlines()[-1] == "[]"
