"""What several commands say in the same way: warnings of the library, files that were written."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from foveal.tasks.kind import Opened
    from foveal.tasks.trained import Trained


@contextmanager
def counting_warnings() -> Iterator[list[str]]:
    """Collects this library's warnings as lines, each once; those of other packages are not for who gave a command."""
    lines: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        yield lines
    told = (str(warning.message) for warning in caught)
    lines += dict.fromkeys(line for line in told if line.startswith(("cost: ", "count: ", "bench: ")))


@contextmanager
def plain_warnings() -> Iterator[None]:
    """What this library warns of as one line each, without the place in its source; other packages' as ever."""
    with warnings.catch_warnings():
        ever, own = warnings.showwarning, str(Path(__file__).parents[1])

        def show(message: Any, category: type[Warning], filename: str, *rest: Any, **more: Any) -> None:
            if filename.startswith(own):
                print_warning(" ".join(str(message).split()))
            else:
                ever(message, category, filename, *rest, **more)

        warnings.showwarning = show
        yield


def said_by(command: str, error: Exception) -> str:
    """An error in one line that begins with the command: who typed it knows of no function that it calls."""
    who, colon, told = " ".join(str(error).split()).partition(": ")
    return f"{command if who in ('open_run', 'open_models', 'figure') else who}{colon}{told}"


def print_warning(line: str) -> None:
    """On standard error, so that JSON stays JSON."""
    print(f"warning: {line}", file=sys.stderr)


def opened(source: str, which: Literal["last", "best"]) -> Trained:
    """A trained model; where a checkpoint was damaged and the one before it is taken, that is said in a line."""
    from foveal.tasks.trained import open_run

    with _damage_said():
        return open_run(source, which=which)


def opened_models(source: str, which: Literal["last", "best"]) -> Opened:
    """The networks of a run of any task; a damaged checkpoint is said likewise."""
    from foveal.tasks.opened import open_models

    with _damage_said():
        return open_models(source, which=which)


@contextmanager
def _damage_said() -> Iterator[None]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        yield
    for warning in caught:
        if " is used instead." in str(warning.message):
            print_warning(str(warning.message))


def print_written(path: str, *, quiet: bool = False) -> None:
    """Where a picture or file went."""
    print(f"Written: {path}", file=sys.stderr if quiet else sys.stdout)


def check_plot(path: str | None) -> None:
    """Before any work: a picture must be SVG or PNG in a folder that exists.

    Raises:
        OptionError: it is neither.
        DataError: there is no such folder.
    """
    from foveal.errors import OptionError

    if path is not None and Path(path).suffix.lower() not in (".svg", ".png"):
        raise OptionError(f"foveal: --plot must end in .svg or .png, got {path!r}.")
    check_folder("--plot", path)


def check_folder(option: str, path: str | None) -> None:
    """Before any work: what will be written must lie in a folder that exists.

    Raises:
        DataError: it does not.
    """
    from foveal.errors import DataError

    if path is not None and not Path(path).absolute().parent.is_dir():
        raise DataError(f"foveal: {option} {path!r} lies in a folder that does not exist. Make it first.")
