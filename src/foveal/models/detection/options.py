"""What a builder passes on to torchvision, which swallows the names that it does not know."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Collection, Mapping
from typing import Any

from torchvision.models.detection.transform import GeneralizedRCNNTransform

from foveal.errors import OptionError

LEVELS = 5


def check_options(builder: Callable[..., Any], kind: type, options: Mapping[str, Any], taken: Collection[str]) -> None:
    """Each name must be one of a detector's class, of those that it stands on, or of its image transform.

    Args:
        builder: whose options these are.
        kind: the detector's class.
        options: what is left for torchvision.
        taken: names that all builders take themselves; they and the builder's own are told where one is nearly meant.

    Raises:
        OptionError: a name is none of them.
    """
    makers = [*kind.__mro__[:2], GeneralizedRCNNTransform]
    known = sorted({name for maker in makers for name in inspect.signature(maker).parameters} - {"kwargs", "backbone"})
    asker = builder.__name__
    meant = sorted({*known, *taken, *inspect.signature(builder).parameters} - {"options"})
    for name in options:
        if name not in known:
            near = difflib.get_close_matches(name, meant, n=2)
            hint = f"Did you mean {' or '.join(near)}?" if near else "Use min_size, say."
            raise OptionError(f"{asker}: torchvision's {kind.__name__} has no option {name!r}. {hint}")
    _check_values(asker, makers, options)


def _check_values(asker: str, makers: list[type], options: Mapping[str, Any]) -> None:
    """Numbers where torchvision has numbers, which it asks for only when it runs."""
    defaults = {name: each.default for maker in makers for name, each in inspect.signature(maker).parameters.items()}
    for name, value in options.items():
        several = value if name == "min_size" and isinstance(value, (list, tuple)) and value else [value]
        wanted = isinstance(defaults[name], (int, float)) or name in ("min_size", "max_size")
        if wanted and not all(isinstance(one, (int, float)) and not isinstance(one, bool) for one in several):
            what = "a number of pixels or several" if name == "min_size" else "a number"
            raise OptionError(f"{asker}: {name} must be {what}, got {value!r}. Leave it out for torchvision's.")


def check_width(name: str, value: Any) -> None:
    """A number of channels."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise OptionError(f"detection: {name} must be an integer of at least 1, got {value!r}. Use 256, say.")


def check_sides(value: Any) -> None:
    """A side of anchors for each of the five levels."""
    whole = isinstance(value, (list, tuple)) and len(value) == LEVELS
    if not whole or not all(isinstance(side, (int, float)) and side > 0 for side in value):
        raise OptionError(
            f"detection: anchor_sizes must be {LEVELS} sides in pixels, one for each level of the pyramid, got "
            f"{value!r}. Use (32, 64, 128, 256, 512), say."
        )


def check_classes(asker: str, count: Any) -> None:
    """At least the background and one class."""
    if isinstance(count, bool) or not isinstance(count, int) or count < 2:
        raise OptionError(
            f"{asker}: num_classes must be an integer of at least 2, the background counted, got {count!r}. "
            "Pass 91 for COCO."
        )
