"""Runs every case on the ranks of gloo groups and stores what each rank got: ``python ranks_worker.py FOLDER``.

One process loads torch and forks the ranks of all groups, which is much quicker than starting each anew.
"""

import multiprocessing
import sys
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.distributed as dist

import foveal
from foveal import streaming
from foveal.functional import explicit_bands

CHANNELS, WIDTH = 6, 5
# Rows of the ranks: uneven, one row alone, bands smaller than a window.
BANDS = {2: [(4, 3), (1, 8)], 3: [(3, 1, 5), (2, 2, 7)]}

CASES = {
    "efficient": lambda **k: foveal.EfficientAttention(CHANNELS, key_channels=2, **k),
    "efficient, heads": lambda **k: foveal.EfficientAttention(
        CHANNELS, key_channels=4, heads=2, residual=False, bias=False, **k
    ),
    "efficient, scaling": lambda **k: foveal.EfficientAttention(CHANNELS, key_channels=4, normalization="scaling", **k),
    "efficient, unfolded": lambda **k: foveal.EfficientAttention(
        CHANNELS, key_channels=40, value_channels=4, heads=4, **k
    ),
    "external, in training": lambda **k: foveal.ExternalAttention(CHANNELS, slots=3, **k),
    "external, without a norm": lambda **k: foveal.ExternalAttention(CHANNELS, slots=3, norm=False, **k),
    "external, slots alone": lambda **k: foveal.ExternalAttention(
        CHANNELS, slots=3, normalization="softmax", norm=False, **k
    ),
    "multi-head external": lambda **k: foveal.MultiHeadExternalAttention(CHANNELS, heads=2, slots=3, **k),
    "explicit, uniform": lambda **k: foveal.ExplicitAttention(CHANNELS, 8, heads=2, decay="uniform", bias=True, **k),
    "explicit, gaussian": lambda **k: foveal.ExplicitAttention(CHANNELS, 8, heads=2, stride=2, **k),
    "explicit, gaussian by head": lambda **k: foveal.ExplicitAttention(
        CHANNELS, 8, heads=2, per_head_radius=True, bias=True, offset=0.0, **k
    ),
    "explicit, narrow gaussian": lambda **k: foveal.ExplicitAttention(CHANNELS, 8, heads=2, radius=0.05, **k),
    "explicit, manhattan": lambda **k: foveal.ExplicitAttention(CHANNELS, 8, heads=2, decay="manhattan", **k),
    "explicit, manhattan by head": lambda **k: foveal.ExplicitAttention(
        CHANNELS, 8, heads=2, decay="manhattan", per_head_radius=True, stride=3, **k
    ),
    "local, zero border": lambda **k: foveal.LocalAttention(CHANNELS, 8, kernel_size=5, heads=2, **k),
    "local, masked border": lambda **k: foveal.LocalAttention(
        CHANNELS, 8, kernel_size=3, heads=2, border="mask", dilation=2, stride=2, bias=True, **k
    ),
    "local, stride of three": lambda **k: foveal.LocalAttention(CHANNELS, 8, kernel_size=3, heads=4, stride=3, **k),
}


def build(name, dtype):
    torch.manual_seed(1)
    layer = CASES[name](dtype=dtype)
    if getattr(layer, "radius", None) is not None and layer.radius.dim():
        layer.radius.data[1] = 0.2
    return layer


def whole_map(height, dtype, width=WIDTH):
    torch.manual_seed(2)
    return torch.randn(2, CHANNELS, height, width, dtype=dtype)


def upstream(out):
    return torch.linspace(-1, 1, out.numel(), dtype=out.dtype).reshape(out.shape)


def split_upstream(whole_shape, part, first, dtype):
    """The part of the whole result's upstream gradient that belongs to these rows."""
    return upstream(torch.empty(whole_shape, dtype=dtype))[:, :, first : first + part.shape[2]]


def evaluated(name, rows, rank, dtype, width=WIDTH):
    layer, x = build(name, dtype), whole_map(sum(rows), dtype, width)
    # Small maps have few rows, all of which would be points.
    explicit_bands.MOST_POINTS = 4 if "narrow" in name else 512
    start = sum(rows[:rank])
    band = x[:, :, start : start + rows[rank]].clone().requires_grad_()
    traffic = streaming.Traffic()
    out = streaming.over_ranks(layer, band, traffic=traffic)
    counts = [None] * len(rows)
    dist.all_gather_object(counts, out.shape[2])
    shape = (*out.shape[:2], sum(counts), out.shape[3])
    (out * split_upstream(shape, out, sum(counts[:rank]), dtype)).sum().backward()
    grads = {key: p.grad for key, p in layer.named_parameters()}
    buffers = dict(layer.named_buffers())
    return {"out": out.detach(), "grad": band.grad, "parameters": grads, "buffers": buffers, "traffic": traffic.calls}


@contextmanager
def told(errors):
    try:
        yield
    except foveal.FovealError as error:
        errors.append(f"{type(error).__name__}: {error}")


def run_rank(rank, world, folder):
    torch.set_num_threads(1)
    torch.utils.deterministic.fill_uninitialized_memory = True
    torch.use_deterministic_algorithms(True)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store{world}", rank=rank, world_size=world)
    results = {}
    for name in CASES:
        for rows in BANDS[world]:
            results[name, rows, torch.float64] = evaluated(name, rows, rank, torch.float64)
        first = BANDS[world][0]
        results[name, first, torch.float32] = evaluated(name, first, rank, torch.float32)
        larger = tuple(4 * n for n in first)
        results[name, "larger"] = evaluated(name, larger, rank, torch.float32, 3 * WIDTH)["traffic"]
    with torch.no_grad():
        layer, x = build("efficient, heads", torch.float32), whole_map(sum(BANDS[world][0]), torch.float32)
        start = sum(BANDS[world][0][:rank])
        results["without gradients"] = streaming.over_ranks(layer, x[:, :, start : start + BANDS[world][0][rank]])
    errors = results["errors"] = []
    fine, torn = torch.randn(1, CHANNELS, 3, WIDTH), torch.randn(1, CHANNELS, 3, WIDTH + rank)
    with told(errors):
        streaming.over_ranks(foveal.EfficientAttention(CHANNELS), torn)
    with told(errors):
        streaming.over_ranks(foveal.EfficientAttention(CHANNELS), fine if rank else fine[:, :4])
    with told(errors):
        streaming.over_ranks(foveal.ExplicitAttention(CHANNELS, 8, decay="cosine"), fine)
    with told(errors):
        streaming.over_ranks(foveal.NonLocal(CHANNELS), fine)
    if world == 3:
        # The ranks of a smaller group, which are not those of the world.
        pair = dist.new_group([1, 2])
        if rank:
            layer, x = build("local, zero border", torch.float64), whole_map(7, torch.float64)
            band = x[:, :, :5] if rank == 1 else x[:, :, 5:]
            results["pair"] = streaming.over_ranks(layer, band, group=pair).detach()
    torch.save(results, f"{folder}/{world}-{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


def main():
    context = multiprocessing.get_context("fork")
    for world in BANDS:
        ranks = [context.Process(target=run_rank, args=(rank, world, Path(sys.argv[1]))) for rank in range(world)]
        for process in ranks:
            process.start()
        for process in ranks:
            process.join(120)
        codes = [process.exitcode for process in ranks]
        for process in ranks:
            process.kill()
        if any(codes):
            sys.exit(f"ranks ended with {codes}")


if __name__ == "__main__":
    main()
