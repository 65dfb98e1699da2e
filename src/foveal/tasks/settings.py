"""What a comparison is asked to do: plain values, checked before anything heavy is imported."""

from __future__ import annotations

import difflib
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from foveal.errors import DataError, OptionError

MECHANISMS = ("none", "se", "eca", "cbam", "nonlocal", "augmented", "local", "efficient", "external", "explicit")
BOUNDS = {"epochs": (1, 100_000), "seeds": (1, 1000), "batch_size": (2, 65_536), "size": (8, 4096)}


@dataclass(frozen=True)
class Settings:
    """A comparison. Everything here decides its numbers; a folder holds one comparison only."""

    data: str = "digits"
    backbone: str | None = None
    mechanisms: tuple[str, ...] = MECHANISMS
    epochs: int = 20
    seeds: int = 2
    sites: tuple[str, ...] = ()
    weights: str | None = None
    batch_size: int = 64
    size: int | None = None
    lr: float | None = None

    def check(self) -> None:
        """Raise OptionError or DataError for what can be known to be wrong without loading anything."""
        if not self.data.strip():
            raise OptionError("compare: --data is empty. Use digits, digit-pairs or the path of a folder.")
        for name, (least, most) in BOUNDS.items():
            value = getattr(self, name)
            if value is not None and value < least:
                raise OptionError(
                    f"compare: {_option(name)} must be at least {least}, got {value}. Use {least} or more."
                )
            if value is not None and value > most:
                raise OptionError(f"compare: {_option(name)} must be at most {most}, got {value}. Use {most} or less.")
        if self.lr is not None and not 0 < self.lr < float("inf"):
            raise OptionError(f"compare: --lr must be a positive number, got {self.lr}. Use 0.001, say.")
        if not self.mechanisms:
            raise OptionError(f"compare: --mechanisms names none. Use some of {','.join(MECHANISMS)}.")
        for name in self.mechanisms:
            check_mechanism(name)
        twice = {name for name in self.mechanisms if self.mechanisms.count(name) > 1}
        if twice:
            raise OptionError(f"compare: --mechanisms names {', '.join(sorted(twice))} twice. Name each once.")
        for site in self.sites:
            mechanism, pattern = _named(site)
            if mechanism == "none":
                raise OptionError(f"compare: --sites {site!r} is for 'none', which has no sites. Drop it.")
            if mechanism is not None and mechanism not in self.mechanisms:
                raise OptionError(
                    f"compare: --sites {site!r} is for {mechanism!r}, which is not compared. Add it or drop it."
                )
            if not pattern:
                raise OptionError(f"compare: --sites {site!r} names no modules. Use a pattern such as 'layer3'.")
        if self.weights is not None and not Path(self.weights).is_file():
            raise DataError(f"compare: --weights {self.weights!r} is no file. Give a .safetensors or .pth file.")

    def sites_for(self, mechanism: str) -> list[str] | None:
        """The patterns that override a mechanism's place, None where nothing does."""
        named = [_named(site) for site in self.sites]
        own = [pattern for name, pattern in named if name == mechanism]
        return own or [pattern for name, pattern in named if name is None] or None

    def record(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}


def check_mechanism(name: str) -> None:
    """Raise OptionError with the nearest names for one that does not exist."""
    if name not in MECHANISMS:
        near = difflib.get_close_matches(name, MECHANISMS, n=2)
        hint = f"Did you mean {' or '.join(near)}?" if near else f"Use some of {','.join(MECHANISMS)}."
        raise OptionError(f"compare: there is no mechanism {name!r}. {hint}")


def check_cores(who: str, option: str, count: int) -> None:
    """Raise OptionError for more threads or processes than there are cores; two run on any machine."""
    cores = max(os.cpu_count() or 1, 2)
    if count > cores:
        raise OptionError(
            f"{who}: --{option} must be at most the cores ({cores}), got {count}. Use {cores} or less, or leave it out."
        )


def split_names(text: str | Sequence[str]) -> tuple[str, ...]:
    """``"a,b"`` or ``["a", "b"]`` as ``("a", "b")``."""
    parts = text.split(",") if isinstance(text, str) else text
    return tuple(name for name in (str(part).strip() for part in parts) if name)


def _named(site: str) -> tuple[str | None, str]:
    """``"local=layer3"`` as ``("local", "layer3")``; None for a pattern that is for all mechanisms."""
    name, equals, pattern = site.partition("=")
    return (name.strip(), pattern.strip()) if equals else (None, site)


def _option(field: str) -> str:
    return "--" + field.replace("_", "-")
