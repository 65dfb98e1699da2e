"""What operators registered from C++ would otherwise get wrong without a word."""

from __future__ import annotations

from typing import Any

import torch


def refuse_second_derivatives(operator: str, operation: str) -> None:
    """Make differentiating a backward operator raise; torch by itself would only warn and give no gradient."""

    def raise_instead(*_: Any) -> Any:
        raise NotImplementedError(
            f"{operation}: second derivatives are only available with backend='reference'; use that."
        )

    torch.library.register_autograd(operator, raise_instead)
