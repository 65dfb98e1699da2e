"""Where each mechanism looks: sample images with the attention of one marked point and the evidence for the answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from foveal.analysis.comparison import BASELINE
from foveal.viz.overlay import Array, as_rgb, colours, data_uri, enlarged, overlay, to_bytes

GATES = ("cbam",)  # their map weighs positions, the same for whichever point asks


def gallery(looks: Sequence[Mapping[str, Any]], swatches: Mapping[str, str]) -> str:
    """One block an image: the image with the marked point, then a card a mechanism."""
    return "".join(_look(look, swatches) for look in looks)


def legend(top: str = "largest value of the map") -> str:
    """The scale that all maps share, and what its end stands for."""
    ramp = to_bytes(np.repeat(colours(np.linspace(0, 1, 128))[None], 8, axis=0))
    return (
        f'<p class="legend"><span>0</span><img src="{data_uri(ramp)}" alt="from dark violet to yellow">'
        f"<span>{escape(top)}</span></p>"
    )


def _look(look: Mapping[str, Any], swatches: Mapping[str, str]) -> str:
    image, label, point = as_rgb(look["image"]), str(look["label"]), look["point"]
    mark = marker(point, image.shape)
    cards = "".join(
        _card(name, seen, image, label, mark, swatches.get(name, "currentColor")) for name, seen in look["maps"].items()
    )
    row, column = int(point[0]), int(point[1])
    return (
        f'<section class="look"><div class="sample"><div class="frame">'
        f'<img src="{data_uri(enlarged(image, size=160))}" alt="sample image, {escape(label)}">{mark}</div>'
        f"<p><b>{escape(label)}</b><br><small>point: row&nbsp;{row}, column&nbsp;{column}</small></p></div>"
        f'<div class="cards">{cards}</div></section>'
    )


def marker(point: Sequence[float], shape: tuple[int, ...]) -> str:
    """A ring around a pixel, to lie over the image in a ``frame``."""
    top, left = (100 * (float(point[axis]) + 0.5) / shape[axis] for axis in (0, 1))
    return f'<i class="point" style="top:{top:.2f}%;left:{left:.2f}%"></i>'


def _card(name: str, seen: Mapping[str, Any], image: Array, label: str, mark: str, swatch: str) -> str:
    predicted, where = str(seen.get("predicted", "")), str(seen.get("where") or "")
    right = predicted == label
    verdict = f'<span class="{"right" if right else "wrong"}">{"✓" if right else "✗"} {escape(predicted)}</span>'
    attention, evidence = seen.get("attention"), seen.get("evidence")
    if attention is not None:
        of = "its gate" if name in GATES else "attention of the marked point"
        first = _picture(image, np.asarray(attention), f"{name}: {of}", "" if name in GATES else mark)
        note = f"{'gate, for all points' if name in GATES else _peak(np.asarray(attention))}<br>{escape(where)}"
    else:
        first = f'<div class="frame empty"><span>{_absence(name)}</span></div>'
        note = escape(where)
    second = ""
    if evidence is not None:
        second = _picture(image, np.asarray(evidence), f"{name}: evidence for {predicted}", "")
    return (
        f'<figure class="card"><figcaption><span><i class="swatch" style="background:{swatch}"></i>'
        f"{escape(name)}</span>{verdict}</figcaption>"
        f'<div class="pair">{first}{second}</div><small>{note}</small></figure>'
    )


def _absence(name: str) -> str:
    return "no attention" if name == BASELINE else "gates channels: no map of positions"


def _picture(image: Array, heat: Array, alt: str, mark: str) -> str:
    source = data_uri(overlay(image, heat))
    return f'<div class="frame"><img src="{source}" alt="{escape(alt)}" loading="lazy">{mark}</div>'


def _peak(attention: Array) -> str:
    """How sharply the point attends: its largest weight beside an even spread over all positions."""
    mean = float(np.mean(attention))
    return f"peak {float(np.max(attention)) / mean:.1f} times even" if mean > 0 else "no weight"
