"""``foveal data``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import tyro

from foveal.cli.said import print_written
from foveal.data.generated import GENERATED, write
from foveal.errors import OptionError

ABOUT = """Write a data set that foveal makes itself, on disk in the format of the published ones: to look at, or to try
other code on. Recipes that name one need no such command: they keep theirs in the cache.

examples:
  foveal data
  foveal data digit-scenes --out digit-scenes
"""


@dataclass(frozen=True)
class Data:
    """The options of ``data``."""

    name: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="[NAME]")] = ""
    """Which; left out, they are listed."""
    out: str | None = None
    """A folder that is not there yet."""

    when_interrupted = "Nothing was written."

    def run(self) -> int:
        if not self.name and self.out is not None:
            raise OptionError(f"data: --out {self.out} needs the name of a set: {', '.join(GENERATED)}.")
        if not self.name:
            print("\n".join(GENERATED))
            return 0
        if self.out is None:
            raise OptionError(f"data: --out is missing. Write foveal data {self.name} --out {self.name}.")
        print_written(str(write(self.name, self.out)))
        return 0
