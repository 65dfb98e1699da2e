"""What a name stands for: a layer of foveal, a model of timm, or whatever a callable of a package makes."""

from __future__ import annotations

import ast
import difflib
import importlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from foveal.errors import FovealError, NoMatchError, OptionError, ShapeError
from foveal.layers.registry import REGISTRY, Row

LAYER_CHANNELS, LAYER_SIZE, IMAGE_SIZE = 64, (56, 56), (224, 224)
Size = tuple[int, ...]


@dataclass(frozen=True)
class Target:
    """A named module: ``build(size)`` makes it for maps of ``channels`` and this size.

    ``default`` is the size it has by itself.
    """

    name: str
    build: Callable[[Size], nn.Module]
    channels: int
    default: Size


def find(name: str, *, channels: int | None = None, options: Mapping[str, Any] | None = None) -> Target:
    """The target of a name.

    Args:
        name: a layer by its class or its name in the registry, a model of timm (foveal's own are among them), or
            ``package.module:callable``, which is a module or makes one of the options.
        channels: of the map; 64 for a layer and what a model has by itself where None.
        options: for the constructor.

    Raises:
        NoMatchError: there is no such name, or it cannot be imported.
        OptionError: an option that the layer does not have, or that it refuses.
    """
    given = dict(options or {})
    if channels is not None and channels < 1:
        raise OptionError(f"{name}: --channels must be at least 1, got {channels}. Use 64, say.")
    row = layer_row(name)
    if row is not None:
        return _layer(row, channels, given)
    if ":" in name:
        return _callable(name, channels, given)
    return _model(name, channels, given)


def layer_row(name: str) -> Row | None:
    """The row of the registry with this name or class; case and underscores do not matter."""
    wanted = _plain(name)
    return next((row for row in REGISTRY if wanted in (_plain(row.name), _plain(row.layer.__name__))), None)


def _plain(name: str) -> str:
    return name.lower().replace("_", "")


def _layer(row: Row, channels: int | None, options: dict[str, Any]) -> Target:
    known = inspect.signature(row.layer).parameters
    for option in options:
        if option not in known:
            near = difflib.get_close_matches(option, known, n=1)
            hint = f"Did you mean {near[0]}?" if near else f"It has {', '.join(known)}."
            raise OptionError(f"{row.layer.__name__}: there is no option {option!r}. {hint}")
    first = next(iter(known))
    own = known[first].default
    width = options.pop(first, channels) or (LAYER_CHANNELS if own is inspect.Parameter.empty else own)
    if "channels_out" in known and known["channels_out"].default is inspect.Parameter.empty:
        options.setdefault("channels_out", width)

    def build(size: Size) -> nn.Module:
        fitted = {"dims": len(size), "size": size}
        fitted = {name: value for name, value in fitted.items() if name in known and name not in options}
        return _made(row.name, row.layer, {first: width, **fitted, **options})

    return Target(row.name, build, width, LAYER_SIZE)


def _model(name: str, channels: int | None, options: dict[str, Any]) -> Target:
    import timm

    import foveal.models  # noqa: F401  registers its networks

    models = timm.list_models()
    if name not in models:
        names = [*(row.name for row in REGISTRY), *(row.layer.__name__ for row in REGISTRY), *models]
        near = difflib.get_close_matches(name, names, n=3)
        hint = f"Did you mean {' or '.join(near)}?" if near else f"Layers are {', '.join(r.name for r in REGISTRY)}."
        raise NoMatchError(
            f"find: neither foveal nor timm has a layer or model {name!r}. {hint} A package.module:callable does, too."
        )
    if channels is not None:
        options["in_chans"] = channels
    model = _made(name, timm.create_model, {"model_name": name, **options})
    planes, *space = getattr(model, "default_cfg", {}).get("input_size") or (3, *IMAGE_SIZE)
    asked = options.get("img_size", space)
    size = (asked, asked) if isinstance(asked, int) else tuple(asked)
    return Target(name, lambda _: model, options.get("in_chans", planes), size)


def _callable(name: str, channels: int | None, options: dict[str, Any]) -> Target:
    place, _, attribute = name.partition(":")
    try:
        found: Any = importlib.import_module(place)
        for part in attribute.split("."):
            found = getattr(found, part)
    except Exception as error:
        # What a stranger's module raises while it is imported can be anything.
        raise NoMatchError(
            f"find: {name!r} cannot be imported: {type(error).__name__}: {error}. Give package.module:callable, "
            "importable from here."
        ) from error
    if isinstance(found, nn.Module):
        model = found
    elif callable(found):
        model = _made(name, found, options)
    else:
        raise OptionError(f"find: {name} is a {type(found).__name__}, not a callable that makes a torch.nn.Module.")
    return Target(name, lambda _: model, channels or 3, IMAGE_SIZE)


def _made(name: str, make: Callable[..., Any], options: dict[str, Any]) -> nn.Module:
    try:
        made = make(**options)
    except FovealError:
        raise
    except Exception as error:
        raise OptionError(
            f"find: {name} cannot be made of {_told(options)}: {_first_line(error)}. Change its options, name=value."
        ) from error
    if not isinstance(made, nn.Module):
        raise OptionError(f"find: {name} made a {type(made).__name__}, a torch.nn.Module is wanted.")
    return made


def _told(options: Mapping[str, Any]) -> str:
    return ", ".join(f"{k}={v!r}" for k, v in options.items() if k != "model_name") or "no options"


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")


def parse_options(given: Sequence[str]) -> dict[str, Any]:
    """``name=value`` with Python's literals as values; what is no literal is a word.

    Raises:
        OptionError: there is no ``=``.
    """
    options = {}
    for option in given:
        name, equals, value = option.partition("=")
        if not equals or not name.isidentifier():
            raise OptionError(f"options: {option!r} must be name=value, as in kernel_size=5.")
        try:
            options[name] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            options[name] = value
    return options


def check_size(size: Sequence[int]) -> Size:
    """One number as a square; rows and columns; depth, rows and columns.

    Raises:
        ShapeError: there are more, or one is not positive.
    """
    if not 1 <= len(size) <= 3 or any(side < 1 for side in size):
        told = " ".join(map(str, size))
        raise ShapeError(f"foveal: --size must be one to three positive numbers, got {told!r}. Use --size 56 56, say.")
    return (size[0], size[0]) if len(size) == 1 else tuple(size)


def does_not_take(name: str, shape: Sequence[int], error: BaseException) -> ShapeError:
    """What to raise where a model failed on an input."""
    told = " x ".join(map(str, shape))
    return ShapeError(
        f"{name} does not take an input of {told}: {type(error).__name__}: {_first_line(error)}. Use another --size, "
        "--batch or --channels, or an option of the model for it (img_size=…, dynamic_img_size=True)."
    )
