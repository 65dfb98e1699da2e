"""The kernels are right in every instruction set that they are compiled for and the machine has."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from kernels.native import needs_kernels

HERE = Path(__file__).parent
CHECKS = "exp2 or log2 or every_layout or side_by_side or nan or bfloat16 or masks"
SCRIPT = """
import sys, pytest
from foveal.kernels import cpu
assert cpu.instruction_set() == sys.argv[1]
sys.exit(pytest.main(["-q", "-x", "-p", "no:cacheprovider", "-k", *sys.argv[2:]]))
"""


@needs_kernels
@pytest.mark.parametrize("name", ["portable", "avx2", "avx512"])
def test_every_instruction_set_is_right(name):
    files = [str(HERE / "test_cpu_exp.py"), str(HERE / "test_cpu_local.py")]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, name, CHECKS, *files],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "FOVEAL_CPU_ISA": name},
    )
    if "this machine goes up to" in done.stderr:
        pytest.skip(f"this machine has no {name}")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
