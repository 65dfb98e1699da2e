"""The record of a graft: what changed where, at what cost, which keys are new, and the way back."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from foveal.errors import OptionError
from foveal.graft.change import Change, Swap
from foveal.graft.checkpoint import Keys, Migration, compare
from foveal.graft.site import Site
from foveal.graft.trace import Trace


@dataclass
class Edit:
    """One planned change of a model, with what the record tells about it."""

    site: Site
    layer: nn.Module
    change: Change
    after: str
    flops_before: int | None = None
    flops_after: int | None = None
    parts: dict[int, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Row:
    """One site in numbers. MACs are multiply-adds for the traced input, None where it could not be traced."""

    site: str
    before: str
    after: str
    channels: int
    size: tuple[int, ...] | None
    parameters_before: int
    parameters_after: int
    macs_before: int | None
    macs_after: int | None


class Graft:
    """What a verb did to a model.

    Printing shows the table. As a context manager it undoes itself at the end.

    Attributes:
        verb: ``replace_``, ``augment_`` or ``insert_``.
        model: what was changed.
        layers: by the name of the site, the new layer.
        rows: one record a site.
        total: the same for the whole model.
        new: state-dict keys that start from their own initial values.
        kept: keys with the values that they had.
        dropped: keys that are gone.
        moved: old key to new key, where a tensor, or its first part, lives on under another name.
        example: what the model was traced with; None where it could not be traced.
    """

    def __init__(
        self, verb: str, model: nn.Module, edits: Sequence[Edit], rows: list[Row], total: Row, keys: Keys, trace: Trace
    ) -> None:
        self.verb, self.model, self.rows, self.total = verb, model, rows, total
        self.new, self.kept, self.dropped, self.moved = keys.new, keys.kept, keys.dropped, keys.moved
        self.layers = {edit.site.name: edit.layer for edit in edits}
        self.example = trace.example
        self._changes = [edit.change for edit in edits]
        self._hook: RemovableHandle | None = None
        self._frozen: list[nn.Parameter] = []
        self._undone = False
        if keys.new or keys.dropped or keys.moved:
            # In a process that unpickled the model, the counter may be behind the ids of the hooks it came with.
            RemovableHandle.next_id = max(RemovableHandle.next_id, *model._load_state_dict_pre_hooks, -1) + 1
            self._hook = model.register_load_state_dict_pre_hook(Migration(keys))

    def undo(self) -> None:
        """Put back the modules that were there before, the same objects, on the model's present device and mode.

        Raises:
            OptionError: it was undone before, or a later graft stands on it: undo that one first.
        """
        if self._undone:
            raise OptionError(f"undo: this {self.verb} was undone before.")
        reason = next((reason for change in self._changes if (reason := change.why_not_revert())), None)
        if reason is not None:
            raise OptionError(f"undo: {reason}. Undo the later graft first.")
        for change in reversed(self._changes):
            change.revert()
        if self._hook is not None:
            self._hook.remove()
        for parameter in self._frozen:
            parameter.requires_grad_(True)
        self._undone = True

    def freeze_rest_(self) -> None:
        """Let only the new parameters train: all others stop asking for gradients until ``undo``. Norms still gather
        statistics in training mode."""
        new = set(self.new)
        ours = {id(tensor) for key, tensor in self.model.state_dict(keep_vars=True).items() if key in new}
        rest = [parameter for parameter in self.model.parameters() if id(parameter) not in ours]
        self._frozen += [parameter for parameter in rest if parameter.requires_grad]
        for parameter in rest:
            parameter.requires_grad_(False)

    def __enter__(self) -> Graft:
        return self

    def __exit__(self, *_: Any) -> None:
        self.undo()

    def __repr__(self) -> str:
        state = ", undone" if self._undone else ""
        return f"Graft({self.verb}, {len(self.rows)} sites, {len(self.new)} new keys{state})"

    def __str__(self) -> str:
        from rich.box import SIMPLE_HEAD
        from rich.console import Console
        from rich.table import Table

        table = Table(box=SIMPLE_HEAD, show_footer=True)
        for title, foot in zip(_TITLES, _cells(self.total), strict=True):
            table.add_column(title, foot, justify="left" if title in _TITLES[:3] else "right", no_wrap=True)
        for row in self.rows:
            table.add_row(*_cells(row))
        out = io.StringIO()
        Console(file=out, width=240, color_system=None).print(table)
        lines = [line.rstrip() for line in out.getvalue().splitlines()]
        fed = f"MACs for an input of {self.example}" if self.example else "the model could not be traced; pass example="
        keys = f"{len(self.new)} new, {len(self.kept)} kept, {len(self.moved)} moved, {len(self.dropped)} dropped"
        state = " (undone)" if self._undone else ""
        return "\n".join([f"{self.verb}{state}: {fed}", *(line for line in lines if line), f"  state dict: {keys}"])


def commit(verb: str, model: nn.Module, edits: Sequence[Edit], trace: Trace) -> Graft:
    """Change the model as planned; should one change fail, those before it are taken back."""
    before = model.state_dict(keep_vars=True)
    rows = [_row(edit) for edit in edits]
    count = _parameters(model)
    done: list[Change] = []
    try:
        for edit in edits:
            done.append(edit.change)
            edit.change.apply()
    except BaseException:
        for change in reversed(done):
            change.revert()
        raise
    parts = {new: old for edit in edits for new, old in edit.parts.items()}
    keys = compare(before, model.state_dict(keep_vars=True), parts)
    added = [(edit.flops_after or 0) - (edit.flops_before or 0) for edit in edits]
    macs = (None, None) if trace.example is None else (trace.flops // 2, (trace.flops + sum(added)) // 2)
    total = Row("model", type(model).__name__, "", 0, None, count, _parameters(model), *macs)
    return Graft(verb, model, edits, rows, total, keys, trace)


_TITLES = ("site", "before", "after", "channels", "size", "parameters", "MACs")


def _row(edit: Edit) -> Row:
    site, change = edit.site, edit.change
    before = _parameters(site.module)
    after = _parameters(change.new) if isinstance(change, Swap) else _parameters(site.module, change.new)
    return Row(
        site.name, _text(site.module), edit.after, site.channels_in, site.size, before, after,
        _macs(edit.flops_before), _macs(edit.flops_after),
    )  # fmt: skip


def _cells(row: Row) -> tuple[str, ...]:
    size = "x".join(map(str, row.size)) if row.size else "" if row.channels == 0 else "?"
    return (
        row.site or '""', row.before, row.after, str(row.channels or ""), size,
        f"{_short(row.parameters_before)} → {_short(row.parameters_after)}",
        f"{_short(row.macs_before)} → {_short(row.macs_after)}",
    )  # fmt: skip


def _macs(flops: int | None) -> int | None:
    return None if flops is None else flops // 2


def _parameters(*modules: nn.Module) -> int:
    return sum(p.numel() for p in {id(p): p for module in modules for p in module.parameters()}.values())


def _text(module: nn.Module) -> str:
    text = f"{type(module).__name__}({module.extra_repr()})"
    return text if not list(module.children()) and len(text) <= 60 and "\n" not in text else type(module).__name__


def _short(count: int | None) -> str:
    if count is None:
        return "?"
    for unit, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return str(count)
