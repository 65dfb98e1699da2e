"""metrics.csv has whole lines, notes.txt what happened, environment.json what decides the bits."""

import json
import math

import pytest
import torch

from foveal.errors import DataError
from foveal.tasks import run_folder
from foveal.tasks.loop import fit
from foveal.tasks.run_folder import append_metrics, keep_metrics, note, read_metrics, run_environment, write_metrics
from tests.tasks.tiny import Tiny, plan


def test_numbers_come_back_bit_for_bit(tmp_path):
    lines = [{"epoch": 1, "a": 1 / 3, "b": -1e-300}, {"epoch": 2, "a": math.pi * 1e17, "b": 5e-324}]
    for line in lines:
        append_metrics(tmp_path, line)
    assert read_metrics(tmp_path) == lines
    assert (tmp_path / "metrics.csv").read_text().splitlines()[0] == "epoch,a,b"
    assert read_metrics(tmp_path / "none") == []


def test_a_metric_that_is_new_or_missing_gets_an_empty_cell(tmp_path):
    lines = [{"epoch": 1, "a": 1.0}, {"epoch": 2, "a": 2.0, "with, comma": 7.0}, {"epoch": 3, "with, comma": 8.0}]
    for line in lines:
        append_metrics(tmp_path, line)
    assert read_metrics(tmp_path) == lines
    assert len((tmp_path / "metrics.csv").read_text().splitlines()) == 4


def test_a_line_that_was_cut_off_does_not_count(tmp_path):
    write_metrics(tmp_path, [{"epoch": 1, "a": 1.0}, {"epoch": 2, "a": 2.0}])
    path = tmp_path / "metrics.csv"
    path.write_text(path.read_text() + "3,0.2")
    assert [line["epoch"] for line in read_metrics(tmp_path)] == [1, 2]
    keep_metrics(tmp_path, 2)
    append_metrics(tmp_path, {"epoch": 3, "a": 0.25})
    assert path.read_text() == "epoch,a\n1,1.0\n2,2.0\n3,0.25\n"


def test_lines_after_the_checkpoint_are_dropped(tmp_path):
    write_metrics(tmp_path, [{"epoch": n, "a": float(n)} for n in (1, 2, 3)])
    keep_metrics(tmp_path, 1)
    assert [line["epoch"] for line in read_metrics(tmp_path)] == [1]
    keep_metrics(tmp_path, 0)
    assert not (tmp_path / "metrics.csv").exists()


@pytest.mark.parametrize("content", ["{\n", "a,b\n1,2\n", "epoch,a\n1\n", "epoch,a\n1,x\n"])
def test_what_is_no_table_of_numbers_is_named(tmp_path, content):
    (tmp_path / "metrics.csv").write_text(content)
    with pytest.raises(ValueError, match=r"columns|could not convert"):
        read_metrics(tmp_path)
    with pytest.raises(DataError, match=r"metrics.csv is damaged: .*Delete it to go on"):
        fit(Tiny(), plan(), tmp_path)


def test_metrics_are_not_written_again_where_nothing_is_dropped(tmp_path, monkeypatch):
    write_metrics(tmp_path, [{"epoch": 1, "a": 1.0}])
    monkeypatch.setattr(run_folder, "write_metrics", None)
    keep_metrics(tmp_path, 1)


def test_notes_are_lines(tmp_path):
    note(tmp_path, "one")
    note(tmp_path, "two")
    assert [line.split(" ", 1)[1] for line in (tmp_path / "notes.txt").read_text().splitlines()] == ["one", "two"]


def test_the_environment_of_a_run_is_complete(monkeypatch):
    monkeypatch.setattr("sys.argv", ["/somewhere/foveal", "train", "a b"])
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    told = run_environment()
    assert json.loads(json.dumps(told)) == told
    assert told["command"] == "foveal train 'a b'"
    assert told["processes"] == 1
    assert told["threads"] >= 1
    assert told["variables"]["OMP_NUM_THREADS"] == "3"
    assert told["deterministic"]["algorithms"] is torch.are_deterministic_algorithms_enabled()
    assert {"torch", "accelerate"} <= told["packages"].keys()
