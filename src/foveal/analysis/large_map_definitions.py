"""Definitions of attention over a map in a file, in float64, at some positions; they share no code with the layers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
BLOCK = 32  # rows of the map that are read at once


def at_points(name: str, w: Mapping[str, Array], source: Path, points: Array, at: Array) -> Array:
    """What the layer of this name and these weights gives at ``points``, ``(2, count)``, where the map is ``at``."""
    if name.startswith("explicit"):
        return explicit(w, source, points, at, 1 if name.endswith("manhattan") else 2)
    return {"efficient": efficient, "external": external}[name](w, source, points, at)


def blocks(source: Path) -> Iterator[tuple[int, Array]]:
    """The map in float64, rows by rows."""
    mapped = np.load(source, mmap_mode="r")
    for start in range(0, mapped.shape[1], BLOCK):
        yield start, mapped[:, start : start + BLOCK].astype(np.float64)


def efficient(w: Mapping[str, Array], source: Path, points: Array, at: Array) -> Array:
    """W_o (rho_q(Q) rho_k(K)^T V) at the points, where the map is ``at``: ``(channels, points)``."""
    sums, total = np.zeros(()), np.zeros(())
    for _, x in blocks(source):
        x = x.reshape(len(x), -1)
        weights = np.exp(w["key.weight"] @ x + w["key.bias"][:, None])
        sums, total = sums + weights @ x.T, total + weights.sum(1)
    context = (sums / total[:, None]) @ w["value.weight"].T + w["value.bias"]
    q = np.exp(w["query.weight"] @ at + w["query.bias"][:, None])
    return w["output.weight"] @ (context.T @ (q / q.sum(0))) + w["output.bias"][:, None]


def external(w: Mapping[str, Array], source: Path, points: Array, at: Array) -> Array:
    """BN(W_o (Norm(F M_k^T) M_v)): softmax over all positions, then divided by the sum over slots."""

    def scores(x: Array) -> Array:
        return np.exp(w["memory_key"] @ (w["query.weight"] @ x + w["query.bias"][:, None]))

    total = sum(scores(x.reshape(len(x), -1)).sum(1) for _, x in blocks(source))
    weights = scores(at) / total[:, None]
    weights = weights / (1e-9 + weights.sum(0))
    out = w["output.weight"] @ (w["memory_value"].T @ weights)
    scale = w["norm.weight"] / np.sqrt(w["norm.running_var"] + 1e-5)
    return (out - w["norm.running_mean"][:, None]) * scale[:, None] + w["norm.bias"][:, None]


def explicit(w: Mapping[str, Array], source: Path, points: Array, at: Array, power: int) -> Array:
    """W_o W_v times the sum of (G + 1) V over all positions, divided by that of G + 1."""
    _, height, width = np.load(source, mmap_mode="r").shape
    sigma = w["radius"]

    def decay(position: Array, length: int) -> Array:
        gap = np.abs(position[:, None] - np.arange(length)) / length
        return np.exp(-(gap**2) / (2 * (sigma**2 + 1e-6)) if power == 2 else -gap / (abs(sigma) + 1e-6))

    down, across = decay(points[0], height), decay(points[1], width)
    sums = 0.0
    for start, x in blocks(source):
        rows = x @ across.T  # (channels, rows, points)
        sums = sums + np.einsum("crp,pr->cp", rows, down[:, start : start + x.shape[1]]) + x.sum((1, 2))[:, None]
    mixed = sums / (down.sum(1) * across.sum(1) + height * width)
    return w["output.weight"] @ (w["value.weight"] @ mixed)
