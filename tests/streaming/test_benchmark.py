"""The benchmark of maps larger than memory measures what it says, on a small map."""

import json
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "streaming.py"


def run(tmp_path, *options):
    command = [sys.executable, SCRIPT, "--size", "45", "37", "--folder", tmp_path, "--only", "external", *options]
    return subprocess.run(list(map(str, command)), capture_output=True, text=True)


def test_the_error_is_that_of_rounding_the_limit_holds_and_nothing_is_left(tmp_path):
    (record,) = json.loads(run(tmp_path, "--json").stdout)
    assert record["shape"] == [16, 45, 37]
    assert 0 < record["error"] < 1e-5
    assert record["before"] <= record["peak"] < record["limit"] == 1 << 30
    assert list(tmp_path.iterdir()) == []


def test_a_layer_that_needs_more_than_the_limit_is_no_result(tmp_path):
    done = run(tmp_path, "--limit", str(1 << 26))
    assert done.returncode == 1 and "external did not stay within 67108864 bytes" in done.stderr
    assert list(tmp_path.iterdir()) == []
