"""Checkpoints: whole or not there, checked when read, and never unpickled::

    checkpoints/last     the newest
    checkpoints/before   the one before it, which is read where the newest is damaged
    checkpoints/best     what was evaluated after the best epoch

Each is a folder: ``<model>.safetensors``, ``<model>.average.safetensors`` where a moving average is kept, ``state.pt``
(optimisers, generators, position) that torch reads with ``weights_only=True``, and ``manifest.json`` with the checksum
of each. It is written under another name, flushed, and renamed; at every moment a whole one is there.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import safetensors.torch
import torch
from torch import Tensor, nn

from foveal.errors import DataError

FOLDER, NEW, LAST, BEFORE, BEST = "checkpoints", "new", "last", "before", "best"
FORMAT = 2

Tensors = Mapping[str, Tensor]
Which = Literal["last", "best"]

# A new one takes the first name, what had it takes the next, and so on; the last is first set aside, then deleted.
_CHAINS: dict[Which, tuple[str, ...]] = {"last": (LAST, BEFORE), "best": (BEST,)}


@dataclass(frozen=True)
class Saved:
    """A checkpoint that was read and is whole."""

    path: Path
    files: dict[str, bytes]
    damage: tuple[str, ...] = ()
    """Why newer ones were passed over, a line each."""

    def state(self) -> dict[str, Any]:
        """Everything but the weights."""
        told: dict[str, Any] = torch.load(io.BytesIO(self.files["state.pt"]), weights_only=True, map_location="cpu")
        return told

    def tensors(self, name: str) -> dict[str, Tensor]:
        """One model's weights: ``"model"``, or ``"model.average"``."""
        try:
            return safetensors.torch.load(self.files[f"{name}.safetensors"])
        except KeyError as error:
            known = ", ".join(sorted(file.removesuffix(".safetensors") for file in self.files if "safetensors" in file))
            raise DataError(f"checkpoint: {self.path} holds no {name!r}. It holds {known}.") from error

    def load_into(self, name: str, model: nn.Module) -> None:
        """Read weights into a model.

        Raises:
            DataError: they are another model's.
        """
        try:
            model.load_state_dict(self.tensors(name))
        except RuntimeError as error:
            raise self.of_another(error) from error

    def of_another(self, error: Exception) -> DataError:
        """What to say where this checkpoint does not fit."""
        return DataError(
            f"checkpoint: {self.path} was made by another model ({str(error).splitlines()[0]}). Use another folder, or "
            "delete this one to begin anew."
        )


def save(folder: Path, weights: Mapping[str, Tensors], state: Mapping[str, Any], which: Which = "last") -> None:
    """Write a checkpoint into a run's folder.

    Raises:
        DataError: the disk is full; the checkpoint before is whole.
    """
    files = {f"{name}.safetensors": safetensors.torch.save(_plain(tensors)) for name, tensors in weights.items()}
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    files["state.pt"] = buffer.getvalue()
    manifest = {"format": FORMAT, "files": {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}}
    files["manifest.json"] = json.dumps(manifest, indent=1).encode()
    place = folder / FOLDER
    try:
        shutil.rmtree(place / NEW, ignore_errors=True)
        (place / NEW).mkdir(parents=True)
        for name, data in files.items():
            write_flushed(place / NEW / name, data)
        _flush_names(place / NEW)
        _rotate(place, _CHAINS[which])
    except OSError as error:
        shutil.rmtree(place / NEW, ignore_errors=True)
        size = sum(map(len, files.values())) / 1e6
        raise DataError(
            f"checkpoint: {size:.1f} MB could not be written to {place}: {error.strerror or error}. "
            f"{shutil.disk_usage(folder).free / 1e6:.0f} MB are free there. Make room and give the same command again; "
            "the last checkpoint is whole."
        ) from error


def read(folder: Path, which: Which = "last") -> Saved | None:
    """The newest checkpoint of a run that is whole; None where there is none at all.

    Raises:
        DataError: every one that is there is damaged.
    """
    damage: list[str] = []
    chain, place = _CHAINS[which], folder / FOLDER
    for path in [*(place / name for name in chain), *_aside(place, chain)]:
        if path.is_dir():
            try:
                return Saved(path, _checked(path), tuple(damage))
            except _DamageError as error:
                damage.append(f"{path} is damaged: {error}")
    if damage:
        raise DataError(
            f"checkpoint: none that is whole is left: {'; '.join(damage)}. Delete {place} to begin this run anew."
        )
    return None


def weights(folder: Path, which: Which = "last", name: str = "model") -> dict[str, Tensor]:
    """What a run evaluates: one model's weights, the moving average where there is one.

    Raises:
        DataError: there is no such checkpoint, or none that is whole.
    """
    saved = read(folder, which)
    if saved is None:
        raise DataError(f"checkpoint: {folder} holds none named {which}. Give the command that makes it again.")
    for line in saved.damage:
        warnings.warn(f"{line}. {saved.path} is used instead.", stacklevel=2)
    average = f"{name}.average"
    return saved.tensors(average if f"{average}.safetensors" in saved.files else name)


def write_flushed(path: Path, data: bytes) -> None:
    """Write a file so that it survives a loss of power once this returns."""
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _plain(tensors: Tensors) -> dict[str, Tensor]:
    # Cloned because safetensors refuses tensors that share memory or have strides of their own.
    return {key: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for key, tensor in tensors.items()}


def _rotate(place: Path, chain: tuple[str, ...]) -> None:
    """Give the new one the first name of a chain. Each rename leaves all that were there under names that are read."""
    aside = _aside(place, chain)
    if (place / chain[0]).exists():
        free = place / f"{chain[-1]}.old{len(aside)}"
        for name in reversed(chain):
            if (place / name).exists():
                (place / name).rename(free)
            free = place / name
    (place / NEW).rename(place / chain[0])
    _flush_names(place)
    for path in _aside(place, chain):
        shutil.rmtree(path, ignore_errors=True)


def _aside(place: Path, chain: tuple[str, ...]) -> list[Path]:
    """What was set aside by a process that died before it deleted it, newest first."""
    return sorted(place.glob(f"{chain[-1]}.old*"), reverse=True)


def _flush_names(folder: Path) -> None:
    """Renames survive a loss of power once this returns."""
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


class _DamageError(Exception):
    """Why a checkpoint is not whole."""


def _checked(path: Path) -> dict[str, bytes]:
    try:
        manifest = json.loads((path / "manifest.json").read_bytes())
        digests: Mapping[str, str] = dict(manifest["files"])
        if manifest["format"] != FORMAT:
            raise _DamageError(f"its format is {manifest['format']!r}, known is {FORMAT}")
        files = {name: (path / name).read_bytes() for name in digests}
    except OSError as error:
        raise _DamageError(f"{error.strerror}: {Path(error.filename or '').name}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise _DamageError(f"manifest.json is no manifest ({type(error).__name__})") from error
    for name, digest in digests.items():
        if hashlib.sha256(files[name]).hexdigest() != digest:
            raise _DamageError(f"{name} does not match its checksum")
    return files
