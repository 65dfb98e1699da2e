"""Builds the wheel once and runs the suite on it, outside the source tree, with several Pythons and torches.

    python tests/wheel_check.py 3.10=2.10.* 3.13

Each argument is a Python, a version or a path, and after = the torch for it; without one, that of constraints.txt.
"""

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
PLACE = ROOT / "build" / "wheel-check"
SUITES = ("functional", "kernels", "contract", "layers")


def run(*command, **options):
    """Runs a command and ends with its status where it fails."""
    sys.stdout.write(f"$ {' '.join(map(str, command))}\n")
    sys.stdout.flush()
    done = subprocess.run(list(map(str, command)), **options)
    if done.returncode:
        sys.exit(f"wheel-check: the command above ended with status {done.returncode}.")


def build():
    """The wheel, for every Python from 3.10 on, with the library in it."""
    out = PLACE / "dist"
    run("uv", "build", "--quiet", "--wheel", "--no-build-isolation", "--python", sys.executable, "--out-dir", out, ROOT)
    (wheel,) = out.glob("*.whl")
    if not re.fullmatch(r"foveal-[^-]+-cp310-abi3-\w+\.whl", wheel.name):
        sys.exit(f"wheel-check: the wheel must be for cp310-abi3, got {wheel.name}.")
    names = zipfile.ZipFile(wheel).namelist()
    if "foveal/kernels/cpu/_native.abi3.so" not in names:
        sys.exit(f"wheel-check: {wheel.name} has no library of CPU kernels. Install a C++17 compiler.")
    return wheel


def check(wheel, python, torch):
    """The suite on the installed wheel."""
    place = PLACE / f"python-{Path(python).name}"
    run("uv", "venv", "--quiet", "--python", python, place / "venv")
    interpreter = place / "venv" / "bin" / "python"
    wanted = [f"torch=={torch}"] if torch else ["--constraint", ROOT / "constraints.txt"]
    # torch 2.10 compiles with setuptools and does not ask for it below Python 3.12.
    tools = ["pytest", "pytest-xdist", "hypothesis", "setuptools", "onnx", "onnxruntime", "onnxscript"]
    run("uv", "pip", "install", "--quiet", "--python", interpreter, *wanted, *tools, wheel)
    (place / "tests").mkdir()
    for name in (*SUITES, "conftest.py"):
        copy = shutil.copytree if (ROOT / "tests" / name).is_dir() else shutil.copy
        copy(ROOT / "tests" / name, place / "tests" / name)
    shutil.copytree(ROOT / "docs", place / "docs")
    about = "import foveal, sys, torch; from foveal.kernels import cpu; assert cpu.WHY_NOT is None, cpu.WHY_NOT; "
    about += (
        "print('Python', sys.version.split()[0], 'torch', torch.__version__, cpu.instruction_set(), foveal.__file__); "
    )
    about += "assert 'site-packages' in foveal.__file__"
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH" and not k.startswith("FOVEAL_")}
    environment["OMP_NUM_THREADS"] = "1"
    run(interpreter, "-c", about, cwd=place, env=environment)
    options = ["-q", "-n", "2", "--dist", "worksteal", "-o", "pythonpath=tests", "--rootdir", "."]
    options += ["-W", "ignore::DeprecationWarning", "-p", "no:cacheprovider"]
    run(interpreter, "-m", "pytest", *options, *(f"tests/{name}" for name in SUITES), cwd=place, env=environment)


def main():
    """One environment for each argument."""
    shutil.rmtree(PLACE, ignore_errors=True)
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    wheel = build()
    for asked in sys.argv[1:]:
        python, _, torch = asked.partition("=")
        check(wheel, python, torch)
    sys.stdout.write(f"{wheel.name} passes with {', '.join(sys.argv[1:])}\n")


main()
