"""State dicts of the authors' EAMLP in the keys of ours."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from foveal.errors import DataError
from foveal.models.eamlp_tokens import sinusoids

# Their keys to ours, in order; their tokens-to-token module is ``tokens_to_token``.
_AUTHORS = (
    (r"^tokens_to_token\.attention([12])\.", r"tokens.block\1."),
    (r"^tokens_to_token\.", "tokens."),
    (r"\.attn\.(q_linear|trans_dims)\.", ".attention.query."),
    (r"\.attn\.linear_0\.weight$", ".attention.memory_key"),
    (r"\.attn\.linear_0\.bias$", ".attention.memory_key_bias"),
    (r"\.attn\.linear_1\.weight$", ".attention.memory_value"),
    (r"\.attn\.linear_1\.bias$", ".attention.memory_value_bias"),
    (r"\.attn\.proj\.", ".attention.output."),
)


def own_keys(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict of the authors' code in our keys; one in our keys as it is.

    Raises:
        DataError: its table of positions is another one than the sinusoids that every such model has.
    """
    if not any(".attn." in key for key in state):
        return dict(state)
    own = {}
    for key, value in state.items():
        new = key
        for pattern, put in _AUTHORS:
            new = re.sub(pattern, put, new)
        # Their memories are linear maps: the weight of the second has slots for columns.
        own[new] = value.mT if new.endswith(".memory_value") and value.dim() == 2 else value
    table = own.pop("pos_embed", None)
    if table is not None and not _is_fixed(table):
        raise DataError(
            "weights: pos_embed holds no sinusoids, which EAMLP computes for the image at hand. Use a checkpoint of "
            "the authors' code, whose table is fixed."
        )
    return own


def _is_fixed(table: Tensor) -> bool:
    table = table.float().flatten(0, -2)
    return torch.allclose(table, sinusoids(*table.shape, like=table), atol=1e-2)
