"""Models as files: weights and how the model was made, in one safetensors file that runs no code when it is read."""

from __future__ import annotations

import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from foveal.errors import DataError, OptionError
from foveal.models.backbones import load_weights_, read_weights, reading
from foveal.models.configuration import Configuration


def save(model: nn.Module, path: str | Path, **metadata: Any) -> None:
    """Write a model that ``timm.create_model`` made, foveal's included, into one safetensors file.

    The file is whole or not there. Tensors that share memory are written one by one.

    Args:
        model: as timm made it; its weights and its number of classes may have changed since, nothing else.
        path: ends in ``.safetensors``.
        **metadata: anything that JSON can hold, for ``Configuration.read(path).metadata``.

    Raises:
        OptionError: the path has another ending, or no file could make the model again.
        DataError: the file cannot be written.
    """
    path, model = Path(path), inner(model)
    if path.suffix != ".safetensors":
        raise OptionError(
            f"save: models are written as safetensors, got {path}. Use {path.with_suffix('.safetensors')}."
        )
    made = Configuration.of(model, **metadata)
    write_whole(path, as_safetensors(model, made))


def load(path: str | Path, *, name: str | None = None, trusted: bool = False, **options: Any) -> nn.Module:
    """A model from a file, in evaluation mode; parameters have the types that they have in the file.

    Args:
        path: of a file that ``save`` wrote; or of weights alone, safetensors or torch, in the keys of the model or,
            where it knows them, of its authors.
        name: of the model in timm, for weights alone.
        trusted: run the code that a torch file may hold; only for files whose author you would run code from.
        **options: of ``timm.create_model``, instead of those in the file. With ``num_classes`` a head for another
            number of classes starts anew.

    Raises:
        DataError: the file is missing, damaged, would run code, or does not fit the model.
        OptionError: ``name`` is missing or one too many, or timm cannot make the model.
    """
    path = Path(path)
    made = Configuration.read(path)
    if made is None and name is None:
        with reading(path), open(path, "rb"):
            pass
        raise OptionError(
            f"load: {path} holds weights but not which model they belong to. Add name='resnet50', say, from timm."
        )
    if made is not None and name not in (None, made.model):
        raise OptionError(f"load: {path} holds a {made.model}, not a {name}. Leave out the name.")
    # A model that was saved comes back as it was; weights from elsewhere have to be numbers.
    state = read_weights(path, trusted=trusted, finite=made is None)
    model = (made or Configuration(str(name))).build(**options)
    like_file = model.own_keys(state) if hasattr(model, "own_keys") else state  # type: ignore[operator]
    _take_types(model, like_file)
    load_weights_(model, like_file, str(path), new_head="num_classes" in options)
    return model.eval()


def as_safetensors(model: nn.Module, made: Configuration) -> bytes:
    """The bytes of the file."""
    import safetensors.torch

    state = model.state_dict()
    wrong = next(
        (k for k, v in state.items() if not isinstance(v, Tensor) or v.is_meta or v.layout != torch.strided), None
    )
    if wrong is not None:
        raise OptionError(f"save: {wrong} of {made.model} has no values that a file could hold. Use plain tensors.")
    # Cloned because safetensors refuses tensors that share memory or have strides of their own.
    plain = {k: v.detach().cpu().clone(memory_format=torch.contiguous_format) for k, v in state.items()}
    return safetensors.torch.save(plain, {"format": "pt", "foveal": made.text()})


def write_whole(path: Path, data: bytes) -> None:
    """Write a file that is whole or not there.

    Raises:
        DataError: it cannot be written; what was there before still is.
    """
    part = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        with open(part, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        raise DataError(
            f"save: {len(data) / 1e6:.1f} MB could not be written to {path}: {error.strerror or error}. Use an "
            "existing folder with room."
        ) from error
    finally:
        part.unlink(missing_ok=True)


def inner(model: nn.Module) -> nn.Module:
    """The model inside what torch.compile and the parallel wrappers put around it."""
    while True:
        if isinstance(model, nn.parallel.DistributedDataParallel | nn.DataParallel):
            model = model.module
        elif isinstance(getattr(model, "_orig_mod", None), nn.Module):
            model = model._orig_mod  # type: ignore[assignment]
        else:
            return model


def _take_types(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Give parameters and buffers the types of the file; what it lacks takes the type that all in it have."""
    types = {key: tensor.dtype for key, tensor in state.items() if tensor.is_floating_point()}
    common = next(iter(types.values())) if len(set(types.values())) == 1 else None
    for key, tensor in model.state_dict(keep_vars=True).items():
        if tensor.is_floating_point():
            tensor.data = tensor.data.to(types.get(key, common or tensor.dtype))
