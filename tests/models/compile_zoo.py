"""Compiles a member of every family without graph breaks, forward and backward; run in a fresh process."""

import sys

import torch

from models.zoo import MEMBERS, images, small_member


def main() -> None:
    for name in MEMBERS:
        torch._dynamo.reset()
        # What code is made of a layer is held by the contract suite; here the graph of a network has to be whole.
        model, x = small_member(name).eval(), images(name)
        results = []
        for run in (model, torch.compile(model, fullgraph=True, backend="aot_eager")):
            out = run(x)
            grads = torch.autograd.grad(out.square().sum(), list(model.parameters()))
            results.append([out, *grads])
        for eager, compiled in zip(*results, strict=True):
            torch.testing.assert_close(compiled, eager, rtol=1e-3, atol=1e-3 * float(eager.detach().abs().max()))
        sys.stdout.write(f"compiled {name}\n")


if __name__ == "__main__":
    main()
