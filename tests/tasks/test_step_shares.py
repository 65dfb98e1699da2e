"""The shares of a training step are those of what the loop said that it did."""

from dataclasses import replace

import pytest
import torch

from foveal.tasks.classification import Classification
from foveal.tasks.recipe import Recipe
from foveal.tasks.step_shares import WARM, Marks, shares, step_shares, steps_of

STEP = [("data", 1.0), ("forward", 3.0), ("backward", 4.0), ("optimizer", 1.0), ("rest", 1.0)]


def test_a_step_is_what_lies_between_two_looks_for_data_that_find_some():
    epoch = [*STEP, *STEP, ("data", 9.0), ("evaluate", 50.0), ("rest", 5.0), ("checkpoint", 7.0), ("rest", 2.0)]
    assert steps_of([("rest", 3.0), *epoch, *STEP]) == [dict(STEP)] * 3


def test_a_checkpoint_within_a_step_is_none_of_it():
    taken = [*STEP, ("checkpoint", 100.0), ("rest", 2.0), *STEP]
    assert steps_of(taken)[0] == dict(STEP) | {"rest": 3.0}


def test_shares_add_up_and_outside_is_all_but_the_work():
    phases, outside = shares([dict(STEP)] * 40)
    assert [(row.phase, row.ms, row.share) for row in phases] == [
        ("data", 1e3, 0.1), ("forward", 3e3, 0.3), ("backward", 4e3, 0.4), ("optimizer", 1e3, 0.1), ("rest", 1e3, 0.1),
    ]  # fmt: skip
    assert outside.share == pytest.approx(0.2) and outside.ms == pytest.approx(2e3)
    assert outside.share_q1 == pytest.approx(outside.share_q3)


def test_quartiles_are_over_blocks_of_steps_so_that_one_hiccup_moves_none():
    steps = [dict(STEP) for _ in range(100)]
    steps[37]["rest"] = 1000.0
    _, outside = shares(steps)
    assert outside.share > 0.5 and outside.share_q3 == pytest.approx(0.2)


def test_marks_end_a_phase_where_the_next_begins():
    marks = Marks()
    for phase in ("data", "forward", "rest"):
        marks.begin(phase)
    (first, one), (second, two) = marks.taken()
    assert (first, second) == ("data", "forward") and one >= 0 and two >= 0


def test_a_slow_loss_shows_in_forward_and_as_many_steps_count_as_were_asked_for(monkeypatch):
    once, taken = Classification.step, []

    def slow(self, batch, turn):
        taken.append(turn)
        for _ in range(30):
            torch.randn(64, 64) @ torch.randn(64, 64)
        return once(self, batch, turn)

    monkeypatch.setattr(Classification, "step", slow)
    told = []
    found = step_shares(
        replace(Recipe(), batch_size=8), 20, watch=lambda recipe: lambda at, _: told.append((recipe, at))
    )
    assert found.steps == 20 and len(taken) >= 20 + WARM
    by_name = {row.phase: row for row in found.phases}
    assert by_name["forward"].share > by_name["data"].share
    assert sum(row.share for row in found.phases) == pytest.approx(1)
    assert found.outside.share == pytest.approx(by_name["data"].share + by_name["rest"].share)
    assert told and told[0][0].epochs * (1442 // 8) == len(taken)
