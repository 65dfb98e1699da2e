"""How much memory is left, and how much an answer takes: what does not fit is said or made smaller, not killed."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from foveal.analysis.memory import peak_memory

SHARE = 0.5
"""Of the memory that is left, what the tensors of an answer may take: libraries and gaps between tensors take more."""
GROUP = Path("/sys/fs/cgroup")
GIB = 2**30


def headroom(device: torch.device) -> float:
    """Bytes that an answer may take on a device; infinite where the system does not say how many are left."""
    if device.type == "cuda":
        own = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return SHARE * (torch.cuda.mem_get_info(device)[0] + own)
    return SHARE * min(_left(), default=float("inf"))


def bytes_of(call: Callable[[], object], device: torch.device) -> int:
    """What a call takes at its highest point, tensors alone."""
    with torch.no_grad():
        return peak_memory(call, device=device)


def _left() -> Iterator[float]:
    """Of the machine, and of the control group that this process is in (a container's limit)."""
    try:
        yield 1024.0 * _numbers(Path("/proc/meminfo"))["MemAvailable:"]
    except (OSError, KeyError, ValueError):
        # Not Linux: all that there is, which is more than what is left.
        if "SC_PHYS_PAGES" in os.sysconf_names:
            yield float(os.sysconf("SC_PHYS_PAGES")) * os.sysconf("SC_PAGE_SIZE")
    try:
        most, now = (int((GROUP / name).read_text()) for name in ("memory.max", "memory.current"))
        yield float(most - now + _numbers(GROUP / "memory.stat")["inactive_file"])
    except (OSError, KeyError, ValueError):
        pass  # no group, or one without a limit ("max")


def _numbers(path: Path) -> dict[str, int]:
    """The first two words of each line."""
    lines = (line.split() for line in path.read_text().splitlines())
    return {words[0]: int(words[1]) for words in lines if len(words) > 1}
