"""The peak is exact for calls whose memory is known."""

import os

import pytest
import torch

from foveal.analysis import peak_memory
from foveal.errors import BackendError, OptionError

MIB = 1 << 20


def floats(mebibytes: int) -> torch.Tensor:
    return torch.empty(mebibytes * MIB // 4)


def test_a_tensor_of_256_mebibytes_is_seen_to_the_byte():
    assert peak_memory(lambda: floats(256)) == 256 * MIB


def test_memory_released_before_the_next_allocation_does_not_add_up():
    def one_after_the_other():
        for _ in range(4):
            floats(8)

    assert peak_memory(one_after_the_other) == 8 * MIB


def test_memory_held_at_the_same_time_adds_up():
    assert peak_memory(lambda: [floats(8) for _ in range(4)]) == 32 * MIB


def test_a_temporary_inside_an_expression_counts_while_it_lives():
    x = floats(8)
    assert peak_memory(lambda: (x * 2) * 3) in range(16 * MIB, 16 * MIB + 1024)


def test_views_cost_nothing():
    x = floats(8)
    assert peak_memory(lambda: x.view(2, -1)[1:].t().expand(5, -1, -1)) == 0


def test_what_existed_before_does_not_count():
    x = floats(64)
    assert peak_memory(lambda: x.add_(1)) < 1024


def test_activations_saved_for_the_backward_pass_count():
    x = floats(4).zero_().requires_grad_()
    # sigmoid and its gradient, then the gradient of x: three maps at once, and a fourth is never needed.
    peak = peak_memory(lambda: x.sigmoid().sum().backward())
    assert 2 * 4 * MIB <= peak <= 3 * 4 * MIB + 1024


def test_an_error_of_the_call_comes_through_and_leaves_the_profiler_off():
    with pytest.raises(ZeroDivisionError):
        peak_memory(lambda: 1 // 0)
    assert peak_memory(lambda: floats(1)) == MIB


def test_the_environment_is_left_as_it_was(monkeypatch):
    monkeypatch.delenv("KINETO_LOG_LEVEL", raising=False)
    peak_memory(lambda: None)
    assert "KINETO_LOG_LEVEL" not in os.environ


def test_a_running_profiler_is_named_as_the_reason():
    with (
        torch.autograd.profiler.profile(),
        pytest.raises(BackendError, match=r"^peak_memory: a torch profiler is already running"),
    ):
        peak_memory(lambda: None)


def test_a_device_without_memory_is_refused():
    with pytest.raises(OptionError, match=r"^peak_memory: device must be cpu or cuda, got 'meta'"):
        peak_memory(lambda: None, device="meta")
