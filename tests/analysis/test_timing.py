"""Times are in the right unit, in turns, bounded, and compared within a round."""

import gc
import time

import pytest

from foveal.analysis import interleaved
from foveal.analysis.timing import quartiles
from foveal.errors import OptionError


def test_a_sleep_of_five_milliseconds_reads_as_that():
    timing = interleaved({"sleep": lambda: time.sleep(5e-3)}, rounds=5)["sleep"]
    assert 5 <= timing.q1 <= timing.median <= timing.q3 < 100
    assert (timing.rounds, timing.repeats, timing.ratio) == (5, 1, 1.0)


def test_the_ratio_is_to_the_first_call():
    timings = interleaved({"short": lambda: time.sleep(4e-3), "long": lambda: time.sleep(12e-3)}, rounds=5)
    assert 1.5 < timings["long"].ratio < 4
    assert timings["long"].ratio_q1 <= timings["long"].ratio <= timings["long"].ratio_q3


def test_a_fast_call_is_repeated_until_a_sample_is_long_enough():
    timing = interleaved({"nothing": lambda: None}, rounds=3)["nothing"]
    assert timing.repeats > 1000
    assert timing.median < 0.01


def test_every_round_starts_with_another_call():
    order = []
    calls = {name: lambda name=name: (order.append(name), time.sleep(3e-3)) for name in "abc"}
    interleaved(calls, rounds=3, warmup=0)
    assert "".join(order[-9:]) == "abcbcacab"


def test_a_call_beyond_the_time_is_made_once_and_still_gives_a_figure():
    called = []
    slow = lambda: (called.append(1), time.sleep(0.03))  # noqa: E731
    timing = interleaved({"slow": slow, "slower": slow}, rounds=1000, warmup=0, seconds=0.02)["slow"]
    assert len(called) == 2
    assert timing.rounds == 1
    assert timing.median >= 30


def test_rounds_stop_when_the_time_is_over():
    timing = interleaved({"call": lambda: time.sleep(0.02)}, rounds=1000, warmup=0, seconds=0.1)["call"]
    assert 1 <= timing.rounds <= 6


def test_garbage_collection_is_off_while_timing_and_on_again_after():
    seen = set()
    interleaved({"look": lambda: (seen.add(gc.isenabled()), time.sleep(2e-3))}, rounds=2)
    assert seen == {False}
    assert gc.isenabled()


def test_quartiles_are_interpolated():
    assert quartiles([4.0, 1.0, 3.0, 2.0]) == (1.75, 3.25)
    assert quartiles([7.0]) == (7.0, 7.0)


def test_nothing_to_time_and_senseless_bounds_are_refused():
    with pytest.raises(OptionError, match=r"^interleaved: there is nothing to time"):
        interleaved({})
    with pytest.raises(
        OptionError, match=r"^interleaved: rounds must be at least 1.*got rounds=0, warmup=1, seconds=5.0"
    ):
        interleaved({"a": lambda: None}, rounds=0)


def test_the_least_rounds_are_made_however_long_they_take():
    told = interleaved({"slow": lambda: time.sleep(0.005)}, rounds=9, warmup=0, seconds=1e-9, least=3)
    assert told["slow"].rounds == 3
