"""Learning rates against their closed forms, at any moment of a training."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foveal.tasks.recipe import ScheduleOptions
from foveal.tasks.schedules import CURVES, key_epochs, rate

RESTARTS = (25.0, 45.0, 85.0, 165.0, 325.0)
EXPATT = ScheduleOptions("restarts", warmup=15, restarts=RESTARTS, tail_lr=2e-4)


def half_wave(share, high=0.05, low=0.0):
    return low + (high - low) * (1 + math.cos(math.pi * share)) / 2


@pytest.mark.parametrize(
    ("epoch", "expected"),
    [
        (0, 0.0),
        (3.75, 0.0125),
        (15, 0.05),
        (17.5, half_wave(0.25)),
        (20, 0.025),
        (25, 0.05),
        (35, 0.025),
        (45, 0.05),
        (72.3, half_wave(27.3 / 40)),
        (85, 0.05),
        (164, half_wave(79 / 80)),
        (165, 0.05),
        (324, half_wave(159 / 160)),
        (325, 2e-4),
        (325.01, 2e-4),
        (449.99, 2e-4),
        (450, 2e-4),
    ],
)
def test_the_restarts_of_explicit_attention_are_half_waves_between_its_epochs(epoch, expected):
    assert rate(EXPATT, 0.05, epoch, 450) == pytest.approx(expected, rel=1e-12, abs=1e-15)


@pytest.mark.parametrize("epochs", [164, 324])
def test_a_training_that_ends_before_a_restart_stops_within_its_half_wave(epochs):
    for epoch in (0, 15, 30.5, 84.999, 85, 100, 163.5):
        assert rate(EXPATT, 0.05, epoch, epochs) == rate(EXPATT, 0.05, epoch, 450)


def test_without_a_tail_the_last_cycle_ends_with_the_training():
    options = ScheduleOptions("restarts", restarts=(2.0, 6.0), least_lr=0.1)
    assert rate(options, 1.0, 8, 10) == pytest.approx(half_wave(0.5, 1.0, 0.1))
    assert rate(options, 1.0, 10, 10) == pytest.approx(0.1)
    assert rate(options, 1.0, 6, 6) == pytest.approx(0.1)


def test_cosine_falls_from_the_end_of_the_warm_up_to_the_cooldown():
    options = ScheduleOptions("cosine", warmup=5, warmup_lr=1e-6, least_lr=1e-5, cooldown=10)
    assert rate(options, 1e-3, 2.5, 310) == pytest.approx(1e-6 + (1e-3 - 1e-6) / 2)
    assert rate(options, 1e-3, 5, 310) == pytest.approx(1e-3)
    assert rate(options, 1e-3, 5 + 295 / 3, 310) == pytest.approx(half_wave(1 / 3, 1e-3, 1e-5))
    for epoch in (300, 305.5, 310):
        assert rate(options, 1e-3, epoch, 310) == pytest.approx(1e-5, rel=1e-12)


def test_a_cosine_that_overlaps_its_warm_up_is_timm_s():
    from timm.scheduler import CosineLRScheduler
    from torch import nn, optim

    options = ScheduleOptions("cosine", warmup=5, warmup_lr=1e-6, least_lr=1e-5, cooldown=10, overlap=True)
    rule = optim.SGD(nn.Linear(1, 1).parameters(), 1e-3)
    theirs = CosineLRScheduler(rule, t_initial=300, lr_min=1e-5, warmup_t=5, warmup_lr_init=1e-6, cycle_limit=1)
    for epoch in (0, 1, 4, 5, 6, 77, 150, 299, 300, 305, 309):
        theirs.step(epoch)
        assert rate(options, 1e-3, epoch, 310) == pytest.approx(rule.param_groups[0]["lr"], rel=1e-9)


def test_steps_fall_at_their_epochs_and_not_below_the_least():
    options = ScheduleOptions("step", steps=(60, 30, 90), factor=0.1, least_lr=5e-4)
    told = [rate(options, 0.1, epoch, 100) for epoch in (0, 29.999, 30, 59.9, 60, 90, 100)]
    assert told == pytest.approx([0.1, 0.1, 0.01, 0.01, 1e-3, 5e-4, 5e-4])


def test_poly_is_the_power_of_what_is_left():
    options = ScheduleOptions("poly", power=0.9, least_lr=0.001, warmup=2)
    assert rate(options, 0.009, 7, 12) == pytest.approx(0.001 + 0.008 * 0.5**0.9)
    assert rate(options, 0.009, 12, 12) == 0.001


def test_constant_stays():
    assert {rate(ScheduleOptions("constant"), 0.3, epoch, 5) for epoch in (0, 1.7, 5)} == {0.3}


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(sorted(CURVES)), st.floats(0, 1), st.floats(0, 8), st.floats(0, 3), st.booleans(),
    st.floats(0, 0.1), st.integers(11, 40), st.none() | st.floats(0, 1),
)  # fmt: skip
def test_no_rate_leaves_the_room_between_least_and_highest(name, share, warmup, cooldown, overlap, least, epochs, tail):
    options = ScheduleOptions(
        name, warmup=warmup, cooldown=cooldown, overlap=overlap, least_lr=least, restarts=(9.0, 20.0), steps=(9.0,),
        tail_lr=tail,
    )  # fmt: skip
    told = rate(options, 1.0, share * epochs, epochs)
    assert 0 <= told <= 1
    if share * epochs >= warmup:
        assert told >= min(least, least if tail is None else tail) - 1e-12


def test_the_key_epochs_hold_both_ends_and_every_bend():
    told = key_epochs(EXPATT, 450)
    assert {0, 15, *RESTARTS, 450} <= set(told)
    assert told == sorted(told)
    assert rate(EXPATT, 0.05, told[told.index(25.0) - 1], 450) < 1e-15
    assert key_epochs(EXPATT, 164)[-1] == 164
