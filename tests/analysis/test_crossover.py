"""Crossovers: the sizes by formula are those of a calculation by hand."""

import pytest

from foveal.analysis.crossover import PAIRS, crossovers, first_side, macs
from foveal.analysis.prediction import Speeds


def found(pair, channels, speeds=None):
    ours, theirs = pair
    rows = crossovers({theirs: (channels,)}, speeds)
    return next(row for row in rows if (row.mechanism, row.against) == (ours, theirs))


@pytest.mark.parametrize("channels", [64, 128, 512])
def test_local_pays_against_non_local_from_the_size_computed_by_hand(channels):
    # A position of local costs 3c² + 3·49c, offsets too; one of non-local 2c² + nc: local is less from n > c + 147.
    n = channels + 147
    side = next(s for s in range(1, 513) if s * s > n)
    assert found(("local", "nonlocal"), channels).by_macs == side


def test_local_against_a_convolution_depends_on_channels_and_not_on_the_map():
    # 3c² + 147c against 9c²: less above c = 24.5.
    assert found(("local", "conv3x3"), 24).by_macs is None
    assert found(("local", "conv3x3"), 28).by_macs == 1


def test_efficient_pays_against_non_local_where_its_formula_is_less():
    side = found(("efficient", "nonlocal"), 128).by_macs
    assert macs("efficient", 128, side) < macs("nonlocal", 128, side)
    assert macs("efficient", 128, side - 1) >= macs("nonlocal", 128, side - 1)
    # Folded: 4·64·c a position and 2·64·c² once, against 2c² + nc a position.
    assert macs("efficient", 128, 200) == 40000 * 4 * 64 * 128 + 2 * 64 * 128**2
    assert macs("nonlocal", 128, 200) == 40000 * (2 * 128**2 + 40000 * 128)


@pytest.mark.parametrize("threshold", [1, 2, 3, 7, 8, 9, 100, 511, 512])
def test_the_first_side_is_found_wherever_it_is(threshold):
    assert first_side(lambda side: side >= threshold) == threshold
    assert first_side(lambda side: False) is None


def test_by_time_is_from_speeds_and_absent_without():
    assert found(("local", "conv3x3"), 16).by_time is None
    # Only calls cost: a convolution is one, local attention several.
    calls = {f"{kind} calls": 1e-6 for kind in ("product", "elementwise", "convolution")}
    assert found(("local", "conv3x3"), 32, Speeds(calls)).by_time is None
    only = Speeds({"convolution macs": 1e-9, "product calls": 1e-9, "elementwise calls": 1e-9})
    assert found(("local", "conv3x3"), 32, only).by_time == 1


def test_each_pair_is_told_at_each_width_once():
    rows = crossovers({"nonlocal": (64, 64), "conv3x3": (32,)})
    assert [(r.mechanism, r.against, r.channels) for r in rows] == [
        (a, b, 64 if b == "nonlocal" else 32) for a, b in PAIRS
    ]
