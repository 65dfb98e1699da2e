"""Builds the CPU kernels: one library on torch's stable interface, for every Python >= 3.10 and torch >= 2.10.

Kernels (``*_kernel.cpp``) are compiled once for each instruction set; which one runs is chosen on the machine.
Without a compiler or without torch at build time the package installs all the same, and ``foveal info`` says what
is missing. ``FOVEAL_SANITIZE=1`` builds with the address and undefined behaviour sanitizers.
"""

from __future__ import annotations

import os
import platform
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py
from setuptools.errors import CompileError

FOLDER = Path("src/foveal/kernels/cpu")
X86 = platform.machine() in ("x86_64", "AMD64")
# Flags, floats in a vector, rows worked on together, registers.
PORTABLE = ([], 4, 2, 16) if X86 else ([], 4, 4, 32)
SETS = {"portable": PORTABLE}
if X86:
    SETS["avx2"] = (["-mavx2", "-mfma"], 8, 2, 16)
    SETS["avx512"] = ("-mavx512f -mavx512bw -mavx512dq -mavx512vl -mfma -mprefer-vector-width=512".split(), 16, 4, 32)


def sizes(name: str) -> list[str]:
    """The compiler's options for one instruction set."""
    machine, lanes, rows, registers = SETS[name]
    told = {"ISA": name, "LANES": lanes, "ROWS": rows, "REGISTERS": registers}
    return [*machine, *(f"-DFOVEAL_{key}={value}" for key, value in told.items())]


class BuildKernels(build_ext):
    """Compiles every kernel once for each instruction set, several files at a time."""

    def build_extension(self, ext: Extension) -> None:
        try:
            from torch.utils.cpp_extension import include_paths, library_paths
        except ImportError as error:
            # The extension is optional: setuptools prints this in one line and goes on.
            raise CompileError(f"no CPU kernels without torch at build time ({error}); --no-build-isolation") from error

        flags = ["-std=c++17", "-O3", "-fvisibility=hidden", "-ffp-contract=fast", "-fno-math-errno"]
        flags += ["-Wno-psabi", "-Wno-maybe-uninitialized"]  # the latter warns of the compiler's own AVX-512 header
        flags += ["-DTORCH_TARGET_VERSION=0x020a000000000000", f"-DFOVEAL_X86={int(X86)}"]
        links = []
        if os.environ.get("FOVEAL_SANITIZE"):
            links = ["-fsanitize=address,undefined"]
            flags += ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", "-g", "-O1"]
        jobs = []
        for source in sorted(FOLDER.glob("*.cpp")):
            if not source.stem.endswith("_kernel"):
                jobs.append((source, "", flags))
                continue
            jobs += [(source, name, [*flags, *sizes(name)]) for name in SETS]

        def compile_one(job: tuple[Path, str, list[str]]) -> list[str]:
            source, name, options = job
            return self.compiler.compile(
                [str(source)],
                output_dir=str(Path(self.build_temp) / name),
                include_dirs=[str(FOLDER), *include_paths()],
                extra_postargs=options,
            )

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            objects = [path for made in pool.map(compile_one, jobs) for path in made]
        target = self.get_ext_fullpath(ext.name)
        Path(target).parent.mkdir(parents=True, exist_ok=True)
        # By name alone: the torch that is imported first, whichever it is, has this library loaded.
        self.compiler.link_shared_object(
            objects,
            target,
            libraries=["torch_cpu"],
            library_dirs=library_paths(),
            extra_postargs=links,
            target_lang="c++",
        )


class BuildPackage(build_py):
    """Puts what lies beside the sources into the package: recipes, and the grids of them."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            for name in ("recipes", "sweeps"):
                if Path(name).is_dir():
                    shutil.copytree(name, Path(self.build_lib) / "foveal" / name, dirs_exist_ok=True)


setup(
    ext_modules=[Extension("foveal.kernels.cpu._native", sources=[], py_limited_api=True, optional=True)],
    cmdclass={"build_ext": BuildKernels, "build_py": BuildPackage},
    options={"bdist_wheel": {"py_limited_api": "cp310"}},
)
