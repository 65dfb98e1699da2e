"""Every test runs with fresh memory filled with NaN and refuses operators whose result is not determined."""

import os

import pytest
import torch

# The suite runs one process a core, and bits are only the same for the same number of threads.
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _strict_torch():
    torch.manual_seed(0)
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    # What `make test-gpu` runs makes its tensors there.
    torch.set_default_device(os.environ.get("FOVEAL_TEST_DEVICE"))
    yield
    torch.use_deterministic_algorithms(False)
