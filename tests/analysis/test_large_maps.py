"""Maps larger than memory: measured as said, on a small map."""

import pytest

from foveal.analysis.large_maps import NAMES, large_maps
from foveal.errors import DataError, OptionError


@pytest.mark.parametrize("name", NAMES)
def test_the_error_is_that_of_rounding_the_limit_holds_and_nothing_is_left(name, tmp_path):
    (found,) = large_maps((45, 37), 16, names=[name], folder=tmp_path)
    assert found.shape == (16, 45, 37)
    assert 0 < found.error < 1e-5
    assert found.before_bytes <= found.peak_bytes < found.limit_bytes == 1 << 30
    assert list(tmp_path.iterdir()) == []


def test_a_layer_that_needs_more_than_the_limit_is_no_result(tmp_path):
    with pytest.raises(DataError, match="external did not stay within 67108864 bytes or failed"):
        large_maps((45, 37), 16, names=["external"], limit=1 << 26, folder=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_map_that_has_no_room_or_another_number_of_axes_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(DataError, match=r"take 80000000000\.0 GB"):
        large_maps((10**9, 10**9), 10, folder=tmp_path)
    with pytest.raises(OptionError, match="got 3 sizes"):
        large_maps((4, 4, 4), 1, folder=tmp_path)
