"""Builds the driver of the kernels by itself, apart from the package, and runs it under sanitizers or valgrind.

python tests/kernels/sanitize.py sanitizers
python tests/kernels/sanitize.py valgrind
"""

import argparse
import importlib.util
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest import mock

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "foveal" / "kernels" / "cpu"
PLACE = ROOT / "build" / "driver"
TOOLS = {
    # How to compile, what to run it with, how many cases; valgrind knows no AVX-512.
    "sanitizers": (
        ["-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"],
        [],
        400,
        ("portable", "avx2", "avx512"),
    ),
    "valgrind": (["-O1"], ["valgrind", "--quiet", "--error-exitcode=9"], 40, ("portable", "avx2")),
}


def instruction_sets():
    """Those of setup.py, which is the one place that knows their flags."""
    spec = importlib.util.spec_from_file_location("foveal_setup", ROOT / "setup.py")
    module = importlib.util.module_from_spec(spec)
    with mock.patch("setuptools.setup"):
        spec.loader.exec_module(module)
    return module.SETS, module.X86, module.sizes


def build(name, flags):
    """The driver with the kernels of every instruction set; returns its path."""
    compiler = os.environ.get("CXX", "g++")
    if shutil.which(compiler) is None:
        sys.exit(f"sanitize: there is no compiler {compiler}. Install g++ or name one in CXX.")
    PLACE.mkdir(parents=True, exist_ok=True)
    sets, x86, sizes = instruction_sets()
    plain = ["-std=c++17", "-g", "-w", "-ffp-contract=fast", f"-I{SOURCE}", f"-DFOVEAL_X86={int(x86)}", *flags]
    jobs = [["-c", SOURCE / "local_kernel.cpp", "-o", PLACE / f"{name}-{isa}.o", *sizes(isa)] for isa in sets]

    def compile_one(job):
        subprocess.run([compiler, *plain, *map(str, job)], check=True)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(compile_one, jobs))
    objects = [job[3] for job in jobs]
    compile_one([ROOT / "tests" / "kernels" / "driver.cpp", *objects, "-o", PLACE / name])
    return PLACE / name


def main():
    """Status 1 where a tool reports anything."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tool", choices=list(TOOLS))
    tool = parser.parse_args().tool
    flags, wrapper, cases, names = TOOLS[tool]
    if wrapper and shutil.which(wrapper[0]) is None:
        sys.exit(
            f"sanitize: {wrapper[0]} is missing. Install it with the system's packages, as apt-get install valgrind."
        )
    driver = build(tool, flags)
    for name in names:
        done = subprocess.run([*wrapper, driver, str(cases)], env={**os.environ, "FOVEAL_CPU_ISA": name}, check=False)
        if done.returncode:
            sys.exit(f"sanitize: {tool} reports errors on {name}, above.")


main()
