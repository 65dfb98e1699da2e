"""Checkpoints: whole or not there, checked when read, and never unpickled.

A checkpoint is a folder: one safetensors file a model, ``state.pt`` (optimisers, generators, position) that torch reads
with ``weights_only=True``, and ``manifest.json`` with the checksum of each. It is written under another name, flushed,
and renamed; the one before is only then deleted, so at every moment one of them is whole.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor, nn

from foveal.errors import DataError

NAME, NEW, OLD = "checkpoint", "checkpoint.new", "checkpoint.old"
FORMAT = 1


def save(folder: Path, models: Mapping[str, nn.Module], state: Mapping[str, Any]) -> None:
    """Write a checkpoint into a run's folder.

    Raises:
        DataError: the disk is full; the checkpoint before is whole.
    """
    files = {f"{name}.safetensors": safetensors.torch.save(_plain(model)) for name, model in models.items()}
    buffer = io.BytesIO()
    torch.save({**state, "random": _random_state()}, buffer)
    files["state.pt"] = buffer.getvalue()
    manifest = {"format": FORMAT, "files": {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}}
    files["manifest.json"] = json.dumps(manifest, indent=1).encode()
    new = folder / NEW
    try:
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir()
        for name, data in files.items():
            write_flushed(new / name, data)
        _swap(folder)
    except OSError as error:
        shutil.rmtree(new, ignore_errors=True)
        size = sum(map(len, files.values())) / 1e6
        raise DataError(
            f"checkpoint: {size:.1f} MB could not be written to {folder}: {error.strerror or error}. "
            f"{shutil.disk_usage(folder).free / 1e6:.0f} MB are free there. Make room and give the same command again; "
            "the last checkpoint is whole."
        ) from error


def load(folder: Path, models: Mapping[str, nn.Module]) -> dict[str, Any] | None:
    """Read the checkpoint of a run into its models; None where there is none.

    Every generator is put back to where it stood.

    Raises:
        DataError: a file is missing, damaged, or belongs to another model.
    """
    path = _whole(folder)
    if path is None:
        return None
    files = _checked(path)
    for name, model in models.items():
        try:
            model.load_state_dict(safetensors.torch.load(files[f"{name}.safetensors"]))
        except (KeyError, RuntimeError) as error:
            raise DataError(
                f"checkpoint: {path} was made by another model ({str(error).splitlines()[0]}). Use another folder, or "
                "delete this one to begin anew."
            ) from error
    state: dict[str, Any] = torch.load(io.BytesIO(files["state.pt"]), weights_only=True, map_location="cpu")
    _restore_random(state.pop("random"))
    return state


def weights(folder: Path, name: str = "model") -> dict[str, Tensor]:
    """One model's weights from the checkpoint of a run, checked."""
    path = _whole(folder)
    if path is None:
        raise DataError(f"checkpoint: {folder} holds none. Give the command that makes it again.")
    return safetensors.torch.load(_checked(path)[f"{name}.safetensors"])


def write_flushed(path: Path, data: bytes) -> None:
    """Write a file so that it survives a loss of power once this returns."""
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _plain(model: nn.Module) -> dict[str, Tensor]:
    # Cloned because safetensors refuses tensors that share memory or have strides of their own.
    return {
        key: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for key, tensor in model.state_dict().items()
    }


def _swap(folder: Path) -> None:
    shutil.rmtree(folder / OLD, ignore_errors=True)
    if (folder / NAME).exists():
        (folder / NAME).rename(folder / OLD)
    (folder / NEW).rename(folder / NAME)
    shutil.rmtree(folder / OLD, ignore_errors=True)


def _whole(folder: Path) -> Path | None:
    """The folder to read: the current one, or the one before where a swap was cut off between its two renames."""
    return next((folder / name for name in (NAME, OLD) if (folder / name).is_dir()), None)


def _checked(path: Path) -> dict[str, bytes]:
    try:
        manifest = json.loads((path / "manifest.json").read_bytes())
        files = {name: (path / name).read_bytes() for name in manifest["files"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _damaged(path, f"{error}") from error
    for name, digest in manifest["files"].items():
        if hashlib.sha256(files[name]).hexdigest() != digest:
            raise _damaged(path, f"{name} does not match its checksum")
    return files


def _damaged(path: Path, reason: str) -> DataError:
    return DataError(f"checkpoint: {path} is damaged: {reason}. Delete that folder to begin this run anew.")


def _random_state() -> dict[str, Any]:
    numpy_state = np.random.get_state(legacy=False)
    assert isinstance(numpy_state, dict)
    return {
        "python": random.getstate(),
        "numpy": {
            "key": torch.from_numpy(numpy_state["state"]["key"].astype(np.int64)),
            "pos": int(numpy_state["state"]["pos"]),
            "gauss": (int(numpy_state["has_gauss"]), float(numpy_state["gauss"])),
        },
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def _restore_random(state: Mapping[str, Any]) -> None:
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    saved = state["numpy"]
    key = saved["key"].numpy().astype(np.uint32)
    np.random.set_state(("MT19937", key, saved["pos"], *saved["gauss"]))
    torch.set_rng_state(state["torch"])
    if state["cuda"] and torch.cuda.device_count() == len(state["cuda"]):
        torch.cuda.set_rng_state_all(state["cuda"])
