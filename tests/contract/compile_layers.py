"""Compiles every case of the layer suite without graph breaks, forward and backward; run in a fresh process."""

import sys

import torch

from contract.layers import CASES

torch._dynamo.config.recompile_limit = 64


def main() -> None:
    seen = set()
    for case in CASES:
        # Code is generated for the first reading of every row; all readings are traced, forward and backward.
        backend = "aot_eager" if case.row in seen else "inductor"
        seen.add(case.row)
        torch.manual_seed(0)
        layer, x = case.build((5, 7), dtype=torch.float32), case.map((5, 7), dtype=torch.float32)
        layer.eval()
        results = []
        for run in (layer, torch.compile(layer, fullgraph=True, backend=backend)):
            inputs = x.clone().requires_grad_()
            out = run(inputs)
            grads = torch.autograd.grad(out.square().sum(), [inputs, *layer.parameters()], allow_unused=True)
            results.append([out, *grads])
        for eager, compiled in zip(*results, strict=True):
            torch.testing.assert_close(compiled, eager, rtol=1e-3, atol=1e-3)
        sys.stdout.write(f"compiled {case.name} with {backend}\n")


main()
