"""Digits and digit pairs: real images, fixed splits, nothing on both sides."""

import pytest
import torch

from foveal.data import load
from foveal.data.digit_pairs import canvases
from foveal.data.digits import sources
from foveal.data.images import TensorSplit, mix
from foveal.errors import DataError, OptionError


def test_every_digit_is_on_exactly_one_side_and_every_class_on_both():
    data = load("digits")
    assert len(data.train) + len(data.val) == 1797
    assert set(data.train.labels) == set(data.val.labels) == set(range(10))
    shares = [data.val.labels.count(label) / data.train.labels.count(label) for label in range(10)]
    assert min(shares) > 0.23 and max(shares) < 0.26


def test_no_digit_of_a_training_canvas_is_on_a_validation_canvas():
    images, labels, held_out = sources()
    train = canvases(images, labels, torch.nonzero(~held_out).flatten(), 200, 64, 1)[2]
    val = canvases(images, labels, torch.nonzero(held_out).flatten(), 200, 64, 2)[2]
    assert not set(train.flatten().tolist()) & set(val.flatten().tolist())
    assert not held_out[train].any()
    assert held_out[val].all()


def test_digit_pairs_are_balanced_far_apart_and_told_truly():
    images, labels, _ = sources()
    canvas, same, used = canvases(images, labels, torch.arange(len(images)), 100, 64, 3)
    assert int(same.sum()) == 50
    assert torch.equal((labels[used[:, 0]] == labels[used[:, 1]]).long(), same)
    assert (used[:, 0] != used[:, 1]).all()
    for n in range(100):
        rows, columns = torch.nonzero(canvas[n, 0], as_tuple=True)
        assert max(int(rows.max() - rows.min()), int(columns.max() - columns.min())) >= 64 / 2 / 2**0.5


def test_digit_pairs_are_the_same_every_time():
    images, labels, _ = sources()
    one, two = (canvases(images, labels, torch.arange(50), 20, 32, 5)[0] for _ in range(2))
    assert torch.equal(one, two)


def test_augmentation_depends_on_seed_and_epoch_alone():
    split = TensorSplit(torch.rand(20, 1, 8, 8), torch.zeros(20), shift=2)

    def epoch(seed: int, number: int, order: list[int]) -> dict[int, torch.Tensor]:
        split.at(seed, number)
        return {n: split[n][0] for n in order}

    first = epoch(0, 3, list(range(20)))
    torch.rand(7)
    again = epoch(0, 3, list(reversed(range(20))))
    assert all(torch.equal(first[n], again[n]) for n in range(20))
    for other in (epoch(1, 3, list(range(20))), epoch(0, 4, list(range(20)))):
        assert not all(torch.equal(first[n], other[n]) for n in range(20))


def test_mixed_numbers_differ():
    assert len({mix(a, b) for a in range(50) for b in range(50)}) == 2500


def test_digits_come_in_any_size():
    assert load("digits", size=12).val[0][0].shape == (1, 12, 12)
    with pytest.raises(OptionError, match=r"size must be at least 8 pixels, got 4"):
        load("digits", size=4)
    with pytest.raises(OptionError, match=r"multiple of 4 and at least 32, got 30"):
        load("digit-pairs", size=30)


def test_a_misspelt_name_is_answered_with_the_nearest():
    with pytest.raises(DataError, match=r"no data set or folder 'digit_pairs'. Did you mean digit-pairs\?"):
        load("digit_pairs")
