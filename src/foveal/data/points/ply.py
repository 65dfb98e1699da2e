"""The vertices of PLY files, in text or in binary form of either byte order.

Format: Turk, The PLY Polygon File Format (1994), with the sized names of types that today's writers use. Whatever else
a file holds, faces and edges say, is passed over.
"""

from __future__ import annotations

import io
import re
import struct
from collections import deque
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from foveal.data.picture import UnreadableError
from foveal.data.points.text import numbers

HEADER = 2**20  # bytes
FORMS = {"ascii": "", "binary_little_endian": "<", "binary_big_endian": ">"}
COUNTS = {
    "char": "i1", "uchar": "u1", "short": "i2", "ushort": "u2", "int": "i4", "uint": "u4",
    "int8": "i1", "uint8": "u1", "int16": "i2", "uint16": "u2", "int32": "i4", "uint32": "u4",
}  # fmt: skip
TYPES = COUNTS | {"float": "f4", "double": "f8", "float32": "f4", "float64": "f8"}


class Property(NamedTuple):
    """A number of each row, or where ``counted`` has the type of its length a list of them."""

    name: str
    type: str
    counted: str | None = None


class Element(NamedTuple):
    """So many rows with the same properties."""

    name: str
    rows: int
    properties: list[Property]

    @property
    def lists(self) -> bool:
        """Whether rows differ in length."""
        return any(each.counted for each in self.properties)


def read_ply(path: Path, wanted: Sequence[str]) -> Any:
    """The wanted properties of all vertices: ``(n, len(wanted))``.

    Raises:
        UnreadableError: it is no whole PLY file, or its vertices lack a property.
    """
    raw = np.memmap(path, np.uint8, "r")
    order, elements, start = _header(bytes(raw[:HEADER]))
    place = next((n for n, each in enumerate(elements) if each.name == "vertex"), None)
    if place is None:
        raise UnreadableError("its header names no element vertex")
    before, vertex, last = elements[:place], elements[place], place == len(elements) - 1
    names = [each.name for each in vertex.properties if not each.counted]
    if not set(wanted) <= set(names):
        raise UnreadableError(f"its vertices must have {', '.join(wanted)}, they have {', '.join(names) or 'nothing'}")
    columns = [[each.name for each in vertex.properties].index(name) for name in wanted]
    if not order:
        return _text(path, start, sum(each.rows for each in before), vertex, columns, last)
    for element in before:
        _, start = _binary(raw, start, element, order, [])
    rows, end = _binary(raw, start, vertex, order, columns)
    if last and bytes(raw[end : end + 99]).strip():
        raise UnreadableError(f"its header tells of {vertex.rows} vertices, {len(raw) - end} bytes more follow them")
    return rows


def _header(head: bytes) -> tuple[str, list[Element], int]:
    """Order of the bytes, which text has none of, elements in order, and where they begin."""
    begun = re.match(rb"ply[ \t]*(\r\n|\n|\r)", head)
    if begun is None:
        raise UnreadableError("it does not begin with a line ply")
    # Rows may begin with the byte of a line feed, so a header of bare carriage returns has to end with one.
    ended = re.search(rb"[\r\n]end_header[ \t]*" + (rb"\r" if begun[1] == b"\r" else rb"\r?\n"), head)
    if ended is None:
        raise UnreadableError("its header does not end")
    form, elements = None, list[Element]()
    for line in head[begun.end() : ended.start()].splitlines():
        told = line.decode("utf-8", "replace")
        match told.split():
            case [] | ["comment" | "obj_info", *_]:
                pass
            case ["format", word, _] if word in FORMS and form is None:
                form = FORMS[word]
            case ["element", name, count] if re.fullmatch("[0-9]{1,15}", count):
                elements.append(Element(name, int(count), []))
            case ["property", "list", counted, kind, name] if elements and counted in COUNTS and kind in TYPES:
                elements[-1].properties.append(Property(name, TYPES[kind], COUNTS[counted]))
            case ["property", kind, name] if elements and kind in TYPES:
                elements[-1].properties.append(Property(name, TYPES[kind]))
            case _:
                raise UnreadableError(f"its header has the line {told[:60]!r}, which PLY does not know")
    if form is None:
        raise UnreadableError("its header has no line format")
    return form, elements, ended.end()


def _binary(raw: Any, start: int, element: Element, order: str, columns: Sequence[int]) -> tuple[Any, int]:
    """These columns of an element's rows, and where it ends."""
    if element.lists:
        return _walked(raw, start, element, order, columns)
    row = np.dtype([(str(n), order + each.type) for n, each in enumerate(element.properties)])
    end = start + element.rows * row.itemsize
    if end > len(raw):
        raise _cut_off(element, (len(raw) - start) // row.itemsize)
    if not columns:
        return None, end
    table = np.frombuffer(raw, row, element.rows, start)
    return np.stack([table[str(n)] for n in columns], 1), end


def _walked(raw: Any, at: int, element: Element, order: str, columns: Sequence[int]) -> tuple[Any, int]:
    """The same where lists make rows of different lengths, so that each one has to be looked at."""
    readers = []
    for each in element.properties:
        size = np.dtype(each.type).itemsize if each.counted else 0
        readers.append((struct.Struct(order + np.dtype(each.counted or each.type).char), size))
    rows = []
    for row in range(element.rows):
        values = []
        for reader, size in readers:
            if at + reader.size > len(raw):
                raise _cut_off(element, row)
            values.append(reader.unpack_from(raw, at)[0])
            length = values[-1] if size else 0
            if length < 0:
                raise UnreadableError(f"row {row} of element {element.name} has a list of {length} numbers")
            at += reader.size + size * length
        if columns:
            rows.append([values[n] for n in columns])
    if at > len(raw):
        raise _cut_off(element, element.rows - 1)
    return np.array(rows, np.float64).reshape(len(rows), len(columns)), at


def _text(path: Path, start: int, before: int, vertex: Element, columns: Sequence[int], last: bool) -> Any:
    """The same of a file with a line for each row."""
    count, width = vertex.rows, len(vertex.properties)
    # A number and what parts it from the next are two bytes: nothing is made ready for more than the file can hold.
    if 2 * count * width > path.stat().st_size:
        raise _cut_off(vertex, None)
    with open(path, "rb") as file:
        file.seek(start)
        lines = io.TextIOWrapper(file, encoding="utf-8", errors="replace")
        try:
            if vertex.lists:
                rows, columns = _lists(lines, before, vertex, columns), range(len(columns))
            else:
                rows = numbers(lines, skiprows=before, max_rows=count + last) if count else np.empty((0, width))
        except (ValueError, StopIteration) as error:
            raise UnreadableError(f"a vertex is no row of numbers: {' '.join(str(error).split())[:120]}") from error
    if len(rows) > count:
        raise UnreadableError(f"its header tells of {count} vertices, more lines follow them")
    if len(rows) < count:
        raise _cut_off(vertex, len(rows))
    if not vertex.lists and count and rows.shape[1] != width:
        raise UnreadableError(f"its vertices must have {width} numbers each, got {rows.shape[1]}")
    return rows[:, list(columns)]


def _lists(lines: Any, before: int, vertex: Element, columns: Sequence[int]) -> Any:
    """The columns of rows in text whose lists differ in length."""
    rows = []
    for line in islice(lines, before, before + vertex.rows):
        words, values = iter(line.split()), []
        for each in vertex.properties:
            values.append(float(next(words)))
            if each.counted:
                deque(islice(words, int(values[-1])), 0)
        rows.append([values[n] for n in columns])
    return np.array(rows, np.float64).reshape(len(rows), len(columns))


def _cut_off(element: Element, found: int | None) -> UnreadableError:
    told = "fewer fit into the file" if found is None else f"the file ends after {found}"
    return UnreadableError(f"its header tells of {element.rows} rows of element {element.name}, {told}")
