"""A small instance of every registry row, in every reading: what the suite runs over."""

from dataclasses import dataclass, field
from typing import Any

import torch

from foveal.layers.registry import row

CHANNELS = 6
SPACES = [(1,), (7,), (5, 7), (1, 1), (3, 4, 2)]


@dataclass(frozen=True)
class Case:
    """One reading of a layer: its row's name, what it is built from, and which options follow the map."""

    row: str
    sizes: tuple[int, ...] = (CHANNELS,)
    options: dict[str, Any] = field(default_factory=dict)
    dims: bool = False
    sized: bool = False

    @property
    def name(self):
        told = ",".join(f"{k}={v}" for k, v in self.options.items())
        return f"{self.row}({told})"

    def build(self, space, dtype=torch.float64, **more):
        options = {**self.options, **more}
        if self.dims:
            options["dims"] = len(space)
        if self.sized:
            options["size"] = space
        layer = row(self.row).layer(*self.sizes, **options, dtype=dtype)
        # Parameters that start at zero would hide what they multiply.
        for parameter in layer.parameters():
            if not parameter.any():
                torch.nn.init.normal_(parameter, std=0.3)
        return layer

    def map(self, space, batch=2, dtype=torch.float64, grad=False):
        return torch.randn(batch, CHANNELS, *space, dtype=dtype, requires_grad=grad)


CASES = [
    Case("local", (CHANNELS, 8), {"kernel_size": 3, "heads": 2, "border": "mask"}, dims=True),
    Case("local", (CHANNELS, 8), {"kernel_size": 5, "heads": 2, "stride": 2, "bias": True}, dims=True),
    Case("local", (CHANNELS, 8), {"kernel_size": 3, "heads": 4, "relative": False, "dilation": 2}),
    Case("local", (CHANNELS, 8), {"kernel_size": 5, "heads": 2, "content": False}, dims=True),
    Case("local", (CHANNELS, 8), {"kernel_size": 3, "heads": 2, "grouped": True, "bias": True, "relative": False}),
    Case("local_stem", (CHANNELS, 8), {"heads": 2, "mixtures": 3}, dims=True),
    Case("local_stem", (CHANNELS, 8), {"heads": 2, "values": "plain"}, dims=True),
    Case("local_stem", (CHANNELS, 8), {"heads": 2, "values": "conv", "block": 3}, dims=True),
    Case("efficient", options={"key_channels": 2}),
    Case("efficient", options={"key_channels": 4, "heads": 2, "normalization": "scaling"}),
    Case("efficient", options={"key_channels": 40, "value_channels": 4, "heads": 4}),
    Case("efficient", options={"key_channels": 3, "projection": "auto", "bias": False, "residual": False}),
    Case("external", options={"slots": 3}),
    Case("external", options={"slots": 40, "normalization": "softmax", "norm": False, "activation": False}),
    Case("external", options={"slots": 3, "memories": "tied", "bias": False}),
    Case("multi_head_external", options={"heads": 2, "slots": 3}),
    Case("multi_head_external", options={"heads": 3, "slots": 40, "expansion": 1, "memory_bias": False}),
    Case("explicit", (CHANNELS, 8), {"heads": 2}),
    Case("explicit", (CHANNELS, 8), {"heads": 2, "per_head_radius": True, "bias": True, "stride": 2}),
    Case("explicit", (CHANNELS, 8), {"heads": 2, "decay": "linear", "value_channels": 2, "bias": True}),
    Case("explicit", (CHANNELS, 8), {"heads": 2, "decay": "uniform", "bias": True}),
    Case("explicit", (CHANNELS, 8), {"heads": 2, "decay": "manhattan", "offset": 0.0}),
    Case("augmented", (CHANNELS, 4), {"key_channels": 8, "heads": 2}, sized=True),
    Case("augmented", (CHANNELS, 4), {"key_channels": 8, "heads": 2, "stride": 2}),
    Case("non_local"),
    Case("non_local", options={"normalization": "scaling", "value_channels": 5}),
    Case("non_local", options={"pool": True, "norm": False}),
]
