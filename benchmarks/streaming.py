"""Layers on a map larger than the memory they may use, each in a fresh process, against definitions in float64.

The map lies in a file and so does the result. A process gets ``--limit`` bytes of private memory from the kernel
(RLIMIT_DATA: an allocation beyond it fails; pages of the two files are file cache and do not count), with Python, torch
and what they load, but without what these reserved and never touched. Its peak is the largest private resident memory
(RssAnon) seen, looked at every 5 ms.

The definitions are written in NumPy below, share no code with the library, and are evaluated at some positions: every
corner and random ones. The layers add no map to their result, so the error is that of attention alone.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

NAMES = ("efficient", "external", "explicit", "explicit-manhattan")
BLOCK = 32  # rows of the map that are made or checked at once


def layer_of(name: str, channels: int) -> Any:
    """The layer with the sizes of its paper, the same at every call."""
    import torch

    import foveal

    torch.manual_seed(0)
    if name == "efficient":
        return foveal.EfficientAttention(channels, key_channels=64, residual=False).eval()
    if name == "external":
        layer = foveal.ExternalAttention(channels, slots=64, residual=False, activation=False).eval()
        layer.norm.running_mean.normal_(std=0.1)
        layer.norm.running_var.uniform_(0.5, 2)
        return layer
    decay = "manhattan" if name.endswith("manhattan") else "gaussian"
    return foveal.ExplicitAttention(channels, heads=8, decay=decay, radius=0.1)


def make(path: Path, shape: tuple[int, int, int]) -> None:
    """Waves with noise, from a seed for every block of rows."""
    channels, height, width = shape
    to = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=shape)
    across = np.cos(2 * np.pi * np.arange(width, dtype=np.float32) / width)
    wave = np.arange(1, channels + 1, dtype=np.float32)[:, None, None]
    for start in range(0, height, BLOCK):
        rows = np.arange(start, min(start + BLOCK, height), dtype=np.float32)[:, None]
        block = np.random.default_rng([0, start]).standard_normal((channels, len(rows), width), dtype=np.float32)
        to[:, start : start + len(rows)] = block + np.sin(2 * np.pi * wave * rows / height) * across + 0.5
    to.flush()


def measured(name: str, source: Path, out: Path, limit: int, memory: int) -> dict[str, float]:
    """Time and peak memory of one layer, in a process of its own."""
    command = [sys.executable, __file__, "--child", name, str(source), str(out), str(limit), str(memory)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{name} did not stay within {limit} bytes or failed:\n{done.stderr}")
    record: dict[str, float] = json.loads(done.stdout)
    return record


def child(name: str, source: str, out: str, limit: str, memory: str) -> None:
    """What that process does."""
    layer = layer_of(name, np.load(source, mmap_mode="r").shape[0])
    from foveal import streaming

    most = int(limit) + private("VmData") - private()
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))
    peak, stop = [private()], threading.Event()

    def watch() -> None:
        while not stop.wait(0.005):
            peak[0] = max(peak[0], private())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        before, start, worked = private(), time.perf_counter(), time.process_time()
        streaming.run(layer, source, out, memory=int(memory))
        seconds, worked = time.perf_counter() - start, time.process_time() - worked
    finally:
        stop.set()
        watcher.join()
    print(json.dumps({"seconds": seconds, "processor": worked, "peak": peak[0], "before": before}))


def private(what: str = "RssAnon") -> int:
    """Bytes of private memory of this process that are resident, or of another line of its status."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(what):
            return int(line.split()[1]) * 1024
    raise SystemExit(f"this kernel does not tell {what}")


def blocks(source: Path) -> Iterator[tuple[int, np.ndarray]]:
    """The map in float64, rows by rows."""
    mapped = np.load(source, mmap_mode="r")
    for start in range(0, mapped.shape[1], BLOCK):
        yield start, mapped[:, start : start + BLOCK].astype(np.float64)


def efficient(w: dict[str, np.ndarray], source: Path, points: np.ndarray, at: np.ndarray) -> np.ndarray:
    """W_o (rho_q(Q) rho_k(K)^T V) at the points, where the map is ``at``: ``(channels, points)``."""
    sums, total = 0.0, 0.0
    for _, x in blocks(source):
        x = x.reshape(len(x), -1)
        weights = np.exp(w["key.weight"] @ x + w["key.bias"][:, None])
        sums, total = sums + weights @ x.T, total + weights.sum(1)
    context = (sums / total[:, None]) @ w["value.weight"].T + w["value.bias"]
    q = np.exp(w["query.weight"] @ at + w["query.bias"][:, None])
    return w["output.weight"] @ (context.T @ (q / q.sum(0))) + w["output.bias"][:, None]


def external(w: dict[str, np.ndarray], source: Path, points: np.ndarray, at: np.ndarray) -> np.ndarray:
    """BN(W_o (Norm(F M_k^T) M_v)): softmax over all positions, then divided by the sum over slots."""

    def scores(x: np.ndarray) -> np.ndarray:
        return np.exp(w["memory_key"] @ (w["query.weight"] @ x + w["query.bias"][:, None]))

    total = sum(scores(x.reshape(len(x), -1)).sum(1) for _, x in blocks(source))
    weights = scores(at) / total[:, None]
    weights = weights / (1e-9 + weights.sum(0))
    out = w["output.weight"] @ (w["memory_value"].T @ weights)
    scale = w["norm.weight"] / np.sqrt(w["norm.running_var"] + 1e-5)
    return (out - w["norm.running_mean"][:, None]) * scale[:, None] + w["norm.bias"][:, None]


def explicit(w: dict[str, np.ndarray], source: Path, points: np.ndarray, at: np.ndarray, power: int) -> np.ndarray:
    """W_o W_v times the sum of (G + 1) V over all positions, divided by that of G + 1."""
    _, height, width = np.load(source, mmap_mode="r").shape
    sigma = w["radius"]

    def decay(position: np.ndarray, length: int) -> np.ndarray:
        gap = np.abs(position[:, None] - np.arange(length)) / length
        return np.exp(-(gap**2) / (2 * (sigma**2 + 1e-6)) if power == 2 else -gap / (abs(sigma) + 1e-6))

    down, across = decay(points[0], height), decay(points[1], width)
    sums = 0.0
    for start, x in blocks(source):
        rows = x @ across.T  # (channels, rows, points)
        sums = sums + np.einsum("crp,pr->cp", rows, down[:, start : start + x.shape[1]]) + x.sum((1, 2))[:, None]
    mixed = sums / (down.sum(1) * across.sum(1) + height * width)
    return w["output.weight"] @ (w["value.weight"] @ mixed)


def error(name: str, source: Path, out: Path, samples: int) -> float:
    """The largest at the points, in units of the root mean square of the definition there."""
    mapped, result = np.load(source, mmap_mode="r"), np.load(out, mmap_mode="r")
    channels, height, width = mapped.shape
    draw = np.random.default_rng(1)
    points = np.stack([draw.integers(0, height, samples), draw.integers(0, width, samples)])
    points[:, :4] = [[0, 0, height - 1, height - 1], [0, width - 1, 0, width - 1]]
    w = {k: v.double().numpy() for k, v in layer_of(name, channels).state_dict().items()}
    at = mapped[:, points[0], points[1]].astype(np.float64)
    if name.startswith("explicit"):
        wanted = explicit(w, source, points, at, 1 if name.endswith("manhattan") else 2)
    else:
        wanted = {"efficient": efficient, "external": external}[name](w, source, points, at)
    got = result[:, points[0], points[1]]
    return float(np.abs(got - wanted).max() / np.sqrt((wanted**2).mean()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, nargs=2, default=(8192, 8192), help="height and width")
    parser.add_argument("--channels", type=int, default=16)
    parser.add_argument("--limit", type=int, default=1 << 30, help="bytes of private memory a process may have")
    parser.add_argument("--memory", type=int, default=9 << 25, help="of which for bands and what belongs to them")
    parser.add_argument("--samples", type=int, default=64, help="positions that are checked, at least 4")
    parser.add_argument("--folder", type=Path, help="where the two files lie for the time; a temporary folder if not")
    parser.add_argument("--only", choices=NAMES, nargs="*", default=NAMES)
    parser.add_argument("--json", action="store_true", help="print records only")
    chosen = parser.parse_args()
    records = []
    with tempfile.TemporaryDirectory(dir=chosen.folder) as folder:
        source, out = Path(folder) / "map.npy", Path(folder) / "result.npy"
        shape = (chosen.channels, *chosen.size)
        make(source, shape)
        for name in chosen.only:
            record: dict[str, Any] = {"layer": name, "shape": shape, "bytes": source.stat().st_size}
            record |= measured(name, source, out, chosen.limit, chosen.memory)
            record |= {"limit": chosen.limit, "error": error(name, source, out, chosen.samples)}
            records.append(record)
            if not chosen.json:
                print(
                    f"{name:20} {shape[1]} x {shape[2]} x {shape[0]}: {record['seconds']:.1f} s "
                    f"({record['processor']:.1f} of processors), peak "
                    f"{record['peak'] / 2**20:.0f} MiB of private memory ({record['before'] / 2**20:.0f} before), "
                    f"largest error {record['error']:.1e}",
                    flush=True,
                )
            out.unlink()
    if chosen.json:
        print(json.dumps(records, indent=2))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        child(*sys.argv[2:])
    else:
        main()
