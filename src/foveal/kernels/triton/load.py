"""Which calls the Triton kernels take, and what has never been measured about them."""

from __future__ import annotations

import os
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor
from torch.library import wrap_triton

from foveal.kernels.onnx import why_not_in_onnx

# The GPUs that `make bench-gpu` was run on, with its results stored in benchmarks/results/gpu.json. While there is
# none the kernels run where they are asked for by name.
MEASURED_ON: tuple[str, ...] = ()
UNMEASURED: str | None = None if MEASURED_ON else "never run on a GPU: only by name"

TYPES = (torch.float32, torch.bfloat16, torch.float16)
DEEPEST = 256


# Whether Triton interprets kernels on the CPU: its variable must be set before Triton is imported.
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
# Looked for without importing it, which takes a quarter of a second.
_MISSING = None if find_spec("triton") else "Triton is not installed: it comes with torch's builds for CUDA"


def why_not(*maps: Tensor, **_: Any) -> str | None:
    """None where the kernels take the maps, else the reason."""
    for x in maps:
        reason = why_not_type(x)
        if reason is not None:
            return reason
        if x.shape[2] > DEEPEST:
            return f"its depths go up to {DEEPEST}, got {x.shape[2]}"
    return None


def why_not_type(x: Tensor) -> str | None:
    """None where a tensor of this type lies where the kernels run, else the reason."""
    reason = why_not_in_onnx()
    if reason is not None:
        return reason
    if x.device.type != "cuda" and not INTERPRETED:
        return f"it runs on NVIDIA GPUs, the maps are on {x.device.type}"
    if x.dtype not in TYPES:
        return f"it computes float32, bfloat16 and float16, the maps are {str(x.dtype).removeprefix('torch.')}"
    if torch.version.hip is not None:
        return "it is written for NVIDIA GPUs, this torch is built for AMD's"
    return _MISSING


def launcher(kernel: Any) -> Any:
    """The kernel as a traced operator launches it; torch 2.11 does not know interpreted ones."""
    return kernel if INTERPRETED else wrap_triton(kernel)


def precision(x: Tensor) -> str:
    """How products of blocks are taken: float32 as torch's own matrix products may, else in three steps of tf32."""
    if x.dtype != torch.float32 or torch.get_float32_matmul_precision() != "highest":
        return "tf32"
    old = x.device.type == "cuda" and torch.cuda.is_available() and torch.cuda.get_device_capability(x.device) < (8, 0)
    return "ieee" if old else "tf32x3"
