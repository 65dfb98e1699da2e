"""Small members of every family, compiled, and exported for any batch, height and width."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from contract.exports import onnx_graph, torch_program
from foveal.models.catalog import CATALOG
from models.zoo import CIFAR, MEMBERS, image_size, images, small_member

TESTS = Path(__file__).parents[1]

by_member = pytest.mark.parametrize("name", MEMBERS)


def other_sizes(name):
    """Batch and sides of images that no program was exported with: more and fewer, even and odd."""
    rows, columns = (11, 18) if image_size(name) == CIFAR else (64, 51)
    return [(3, (rows, columns)), (1, (columns, rows)), (2, tuple(reversed(image_size(name))))]


def test_every_family_has_a_member_here():
    families = {row.build for row in CATALOG.values()}
    plain = {"resnet", "bottleneck_resnet", "mobilenetv2", "wide_resnet", "augmented_resnet", "augmented_mobilenetv2"}
    held = {CATALOG[name].build for name in MEMBERS}
    assert {build.__name__ for build in families - held} <= plain


@pytest.mark.parametrize("export", [torch_program, onnx_graph])
@by_member
def test_exported_networks_take_any_size_and_give_the_same(name, export):
    model = small_member(name).eval()
    run = export(model, images(name))
    for batch, size in other_sizes(name):
        x = images(name, batch, size)
        with torch.no_grad():
            wanted, out = model(x), run(x)
        # The share of the largest logit that float32 may lose over some twenty layers summed in another order.
        assert (out - wanted).abs().max() <= 1e-4 * wanted.abs().max().clamp(max=1)


def test_networks_compile_whole_in_a_fresh_process():
    command, env = [sys.executable, "-m", "models.compile_zoo"], {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=TESTS, capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("compiled ") == len(MEMBERS)
