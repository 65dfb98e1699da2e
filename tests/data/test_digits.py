"""Digits and digit pairs: real images, fixed splits, nothing on both sides."""

import pytest
import torch

from foveal.data import load
from foveal.data.digit_pairs import drawn
from foveal.data.digits import sources
from foveal.data.images import TensorSplit
from foveal.data.options import Augmentation, DataOptions
from foveal.data.samples import mix
from foveal.errors import DataError, OptionError


def test_every_digit_is_on_exactly_one_side_and_every_class_on_both():
    data = load("digits")
    assert len(data.train) + len(data.val) == 1797
    assert set(data.train.labels) == set(data.val.labels) == set(range(10))
    shares = [data.val.labels.count(label) / data.train.labels.count(label) for label in range(10)]
    assert min(shares) > 0.23 and max(shares) < 0.26


@pytest.fixture(scope="module")
def pairs():
    return load("digit-pairs")


def _digits_of(board: torch.Tensor) -> list[tuple[tuple[int, int], torch.Tensor]]:
    """The cells of a board that are not empty, and what is in them."""
    cells = board[0].unflatten(0, (3, -1)).unflatten(2, (3, -1)).permute(0, 2, 1, 3)
    return [((row, column), cells[row, column]) for row in range(3) for column in range(3) if cells[row, column].any()]


def test_every_digit_of_a_board_is_of_its_side_alone_and_the_label_is_true(pairs):
    images, labels, held_out = sources()
    of = {
        image.numpy().tobytes(): (int(label), bool(held))
        for image, label, held in zip(images[:, 0], labels, held_out, strict=True)
    }
    for split, held in ((pairs.train, False), (pairs.val, True)):
        for index in range(200):
            board = _digits_of(split.picture(index))
            found = [of[digit.contiguous().numpy().tobytes()] for _, digit in board]
            assert len(found) == 2 and all(side == held for _, side in found)
            assert (found[0][0] == found[1][0]) == split.labels[index]
            assert not torch.equal(board[0][1], board[1][1])


def test_half_of_the_pairs_are_of_one_class_and_every_class_is_among_them(pairs):
    _, labels, held_out = sources()
    for split in (pairs.train, pairs.val):
        assert sum(split.labels) == len(split) / 2
    drawn_pairs, _ = drawn(labels[held_out], 2000, 5)
    one, other = labels[held_out][drawn_pairs].unbind(1)
    counts = torch.bincount(one[one == other], minlength=10)
    assert int(counts.sum()) == 1000 and counts.min() > 60
    assert (drawn_pairs[:, 0] != drawn_pairs[:, 1]).all()


def test_a_cell_at_least_lies_between_two_digits(pairs):
    """Nineteen pixels, which the shallow backbone sees, never hold both whole; every such pair of cells occurs."""
    seen = set()
    for index in range(1000):
        (one, _), (other, _) = _digits_of(pairs.train.picture(index))
        assert max(abs(one[0] - other[0]), abs(one[1] - other[1])) == 2
        seen.add((one, other))
    assert len(seen) == 16


def test_training_pairs_are_other_ones_each_epoch_and_the_same_for_the_same_numbers(pairs):
    def epoch(seed: int, number: int) -> torch.Tensor:
        pairs.train.at(seed, number)
        return pairs.train.batch(range(50))[0]

    first, fixed = epoch(0, 3), pairs.val[7][0]
    assert not torch.equal(first, epoch(1, 3)) and not torch.equal(first, epoch(0, 4))
    torch.rand(7)
    assert torch.equal(first, epoch(0, 3))
    pairs.val.at(0, 9)
    assert torch.equal(fixed, pairs.val[7][0])


def test_a_batch_of_pairs_is_its_items(pairs):
    images, labels = pairs.train.batch([5, 0, 1])
    for place, index in enumerate((5, 0, 1)):
        image, label = pairs.train[index]
        assert torch.equal(images[place], image) and label == labels[place]
        torch.testing.assert_close(image, pairs.train.picture(index) * 2 - 1)


def test_the_sum_of_all_pixels_does_not_tell_pairs_apart(pairs):
    """The smallest shortcut would be that more ink means one answer."""
    pairs.train.at(0, 0)
    ink = pairs.train.images.sum((1, 2, 3))
    same = torch.tensor(pairs.train.labels) == 1
    gap = (ink[same].mean() - ink[~same].mean()).abs() / ink.std()
    assert gap < 0.07
    best = max(float(((ink > level) == same).float().mean()) for level in ink.quantile(torch.linspace(0, 1, 99)))
    assert best < 0.54


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
    with pytest.raises(OptionError, match=r"digit-pairs: size must be a multiple of 3 and at least 24, got 32"):
        load("digit-pairs", size=32)


def test_digit_pairs_come_larger_and_take_no_augmentation_of_single_images():
    assert load("digit-pairs", size=48).train[0][0].shape == (1, 48, 48)
    with pytest.raises(OptionError, match=r"digit-pairs draws its own pairs .* Leave them out"):
        load("digit-pairs", options=DataOptions(augmentation=Augmentation(erasing=0.5)))


def test_a_misspelt_name_is_answered_with_the_nearest():
    with pytest.raises(DataError, match=r"no data set or folder 'digit_pairs'. Did you mean digit-pairs\?"):
        load("digit_pairs")
