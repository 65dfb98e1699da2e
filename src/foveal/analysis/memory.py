"""Peak memory of a call, exact: the allocator's own record, not a sample of the process.

On the CPU every allocation and release of tensor memory is an event of torch's profiler; their running sum in order of
time has a highest point, and that is the figure. Seen: whatever goes through torch's allocator, temporaries inside
operators too. Not seen: scratch memory that oneDNN, MKL or another library takes for itself, memory of Python and
NumPy, and tensors allocated by threads that the call starts. Memory that was there before the call and is released in
it is credited on CUDA; on the CPU it is not, as the profiler does not know it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import accumulate

import torch
from torch.autograd.profiler import profile

from foveal.errors import BackendError, OptionError


def peak_memory(fn: Callable[[], object], *, device: torch.device | str = "cpu") -> int:
    """Bytes of tensor memory at the highest point of ``fn()``, above what was allocated before it.

    What ``fn`` returns is counted; views and released memory are not.

    Args:
        fn: called once, without arguments.
        device: ``"cpu"`` or a CUDA device; only memory there is counted.

    Raises:
        OptionError: the device is neither.
        BackendError: another profiler is running (CPU).
    """
    place = torch.device(device)
    if place.type == "cpu":
        return _peak_on_cpu(fn)
    if place.type == "cuda":
        return _peak_on_cuda(fn, place)
    raise OptionError(f"peak_memory: device must be cpu or cuda, got {place.type!r}. Move the model to one of these.")


def _peak_on_cpu(fn: Callable[[], object]) -> int:
    if torch._C._autograd._profiler_enabled():
        raise BackendError("peak_memory: a torch profiler is already running. Leave its block before measuring memory.")
    with _quiet_kineto(), profile(profile_memory=True) as recorded:
        result = fn()
    del result
    if recorded.kineto_results is None:
        raise BackendError("peak_memory: torch's profiler returned no record. Use a torch build with Kineto.")
    changes: list[tuple[int, int]] = [
        (event.start_ns(), event.nbytes())
        for event in recorded.kineto_results.events()
        if event.name() == "[memory]" and event.device_type().name == "CPU"
    ]
    changes.sort(key=lambda change: change[0])
    return max(accumulate((size for _, size in changes), initial=0))


def _peak_on_cuda(fn: Callable[[], object], device: torch.device) -> int:
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    result = fn()
    torch.cuda.synchronize(device)
    del result
    return torch.cuda.max_memory_allocated(device) - before


@contextmanager
def _quiet_kineto() -> Iterator[None]:
    """Kineto reports its own start and stop on standard error; the variable that silences it is put back afterwards."""
    name = "KINETO_LOG_LEVEL"
    before = os.environ.get(name)
    os.environ.setdefault(name, "99")
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(name, None)
