"""What attention takes at each site of Mask R-CNN at 896 x 1280 pixels: the table behind the paper's out of memory.

Paper: Shen et al., Efficient Attention: Attention with Linear Complexities (2018), the detection tables. Memory is that
of the formulas and, without contents, of one forward and backward pass of the module alone on the CPU's evaluations.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
from torch import nn

from foveal.analysis.dry import dry_run
from foveal.analysis.ledger.complexity import Sizes, efficient_floats, non_local_floats
from foveal.analysis.ledger.detectors import SITES
from foveal.layers.efficient import EfficientAttention
from foveal.layers.non_local import NonLocal


@dataclass(frozen=True)
class Need:
    """One site, float32, in bytes.

    Attributes:
        site: as in ``foveal.models.detection``.
        channels: of its map.
        positions: of its map.
        parameters: of either module, 64 key channels.
        efficient: floats of the formula, one image.
        nonlocal_: the same of a non-local module.
        efficient_peak: most held at once in a training step of the module on ``images``.
        nonlocal_peak: the same where every weight is stored, as the formula has it.
        fused_peak: the same where torch's fused attention runs, which stores none.
    """

    site: str
    channels: int
    positions: int
    parameters: int
    efficient: float
    nonlocal_: float
    efficient_peak: int
    nonlocal_peak: int
    fused_peak: int


def needs(images: int = 2) -> list[Need]:
    """Every site; the paper trains with two images a GPU."""
    return [_need(site, sizes, images) for site, sizes in SITES.items()]


def _need(site: str, s: Sizes, images: int) -> Need:
    with torch.device("meta"):
        count = sum(p.numel() for p in _efficient(s).parameters())
    peaks = [dry_run(layer, (images, s.d, *s.space), train=True).peak_bytes[""] for layer in modules(s)]
    return Need(site, s.d, s.n, count, 4 * efficient_floats(s), 4 * non_local_floats(s), *peaks)


def modules(s: Sizes) -> tuple[nn.Module, nn.Module, nn.Module]:
    """Efficient attention, the non-local module that stores every weight, and the one that torch's kernel evaluates."""
    return _efficient(s), _non_local(s, "reference"), _non_local(s, None)


def _efficient(s: Sizes) -> nn.Module:
    return EfficientAttention(s.d, key_channels=s.key, projection="auto")


def _non_local(s: Sizes, backend: str | None) -> nn.Module:
    layer = NonLocal(s.d, key_channels=s.key, value_channels=s.d, norm=False, backend=backend)
    layer.output = nn.Identity()  # type: ignore[assignment]
    return layer


def table(rows: list[Need]) -> str:
    """As Markdown, memory in GB."""
    head = "| site | d | n | parameters | efficient | non-local | efficient, step | non-local, step | fused, step |"
    lines = [head, "|---" + "|---:" * 8 + "|"]
    for row in rows:
        site, d, n, count, *memory = asdict(row).values()
        lines.append(f"| {site} | {d} | {n:,} | {count:,} | " + " | ".join(f"{x / 1e9:.3f}" for x in memory) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table(needs()))  # noqa: T201  run as a program, see docs/detection.md
