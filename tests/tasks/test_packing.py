"""Batches of many tensors on their way from a worker."""

import pytest
import torch

from foveal.data.samples import Samples
from foveal.tasks.packing import FEW, Packed, packed, unpacked
from foveal.tasks.reading import Reader


def many():
    """Types, sizes and orders of axes that batches have, with empty ones, and what is no tensor."""
    chance = torch.Generator().manual_seed(0)
    images = [torch.randint(256, (3, rows, 5), generator=chance, dtype=torch.uint8) for rows in (1, 7, 4)]
    targets = [
        {"boxes": torch.rand(n, 4, generator=chance), "image": torch.tensor(n), "masks": torch.rand(n, 3, 2) > 0.5}
        for n in (0, 1, 3)
    ]
    turned = torch.rand(4, 6, generator=chance, dtype=torch.float64).t()
    return images, targets, (turned, "name", 7), torch.rand(2).to(torch.bfloat16)


def same(one, other):
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[name], other[name]) for name in one)
    if isinstance(one, (list, tuple)):
        return type(one) is type(other) and len(one) == len(other) and all(map(same, one, other))
    return one == other


def test_a_packed_batch_is_one_tensor_and_comes_back_bit_for_bit():
    batch = many()
    told = packed(batch)
    assert isinstance(told, Packed) and told.content.dtype == torch.uint8
    assert same(unpacked(told), batch)
    assert not same(unpacked(packed(many()[:3])), batch)


@pytest.mark.parametrize("count", [0, 1, FEW])
def test_a_few_tensors_travel_as_they_are(count):
    batch = [torch.ones(2)] * count
    assert packed(batch) is batch and unpacked(batch) is batch


class Many(Samples):
    decodes = True

    def __len__(self):
        return 100

    def batch(self, indices):
        return [torch.full((2, index + 1), index) for index in indices], [{"at": torch.tensor(n)} for n in indices]


def test_a_batch_of_many_images_from_a_worker_holds_one_file_open():
    wanted = [list(range(20)), list(range(20, 50))]
    here, there = (list(Reader(workers).read(Many(), 0, 0, wanted)) for workers in (0, 1))
    assert same(here, there)
    for images, targets in there:
        kept = {each.untyped_storage().data_ptr() for each in [*images, *[target["at"] for target in targets]]}
        assert len(kept) == 1
