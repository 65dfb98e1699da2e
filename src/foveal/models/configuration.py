"""How a model was made, as JSON in the format of timm's ``config.json``: enough to make it again.

Sequences among the options come back as tuples, since JSON has one kind of them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from foveal.errors import DataError, OptionError
from foveal.models.backbones import check_name, reading

FORMAT = 1
# Arguments of timm.create_model that say where weights come from; no option of a model.
_ELSEWHERE = {"pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "checkpoint_path", "cache_dir"}
_INSTEAD = (
    "Save its state dict and load that into a model made the same way, or register the function that makes it in timm "
    "and create it by name."
)


@dataclass(frozen=True)
class Configuration:
    """How a model was made.

    Attributes:
        model: its name in timm.
        options: of ``timm.create_model``.
        shown: what timm shows about it: size and mean of images, first and last layer; not where weights come from.
        metadata: whatever the caller wanted to keep beside the weights, as JSON has it.
        foveal: version that wrote the file; None for one that was not read from a file.
    """

    model: str
    options: dict[str, Any] = field(default_factory=dict)
    shown: dict[str, Any] = field(default_factory=dict)
    metadata: dict[str, Any] = field(default_factory=dict)
    foveal: str | None = None

    @classmethod
    def of(cls, model: nn.Module, **metadata: Any) -> Configuration:
        """How timm made a model.

        Raises:
            OptionError: timm did not make it, or it was changed since, or its options are more than JSON has.
        """
        shown, options = getattr(model, "default_cfg", None), getattr(model, "_model_args", None)
        if not isinstance(shown, Mapping) or not shown.get("architecture") or options is None:
            raise OptionError(
                f"save: timm.create_model (of timm 1.0.31 or newer) did not make this {type(model).__name__}, so no "
                "file could make it again. " + _INSTEAD
            )
        options, name = dict(options), shown["architecture"]
        # The head is what models change by a method of their own.
        if isinstance(getattr(model, "num_classes", None), int) and not options.get("features_only"):
            options["num_classes"] = model.num_classes
        from timm.models import filter_pretrained_cfg

        shown = filter_pretrained_cfg({**shown, "state_dict": None}, remove_source=True, remove_null=True)
        made = cls(
            name,
            _plain(options, f"the option {{}} of {name}"),
            _plain(shown, f"the entry {{}} of {name}'s default_cfg"),
            _plain(metadata, "the metadata {}"),
        )
        made._check(model)
        return made

    @classmethod
    def read(cls, path: str | Path) -> Configuration | None:
        """What ``foveal.models.save`` wrote into a file; None where it holds weights alone.

        Raises:
            DataError: the file is missing or damaged, or a newer foveal wrote it.
        """
        import safetensors

        path = Path(path)
        if path.suffix != ".safetensors":
            return None
        with reading(path), safetensors.safe_open(path, "pt") as file:
            text = (file.metadata() or {}).get("foveal")
        return None if text is None else cls.parse(text, path)

    @classmethod
    def parse(cls, text: str, source: str | Path) -> Configuration:
        """Read JSON.

        Raises:
            DataError: it is none of ours, or a newer foveal wrote it.
        """
        try:
            told = _tuples(json.loads(text))
            written, how = told["foveal"], told["format"]
            if not isinstance(told["architecture"], str) or _ELSEWHERE & set(told["model_args"]):
                raise ValueError(f"it would make {told['architecture']!r} with {told['model_args']}")
            made = cls(told["architecture"], told["model_args"], told["pretrained_cfg"], told["metadata"], written)
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"load: the configuration in {source} is damaged: {error!r}. Give a whole file.") from error
        if how != FORMAT:
            raise DataError(
                f"load: {source} was written by foveal {written} in format {how}, this one reads format {FORMAT}. "
                "Install that version."
            )
        return made

    def text(self) -> str:
        """As JSON, which timm reads too."""
        told = {
            "architecture": self.model,
            "model_args": self.options,
            "pretrained_cfg": self.shown,
            "metadata": self.metadata,
            "foveal": version("foveal"),
            "format": FORMAT,
        }
        if "num_classes" in self.options:
            told["num_classes"] = self.options["num_classes"]
        return json.dumps(told, indent=1, allow_nan=False)

    def build(self, **options: Any) -> nn.Module:
        """The model with new weights; ``options`` override its own.

        Raises:
            OptionError: timm does not know it, or it does not take these options.
        """
        import timm

        # A name in a file must not lead timm to the hub or to another file.
        check_name(self.model, "load")
        given = {**self.options, **options}
        try:
            model = timm.create_model(self.model, pretrained=False, pretrained_cfg=self.shown or None, **given)
        except (TypeError, ValueError, AssertionError, RuntimeError) as error:
            told = (str(error).splitlines() or [type(error).__name__])[0]
            raise OptionError(
                f"load: {self.model} cannot be made with {given}: {told}. Use options that timm {timm.__version__} has "
                "for it."
            ) from error
        return cast(nn.Module, model)

    def _check(self, model: nn.Module) -> None:
        """That the model is what its configuration makes, module by module."""
        was = _parts(self._shape_only())
        now = _parts(model)
        changed = [name for name in {**now, **was} if now.get(name) != was.get(name)]
        if changed:
            name = changed[0]
            told = [parts.get(name, "nothing") for parts in (now, was)]
            raise OptionError(
                f"save: this {self.model} was changed after timm made it, in {len(changed)} places, first "
                f"{name.strip() or 'itself'} ({told[0]}, was {told[1]}), so no file could make it again. " + _INSTEAD
            )

    def _shape_only(self) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            try:
                with torch.device("meta"):
                    return self.build()
            except OptionError:
                # Some models read their own tensors while they are made, and these have no values.
                return self.build()


def _parts(model: nn.Module) -> dict[str, str]:
    """What every module and every entry of the state dict is, by name."""
    parts = {name: f"{type(module).__name__}({module.extra_repr()})" for name, module in model.named_modules()}
    for key, value in model.state_dict().items():
        parts[f"{key} "] = str(tuple(value.shape)) if isinstance(value, torch.Tensor) else type(value).__name__
    return parts


def _plain(told: Mapping[str, Any], what: str) -> dict[str, Any]:
    """The same after a way through JSON, so that what is checked is what will be read."""
    plain = {}
    for key, value in told.items():
        try:
            plain[key] = _tuples(json.loads(json.dumps(value, allow_nan=False)))
        except (TypeError, ValueError) as error:
            raise OptionError(
                f"save: {what.format(key)} is {value!r}, which JSON cannot hold. Use numbers, text, lists and "
                "dictionaries of them, or save the state dict."
            ) from error
    return plain


def _tuples(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _tuples(item) for key, item in value.items()}
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value
