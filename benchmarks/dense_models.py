"""Parameters of the dense models, whole and part by part, counted on the meta device.

python benchmarks/dense_models.py
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import nn

from foveal.models import eanet, psmnet
from foveal.models.stereo.attention import SITES

MODELS: dict[str, Callable[[], nn.Module]] = {
    **{f"`eanet({depth})`": partial(eanet, depth) for depth in (50, 101, 152)},
    '`eanet(50, stem="torchvision")`': partial(eanet, 50, stem="torchvision"),
    '`eanet(50, attention="none")`': partial(eanet, 50, attention="none"),
    "`psmnet()`": psmnet,
    '`psmnet("basic")`': partial(psmnet, "basic"),
    '`psmnet(attention="efficient")`': partial(psmnet, attention="efficient"),
    '`psmnet(attention="nonlocal")`': partial(psmnet, attention="nonlocal"),
    "the same after `dres1` to `dres4`": partial(psmnet, attention="nonlocal", sites=SITES),
}


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def number(value: int) -> str:
    return f"{value:,}".replace(",", " ")


def main() -> None:
    print("| model | parameters | parts |\n|---|---|---|")
    for name, make in MODELS.items():
        with torch.device("meta"):
            model = make()
        parts = ((part, count(module)) for part, module in model.named_children())
        print(f"| {name} | {number(count(model))} | {', '.join(f'{p} {number(n)}' for p, n in parts if n)} |")


if __name__ == "__main__":
    main()
