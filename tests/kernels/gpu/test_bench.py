"""The GPU benchmark runs to its end on tiny maps in the interpreter, and says when there is no GPU."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[3]
sys.path.insert(0, str(ROOT / "benchmarks"))


def run(*arguments, **environment):
    command = [sys.executable, str(ROOT / "benchmarks" / "gpu.py"), *arguments]
    told = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    return subprocess.run(command, capture_output=True, text=True, env=told)


@pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not installed")
def test_a_tiny_run_stores_every_group_and_makes_the_page_of_it(tmp_path):
    page = tmp_path / "docs" / "benchmarks.md"
    page.parent.mkdir()
    page.write_text("# CPUs\n\nkept\n\n<!-- gpu -->\nstale words\n<!-- /gpu -->\n")
    done = run("--tiny", "--folder", str(tmp_path), TRITON_INTERPRET="1")
    assert done.returncode == 0, done.stderr[-3000:]
    stored = json.loads((tmp_path / "benchmarks" / "results" / "gpu.json").read_text())
    assert torch.__version__.startswith(stored["environment"]["packages"]["torch"])
    assert stored["environment"]["commit"]
    works = [row["work"] for row in stored["rows"]]
    for part in ("against unfolding", "gather form against tile form", "of the larger floor", "efficient", "external"):
        assert any(part in work for work in works), part
    assert any(work.startswith("training step") for work in works)
    text = page.read_text()
    assert text.startswith("# CPUs\n\nkept\n\n<!-- gpu -->\n# Time and memory on GPUs") and "stale words" not in text
    assert all(f"| {row['work']} |" in text for row in stored["rows"])


def test_without_results_the_page_says_that_nothing_ran_on_hardware():
    from gpu import section

    assert "have never run on hardware" in section(None)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so_in_one_sentence():
    done = run()
    assert done.returncode == 2
    assert done.stderr == "bench-gpu: there is no NVIDIA GPU that torch can use; run this where there is one.\n"
