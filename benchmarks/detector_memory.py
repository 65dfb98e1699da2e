"""Which attention fits at which site of a detector: memory of one training step of each module, counted and measured.

``python benchmarks/detector_memory.py`` prints a Markdown table for images of 896 x 1280 pixels: what a dry run
counts, and what the allocator's record had where that fits into ``--limit`` GB. Each module is measured by itself;
``non-local`` stores every weight, as the paper's formula has it.
"""

from __future__ import annotations

import argparse

import torch
from torch import nn

from foveal.analysis.detector_sites import modules
from foveal.analysis.dry import dry_run
from foveal.analysis.ledger.detectors import SITES
from foveal.analysis.memory import peak_memory


def measured(layer: nn.Module, shape: tuple[int, ...]) -> int:
    """Bytes at the highest point of a forward and backward pass, its input and parameters counted."""
    x = torch.randn(shape, requires_grad=True)
    held = x.nbytes + sum(parameter.nbytes for parameter in layer.parameters())
    return held + peak_memory(lambda: layer(x).sum().backward())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--limit", type=float, default=8.0, help="GB up to which a step is really taken")
    parser.add_argument("--images", type=int, default=1)
    given = parser.parse_args()
    names = ("efficient", "non-local")
    heads = [f"{name}, {how}" for name in names for how in ("counted", "measured")]
    print(f"| site | {' | '.join(heads)} |\n|---{'|---:' * len(heads)}|")
    for site, sizes in SITES.items():
        shape, cells = (given.images, sizes.d, *sizes.space), []
        for layer in modules(sizes)[:2]:
            counted = dry_run(layer, shape, train=True).peak_bytes[""]
            fits = counted <= given.limit * 1e9
            cells += [f"{counted / 1e9:.3f}", f"{measured(layer, shape) / 1e9:.3f}" if fits else "does not fit"]
        print(f"| {site} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
