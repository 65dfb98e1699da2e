"""The end of the report: how it was measured, where, and by which command, so that a reader can do it again."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from foveal.analysis.comparison import BASELINE, Comparison, Row, join
from foveal.viz.page import definitions


def method(comparison: Comparison) -> str:
    """How each figure came about."""
    first = next((row.mechanism for row in comparison.rows), BASELINE)
    return (
        "<h2>How it was measured</h2><ul>"
        "<li>Accuracy is that of the last epoch on images that were not trained on; no epoch was picked by its result. "
        "The same seeds, batches and budget for every mechanism.</li>"
        "<li>MACs are multiply-accumulates of one image at inference (a FLOP count is twice that): matrix products, "
        "convolutions, fused attention and Fourier transforms; element-wise work is not counted.</li>"
        "<li>Times are taken in turns, one sample of each mechanism a round; the ratio to "
        f"{escape(first)} is taken within a round, then its median and quartiles over rounds. A training step is "
        f"forward, backward and optimiser.{_rounds(comparison)}</li>"
        "<li>Memory is the highest point of tensor memory above weights and input, from the allocator's own record; "
        "scratch memory inside vendor kernels is not seen. A training step holds gradients and optimiser state.</li>"
        "</ul>"
    )


def _rounds(comparison: Comparison) -> str:
    keys = {"inference_ms.rounds": "inference", "training_ms.rounds": "the training step"}
    least = {
        word: min((row.costs[key] for row in comparison.done if key in row.costs), default=None)
        for key, word in keys.items()
    }
    told = [f"{count:.0f} for {word}" for word, count in least.items() if count is not None]
    return f" Rounds taken: {join(told)}." if told else ""


def origin(results: Mapping[str, Any], comparison: Comparison) -> str:
    """Where each mechanism was put, on what machine, by which command."""
    about = results.get("mechanisms") or {}
    sites = {row.mechanism: _placed(row, about.get(row.mechanism) or {}) for row in comparison.done}
    environment = {str(k): words(v) for k, v in _flat(results.get("environment") or {}).items()}
    config = {str(k): words(v) for k, v in _flat(results.get("config") or {}).items()}
    return (
        f"<h2>Where each mechanism was put</h2>{definitions(sites, 'list')}"
        f"<h2>Environment</h2>{definitions(environment, 'list')}"
        f"<h2>Configuration and command</h2>{definitions(config, 'list')}"
        f"<pre>{escape(str(results.get('command', '')))}</pre>"
    )


def _placed(row: Row, about: Mapping[str, Any]) -> str:
    """Title, paper and place where the results tell them, and every site."""
    told = ", ".join(str(about[key]) for key in ("title", "paper", "where") if about.get(key))
    return ": ".join(part for part in (told, ", ".join(row.sites)) if part) or "the backbone alone"


def _flat(entries: Mapping[str, Any]) -> dict[str, Any]:
    """Nested entries with their path as the name."""
    flat: dict[str, Any] = {}
    for key, value in entries.items():
        if isinstance(value, Mapping):
            flat |= {f"{key} {inner}": found for inner, found in _flat(value).items()}
        else:
            flat[str(key)] = value
    return flat


def words(value: object) -> str:
    """A value as a reader says it."""
    return join([str(item) for item in value]) if isinstance(value, (list, tuple)) else str(value)
