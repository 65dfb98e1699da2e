"""State dicts of the authors' EANet in the keys of ours."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

# Their keys to ours; ``fc0``, ``fc1`` and ``fc2`` have the same names in both.
_AUTHORS = (
    (r"^extractor\.0\.", "backbone.conv1."),
    (r"^extractor\.1\.", "backbone.bn1."),
    (r"^linu\.conv1\.", "attention.query."),
    (r"^linu\.linear_0\.weight$", "attention.memory_key"),
    (r"^linu\.linear_1\.weight$", "attention.memory_value"),
    (r"^linu\.conv2\.0\.", "attention.output."),
    (r"^linu\.conv2\.1\.", "attention.norm."),
)


def own_keys(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict of the authors' code in our keys; one in our keys as it is.

    Their projections and memories are convolutions; ours are matrices, both memories (slots, channels).
    """
    own = {}
    for key, value in state.items():
        new = key.removeprefix("module.")
        # Numbers 2 and 3 are the ReLU and the pool.
        new = re.sub(r"^extractor\.([4-7])\.", lambda found: f"backbone.layer{int(found[1]) - 3}.", new)
        for pattern, put in _AUTHORS:
            new = re.sub(pattern, put, new)
        if new != key and new.startswith("attention.") and value.dim() > 2:
            value = value.flatten(1).mT if new.endswith("memory_value") else value.flatten(1)
        own[new] = value
    return own
