"""The package builds without a compiler and without torch; it then has no native code and says what was missing."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(not (ROOT / "setup.py").exists(), reason="these tests need the source tree")


def build(place, **environment):
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, place)
    shutil.copytree(ROOT / "src", place / "src", ignore=shutil.ignore_patterns("*.so", "*.egg-info", "__pycache__"))
    command = [sys.executable, "setup.py", "build", "--build-lib", "built"]
    done = subprocess.run(command, cwd=place, capture_output=True, text=True, env={**os.environ, **environment})
    assert done.returncode == 0, done.stderr
    assert (place / "built" / "foveal" / "kernels" / "cpu" / "load.py").exists()
    assert not list((place / "built").rglob("*.so"))
    return done.stdout + done.stderr


def test_without_a_compiler_the_package_builds_and_says_so(tmp_path):
    told = build(tmp_path, CXX="/bin/false", CC="/bin/false")
    assert 'building extension "foveal.kernels.cpu._native" failed: ' in told


def test_without_torch_the_package_builds_and_says_so(tmp_path):
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "torch.py").write_text("raise ImportError('no torch here')")
    told = build(tmp_path, PYTHONPATH=str(tmp_path / "none"))
    assert "no CPU kernels without torch at build time (no torch here); --no-build-isolation" in told
