"""Which modules a ``where`` means: globs over dotted names, types, or a predicate on the site."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Sequence
from typing import TypeAlias

from torch import nn
from torch.nn.parallel import DistributedDataParallel

from foveal.errors import NoMatchError, OptionError
from foveal.graft.layout import Sites
from foveal.graft.site import Site
from foveal.graft.trace import one_line

Where: TypeAlias = "str | type[nn.Module] | Callable[[Site], bool] | Sequence[str | type[nn.Module]]"
Target = tuple[str, nn.Module]


def find(verb: str, model: nn.Module, where: Where, sites: Sites) -> list[Target]:
    """The modules that ``where`` means, each once, in the order of the model, under its first name.

    In a glob ``*`` and ``?`` stand for characters other than the dot, ``**`` for any, ``**.`` for any number of levels
    including none, and ``[2-4]`` for one of a set. ``""`` is the model itself, which nothing else matches.
    """
    if where is None or (isinstance(where, list | tuple) and not where):
        raise OptionError(
            f"{verb}: no place was given. Pass where= as a glob over module names, a type or a predicate."
        )
    if not isinstance(where, str | type | list | tuple) and callable(where):
        return _by_predicate(verb, model, where, sites)
    hits: set[nn.Module] = set()
    for part in where if isinstance(where, list | tuple) else [where]:
        if isinstance(part, str):
            hits |= _by_glob(verb, model, part)
        elif isinstance(part, type):
            hits |= _by_type(verb, model, part)
        else:
            raise OptionError(f"{verb}: where must be globs, types or one predicate on a Site, got {part!r}.")
    return [(name, module) for name, module in model.named_modules() if module in hits]


def matches(glob: str, name: str) -> bool:
    """Whether a glob means a dotted name."""
    return re.fullmatch(_expression(glob), name) is not None


def _expression(glob: str) -> str:
    out, rest = "", glob
    while rest:
        token = re.match(r"\*\*\.|\*\*|\*|\?|\[!?\]?[^\]]*\]|.", rest, re.DOTALL)
        assert token is not None
        text = token.group()
        rest = rest[len(text) :]
        simple = {"**.": r"(?:.+\.)?", "**": ".*", "*": r"[^.]*", "?": r"[^.]"}
        if text in simple:
            out += simple[text]
        elif len(text) > 1:
            out += "[" + text[1:-1].replace("\\", "\\\\").replace("!", "^", int(text[1] == "!")) + "]"
        else:
            out += re.escape(text)
    return out


def _by_glob(verb: str, model: nn.Module, glob: str) -> set[nn.Module]:
    if glob == "":
        return {model}
    names = {name: module for name, module in model.named_modules(remove_duplicate=False) if name}
    hits = {module for name, module in names.items() if matches(glob, name)}
    if not hits:
        near = difflib.get_close_matches(glob, names, n=3, cutoff=0.3)
        hint = f"The nearest names are {', '.join(near)}." if near else f"The model has {len(names)} named modules."
        if isinstance(model, nn.DataParallel | DistributedDataParallel):
            hint = f"The model is wrapped by {type(model).__name__}: graft the inner one, model.module, then wrap it."
        raise NoMatchError(f"{verb}: no module is named like {glob!r}. {hint}")
    return hits


def _by_type(verb: str, model: nn.Module, kind: type[nn.Module]) -> set[nn.Module]:
    hits = {module for module in model.modules() if isinstance(module, kind) and module is not model}
    if not hits:
        there = sorted({type(module).__name__ for module in model.modules()})
        near = difflib.get_close_matches(kind.__name__, there, n=3, cutoff=0.3) or there[:8]
        raise NoMatchError(f"{verb}: the model has no {kind.__name__}. The nearest types are {', '.join(near)}.")
    return hits


def _by_predicate(verb: str, model: nn.Module, where: Callable[[Site], bool], sites: Sites) -> list[Target]:
    asked, hits = 0, []
    for name, module in model.named_modules():
        site = sites.through(name, module) if name else "the model itself"
        if isinstance(site, str) and verb == "insert_" and name:
            site = sites.after(name, module)
        if isinstance(site, Site):
            asked += 1
            try:
                holds = bool(where(site))
            except Exception as error:
                raise OptionError(
                    f"{verb}: the predicate failed on site {name!r}: {one_line(error)}. "
                    "Pass a function of one Site that returns True or False."
                ) from error
            hits += [(name, module)] if holds else []
    if not hits:
        raise NoMatchError(f"{verb}: the predicate holds for none of the {asked} sites of the model.")
    return hits
