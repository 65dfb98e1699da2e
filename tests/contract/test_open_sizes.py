"""Programs exported for any batch, height and width: torch.export's, and ONNX graphs run by onnxruntime."""

import pytest
import torch
from torch.testing import assert_close

from contract.exports import onnx_graph, torch_program
from contract.layers import CASES

# The example's rows are a multiple of every block and stride of the cases; of the others most lengths are not.
EXAMPLE, OTHERS = (3, (12, 15)), [(2, (9, 20)), (1, (13, 8)), (3, (5, 5))]

by_case = pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
# torch 2.10 guards the remainder by every stride and block: there, such programs take what divides as the example.
guards = pytest.mark.xfail(torch.__version__.startswith("2.10."), reason="guards on remainders", strict=False)
by_kind = pytest.mark.parametrize("export", [pytest.param(torch_program, marks=guards), onnx_graph])


def maps(case, batch, space):
    return case.map(space, batch=batch, dtype=torch.float32)


@by_kind
@by_case
def test_exported_programs_take_any_size_and_give_the_same(case, export):
    layer = case.build(EXAMPLE[1], dtype=torch.float32).eval()
    run = export(layer, maps(case, *EXAMPLE))
    for size in OTHERS:
        x = maps(case, *size)
        # Another library sums in another order: some hundred terms of size one, each rounded to 24 bits.
        assert_close(run(x), layer(x), rtol=0, atol=1e-5)
