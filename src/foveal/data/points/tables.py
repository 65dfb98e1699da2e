"""Clouds that people keep as text: a point a line, between spaces, tabs, commas or semicolons.

A line of names on top tells which columns are meant, as pandas and CloudCompare write it; a number alone on top is how
many points follow, as scanners write it. Without names the coordinates are the first columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from foveal.data.picture import UnreadableError
from foveal.data.points.text import read_rows

ON_TOP = 2  # lines: the count, and the names


def read_table(path: Path, wanted: Sequence[str]) -> Any:
    """``(n, columns)``: the wanted ones where a line names them, else all.

    Raises:
        UnreadableError: the names lack a wanted one, or there are fewer or more lines than the first one tells.
        TextCloud: as ``read_rows``.
    """
    with open(path, encoding="utf-8-sig", errors="replace") as file:
        # Each with its number, so that what is passed over is known.
        told = [(n, line) for n, line in enumerate(islice(file, 99), start=1) if line.strip() and line[0] != "#"]
    separator = next((sign for sign in ";," if told and any(sign in line for _, line in told[:3])), None)
    skip, count, columns = 0, None, None
    for number, line in told[:ON_TOP]:
        words = [word.strip().strip('"').lower() for word in line.strip().lstrip("/").split(separator)]
        if len(words) == 1 and words[0].isdecimal() and count is None:
            skip, count = number, int(words[0])
        elif not any(map(_is_number, words)) and {"x", "y", "z"} & set(words):
            if not set(wanted) <= set(words):
                raise UnreadableError(f"line {number} names {', '.join(words)}, wanted are {', '.join(wanted)}")
            skip, columns = number, [words.index(name) for name in wanted]
    rows = read_rows(path, separator=separator, skip=skip, columns=columns)
    if count not in (None, len(rows)):
        raise UnreadableError(f"its first line tells of {count} points, {len(rows)} follow")
    return rows


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True
