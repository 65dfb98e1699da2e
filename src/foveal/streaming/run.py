"""Evaluate a layer on a map that does not fit in memory, band by band, exactly and for the result alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from foveal.errors import OptionError, ShapeError
from foveal.functional.inputs import without_autocast
from foveal.layers.pooling import pool_overlapping
from foveal.streaming.evaluation import Evaluation, evaluation, map_bytes
from foveal.streaming.sink import Sink
from foveal.streaming.source import Band, Source

# Larger bands are not faster: what a band takes beside itself lies in the caches no longer.
MOST_POSITIONS = 1 << 18


@torch.no_grad()
def run(
    layer: nn.Module,
    source: Any,
    out: Any = None,
    *,
    rows: int | None = None,
    memory: int = 1 << 28,
    progress: Callable[[int, int], object] | None = None,
) -> Any:
    """The layer's forward over a map of any size, in one or two walks over its bands; there are no gradients.

    Results equal the layer's own up to rounding; sums over positions are taken in float32 within a run of positions
    and in float64 over runs. Autocast has no effect: everything is computed in the type of the layer and the map.

    Args:
        layer: an ``EfficientAttention``, ``ExternalAttention``, ``MultiHeadExternalAttention`` or
            ``ExplicitAttention`` (uniform, Gaussian, Manhattan), its norm in evaluation.
        source: the map ``(batch, channels, height, width)`` or ``(channels, height, width)``: a tensor, an array that
            is cut by slices (memory-mapped, h5py, zarr), the path of a ``.npy`` file, or bands of rows that can be
            walked through three times: for their sizes, for the sums and for the result.
        out: None for a new tensor; an array or tensor of the result's shape; or the path of a ``.npy`` file, which
            is renamed to it when it is complete, and deleted if it is not.
        rows: of a band; None takes as many as ``memory`` holds, of at most 2^18 positions.
        memory: bytes that bands and all that belongs to them may take, without the source and ``out`` themselves.
        progress: called after each band with the rows done and the rows to do, of all walks.

    Returns:
        ``out``, or the new tensor, on the source's device.

    Raises:
        ShapeError: the shape or type of the map or of ``out``.
        OptionError: the layer is another one or in training, or ``memory`` is too small.
        DataError: a file cannot be used.
    """
    weight = next(layer.parameters(), torch.empty(0))
    given = Source(source, weight.device)
    how = evaluation(layer, given.shape)
    _check(layer, given, weight)
    batch, _, height, width = given.shape
    if rows is None:
        rows = fitting_rows(how, given.shape, given.dtype, memory)
    elif isinstance(rows, bool) or not isinstance(rows, int) or rows < 1:
        raise OptionError(f"streaming.run: rows must be None or an integer of at least 1, got {rows!r}.")
    shape = (batch, how.channels_out, -(-height // how.stride), -(-width // how.stride))
    told = _Told(progress, height * (1 + how.gathers))
    with Sink(out, shape, given.single, weight.dtype, given.place) as sink, without_autocast(weight):
        if how.gathers:
            for start, band in given.bands(rows):
                how.gather(band, start)
                told.add(band.shape[2])
                # Or it would stay while the next one is read; the same below.
                del band
        how.settle()
        pooled = _Pooled(how.stride, height)
        for start, result in _results(how, given, rows):
            for at, ready in pooled.add(start, result):
                sink.write(at, ready)
                del ready
            told.add(result.shape[2])
            del result
    return sink.result


def fitting_rows(how: Evaluation, shape: tuple[int, int, int, int], dtype: torch.dtype, memory: int) -> int:
    """The most rows of a band, up to 2^18 positions, that fit in so many bytes with all that stays and is computed."""

    def needed(rows: int) -> int:
        # A band as it was read and as it is used; its result, once more where it is pooled.
        bands = 2 * map_bytes(shape, rows, shape[1], dtype)
        if how.halo:
            # Rows that wait for those behind them, twice while a band is put beside them.
            bands += 2 * map_bytes(shape, 2 * rows + 2 * how.halo, shape[1], dtype)
        bands += (2 if how.stride > 1 else 1) * map_bytes(shape, rows, how.channels_out, dtype)
        return how.state(rows) + how.work(rows) + bands

    most = max(1, min(shape[2], max(MOST_POSITIONS // shape[3], how.halo)))
    tried = [most, *(2**k for k in reversed(range(most.bit_length())) if 2**k < most)]
    for rows in tried:
        if needed(rows) <= memory:
            return rows
    least = min(needed(rows) for rows in tried)
    raise OptionError(
        f"streaming.run: memory must be at least {least} bytes for this layer and a map of {shape[2]} x {shape[3]}, "
        f"got {memory}. Pass memory={least} or more."
    )


def _results(how: Evaluation, source: Source, rows: int) -> Iterator[tuple[int, Tensor]]:
    height = source.shape[2]
    if not how.reads:
        for start in range(0, height, rows):
            yield start, how.result(None, start, start, min(rows, height - start))
        return
    for start, count, first, seen in _surrounded(source.bands(rows), how.halo, height):
        result = how.result(seen, first, start, count)
        del seen
        yield start, result
        del result


def _surrounded(bands: Iterator[Band], halo: int, height: int) -> Iterator[tuple[int, int, int, Tensor]]:
    """Every band's first row and length, and the rows around it as far as the map goes, with the first one's place."""
    waiting: list[tuple[int, int]] = []
    seen: Tensor | None = None
    first = 0
    for at, band in bands:
        waiting.append((at, band.shape[2]))
        seen = band if seen is None else torch.cat([seen, band], 2)
        del band
        while seen is not None and waiting and first + seen.shape[2] >= min(sum(waiting[0]) + halo, height):
            start, count = waiting.pop(0)
            stop = min(start + count + halo, height)
            keep = max(start - halo, 0)
            yield start, count, keep, seen[:, :, keep - first : stop - first]
            drop = max(start + count - halo, 0) - first
            if drop > 0:
                first, seen = first + drop, seen[:, :, drop:] if drop < seen.shape[2] else None


def _check(layer: nn.Module, source: Source, weight: Tensor) -> None:
    channels = int(getattr(layer, "channels", 0))
    if source.shape[1] != channels or source.dtype != weight.dtype:
        raise ShapeError(
            f"streaming.run: the map must have the {channels} channels and the type {weight.dtype} of "
            f"{type(layer).__name__}, got {source.shape[1]} channels of {source.dtype}."
        )


class _Pooled:
    """The layer's overlapping pooling of rows that come in bands; rows that a later result needs are kept."""

    def __init__(self, stride: int, height: int) -> None:
        self._stride, self._height = stride, height
        self._kept: Tensor | None = None
        self._done = 0

    def add(self, start: int, band: Tensor) -> Iterator[tuple[int, Tensor]]:
        """The rows of the result that are complete, with the first one's place."""
        if self._stride == 1:
            yield start, band
            return
        kept = band if self._kept is None else torch.cat([self._kept, band], 2)
        first, stop = start + band.shape[2] - kept.shape[2], start + band.shape[2]
        # Result i averages rows i stride - 1 to i stride + 1.
        ready = (stop - 2) // self._stride + 1 if stop < self._height else -(-self._height // self._stride)
        if ready > self._done:
            top, bottom = self._done * self._stride - 1, (ready - 1) * self._stride + 1
            window = kept[:, :, max(top, 0) - first : bottom + 1 - first]
            outside = (int(top < 0), int(bottom >= self._height))
            yield self._done, pool_overlapping(window, self._stride, outside)
            self._done = ready
        keep = max(self._done * self._stride - 1, first)
        self._kept = kept[:, :, keep - first :].clone()


class _Told:
    def __init__(self, progress: Callable[[int, int], object] | None, total: int) -> None:
        self._progress, self._total, self._done = progress, total, 0

    def add(self, rows: int) -> None:
        self._done += rows
        if self._progress is not None:
            self._progress(self._done, self._total)
