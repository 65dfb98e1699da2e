"""Backbones by their name in timm, with weights from a file."""

from __future__ import annotations

import difflib
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from foveal.errors import DataError, OptionError


def backbone(name: str, *, classes: int, channels: int = 3) -> nn.Module:
    """A backbone of timm, ours included, with a new head.

    Raises:
        OptionError: timm knows no such name, or it cannot take this number of channels.
    """
    import timm

    if name not in timm.list_models():
        near = difflib.get_close_matches(name, timm.list_models(), n=3)
        hint = f"Did you mean {', '.join(near)}?" if near else "Use resnet18, say; timm.list_models() has them all."
        raise OptionError(f"backbone: timm has no model {name!r}. {hint}")
    try:
        return cast(nn.Module, timm.create_model(name, num_classes=classes, in_chans=channels))
    except (TypeError, ValueError, AssertionError) as error:
        raise OptionError(
            f"backbone: {name} cannot be made for {channels} channels and {classes} classes: {error}. Use another one."
        ) from error


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """A state dict from a safetensors file, or from a torch file that holds tensors alone.

    Raises:
        DataError: the file is missing, damaged, would have to be unpickled, or holds NaN or infinite values.
    """
    path = Path(path)
    try:
        if path.stat().st_size == 0:
            raise DataError(f"weights: {path} is empty. Give a whole file.")
        if path.suffix == ".safetensors":
            import safetensors.torch

            return _finite(safetensors.torch.load(path.read_bytes()), path)
        content: Any = torch.load(path, weights_only=True, map_location="cpu")
    except OSError as error:
        raise DataError(f"weights: {path} cannot be read: {error.strerror}. Give an existing file.") from error
    except DataError:
        raise
    except Exception as error:
        # safetensors raises a type of its own that derives from Exception alone; torch nearly anything on half a file.
        if _wants_code(error):
            raise DataError(
                f"weights: {path} holds no tensors that can be read without running code from it. Save the model's "
                "state dict as safetensors."
            ) from error
        told = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(f"weights: {path} is damaged or truncated: {told}. Give a whole file.") from error
    return _finite(_state_dict(content, path), path)


def _wants_code(error: Exception) -> bool:
    told = str(error)
    return "TorchScript" in told or (isinstance(error, pickle.UnpicklingError) and "truncated" not in told)


def _finite(state: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    for key, value in state.items():
        # No comparison is there for the one-byte kinds.
        plain = value.float() if value.is_floating_point() and value.element_size() == 1 else value
        if not bool(plain.isfinite().all()):
            raise DataError(f"weights: {key} of {path} holds values that are NaN or infinite. Give another checkpoint.")
    return state


def _state_dict(content: Any, path: Path) -> dict[str, Tensor]:
    for key in ("state_dict", "model", "model_state_dict"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    tensors = isinstance(content, Mapping) and all(isinstance(value, Tensor) for value in content.values())
    if not tensors or not content:
        raise DataError(f"weights: {path} holds no state dict of tensors. Save model.state_dict() and give that file.")
    return {str(key).removeprefix("module."): value for key, value in content.items()}


def load_weights_(model: nn.Module, state: Mapping[str, Tensor], source: str) -> list[str]:
    """Load weights into a backbone; a head for another number of classes stays new.

    Returns:
        The keys of the head that stayed as they were.

    Raises:
        DataError: other keys are missing, have other shapes, or have no place in the backbone.
    """
    own = model.state_dict()
    head = str(getattr(model, "default_cfg", {}).get("classifier", "fc"))
    unlike = [key for key in own if key not in state or state[key].shape != own[key].shape]
    new = [key for key in unlike if key.startswith(head + ".")]
    wrong = [key for key in unlike if key not in new and not _counts(key)]
    if wrong:
        key = wrong[0]
        came = f"has shape {tuple(state[key].shape)}" if key in state else "is missing"
        raise DataError(
            f"weights: {source} does not fit {type(model).__name__}: {len(wrong)} of {len(own)} tensors differ, first "
            f"{key}, which {came} and should have shape {tuple(own[key].shape)}. Use the backbone that it "
            "was made with."
        )
    stray = [key for key in state if key not in own and not key.startswith(head + ".") and not _counts(key)]
    if stray:
        name = getattr(model, "default_cfg", {}).get("architecture") or type(model).__name__
        raise DataError(
            f"weights: {len(stray)} tensors of {source} have no place in {name}, first {stray[0]}. Use the backbone "
            "that it was made with."
        )
    model.load_state_dict({key: state[key] for key in own if key in state and key not in new}, strict=False)
    return new


def _counts(key: str) -> bool:
    return key.endswith("num_batches_tracked")
