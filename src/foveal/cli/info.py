"""``foveal info``."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

ABOUT = "Show versions, devices, threads, kernels, mechanisms and data sets."


@dataclass(frozen=True)
class Info:
    """The options of ``info``."""

    json: bool = False
    """Print JSON instead of a table."""

    when_interrupted = ""

    def run(self) -> int:
        told = gather()
        if self.json:
            print(json.dumps(told, indent=1))
            return 0
        from rich.console import Console
        from rich.table import Table

        table = Table(box=None, show_header=False, pad_edge=False)
        table.add_column(style="bold", no_wrap=True)
        table.add_column(overflow="fold")
        for name, value in told.items():
            items = [f"{k} {_words(v)}" for k, v in value.items()] if isinstance(value, dict) else value
            table.add_row(name, ", ".join(map(str, items)) if isinstance(items, list) else str(items))
        Console().print(table)
        return 0


def _words(value: Any) -> str:
    return "/".join(value) if isinstance(value, list) else str(value or "missing")


def gather() -> dict[str, Any]:
    """What there is to know, as plain values."""
    from foveal.data import NAMES
    from foveal.tasks.run_folder import environment
    from foveal.tasks.settings import MECHANISMS

    told = environment()
    return {
        **told,
        "gpus": told["gpus"] or ["none"],
        **kernels(),
        **cache(),
        "mechanisms": list(MECHANISMS),
        "data": [*NAMES, "PATH"],
    }


def cache() -> dict[str, Any]:
    """The folder of what is measured once on this machine, and the files of speeds in it."""
    from foveal.cache import cache_folder

    folder = cache_folder()
    return {"cache": str(folder), "calibrations": sorted(p.name for p in folder.glob("speeds-*.json")) or ["none"]}


def kernels() -> dict[str, Any]:
    """The instruction set of the CPU kernels, or why there are none; which evaluations of each operation run here."""
    import torch

    from foveal.functional import dot_product, efficient, explicit, external, local
    from foveal.kernels.cpu import WHY_NOT, instruction_set

    tables = {
        "local": local,
        "efficient": efficient,
        "external": external,
        "explicit": explicit,
        "dot_product": dot_product,
    }
    names = {name: module.BACKENDS.names() for name, module in tables.items()}
    why_not = {"reference": "the definition: only by name", "windows": "the definition: in ONNX graphs alone"}
    here = "" if torch.cuda.is_available() else ", and there is no GPU here"
    for module in tables.values():
        why_not |= {name: reason + here for name, reason in module.BACKENDS.by_name().items()}
    if WHY_NOT is not None:
        why_not["native"] = WHY_NOT
    return {
        "cpu_kernels": instruction_set() or f"none: {WHY_NOT}",
        "backends": {name: [x for x in rows if x != "native" or WHY_NOT is None] for name, rows in names.items()},
        "not_by_itself": [f"{name} ({reason})" for name, reason in why_not.items()],
    }
