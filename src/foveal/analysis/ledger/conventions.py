"""What "M" and "GFLOPs" mean in each paper: rules that turn one count of a model into the figure of a column.

Each rule was found by holding the published figures against counts of the networks; where a paper states its rule, that
is said in ``words``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from foveal.analysis.ledger.work import Work


@dataclass(frozen=True)
class Tally:
    """A model's parameters, the numbers that it holds fixed, and the work of one forward on one image."""

    parameters: int
    fixed: int
    work: Work


@dataclass(frozen=True)
class Convention:
    """A rule by name, in words, and as a function; ``strided_first`` counts the networks as first published, with the
    stride of a bottleneck on its first 1x1 convolution."""

    name: str
    words: str
    read: Callable[[Tally], float]
    operations: bool = True
    strided_first: bool = False


def _modules(work: Work, norm: int) -> int:
    return work.linear + norm * work.normed + work.activated + work.pooled


MILLIONS = Convention(
    "10^6 parameters", "all parameters of the model, in 10^6", lambda t: t.parameters / 1e6, operations=False
)
MEBI = Convention(
    "2^20 parameters",
    "all parameters of the model, in 2^20, as ECA-Net prints its own; papers that copy its figures mix the units",
    lambda t: t.parameters / 2**20,
    operations=False,
)
WITH_FIXED = Convention(
    "10^6 parameters, fixed ones too",
    "the same with the table of positions, which the authors' code of EAMLP holds as a parameter that is not trained",
    lambda t: (t.parameters + t.fixed) / 1e6,
    operations=False,
)
TWO = Convention(
    "2 per MAC",
    "a multiplication and an addition each count, in convolutions, linear maps and the products of the attention "
    "(stand-alone self-attention)",
    lambda t: 2 * (t.work.linear + t.work.products) / 1e9,
)
AA_NET = Convention(
    "2 per MAC, no products",
    "a multiplication and an addition each count, in convolutions and linear maps only; of a strided attention at the "
    "size after its pool (AA-Net; with the products its ResNet-101 would print 21.5, and before the pool 16.4)",
    lambda t: 2 * (t.work.linear - t.work.early) / 1e9,
)
HALVED = Convention(
    "half of AA-Net's",
    "half of AA-Net's own figure, from which these rows were copied",
    lambda t: (t.work.linear - t.work.early) / 1e9,
)
MODULES = Convention(
    "1 per MAC of modules",
    "1 per multiply-accumulate of convolution and linear modules; what a module computes in functions, here the "
    "product of attention map and values, is not seen (ExpAtt, table 2)",
    lambda t: t.work.linear / 1e9,
)
PROFILER = Convention(
    "1 per MAC of modules, norms",
    "the same, and 2 an element of a norm, 1 of an activation or pool, as profilers by hooks count them (ExpAtt, "
    "tables 3 and 4; without the elements ResNet-101 would print 0.1, MobileNetV2 0.02 less)",
    lambda t: _modules(t.work, 2) / 1e9,
)
MACS = Convention(
    "1 per MAC", "1 per multiply-accumulate of everything", lambda t: (t.work.linear + t.work.products) / 1e9
)
COPIED = Convention(
    "1 per MAC, first ResNets",
    "copied from the papers of the networks: multiply-accumulates with a bottleneck's stride on its first 1x1 "
    "convolution",
    lambda t: t.work.linear / 1e9,
    strided_first=True,
)
ECA = Convention(
    "2^30, ECA-Net",
    "copied from ECA-Net, whose figures fit a profiler that counts 4 an element of a norm, 1 of an activation, in 2^30",
    lambda t: _modules(t.work, 4) / 2**30,
)
SHARED_MEMORY = Convention(
    "1 per MAC, one memory",
    "the profiler's rule where key and value memory are one matrix that is charged once",
    lambda t: (_modules(t.work, 2) + t.work.products / 2) / 1e9,
)
CONVENTIONS = (MILLIONS, MEBI, WITH_FIXED, TWO, AA_NET, HALVED, MODULES, PROFILER, MACS, COPIED, ECA, SHARED_MEMORY)
