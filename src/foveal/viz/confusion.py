"""Which class is taken for which, as one HTML file: a table of counts, or a picture of it where classes are many."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

import numpy as np

from foveal.errors import DataError
from foveal.viz.gallery import legend
from foveal.viz.overlay import Array, colours, data_uri, to_bytes
from foveal.viz.page import definitions, page

MOST = 40  # classes that a table still shows
PAIRS = 20

STYLE = """
.confusion{width:auto;font-size:14px}.confusion td,.confusion th{padding:4px 8px}
.confusion td{min-width:34px;text-align:center;--of:var(--bad);
background:color-mix(in srgb,var(--of) var(--s),transparent)}
.confusion td.own{--of:var(--link)}.confusion td.much{color:var(--page)}.confusion td.nothing{color:transparent}
.confusion thead th{border-bottom:0}.confusion thead th>span{writing-mode:vertical-rl;transform:rotate(180deg);
max-height:150px;overflow:hidden;text-overflow:ellipsis}
.confusion tbody th{max-width:min(220px,32vw);overflow:hidden;text-overflow:ellipsis;padding-right:12px}
.confusion td.share,.confusion th.share{background:none;padding-left:16px;text-align:right;color:var(--soft)}
.matrix{max-width:min(100%,860px);margin-top:14px}
.matrix img{width:100%;height:auto;image-rendering:pixelated;display:block}
.pairs{width:auto;white-space:normal}.pairs td:nth-child(-n+2),.pairs th:nth-child(-n+2){text-align:left}
.pairs td:nth-child(-n+2){overflow-wrap:anywhere}.pairs td:last-child{white-space:nowrap}
"""


def write_confusion_page(
    path: str | os.PathLike[str], confusion: Array, classes: Sequence[str], facts: Mapping[str, object], command: str
) -> Path:
    """Write the page; it appears whole or not at all.

    Args:
        path: the file.
        confusion: ``(classes, classes)`` counts; a row is the true class, a column the answer.
        classes: names of both.
        facts: what was measured, on what.
        command: that makes the page.

    Raises:
        DataError: the file cannot be written.
    """
    target = Path(path)
    part = target.with_name(target.name + ".part")
    right, total = int(np.trace(confusion)), int(confusion.sum())
    title = "What is taken for what"
    finding = f"{right:,} of {total:,} images are answered right."
    body = (
        f'<header><p class="kind">foveal evaluate</p><h1>{title}</h1><p class="finding">{finding}</p>'
        f"{definitions(facts, 'facts')}</header>"
        f"<h2>Images by true class and answer</h2>{_matrix(confusion, classes)}"
        f"<h2>Most frequent mistakes</h2>{_pairs(confusion, classes)}<h2>Command</h2><pre>{escape(command)}</pre>"
    )
    try:
        part.write_text(page(title, body, {}, style=STYLE), encoding="utf-8")
        part.replace(target)
    except OSError as error:
        raise DataError(f"evaluate: {target} could not be written: {error.strerror}. Use another path.") from error
    finally:
        part.unlink(missing_ok=True)
    return target


def mistakes(confusion: Array, classes: Sequence[str], most: int = PAIRS) -> list[tuple[str, str, int, int]]:
    """True class, answer, how many images, of how many of that class; the most frequent first."""
    wrong = confusion.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:most]
    places = [divmod(int(place), len(classes)) for place in order]
    return [
        (classes[row], classes[column], int(wrong[row, column]), int(confusion[row].sum()))
        for row, column in places
        if wrong[row, column]
    ]


def _matrix(confusion: Array, classes: Sequence[str]) -> str:
    if len(classes) <= MOST:
        return (
            '<p class="soft">A row is a true class, a column an answer; the stronger the colour, the larger its share '
            f"of the row.</p>{_table(confusion, classes)}"
        )
    shares = confusion / np.maximum(confusion.sum(1, keepdims=True), 1)
    image = data_uri(to_bytes(colours(shares)))
    return (
        f'<p class="soft">A row is a true class, a column an answer, {len(classes):,} of each, in the order of their '
        "names; colour is the share of the row.</p>"
        f'<p class="matrix"><img src="{image}" alt="confusion matrix"></p>{legend("all images of the class")}'
    )


def _table(confusion: Array, classes: Sequence[str]) -> str:
    heads = "".join(f'<th scope="col" title="{escape(name)}"><span>{escape(name)}</span></th>' for name in classes)
    rows = "".join(_row(n, name, confusion[n]) for n, name in enumerate(classes))
    return (
        '<div class="scroll" tabindex="0" role="region" aria-label="Images by true class and answer">'
        f'<table class="confusion"><thead><tr><th></th>{heads}<th class="share">right</th></tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )


def _row(place: int, name: str, answers: Array) -> str:
    total = int(answers.sum())
    cells = "".join(_cell(int(count), total, column == place) for column, count in enumerate(answers))
    share = f"{100 * int(answers[place]) / total:.1f}&nbsp;%" if total else "&ndash;"
    head = f'<th scope="row" title="{escape(name)}">{escape(name)}</th>'
    return f'<tr>{head}{cells}<td class="share">{share}</td></tr>'


def _cell(count: int, total: int, own: bool) -> str:
    share = count / total if total else 0.0
    kinds = [*(["own"] if own else []), *(["much"] if share > 0.5 else []), *([] if count else ["nothing"])]
    # A single image of many must still be seen.
    strength = 100 * max(share, 0.08) if count else 0.0
    return f'<td class="{" ".join(kinds)}" style="--s:{strength:.0f}%">{count}</td>'


def _pairs(confusion: Array, classes: Sequence[str]) -> str:
    rows = "".join(
        f"<tr><td>{escape(true)}</td><td>{escape(answer)}</td><td>{count:,}&nbsp;of&nbsp;{total:,}</td></tr>"
        for true, answer, count, total in mistakes(confusion, classes)
    )
    if not rows:
        return "<p>There are none.</p>"
    return (
        '<div class="scroll"><table class="pairs"><thead><tr><th>true class</th><th>answer</th><th>images</th></tr>'
        f"</thead><tbody>{rows}</tbody></table></div>"
    )
