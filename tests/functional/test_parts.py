"""Parts of positions put together are the softmax over all of them."""

import pytest
import torch
from torch.testing import assert_close

from foveal.functional.efficient import context
from foveal.functional.external import normalize_slots
from foveal.functional.parts import Part, part_of, together


def scores_and_values(n, dtype=torch.float64):
    return torch.randn(2, 3, 4, n, dtype=dtype, requires_grad=True), torch.randn(2, 3, 5, n, dtype=dtype)


@pytest.mark.parametrize("cuts", [[1], [7], [3, 1, 5], [2] * 6])
def test_parts_of_any_length_give_the_softmax_over_all(cuts):
    scores, values = scores_and_values(sum(cuts))
    parts = [part_of(s, v) for s, v in zip(scores.split(cuts, 3), values.split(cuts, 3), strict=True)]
    whole = together(parts)
    got, wanted = whole.held / whole.total[..., None], context(scores, values)
    assert whole.positions == sum(cuts)
    assert_close(got, wanted)
    weights = torch.randn_like(wanted)
    grads = [torch.autograd.grad((out * weights).sum(), scores, retain_graph=True)[0] for out in (got, wanted)]
    assert_close(*grads)


def test_plain_weights_are_the_scores():
    scores, values = scores_and_values(6)
    whole = together(
        part_of(s, v, exponential=False) for s, v in zip(scores.split(2, 3), values.split(2, 3), strict=True)
    )
    assert_close(whole.held / 6, context(scores, values, normalization="scaling"))
    assert_close(whole.total, scores.sum(3))


def test_one_map_of_values_serves_all_heads():
    scores, values = scores_and_values(6)
    wanted = part_of(scores, values[:, :1].expand(-1, 3, -1, -1)).held
    assert_close(part_of(scores, values[:, :1]).held, wanted)


def test_slots_are_normalised_over_all_positions_part_by_part():
    scores, _ = scores_and_values(9)
    whole = together(part_of(s, None) for s in scores.split([4, 5], 3))
    assert whole.held is None
    got = torch.cat([normalize_slots(s, over=whole) for s in scores.split([4, 5], 3)], 3)
    assert_close(got, normalize_slots(scores))


def test_scores_of_very_different_size_stay_finite():
    low, high = torch.full((1, 1, 1, 3), -1e4), torch.full((1, 1, 1, 2), 1e4)
    whole = together([part_of(low, low), part_of(high, high), part_of(low, low)])
    assert (whole.total, whole.held, whole.greatest) == (2, 2e4, 1e4)


def test_a_sum_over_many_positions_does_not_lose_its_last_terms():
    # In float32 a sum of ones stops growing at 2^24.
    zero = torch.zeros(1, 1, 1)
    whole = together([Part(zero, zero + 2.0**25, None, 2**25), Part(zero, zero + 1, None, 1)])
    assert whole.total.item() == 2**25 + 1
