"""Budgets are read as a person means them; what is no budget is one sentence."""

import pytest

from foveal.analysis.budgets import parse_budget, parse_budgets
from foveal.errors import OptionError


@pytest.mark.parametrize(
    ("text", "own", "limit"),
    [
        ("latency=+10%", 20.0, 22.0),
        ("latency=5ms", 20.0, 5.0),
        ("latency=+500us", 20.0, 20.5),
        ("macs=500M", 1e9, 5e8),
        ("macs=+1.5G", 1e9, 2.5e9),
        ("memory=64MiB", 0.0, 64 * 2**20),
        ("memory=+8MB", 1e6, 9e6),
        ("params=2M", 1.0, 2e6),
        ("params=+0%", 123.0, 123.0),
    ],
)
def test_a_budget_limits_the_whole_model(text, own, limit):
    assert parse_budget(text).limit(own) == pytest.approx(limit)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("latency", "advise: --budget 'latency' must be latency= and a number with % or us, ms, s, as in latency="),
        ("latency=fast", "must be latency= and a number"),
        ("latency=-5%", "must be latency= and a number"),
        ("latency=5", "must be latency= and a number"),
        ("macs=5ms", "must be macs= and a number with % or k, M, G, T"),
        ("mac=5M", "limits 'mac', which is not known. Did you mean macs?"),
        ("speed=5", "Limit latency, macs, memory, params, as in"),
        ("params=10%", "must say what is added, with a plus. Use params=+10%, say."),
    ],
)
def test_what_is_no_budget_is_told_in_a_sentence(text, told):
    with pytest.raises(OptionError) as caught:
        parse_budget(text)
    assert told in str(caught.value)


def test_a_quantity_is_limited_once():
    with pytest.raises(OptionError, match="limits macs twice"):
        parse_budgets(["macs=1G", "params=1M", "macs=+5%"])
