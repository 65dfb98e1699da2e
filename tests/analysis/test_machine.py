"""The floor is the larger of what moving and multiplying take at the measured rates."""

import time

from foveal.analysis.machine import Machine, fastest, measure_machine

KNOWN = Machine(bytes_per_second=1e9, macs_per_second=1e10, copied_bytes=0)


def test_the_floor_is_the_larger_of_both():
    assert KNOWN.floor_ms(10**6, 10**6) == 1.0 and KNOWN.bound(10**6, 10**6) == "memory"
    assert KNOWN.floor_ms(10**6, 10**8) == 10.0 and KNOWN.bound(10**6, 10**8) == "products"


def test_the_fastest_sample_of_a_call_is_its_time():
    assert 0.002 <= fastest(lambda: time.sleep(0.002), 0.0) < 0.02


def test_the_rates_of_this_machine_are_those_of_a_machine():
    machine = measure_machine(1 << 20, seconds=0.05)
    assert 1e8 < machine.bytes_per_second < 1e14
    assert 1e8 < machine.macs_per_second < 1e16
    assert machine.copied_bytes == 1 << 20
