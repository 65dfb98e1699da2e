"""Which calls ONNX cannot hold: it has no operator of foveal's own."""

from __future__ import annotations

import torch


def why_not_in_onnx() -> str | None:
    """None, or, while a model is exported to ONNX, that there is no such operator."""
    if torch.compiler.is_exporting() and torch.onnx.is_in_onnx_export():
        return "ONNX has no such operator"
    return None
