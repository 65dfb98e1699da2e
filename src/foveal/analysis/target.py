"""What a name stands for: a layer of foveal, a model of timm, or whatever a callable of a package makes."""

from __future__ import annotations

import ast
import difflib
import importlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.error import URLError

from torch import Tensor, nn
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    UnsupportedOperatorException,
)

from foveal.analysis.runnable import inputs_of, runnable, says_inputs
from foveal.errors import FovealError, NoMatchError, OptionError, ShapeError
from foveal.layers.registry import REGISTRY, Row

LAYER_CHANNELS, LAYER_SIZE, IMAGE_SIZE = 64, (56, 56), (224, 224)
Size = tuple[int, ...]


@dataclass(frozen=True)
class Target:
    """A named module: ``build(size)`` makes it for maps of ``channels`` and this size.

    ``default`` is the size it has by itself: two or three axes, one of points, none where it is not the caller's.
    """

    name: str
    build: Callable[[Size], nn.Module]
    channels: int
    default: Size

    def sized(self, given: Sequence[int]) -> Size:
        """A size as the target takes it: its own where none is given, one number as a square of an image.

        Raises:
            ShapeError: it is none.
            OptionError: the target's size is part of what it is.
        """
        if not given:
            return self.default
        if not self.default:
            raise OptionError(
                f"{self.name}: --size is for what takes a map, and its input is none. Leave it out, or set an option "
                "of its constructor, size=64 say."
            )
        if len(self.default) > 1:
            return check_size(given)
        if len(given) > 1 or given[0] < 1:
            told = " ".join(map(str, given))
            raise ShapeError(f"{self.name}: --size must be one number of points, got {told!r}. Use --size 1024, say.")
        return (given[0],)

    def inputs(self, model: nn.Module, batch: int, size: Size) -> tuple[Tensor, ...]:
        """What ``runnable`` of the model takes at this size, on the meta device."""
        return inputs_of(model, batch, self.channels, size)


def find(name: str, *, channels: int | None = None, options: Mapping[str, Any] | None = None) -> Target:
    """The target of a name.

    Args:
        name: a layer by its class or its name in the registry, a model of timm (foveal's own classifiers are among
            them), a network of ``foveal.models``, or ``package.module:callable``, which is a module or makes one of
            the options.
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
        return _callable(name, name, channels, given)
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

    from foveal.models import NETWORKS

    if name in NETWORKS:
        return _callable(name, f"foveal.models:{name}", channels, options)
    models = timm.list_models()
    if name not in models:
        layers = [*(row.name for row in REGISTRY), *(row.layer.__name__ for row in REGISTRY)]
        names = [*layers, *NETWORKS, *models]
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


def _callable(name: str, path: str, channels: int | None, options: dict[str, Any]) -> Target:
    place, _, attribute = path.partition(":")
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
    return _fed(name, model, channels)


def _fed(name: str, model: nn.Module, channels: int | None) -> Target:
    """A model with the channels and the size of what it says that it takes; images where it says nothing."""
    runs = runnable(model)
    if says_inputs(runs) is None:
        return Target(name, lambda _: model, channels or 3, IMAGE_SIZE)
    try:
        own, *_ = inputs_of(runs, 1, 0, ())
        planes, *size = own.shape[1:]
    except Exception as error:
        # A stranger's method may raise or give anything.
        raise OptionError(
            f"find: example_inputs of {name} must give tensors for (batch, size) and (batch, None), the batch first: "
            f"{_first_line(error)}. Change that method."
        ) from error
    if channels not in (None, planes):
        raise OptionError(
            f"{name}: --channels must be {planes}, what it takes, got {channels}. Leave it out, or make it for "
            f"others, by in_chans={channels} where it has that option."
        )
    return Target(name, lambda _: model, planes, tuple(size))


def _made(name: str, make: Callable[..., Any], options: dict[str, Any]) -> nn.Module:
    try:
        made = make(**options)
    except FovealError:
        raise
    except URLError as error:
        raise OptionError(
            f"find: {name} fetches weights, and they do not come: {_first_line(error)}. Counts need none: leave "
            "them out by an option, weights_backbone=None or pretrained=False, say."
        ) from error
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


def refused(who: str, model: nn.Module, inputs: Sequence[Tensor], error: Exception) -> FovealError:
    """What to raise where a model failed on tensors without contents; what was raised may be anything."""
    if isinstance(error, FovealError):
        return error
    if isinstance(error, (DataDependentOutputException, DynamicOutputShapeException, UnsupportedOperatorException)):
        return OptionError(
            f"{who} decides by the values of tensors ({error}), and nothing is computed here. Count the parts of it "
            "that do not, such as its backbone."
        )
    if type(model).forward is nn.Module.forward:
        return OptionError(
            f"{who} cannot be run, since {type(model).__name__} has no forward of its own. Name a network inside it, "
            "package.module:callable."
        )
    wanted = _wanted(model)
    if says_inputs(model) is None and len(wanted) != len(inputs):
        return OptionError(
            f"{who} is given one map, and its forward takes {' and '.join(wanted) or 'nothing'}. Give "
            f"{type(model).__name__} a method example_inputs(batch, size) that returns the tensors."
        )
    if "meta" in str(error):
        return OptionError(
            f"{who} mixes in tensors of its own that have contents, so it cannot be followed without any: "
            f"{_first_line(error)}. Count the parts of it that do not, such as its backbone."
        )
    told = " and ".join(" x ".join(map(str, each.shape)) for each in inputs)
    return ShapeError(
        f"{who} does not take an input of {told}: {type(error).__name__}: {_first_line(error)}. Use another --size, "
        "--batch or --channels, or an option of the model for it (img_size=…, dynamic_img_size=True)."
    )


def _wanted(model: nn.Module) -> list[str]:
    """What forward must be given."""
    kinds = (
        inspect.Parameter.POSITIONAL_ONLY,
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
        inspect.Parameter.VAR_POSITIONAL,
    )
    known = inspect.signature(model.forward).parameters.values()
    return [each.name for each in known if each.default is inspect.Parameter.empty and each.kind in kinds]
