"""A sheet of answers: each image with its most probable classes, in one HTML file that opens anywhere, offline.

Images are added one by one and go to a temporary file at once, so that a sheet of any length takes little memory; the
file appears whole, when the last is in, or not at all.
"""

from __future__ import annotations

import base64
import io
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from types import TracebackType

import numpy as np

from foveal.errors import DataError
from foveal.viz.gallery import legend, marker
from foveal.viz.overlay import Array, as_rgb, overlay, png, to_bytes
from foveal.viz.page import definitions, page

MOST = 1000  # images on a sheet; browsers grow slow with more
FAILURES = 100  # files with an error that are listed
_SIDE, _SMALL = 256, 64  # pixels of a picture's longer side; up to _SMALL as it is, in squares
_WIDE = 640  # of the longer side of a picture with something drawn into it
_CLASSES = 12

STYLE = """
.answers{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,270px),1fr));gap:28px 24px;margin-top:20px}
.wide{grid-template-columns:repeat(auto-fill,minmax(min(100%,440px),1fr))}
.answer{min-width:0;border-top:1px solid var(--line);padding-top:12px}
.seen{display:flex;gap:4px}.seen .frame{flex:0 1 50%;align-self:start}
.seen .frame{overflow:visible}.seen img{border-radius:3px}.frame img.smooth{image-rendering:auto}
.answer figcaption{font-size:13px;line-height:1.35;color:var(--soft);overflow-wrap:anywhere;margin:6px 0 8px}
.bars{list-style:none;margin:0;padding:0;font-size:14px;font-variant-numeric:tabular-nums}
.bars li{display:grid;grid-template-columns:minmax(0,1fr) auto;gap:0 10px;margin:0 0 6px;line-height:1.35}
.bars span{overflow-wrap:anywhere}.bars b{font-weight:400;color:var(--soft);white-space:nowrap}
.bars li:first-child span{font-weight:600}.bars li:first-child b{color:inherit}
.bars i{grid-column:1/-1;height:5px;margin-top:2px;border-radius:2px;background:var(--panel);overflow:hidden}
.bars i::before{content:"";display:block;height:100%;width:var(--p);background:var(--soft)}
.bars li:first-child i::before,.counts i::before{background:var(--link)}
.counts{max-width:560px}.counts li:first-child span{font-weight:400}
"""


@dataclass(frozen=True)
class Answer:
    """One image and what the model says.

    Attributes:
        name: of its file.
        picture: as the model gets it, ``(rows, columns)`` or ``(rows, columns, 3)`` in 0 to 1.
        top: the most probable classes and their probabilities, the first first.
        attention: ``(rows, columns)`` weights of one position, of any resolution; None where the model has none.
        point: that position in pixels of the picture; None where the weights are the same for all positions.
        layer: whose weights they are.
    """

    name: str
    picture: Array
    top: Sequence[tuple[str, float]]
    attention: Array | None = None
    point: tuple[int, int] | None = None
    layer: str = ""


class Sheet:
    """Write a sheet; used in a ``with`` block, at whose end the file is there.

    Args:
        path: the file to write.
        facts: which model answers.
        command: that makes the sheet.
        most: images that are shown; more are counted only, and the sheet says so.
        noun: what one of them is called.

    Raises:
        DataError: the file cannot be written.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        facts: Mapping[str, object],
        *,
        command: str = "",
        most: int = MOST,
        noun: str = "image",
    ) -> None:
        self.path, self.facts, self.command, self.most, self.noun = Path(path), facts, command, most, noun
        self.images = self.shown = self.unread = 0
        self.layers: dict[str, bool] = {}  # whether their weights are of a point
        self.predicted: Counter[str] = Counter()
        self.failures: list[tuple[str, str]] = []
        self._drawn = False

    def __enter__(self) -> Sheet:
        self._cards = tempfile.TemporaryFile("w+", encoding="utf-8")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._cards:
            if kind is None:
                self._assemble()

    def add(self, answer: Answer) -> None:
        """The next image."""
        self.images += 1
        self.predicted[answer.top[0][0]] += 1
        if self.shown < self.most:
            self.shown += 1
            if answer.attention is not None:
                self.layers[answer.layer] = answer.point is not None
            try:
                self._cards.write(_card(answer))
            except OSError as problem:
                raise self._unwritten(problem) from problem

    def draw(self, name: str, picture: Array) -> None:
        """The next image with its answer drawn into it, ``(rows, columns, 3)`` of 8 bits."""
        self.images += 1
        if self.shown < self.most:
            self.shown += 1
            self._drawn = True
            source = _jpeg(picture / 255, _WIDE)
            shown = f'<div class="frame"><img class="smooth" src="{source}" alt="" loading="lazy"></div>'
            try:
                self._cards.write(f'<figure class="answer">{shown}<figcaption>{escape(name)}</figcaption></figure>\n')
            except OSError as problem:
                raise self._unwritten(problem) from problem

    def fail(self, name: str, reason: str) -> None:
        """A file without an answer."""
        self.unread += 1
        if len(self.failures) < FAILURES:
            self.failures.append((name, reason))

    def _assemble(self) -> None:
        part = self.path.with_name(self.path.name + ".part")
        head, tail = page(_title(self.images, self.noun), "\0", {}, style=STYLE).split("\0")
        try:
            with open(part, "w", encoding="utf-8") as file:
                file.write(head + self._top() + f'<div class="answers{" wide" if self._drawn else ""}">')
                self._cards.seek(0)
                shutil.copyfileobj(self._cards, file)
                file.write(f"</div>{self._failed()}{self._origin()}{tail}")
            part.replace(self.path)
        except OSError as problem:
            raise self._unwritten(problem) from problem
        finally:
            part.unlink(missing_ok=True)

    def _unwritten(self, problem: OSError) -> DataError:
        return DataError(
            f"predict: the sheet {self.path} could not be written: {problem.strerror or problem}. Use a file in an "
            "existing folder with room."
        )

    def _top(self) -> str:
        told = "Each picture is what the model gets: resized and cut to its size as validation does."
        if self._drawn:
            told = "Each answer is drawn into its picture."
        for layer, of_point in self.layers.items():
            whose = "where the marked point looks: the head-averaged" if of_point else "for all points alike: the"
            told += f" Beside it, {whose} weights of {escape(layer)}."
        notes = []
        if self.shown < self.images:
            notes.append(f"The first {self.shown:,} of {self.images:,} {self.noun}s are shown; the counts are of all.")
        if self.unread:
            notes.append(f"{_count(self.unread, 'file')} could not be read; see the end.")
        notice = f'<div class="notice">{"".join(f"<p>{note}</p>" for note in notes)}</div>' if notes else ""
        return (
            f'<header><p class="kind">foveal predict</p><h1>{_title(self.images, self.noun)}</h1>'
            f"{definitions(self.facts, 'facts')}{notice}</header>"
            f"{self._counts()}"
            f'<h2>{self.noun.capitalize()}s</h2><p class="soft">{told}</p>{legend() if self.layers else ""}'
        )

    def _counts(self) -> str:
        """How often each class comes first."""
        if not self.predicted:
            return ""
        common = self.predicted.most_common(_CLASSES)
        largest = common[0][1] if common else 1
        rows = [_bar(name, f"{count:,}", count / largest) for name, count in common]
        left = len(self.predicted) - len(common)
        rest = f'<p class="soft under">and {left:,} other classes, less often each</p>' if left else ""
        return f'<h2>Most probable classes</h2><ol class="bars counts">{"".join(rows)}</ol>{rest}'

    def _origin(self) -> str:
        return f"<h2>Command</h2><pre>{escape(self.command)}</pre>" if self.command else ""

    def _failed(self) -> str:
        if not self.failures:
            return ""
        left = self.unread - len(self.failures)
        rest = f'<p class="soft">and {left:,} more</p>' if left else ""
        return f"<h2>Could not be read</h2>{definitions(dict(self.failures), 'list')}{rest}"


def _title(images: int, noun: str) -> str:
    return f"{_count(images, noun)} and what the model says"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def _card(answer: Answer) -> str:
    picture = as_rgb(answer.picture)
    mark = "" if answer.point is None else marker(answer.point, picture.shape)
    name = escape(answer.name)
    seen = _frame(picture, Path(answer.name).name, mark)
    if answer.attention is not None:
        heat = overlay(picture, np.asarray(answer.attention), size=_SIDE if max(picture.shape[:2]) > _SMALL else 128)
        seen += _frame(heat / 255, "where the marked point looks" if mark else "weights of all positions", mark)
    bars = "".join(_bar(kind, percent(share), share) for kind, share in answer.top)
    return (
        f'<figure class="answer"><div class="seen">{seen}</div><figcaption>{name}</figcaption>'
        f'<ol class="bars">{bars}</ol></figure>\n'
    )


def _bar(name: str, figure: str, share: float) -> str:
    return f'<li><span>{escape(name)}</span><b>{figure}</b><i style="--p:{100 * share:.1f}%"></i></li>'


def percent(share: float) -> str:
    """A probability as a reader says it; what rounds to all or nothing and is neither is said so."""
    if 0 < share < 0.001:
        return "&lt; 0.1 %"
    return "&gt; 99.9 %" if 0.9995 <= share < 1 else f"{100 * share:.1f} %"


def _frame(picture: Array, alt: str, mark: str) -> str:
    small = max(picture.shape[:2]) <= _SMALL
    source, kind = (_png(picture), "") if small else (_jpeg(picture), ' class="smooth"')
    return f'<div class="frame"><img{kind} src="{source}" alt="{escape(alt)}" loading="lazy">{mark}</div>'


def _png(picture: Array) -> str:
    return "data:image/png;base64," + base64.b64encode(png(to_bytes(picture))).decode("ascii")


def _jpeg(picture: Array, side: int = _SIDE) -> str:
    from PIL import Image

    image, file = Image.fromarray(to_bytes(picture)), io.BytesIO()
    image.thumbnail((side, side))
    image.save(file, format="JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode("ascii")
