"""The cases of the Triton kernels, run in Triton's interpreter: local attention and the others in a process each.

The interpreter replaces Triton's functions when Triton is imported, so its variable must be set before.
"""

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

CASES = Path(__file__).parent / "cases"
pytestmark = pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not installed")


@pytest.mark.parametrize("operations", [("local",), ("efficient", "external", "explicit")], ids=str)
def test_the_cases_pass_in_the_interpreter(operations):
    files = [str(CASES / f"{name}.py") for name in operations]
    command = [sys.executable, "-m", "pytest", "-p", "no:xdist", "-p", "no:cacheprovider", *files]
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=CASES.parents[3], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert int(re.search(r"(\d+) passed", done.stdout).group(1)) >= 20
