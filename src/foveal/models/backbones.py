"""Backbones by their name in timm, with weights from a file."""

from __future__ import annotations

import argparse
import difflib
import pickle
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
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

    check_name(name, "backbone")
    try:
        return cast(nn.Module, timm.create_model(name, num_classes=classes, in_chans=channels))
    except (TypeError, ValueError, AssertionError) as error:
        raise OptionError(
            f"backbone: {name} cannot be made for {channels} channels and {classes} classes: {error}. Use another one."
        ) from error


def read_weights(path: str | Path, *, trusted: bool = False, finite: bool = True) -> dict[str, Tensor]:
    """A state dict from a safetensors file, or from a torch file that holds tensors alone.

    Args:
        path: of the file.
        trusted: run the code that a torch file may hold; only for files whose author you would run code from.
        finite: refuse NaN and infinite values.

    Raises:
        DataError: the file is missing, damaged, would have to be unpickled, or holds values that are refused.
    """
    path = Path(path)
    with reading(path, trusted=trusted):
        if path.suffix == ".safetensors":
            import safetensors.torch

            state = safetensors.torch.load(path.read_bytes())
        else:
            # Training scripts put their settings beside the weights; a namespace is no more than names and values.
            with torch.serialization.safe_globals([argparse.Namespace]):
                state = _state_dict(torch.load(path, weights_only=not trusted, map_location="cpu"), path)
    return _finite(state, path) if finite else state


def check_name(name: str, asker: str) -> None:
    """A name must be one that timm has, perhaps with a tag.

    Raises:
        OptionError: timm has no such name.
    """
    import timm

    if not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), n=3)
        hint = f"Did you mean {', '.join(near)}?" if near else "Use resnet18, say; timm.list_models() has them all."
        raise OptionError(f"{asker}: timm has no model {name!r}. {hint}")


@contextmanager
def reading(path: Path, *, trusted: bool = False) -> Iterator[None]:
    """Whatever is wrong with a file of weights is said in a sentence."""
    try:
        if path.stat().st_size == 0:
            raise DataError(f"weights: {path} is empty. Give a whole file.")
        yield
    except OSError as error:
        raise DataError(f"weights: {path} cannot be read: {error.strerror}. Give an existing file.") from error
    except DataError:
        raise
    except Exception as error:
        # safetensors raises a type of its own that derives from Exception alone; torch nearly anything on half a file.
        if _wants_code(error) and not trusted:
            raise DataError(
                f"weights: {path} holds no tensors that can be read without running code from it. Save the model's "
                "state dict as safetensors."
            ) from error
        told = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(f"weights: {path} is damaged or truncated: {told}. Give a whole file.") from error


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
    content = content.state_dict() if isinstance(content, nn.Module) else content
    for key in ("state_dict", "model", "model_state_dict", "net"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    tensors = isinstance(content, Mapping) and all(isinstance(value, Tensor) for value in content.values())
    if not tensors or not content:
        raise DataError(f"weights: {path} holds no state dict of tensors. Save model.state_dict() and give that file.")
    return {str(key).removeprefix("module."): value for key, value in content.items()}


def load_weights_(
    model: nn.Module, state: Mapping[str, Tensor], source: str, *, new_head: bool = True, heads: Sequence[str] = ()
) -> list[str]:
    """Load weights into a model, from the keys of its authors too where it knows them.

    Args:
        model: loaded in place, or not at all.
        state: its state dict; counters of norms may be missing or too many.
        source: of the weights, for the error.
        new_head: leave a head for another number of classes as it is.
        heads: names of the layers that are the head, where it is not the one that timm names.

    Returns:
        The keys of the head that stayed as they were.

    Raises:
        DataError: keys are missing, have other shapes, or have no place in the model.
    """
    state = model.own_keys(state) if hasattr(model, "own_keys") else state  # type: ignore[operator]
    own = model.state_dict()
    heads = (tuple(f"{name}." for name in heads) or _heads(model)) if new_head else ()
    missing = [key for key in own if key not in state and not _counts(key)]
    other = [key for key in own if key in state and state[key].shape != own[key].shape]
    new = [key for key in missing + other if key.startswith(heads)]
    stray = [key for key in state if key not in own and not key.startswith(heads) and not _counts(key)]
    missing, other = ([key for key in keys if key not in new] for keys in (missing, other))
    shapes = [f"{key} {tuple(state[key].shape)} instead of {tuple(own[key].shape)}" for key in other]
    kinds = (("missing", missing), ("of another shape", shapes), ("without a place", stray))
    wrong = "; ".join(f"{len(keys)} {kind} ({_first(keys)})" for kind, keys in kinds if keys)
    if wrong:
        name = getattr(model, "default_cfg", {}).get("architecture") or type(model).__name__
        raise DataError(
            f"weights: {source} does not fit {name}; of its {len(own)} tensors and {len(state)} in the file: {wrong}. "
            "Use the model that it was made with."
        )
    model.load_state_dict({key: state[key] for key in own if key in state and key not in new}, strict=False)
    return new


def _heads(model: nn.Module) -> tuple[str, ...]:
    """Beginnings of the keys of the last layers."""
    head = getattr(model, "default_cfg", {}).get("classifier", "fc") or ()
    return tuple(f"{name}." for name in ((head,) if isinstance(head, str) else head))


def _first(keys: list[str]) -> str:
    return ", ".join(keys[:3]) + (", …" if len(keys) > 3 else "")


def _counts(key: str) -> bool:
    return key.endswith("num_batches_tracked")
