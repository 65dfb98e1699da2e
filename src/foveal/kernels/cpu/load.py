"""Loads the library of CPU kernels, once, when it is first asked for."""

from __future__ import annotations

import os
from pathlib import Path

import torch

INSTRUCTION_SETS = ("portable", "avx2", "avx512")


def _load() -> str | None:
    """None, or why no CPU kernel can run."""
    if os.environ.get("FOVEAL_BACKEND") == "reference":
        return "native code is switched off by FOVEAL_BACKEND=reference"
    found = sorted(Path(__file__).parent.glob("_native*.so"))
    if not found:
        return "the CPU kernels were not built: reinstall foveal where a C++17 compiler and torch are at hand"
    try:
        torch.ops.load_library(str(found[0]))
    except OSError as error:
        cause = error.__cause__ or error
        return f"the library of CPU kernels does not load: {cause}"
    return None


WHY_NOT: str | None = _load()


def instruction_set() -> str | None:
    """The instruction set that the kernels use on this machine; FOVEAL_CPU_ISA asks for a narrower one."""
    return None if WHY_NOT else INSTRUCTION_SETS[torch.ops.foveal.cpu_instruction_set()]
