"""Calibrations: a file is whole, of this machine, and in the cache folder, or it is said what is wrong with it."""

import json
from dataclasses import replace

import pytest

from foveal.analysis.calibration import (
    Calibration,
    calibrate,
    load,
    measure,
    path_of,
    save,
    this_place,
)  # fmt: skip
from foveal.analysis.calibration_layers import checked, measured, mechanisms_not_measured
from foveal.analysis.prediction import Speeds
from foveal.cache import cache_folder
from foveal.errors import DataError


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def calibration():
    return Calibration(this_place(), Speeds({"product macs": 1.25e-11, "elementwise calls": 1e-6}), 7, 0.05)


def test_a_saved_calibration_comes_back_the_same(cache):
    assert load(this_place()) is None
    path = save(calibration())
    assert path.parent == cache / "foveal" and path == path_of(this_place())
    assert load(this_place()) == calibration()
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_other_threads_versions_and_kernels_have_other_files():
    here = this_place()
    others = [
        replace(here, threads=97),
        replace(here, torch="0"),
        replace(here, kernels="none"),
        replace(here, device="cuda"),
    ]
    assert len({path_of(place) for place in (here, *others)}) == 5


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "{}", '{"format": 99}', '{"format": 1, "place": {}, "speeds": {"seconds": {}}}'],
)
def test_a_damaged_file_is_said_to_be(content):
    path = save(calibration())
    path.write_text(content)
    with pytest.raises(DataError, match=r"is damaged\. Add --calibrate"):
        load(this_place())


@pytest.mark.parametrize("value", [-1.0, float("nan"), "fast"])
def test_speeds_that_cannot_be_are_damage(value):
    path = save(calibration())
    content = json.loads(path.read_text())
    content["speeds"]["seconds"]["product macs"] = value
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match="is damaged"):
        load(this_place())


def test_a_file_of_another_machine_is_not_taken_for_this_one():
    save(calibration())
    path = path_of(this_place())
    content = json.loads(path.read_text())
    content["place"]["processor"] = "another"
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match="was measured elsewhere \\(processor 'another' instead of"):
        load(this_place())


def test_a_folder_that_cannot_be_written_is_a_sentence(cache):
    cache.write_text("a file, not a folder")
    with pytest.raises(DataError, match="cannot be written to"):
        save(calibration())


def test_a_relative_cache_folder_is_not_followed(monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "here")
    assert cache_folder().is_absolute()


def test_what_is_checked_was_not_measured():
    there = {(sample.mechanism, sample.channels, sample.side) for sample in measured()}
    assert not there & {(sample.mechanism, sample.channels, sample.side) for sample in checked()}
    assert set(mechanisms_not_measured()) >= {"se", "eca", "cbam"}


def test_two_measured_layers_are_predicted_near_their_times():
    rows = measure([s for s in measured() if s.name in ("conv3x3 256 x 14 x 14", "sum 64 x 56 x 56")], seconds=0.01)
    made = calibrate(rows, this_place())
    assert made.layers == 2
    assert made.fit_error < 0.01
