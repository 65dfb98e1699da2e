"""Models made ready for the machine: their device, their processes, compiled or not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn

from foveal.errors import OptionError
from foveal.tasks import distributed
from foveal.tasks.plan import Plan

CONTAINERS = (nn.Sequential, nn.ModuleList)
LEAST = 10_000
"""Parameters that a block must have to be sent by itself."""


def check_plan(plan: Plan, device: torch.device) -> None:
    """Raise where this machine has not what a plan asks for."""
    if plan.sync_norm and device.type != "cuda":
        raise OptionError(
            f"fit: sync_norm needs CUDA, whose batch norms torch can synchronise, got {device.type}. Leave it out "
            "(--no-sync-norm); on CPUs each process normalises its own share of a batch."
        )
    if plan.shard and distributed.world() == 1:
        raise OptionError(
            "fit: shard splits a model over processes, got one process. Start it by torchrun, or leave it out."
        )
    if plan.shard and plan.precision == "fp16":
        raise OptionError("fit: shard takes no gradient scaler, which fp16 needs. Use bf16.")


def synchronised(model: nn.Module, plan: Plan) -> nn.Module:
    """A model whose batch norms see the batches of all processes, where the plan wants that and there are several."""
    if plan.sync_norm and distributed.world() > 1:
        made: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(model)
        return made
    return model


def accelerator() -> Any:
    """Device and wrapping of this process, in the group that ``distributed.start`` made."""
    from accelerate import Accelerator, DistributedDataParallelKwargs

    # Unless it is told of the CPU, accelerate looks for no other processes there, and would train each by itself.
    # Otherwise DDP sorts gradients into its buffers anew after the first step of each sitting, and the sums of three or
    # more processes are then rounded otherwise than in a run that nobody stopped. Sums of two are the same either way.
    kept_in_order = DistributedDataParallelKwargs(find_unused_parameters=distributed.world() > 2)
    return Accelerator(cpu=distributed.world() > 1 and not torch.cuda.is_available(), kwargs_handlers=[kept_in_order])


def shard_(model: nn.Module, device: torch.device) -> None:
    """Split parameters over all processes (FSDP), in place; those of a block are whole only while it runs.

    Done with torch's own call, which accelerate makes too: accelerate leaves its FSDP plugin aside on CPUs without a
    word. Blocks are the members of sequences and lists below the model; what is in none travels with the model itself.
    Nothing within a block is split by itself: layers read the weights of their own projections, which must be whole.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    for parameter in model.parameters():
        # Parts are of the first axis, which must be the slowest; channels last makes it otherwise for some filters.
        parameter.data = parameter.data.contiguous()
    mesh = init_device_mesh(device.type, (distributed.world(),))
    for child in model.children():
        for block in _members(child) if isinstance(child, CONTAINERS) else ():
            if sum(parameter.numel() for parameter in block.parameters()) >= LEAST:
                fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)


def _members(container: nn.Module) -> Iterator[nn.Module]:
    for member in container.children():
        if isinstance(member, CONTAINERS):
            yield from _members(member)
        else:
            yield member


def alone(model: nn.Module) -> AbstractContextManager[Any]:
    """Gradients stay with their process here where a model is repeated; those of a sharded one are always summed."""
    return model.no_sync() if isinstance(model, nn.parallel.DistributedDataParallel) else nullcontext()


def share_buffers(model: nn.Module) -> None:
    """Give every process the buffers of the main one: statistics of batch norms are of each process's own images."""
    if distributed.world() > 1:
        for buffer in model.buffers():
            torch.distributed.broadcast(buffer, 0)


def whole_state(model: nn.Module, plan: Plan) -> dict[str, Any]:
    """A model's state dict, put together on the main process where it is sharded."""
    if not plan.shard:
        return model.state_dict()
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

    return get_model_state_dict(model, options=StateDictOptions(full_state_dict=True, cpu_offload=True))


def whole_optimizer_state(model: nn.Module, optimizer: torch.optim.Optimizer, plan: Plan) -> dict[str, Any]:
    """An optimiser's state dict, put together on the main process where it is sharded."""
    if not plan.shard:
        return optimizer.state_dict()
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_optimizer_state_dict

    return get_optimizer_state_dict(model, optimizer, options=StateDictOptions(full_state_dict=True, cpu_offload=True))


def load_optimizer_state(model: nn.Module, optimizer: torch.optim.Optimizer, state: dict[str, Any], plan: Plan) -> None:
    """Give an optimiser the state that ``whole_optimizer_state`` had."""
    if not plan.shard:
        optimizer.load_state_dict(state)
        return
    from torch.distributed.checkpoint.state_dict import StateDictOptions, set_optimizer_state_dict

    set_optimizer_state_dict(model, optimizer, state, options=StateDictOptions(full_state_dict=True))
