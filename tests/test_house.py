"""The laws of the house: imports point down, imports are cheap, files are one thing and say which."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "foveal"


def test_imports_point_down():
    done = subprocess.run(
        [Path(sys.executable).parent / "lint-imports", "--no-cache"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout


def test_operations_layers_and_grafts_load_no_package_beyond_torch_and_what_it_brings():
    script = (
        "import sys, torch.utils.flop_counter; before = set(sys.modules); import foveal\n"
        "for name in foveal.__all__:\n"
        "    if name not in ('compare', 'open_models', 'open_run'): getattr(foveal, name)\n"
        "new = {m.split('.')[0] for m in set(sys.modules) - before}\n"
        "print(*sorted(new - sys.stdlib_module_names - {'foveal'}))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_every_public_name_is_there_and_listed():
    import foveal

    assert all(getattr(foveal, name) is not None for name in foveal.__all__)
    assert set(foveal.__all__) <= set(dir(foveal))
    with pytest.raises(AttributeError, match="module 'foveal' has no attribute 'LocalAtention'"):
        _ = foveal.LocalAtention


def test_the_command_line_loads_no_torch_before_a_command_runs():
    script = "import sys, foveal.cli; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=lambda p: str(p.relative_to(SOURCE)))
def test_every_file_says_what_it_is_for_and_stays_one_thing(path):
    text = path.read_text()
    assert ast.get_docstring(ast.parse(text)), f"{path.name} has no docstring"
    assert len(text.splitlines()) <= 400
