"""``foveal predict`` for runs whose answers are drawn: boxes, label maps, disparities, points, generated images."""

from __future__ import annotations

import json
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from foveal.cli.said import opened_models, print_written
from foveal.errors import DataError, OptionError

if TYPE_CHECKING:
    from foveal.cli.predict import Predict
    from foveal.tasks.kind import Drawn, Kind
    from foveal.viz.sheet import Sheet

FOR = {
    "batch_size": "--batch-size",
    "threshold": "--threshold",
    "right": "--right",
    "count": "--count",
    "seed": "--seed",
    "category": "--category",
}


def predict_drawn(given: Predict, task: str) -> int:
    """Print a line of JSON for each answer, and draw them where a folder is given."""
    from foveal.cli.waiting import counter
    from foveal.tasks.kind import Asked
    from foveal.tasks.kinds import kind_named

    kind = kind_named(task)
    check(given, kind)
    names = None if given.draw is None else _Names(given.draw)
    opened = opened_models(given.source, given.which)
    asked = Asked(
        8 if given.batch_size is None else given.batch_size, given.threshold, given.right, given.count, given.seed or 0,
        draw=given.draw is not None or given.sheet is not None, category=given.category,
    )  # fmt: skip
    unread, done, noun = 0, 0, kind.items.removesuffix("s")
    with ExitStack() as stack:
        sheet = (
            None if given.sheet is None else stack.enter_context(given.open_sheet(opened.facts(), given.sheet, noun))
        )
        tell = stack.enter_context(counter(kind.items, quiet=sys.stdout.isatty()))
        for done, answer in enumerate(kind.answers(opened, given.images, asked), start=1):
            line = answer.line()
            if names is not None and answer.picture is not None:
                line["drawn"] = names.write(answer)
            print(json.dumps(line), flush=True)
            if sheet is not None:
                show(sheet, answer)
            unread += answer.error is not None
            tell(done)
    for path in filter(None, (given.draw, given.sheet)):
        print_written(path, quiet=True)
    if unread:
        raise DataError(
            f"predict: {unread} of {done} {kind.items} could not be answered; each has a line with its error. Give "
            "whole files."
        )
    return 0


def show(sheet: Sheet, answer: Drawn) -> None:
    """Put an answer on a sheet."""
    if answer.picture is None:
        sheet.fail(answer.image, answer.error or "no picture")
    else:
        sheet.draw(answer.image, answer.picture)


def check(given: Predict, kind: Kind) -> None:
    """Raise OptionError for what means nothing for this kind of task."""
    for name, option in FOR.items():
        if name not in kind.asks and getattr(given, name) not in (None, ()):
            raise OptionError(f"predict: {option} means nothing for {kind.name}. Leave it out.")
    for name in ("top", "attention"):
        if getattr(given, name) is not None:
            raise OptionError(f"predict: --{name} is of classification, not of {kind.name}. Leave it out.")
    given.check_sheet()
    if given.batch_size is not None and given.batch_size < 1:
        raise OptionError(f"predict: --batch-size must be at least 1, got {given.batch_size}. Use 1 or more.")
    if kind.needs_files and not given.images:
        raise OptionError("predict: no images are named. Give files, folders or globs after the run.")
    if not kind.needs_files and given.images:
        raise OptionError(
            f"predict: {given.source} is a run of {kind.name}, which takes no files, got {given.images[0]}. Use "
            "--count and --draw."
        )


class _Names:
    """Files in a folder, one for each answer; of equal names the later ones get a number."""

    def __init__(self, folder: str) -> None:
        self.folder, self._taken = Path(folder), set[str]()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataError(f"predict: {folder} is no folder that can be written: {error.strerror}.") from error

    def write(self, answer: Drawn) -> str:
        """Draw an answer; returns the path of its picture."""
        from PIL import Image

        file, _, part = Path(answer.image).name.partition(":")  # of one file of many
        stem = name = f"{Path(file).stem}-{part}" if part else Path(file).stem or "answer"
        number = 1
        while name in self._taken:
            number += 1
            name = f"{stem}-{number}"
        self._taken.add(name)
        path = self.folder / f"{name}.png"
        try:
            Image.fromarray(answer.picture).save(path)
            for suffix, write in answer.keep.items():
                write(path.with_suffix(suffix))
        except OSError as error:
            raise DataError(
                f"predict: {path} could not be written: {error.strerror}. Make room, or use another."
            ) from error
        return str(path)
