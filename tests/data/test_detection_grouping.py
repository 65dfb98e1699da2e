"""Orders of an epoch in which the images of a step lie the same way."""

import pytest
import torch

from foveal.data.detection.grouping import grouped

UPRIGHT = {
    "a third": [n % 3 == 0 for n in range(101)],
    "all": [True] * 9,
    "all but one": [False] * 8 + [True],
    "as many as a step": [n < 4 for n in range(9)],
    "fewer than a step": [True, False],
}


def made(upright, size=4, seed=0):
    order = torch.randperm(len(upright), generator=torch.Generator().manual_seed(seed))
    return order, grouped(order, torch.tensor(upright), size, seed)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("which", UPRIGHT)
def test_all_steps_but_one_are_of_one_kind_and_each_image_stays_in_a_step_or_left_over(which, seed):
    upright = UPRIGHT[which]
    order, new = made(upright, seed=seed)
    steps = len(upright) // 4
    assert sorted(new[: 4 * steps].tolist()) == sorted(order[: 4 * steps].tolist())
    assert torch.equal(new[4 * steps :], order[4 * steps :])
    kinds = [sorted({upright[index] for index in step.tolist()}) for step in new[: 4 * steps].view(-1, 4)]
    assert sum(len(each) == 2 for each in kinds) <= 1


def test_steps_of_both_kinds_come_in_any_order():
    kinds = []
    for seed in range(8):
        _, new = made(UPRIGHT["a third"], seed=seed)
        kinds.append(tuple(UPRIGHT["a third"][step[0]] for step in new[:100].view(-1, 4).tolist()))
    # A third of 25 steps, not all of them first or last.
    assert len(set(kinds)) == 8 and all(7 <= sum(each) <= 9 for each in kinds)
    assert any(each[n] and not each[n + 1] for each in kinds for n in range(12))


def test_each_part_of_a_step_lies_the_same_way_but_one():
    _, new = made(UPRIGHT["a third"], size=8)
    upright = torch.tensor(UPRIGHT["a third"])
    for size in (1, 2, 4):
        parts = upright[new[:96]].view(-1, size)
        assert int((parts.any(1) & ~parts.all(1)).sum()) <= 1
