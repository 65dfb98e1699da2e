"""A map split over ranks gives what the unsplit layer gives, forward and backward, on two and three gloo processes."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

import foveal
from foveal import streaming
from foveal.errors import OptionError
from foveal.functional.explicit_bands import row_decay
from streaming import ranks_worker as worker

SPLITS = [(world, rows, torch.float64) for world, every in worker.BANDS.items() for rows in every]
SPLITS += [(world, every[0], torch.float32) for world, every in worker.BANDS.items()]
by_case = pytest.mark.parametrize("name", worker.CASES)
by_split = pytest.mark.parametrize(("world", "rows", "dtype"), SPLITS, ids=str)


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """What every rank of every group stored."""
    folder = tmp_path_factory.mktemp("ranks")
    done = subprocess.run([sys.executable, worker.__file__, str(folder)], capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    return {
        world: [torch.load(Path(folder) / f"{world}-{rank}.pt", weights_only=False) for rank in range(world)]
        for world in worker.BANDS
    }


def unsplit(name, rows, dtype):
    layer, x = worker.build(name, dtype), worker.whole_map(sum(rows), dtype).requires_grad_()
    out = layer(x)
    (out * worker.upstream(out)).sum().backward()
    return layer, x.grad, out.detach()


def assert_near(got, wanted):
    """Up to rounding of sums whose terms are as large as the largest result."""
    exact = 1e-10 if wanted.dtype == torch.float64 else 2e-5
    assert_close(got, wanted, rtol=10 * exact, atol=exact * max(1.0, wanted.abs().max().item()))


@by_split
@by_case
def test_the_bands_of_all_ranks_are_the_unsplit_result(ranks, name, world, rows, dtype):
    got = torch.cat([rank[name, rows, dtype]["out"] for rank in ranks[world]], 2)
    assert_near(got, unsplit(name, rows, dtype)[2])


@by_split
@by_case
def test_the_gradient_of_a_band_is_that_of_the_whole_map(ranks, name, world, rows, dtype):
    got = torch.cat([rank[name, rows, dtype]["grad"] for rank in ranks[world]], 2)
    assert_near(got, unsplit(name, rows, dtype)[1])


@by_split
@by_case
def test_gradients_of_parameters_are_shares_that_add_up(ranks, name, world, rows, dtype):
    for key, parameter in unsplit(name, rows, dtype)[0].named_parameters():
        shares = [rank[name, rows, dtype]["parameters"][key] for rank in ranks[world]]
        total = sum(torch.zeros_like(parameter) if share is None else share for share in shares)
        assert_near(total, parameter.grad)


@by_split
def test_a_norm_in_training_takes_the_statistics_of_all_bands(ranks, world, rows, dtype):
    name = "external, in training"
    wanted = dict(unsplit(name, rows, dtype)[0].named_buffers())
    for rank in ranks[world]:
        assert_close(rank[name, rows, dtype]["buffers"], wanted)


def kinds(calls):
    return [kind for kind, _ in calls if kind != "sizes"]


@pytest.mark.parametrize("world", worker.BANDS)
@by_case
def test_efficient_external_and_uniform_exchange_the_same_bytes_whatever_the_map(ranks, name, world):
    for rank in ranks[world]:
        small, large = rank[name, worker.BANDS[world][0], torch.float32]["traffic"], rank[name, "larger"]
        grown = sum(size for _, size in large) > sum(size for _, size in small)
        assert grown == (name.startswith(("local", "explicit")) and name != "explicit, uniform")


def test_what_efficient_attention_exchanges_is_the_context(ranks):
    calls = ranks[2][0]["efficient", (4, 3), torch.float32]["traffic"]
    batch, keys, channels = 2, 2, worker.CHANNELS
    sums = 8 * batch * keys * (channels + 1)
    assert calls == [("sizes", 40), ("greatest", 4 * batch * keys), ("sum", sums), ("sum, backward", sums)]


def test_what_manhattan_exchanges_is_two_rows_a_rank(ranks):
    name = "explicit, manhattan"
    rows = 4 * 2 * 8 * (2 * worker.WIDTH + 1)
    calls = ranks[2][1][name, (4, 3), torch.float32]["traffic"]
    assert calls[1] == ("gather", rows)
    # Twelve columns more, and rows that are four times as many do not matter.
    assert ranks[2][1][name, "larger"][1] == ("gather", 4 * 2 * 8 * (2 * 3 * worker.WIDTH + 1))


def test_what_a_gaussian_exchanges_is_a_value_for_every_pair_of_points(ranks):
    calls = ranks[2][1]["explicit, gaussian by head", (4, 3), torch.float32]["traffic"]
    # Of a map of seven rows every row is a point.
    assert calls[1] == ("sum", 4 * 2 * 8 * (7 * worker.WIDTH + 1))
    down, across = row_decay("gaussian", (28, 15), torch.tensor(0.2)).left_shape
    assert down < 28
    assert ranks[2][1]["explicit, gaussian by head", "larger"][1][1] == 4 * 2 * 8 * (down * across + 1)


def test_a_gaussian_has_no_more_points_on_a_larger_map():
    shapes = {row_decay("gaussian", space, torch.tensor(0.2)).left_shape for space in [(100, 90), (9000, 400)]}
    assert len(shapes) == 1


def test_a_narrow_gaussian_exchanges_the_rows_that_it_reaches(ranks):
    calls = ranks[2][0]["explicit, narrow gaussian", (4, 3), torch.float32]["traffic"]
    reached = 4 * 2 * 8 * 3 * worker.WIDTH
    assert calls[1:3] == [("sum", 4 * 2 * 8), ("rows", reached)]
    assert ("rows, backward", reached) in calls


def test_what_local_attention_exchanges_is_half_a_window(ranks):
    calls = ranks[2][0]["local, zero border", (4, 3), torch.float32]["traffic"]
    rows = 4 * 2 * worker.CHANNELS * 2 * worker.WIDTH
    assert calls == [("sizes", 40), ("rows", rows), ("rows, backward", rows)]


@pytest.mark.parametrize("world", worker.BANDS)
def test_without_gradients_the_result_is_the_same(ranks, world):
    got = torch.cat([rank["without gradients"] for rank in ranks[world]], 2)
    assert_close(got, unsplit("efficient, heads", worker.BANDS[world][0], torch.float32)[2], rtol=1e-4, atol=1e-6)


def test_a_group_of_some_ranks_is_a_map_of_its_own(ranks):
    got = torch.cat([ranks[3][1]["pair"], ranks[3][2]["pair"]], 2)
    assert_close(got, worker.build("local, zero border", torch.float64)(worker.whole_map(7, torch.float64)))


@pytest.mark.parametrize("world", worker.BANDS)
def test_what_one_rank_refuses_all_refuse(ranks, world):
    for number, rank in enumerate(ranks[world]):
        torn, channels, decay, layer = rank["errors"]
        assert torn.startswith("ShapeError: streaming.over_ranks: bands must be equal but for their rows")
        assert channels.startswith(
            "ShapeError: streaming.over_ranks: rank 0 was given"
            if number
            else "ShapeError: EfficientAttention: the map"
        )
        assert decay.startswith("OptionError: streaming.over_ranks: decay 'cosine' is no product")
        assert layer.startswith("OptionError: streaming.over_ranks: the layer must be one of")


def test_without_a_process_group_the_call_says_what_to_do():
    with pytest.raises(OptionError, match=r"^streaming\.over_ranks: there must be a process group, got none"):
        streaming.over_ranks(foveal.EfficientAttention(6), torch.randn(1, 6, 4, 4))
