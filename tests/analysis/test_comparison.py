"""What is said of a comparison follows from its records and goes no further."""

import pytest

from foveal.analysis.comparison import headline, join, percent, summarise


def record(mechanism, seed, accuracy, training=1.0):
    timing = {"median": 10 * training, "ratio": training}
    return dict(mechanism=mechanism, seed=seed, status="done", accuracy=accuracy, training_ms=timing, sites=["a", "b"])


def records(**accuracies):
    return [record(name, seed, value) for name, values in accuracies.items() for seed, value in enumerate(values)]


def test_a_row_holds_mean_deviation_costs_and_failures():
    entries = records(se=(0.9, 0.94))
    entries.append({"mechanism": "se", "seed": 2, "status": "failed", "reason": "out of memory"})
    row = summarise(entries).rows[0]
    assert (row.seeds, row.accuracies, row.sites) == ((0, 1), (0.9, 0.94), ("a", "b"))
    assert (row.mean, row.deviation) == (pytest.approx(0.92), pytest.approx(0.02 * 2**0.5))
    assert row.costs == {"training_ms.median": 10.0, "training_ms.ratio": 1.0}
    assert row.failures == ((2, "out of memory"),)
    assert row.best is None
    assert summarise([entries[0] | {"best_accuracy": 0.95}]).rows[0].best == 0.95


def test_the_margin_is_the_t_test_with_pooled_deviation():
    comparison = summarise(records(none=(0.90, 0.92), se=(0.93, 0.95), eca=(0.91, 0.93)))
    deviation = 0.01 * 2**0.5
    assert comparison.deviation == pytest.approx(deviation)
    assert comparison.margin == pytest.approx(5.84 * deviation)  # three degrees of freedom, two seeds


def test_a_difference_within_chance_is_not_claimed():
    said = headline(summarise(records(none=(0.95, 0.97), se=(0.96, 0.98))))
    assert said.startswith("No mechanism differs clearly from no attention here: means run from none with 96.0\u00a0%")
    assert "Clearly" not in said


def test_a_difference_beyond_chance_is_named_on_both_sides():
    said = headline(summarise(records(none=(0.95, 0.951), se=(0.98, 0.981), eca=(0.91, 0.911), cbam=(0.95, 0.952))))
    assert "Clearly better than no attention (95.0\u00a0%): se (98.0\u00a0%)." in said
    assert "Clearly worse: eca (91.1\u00a0%)." in said
    assert "cbam" not in said


def test_one_seed_supports_no_claim():
    assert headline(summarise(records(none=(0.1,), se=(0.99,)))).startswith("With one seed, differences cannot be told")


def test_the_cheapest_of_the_best_is_named_with_its_factor():
    entries = [record("none", s, 0.95 + s / 100, 1.0) for s in range(2)]
    entries += [record("se", s, 0.955 + s / 100, 1.5) for s in range(2)]
    assert "none trains fastest and se slowest: one training step takes 1.5 times" in headline(summarise(entries))


def test_no_finished_run_and_a_missing_baseline_are_said():
    lost = [{"mechanism": "se", "seed": 0, "status": "failed"}]
    assert headline(summarise(lost)) == "No run finished; the reasons are listed below."
    assert summarise(lost).rows[0].failures == ((0, "no reason was recorded"),)
    assert "a difference within chance" in headline(summarise(records(se=(0.95, 0.97), eca=(0.96, 0.98))))


def test_words_and_shares_read_well():
    assert join(["a", "b", "c"]) == "a, b and c"
    assert join(["a"]) == "a"
    assert percent(0.97222) == "97.2\u00a0%"
