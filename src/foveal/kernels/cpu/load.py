"""Loads the library of CPU kernels, once, when it is first asked for.

``FOVEAL_BACKEND=reference`` switches all native code off; ``FOVEAL_CPU_ISA`` asks for a narrower instruction set.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import torch

from foveal.errors import BackendError

INSTRUCTION_SETS = ("portable", "avx2", "avx512")
# One of every family: a source tree may be newer than the library that was built from it.
OPERATORS = ("cpu_local_attention", "cpu_efficient_context", "cpu_external_unit", "cpu_explicit_attention")


def _asked(variable: str, choices: Sequence[str]) -> str | None:
    value = os.environ.get(variable) or None
    if value is not None and value not in choices:
        raise BackendError(
            f"kernels: {variable} must be {' or '.join(choices)}, got {value!r}. Unset it for the fastest."
        )
    return value


def _load() -> str | None:
    """None, or why no CPU kernel can run."""
    backend, narrower = _asked("FOVEAL_BACKEND", ["reference"]), _asked("FOVEAL_CPU_ISA", INSTRUCTION_SETS)
    if backend == "reference":
        return "native code is switched off by FOVEAL_BACKEND=reference"
    found = sorted(Path(__file__).parent.glob("_native*.so"))
    if not found:
        return "the CPU kernels were not built: reinstall foveal where a C++17 compiler and torch are at hand"
    try:
        torch.ops.load_library(str(found[0]))
    except OSError as error:
        cause = error.__cause__ or error
        return f"the library of CPU kernels does not load: {cause}"
    if not all(hasattr(torch.ops.foveal, name) for name in OPERATORS):
        return "the library of CPU kernels is older than the source: reinstall foveal, in a clone by make setup"
    widest = INSTRUCTION_SETS[torch.ops.foveal.cpu_instruction_set()]
    if narrower not in (None, widest):
        raise BackendError(
            f"kernels: FOVEAL_CPU_ISA asks for {narrower}, this machine goes up to {widest}. Use that or unset it."
        )
    return None


WHY_NOT: str | None = _load()


def instruction_set() -> str | None:
    """The instruction set that the kernels use on this machine."""
    return None if WHY_NOT else INSTRUCTION_SETS[torch.ops.foveal.cpu_instruction_set()]
