"""The benchmarks' table: goals that are missed are marked, and nothing that computes something else is timed."""

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

from table import Row, Table, agree


def row(figure, **goal):
    return Row("group", "work", figure, figure, figure, "times faster", 3, **goal)


def test_a_missed_goal_is_marked_and_a_reached_one_is_not():
    assert row(3.0, least=2.0).goal == "≥ 2"
    assert row(1.9, least=2.0).goal == "**missed: ≥ 2**"
    assert row(0.9, most=1.0).goal == "≤ 1"
    assert row(1.1, most=1.0).goal == "**missed: ≤ 1**"
    assert row(1.1).goal == "" and row(1.1).reached is None


def test_a_side_that_computes_something_else_is_not_timed():
    x = torch.randn(3, 4)
    agree("work", x, x + 1e-6)
    agree("work", [x, 1e-9 * x], [x, -1e-9 * x])  # zero but for rounding
    with pytest.raises(SystemExit, match="work: result 0 is off by"):
        agree("work", x, x + 0.1)
    with pytest.raises(SystemExit, match="result 0"):
        agree("work", x, x * torch.nan)


def test_the_page_and_the_stored_rows_are_the_same(tmp_path, capsys):
    table = Table()
    table.group = "sums"
    table.add("one and one", [1.0, 2.0, 3.0], "apples", most=1.5)
    table.write(tmp_path, tmp_path / "results", "make bench-cpu", {"threads": 2})
    page = (tmp_path / "benchmarks.md").read_text()
    assert "| one and one | 2.00 (1.50 to 2.50) apples | **missed: ≤ 1.5** |" in page
    assert "Printed by `make bench-cpu` on: threads 2." in page and "Goals missed: 1 of 1." in page
    assert '"figure": 2.0' in (tmp_path / "results" / "cpu.json").read_text()
    assert "one and one" in capsys.readouterr().out
