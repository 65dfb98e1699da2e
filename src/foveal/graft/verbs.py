"""The three verbs that put a layer into a model: in the place of a module, beside a convolution, after a module."""

from __future__ import annotations

from collections.abc import Callable
from numbers import Real
from typing import Any, cast

from torch import nn

from foveal.errors import OptionError
from foveal.graft.build import Builder
from foveal.graft.match import Where
from foveal.graft.plan import planning
from foveal.graft.record import Graft
from foveal.graft.site import Site
from foveal.graft.trace import one_line


def replace_(model: nn.Module, where: Where, layer: Builder, *, example: Any = None) -> Graft:
    """Put a layer in the place of each module that ``where`` means.

    Args:
        model: changed in place.
        where: globs over dotted names (``*`` stays between dots, ``**`` crosses them), types, or a predicate on a
            ``Site``.
        layer: ``Layer.like(...)``, an ``AttentionLayer`` class, or a function of the ``Site`` that returns the module.
        example: an input to trace sizes with; a tuple holds arguments, a dict named ones, all else is the one argument.
            Guessed where None.

    Returns:
        The record; ``print`` it, ``undo`` it.

    Raises:
        NoMatchError: ``where`` means nothing in this model.
        ShapeError: a layer does not fit its place. Nothing is changed then.
    """
    with planning("replace_", model, where, layer, example) as plan:
        return plan.carry_out(plan.replacement)


def augment_(
    model: nn.Module,
    where: Where,
    layer: Builder,
    *,
    ratio: float | None = None,
    channels: int | Callable[[Site], int] | None = None,
    multiple_of: int = 8,
    example: Any = None,
) -> Graft:
    """Let a layer make some of the channels of each convolution that ``where`` means; the first filters stay.

    Args:
        model: changed in place.
        where: as for ``replace_``.
        layer: as for ``replace_``; the site's ``channels_out`` are the channels that it shall make.
        ratio: of the convolution's channels, rounded to a multiple of ``multiple_of``, at least one; or
        channels: their number, or a function of the site.
        multiple_of: what ``ratio`` rounds to.
        example: as for ``replace_``.

    Raises:
        NoMatchError: ``where`` means nothing in this model.
        OptionError: neither or both of ``ratio`` and ``channels`` are given, or leave no filter.
        ShapeError: a module is no convolution that can be split, or the layer does not fit. Nothing is changed then.
    """
    if (ratio is None) == (channels is None):
        raise OptionError("augment_: pass either ratio= or channels=, the share or the number of attention channels.")
    if ratio is not None and (not isinstance(ratio, Real) or not 0 < ratio < 1):
        raise OptionError(
            f"augment_: ratio must be a number between 0 and 1, both excluded, got {ratio!r}. "
            "Pass 0.25 for a quarter of the channels."
        )
    if not _is_count(multiple_of):
        raise OptionError(
            f"augment_: multiple_of must be a whole number, 1 or more, got {multiple_of!r}. Pass 1 to round to any."
        )
    if channels is not None and not callable(channels) and not _is_count(channels):
        raise OptionError(
            f"augment_: channels must be a whole number, 1 or more, or a function of the site, got {channels!r}."
        )

    def share(site: Site) -> int:
        if ratio is not None:
            return max(1, round(ratio * site.channels_out / multiple_of)) * multiple_of
        if not callable(channels):
            return cast(int, channels)
        try:
            count = channels(site)
        except Exception as error:
            raise OptionError(f"augment_: channels failed on site {site.name!r}: {one_line(error)}.") from error
        if not _is_count(count):
            raise OptionError(
                f"augment_: channels must give a whole number, 1 or more, got {count!r} for {site.name!r}."
            )
        return count

    with planning("augment_", model, where, layer, example) as plan:
        return plan.carry_out(lambda target: plan.augmentation(target, share))


def insert_(model: nn.Module, where: Where, layer: Builder, *, identity: bool = False, example: Any = None) -> Graft:
    """Put a layer after each module that ``where`` means; no key of the state dict changes its name.

    Args:
        model: changed in place.
        where: as for ``replace_``; ``""`` is the model itself.
        layer: as for ``replace_``; its site has the channels and the size of the module's output.
        identity: start as the identity, exactly: ``lerp(y, layer(y), scale)`` with a learned ``scale`` of zeros.
        example: as for ``replace_``.

    Raises:
        NoMatchError: ``where`` means nothing in this model.
        ShapeError: a layer does not fit its place. Nothing is changed then.
    """
    if not isinstance(identity, bool):
        raise OptionError(f"insert_: identity must be True or False, got {identity!r}.")
    with planning("insert_", model, where, layer, example) as plan:
        return plan.carry_out(lambda target: plan.insertion(target, identity))


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1
