"""The study of digit pairs: its bound is one, and its page says what its results say."""

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks" / "digit_pairs"))

from page import difference, said, sorts, spread
from shortcuts import best_sum


@pytest.mark.parametrize("classes", [2, 3, 10])
def test_no_sum_of_two_numbers_beats_the_bound_and_one_reaches_it(classes):
    bound = best_sum(classes)
    numbers = torch.cat([torch.randn(500, classes), (torch.rand(500, classes) < torch.rand(500, 1)).float()])
    sums = numbers[:, :, None] + numbers[:, None]
    same = torch.eye(classes, dtype=torch.bool)
    reached = 0.0
    for level in torch.linspace(-3, 3, 61) + 1e-3:
        right = (sums[:, same] >= level).float().mean(1) + (sums[:, ~same] < level).float().mean(1)
        reached = max(reached, float(right.max()) / 2)
    assert reached == pytest.approx(bound, abs=1e-6)


def test_differences_are_taken_seed_by_seed():
    told = difference({0: 0.9, 1: 0.8, 2: 0.7}, {2: 0.6, 1: 0.7, 0: 0.8})
    assert told == "+10.0 (+10.0 to +10.0)"
    assert difference({0: 0.9, 1: 0.8}, {0: 0.8}) == "+10.0"
    assert spread([0.5, 0.7]) == "60.0 ± 14.1"


def test_a_mechanism_is_said_to_have_learned_only_where_every_seed_did():
    reached = {"none": (0.5, 0.51), "cbam": (0.5, 0.9), "efficient": (0.8, 0.9)}
    records = [
        {"mechanism": name, "seed": seed, "status": "done", "accuracy": value}
        for name, values in reached.items()
        for seed, value in enumerate(values)
    ]
    found = sorts({"config": {"mechanisms": list(reached)}, "records": records})
    assert found == {"learned": ["`efficient`"], "between": ["`cbam`"], "chance": ["`none`"]}
    assert said(found).startswith("`efficient` above 60 % with every seed; `cbam` above chance with some seeds only")
