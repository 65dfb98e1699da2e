"""One bar on standard error for work of several steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn


@contextmanager
def bar(title: str, total: int, *, quiet: bool = False) -> Iterator[Callable[[object], None]]:
    """Gives what is to be told of each step as it begins; the bar goes when the block ends."""
    columns = (
        TextColumn(title),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[at]}"),
    )
    console = Console(stderr=True, quiet=quiet)
    with Progress(*columns, console=console, transient=True) as shown:
        task = shown.add_task(title, total=total, at="")
        begun = 0

        def step(at: object) -> None:
            nonlocal begun
            shown.update(task, completed=begun, at=str(at))
            begun += 1

        yield step


@contextmanager
def counter(noun: str, *, total: int | None = None, quiet: bool = False) -> Iterator[Callable[[int], None]]:
    """Gives what is to be told of how many are done. Shown only where standard error is a terminal.

    What is printed meanwhile still goes to standard output.
    """
    console = Console(stderr=True, quiet=quiet)
    if not console.is_terminal:
        yield lambda done: None
        return
    many = TextColumn("{task.completed:,.0f} " + noun) if total is None else MofNCompleteColumn()
    columns = (*(() if total is None else (TextColumn(noun), BarColumn())), many, TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, redirect_stdout=False) as shown:
        task = shown.add_task(noun, total=total)
        yield lambda done: shown.update(task, completed=done)
