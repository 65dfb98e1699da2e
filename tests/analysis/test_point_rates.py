"""What large clouds take: pairs are met in slices, and every piece of work is measured."""

import pytest
import torch

from foveal.analysis import point_rates
from foveal.analysis.memory import peak_memory
from foveal.errors import OptionError
from foveal.models.points import nearest_points


def test_neighbours_take_memory_by_what_is_held_and_not_by_all_pairs():
    cloud = torch.randn(1, 3, 2048)
    pairs = 4 * 2048**2
    peaks = {held: peak_memory(lambda: nearest_points(cloud, cloud, 8, held=held)) for held in (2**16, 2**22)}  # noqa: B023
    assert peaks[2**16] < pairs / 4 < pairs < peaks[2**22]


def test_every_piece_of_work_is_measured(monkeypatch):
    monkeypatch.setattr(point_rates, "ROUNDS", 1)
    told = []
    found = point_rates.cloud_work(512, neighbours=4, watch=told.append)
    assert [work.name for work in found] == told and len(told) == point_rates.PIECES
    assert all(work.seconds > 0 for work in found)
    assert all(work.peak_bytes > 0 for work in found)
    assert found[0].pairs_bytes == 4 * 512 * 512


def test_fewer_points_than_pct_samples_are_refused():
    with pytest.raises(OptionError, match="^bench points: --points must be at least 512, got 511"):
        point_rates.cloud_work(511)
