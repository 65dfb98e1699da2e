"""How many threads torch uses."""

from __future__ import annotations

from foveal.errors import OptionError
from foveal.tasks.settings import check_cores


def use_threads(count: int | None) -> None:
    """Use this many; None leaves torch's choice.

    Raises:
        OptionError: it is less than one, or more than the cores.
    """
    if count is None:
        return
    if count < 1:
        raise OptionError(f"foveal: --threads must be at least 1, got {count}. Leave it out for all cores.")
    check_cores("foveal", "threads", count)
    import torch

    torch.set_num_threads(count)
