"""What every layer promises, in every reading, on every kind of map."""

import copy
import pickle

import pytest
import torch
from torch.testing import assert_close
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from contract.layers import CASES, CHANNELS, SPACES
from foveal.errors import ShapeError
from foveal.layers.registry import REGISTRY, row

by_case = pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
by_space = pytest.mark.parametrize("space", SPACES, ids=str)


def test_every_registry_row_is_in_the_suite():
    assert {case.row for case in CASES} == {r.name for r in REGISTRY}


def test_every_registry_row_is_complete():
    for r in REGISTRY:
        assert r.paper
        assert r.place
        assert r.cost is r.layer.macs
        assert r.layer.__doc__ and "Args:" in r.layer.__doc__


@by_space
@by_case
def test_folded_and_written_out_evaluations_are_equal(case, space):
    layer, x = case.build(space).eval(), case.map(space, grad=True)
    folded, plain = layer(x), layer.output_from(layer.attend(x), x)
    assert_close(folded, plain)
    leaves = [x, *layer.parameters()]
    weights = torch.linspace(-1, 1, plain.numel(), dtype=plain.dtype).reshape(plain.shape)
    got = torch.autograd.grad((folded * weights).sum(), leaves, allow_unused=True)
    want = torch.autograd.grad((plain * weights).sum(), leaves, allow_unused=True)
    for a, b in zip(got, want, strict=True):
        assert_close(a, b, atol=1e-9, rtol=1e-7)


@by_space
@by_case
def test_the_map_times_the_values_is_what_was_attended(case, space):
    layer, x = case.build(space).eval(), case.map(space)
    at = tuple(length // 2 for length in space)
    weights, values = layer.attention_map(x, at=at), layer.values(x)
    attended = (weights.unsqueeze(2) * values).flatten(3).sum(-1)
    assert_close(attended, layer.attend(x)[(..., *at)])


@by_space
@by_case
def test_rows_of_the_map_sum_to_one(case, space):
    layer, x = case.build(space).eval(), case.map(space)
    row_of_map = layer.position_map(x, at=(0,) * len(space))
    assert row_of_map.shape == (2, layer.heads, *space)
    sums = row_of_map.flatten(2).sum(-1)
    if getattr(layer, "normalization", None) == "scaling":
        return
    if getattr(layer, "border", None) == "zero":
        # The padding around the corner holds the rest.
        assert (sums < 1).all()
        assert (row_of_map >= 0).all()
    else:
        assert_close(sums, torch.ones_like(sums), atol=1e-6, rtol=0)


@by_case
def test_gradients_are_those_of_finite_differences(case):
    layer, x = case.build((3, 2)).eval(), case.map((3, 2), batch=1, grad=True)
    parameters = list(layer.parameters())
    assert torch.autograd.gradcheck(lambda *_: layer(x), [x, *parameters], fast_mode=True)


@by_space
@by_case
def test_an_empty_batch_gives_an_empty_map(case, space):
    layer = case.build(space).eval()
    whole, empty = layer(case.map(space)), layer(case.map(space, batch=0))
    assert empty.shape == (0, *whole.shape[1:])


@by_case
def test_any_size_goes_through_one_layer(case):
    layer = case.build((5, 7)).eval()
    stride = getattr(layer, "stride", getattr(layer, "block", 1))
    for space in [(5, 7), (2, 3), (13, 1), (8, 16)]:
        out = layer(case.map(space))
        assert out.shape[2:] == tuple(-(-length // stride) for length in space)


@by_case
def test_channels_last_maps_give_the_same(case):
    layer, x = case.build((5, 7)).eval(), case.map((5, 7))
    assert_close(layer(x.to(memory_format=torch.channels_last)), layer(x))


@by_case
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_low_precision_stays_near(case, dtype):
    layer, x = case.build((9, 8)).eval(), case.map((9, 8))
    wanted = layer(x)
    low = copy.deepcopy(layer).to(dtype)(x.to(dtype))
    assert low.dtype == dtype
    scale = wanted.square().mean().sqrt()
    assert (low.double() - wanted).square().mean().sqrt() < 8 * torch.finfo(dtype).eps * scale


@by_case
def test_autocast_trains(case):
    layer, x = case.build((5, 7), dtype=torch.float32), case.map((5, 7), dtype=torch.float32, grad=True)
    wanted = layer(x)
    with torch.autocast(x.device.type, torch.bfloat16):
        out = layer(x)
    assert_close(out.float(), wanted, rtol=0.1, atol=0.1)
    out.float().square().sum().backward()
    assert x.grad.isfinite().all()
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in layer.parameters())


@by_case
def test_every_parameter_gets_a_gradient(case):
    layer, x = case.build((5, 7)), case.map((5, 7))
    layer(x).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in layer.parameters())


@by_case
def test_activation_checkpoints_give_the_same_gradients(case):
    layer, x = case.build((5, 7)), case.map((5, 7))
    found = []
    for run in (layer, lambda x: checkpoint(layer, x, use_reentrant=False)):
        leaf = x.detach().requires_grad_()
        found.append(torch.autograd.grad(run(leaf).square().sum(), [leaf, *layer.parameters()]))
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


@by_case
def test_state_dicts_copies_and_pickles_give_the_same_layer(case):
    layer, x = case.build((5, 7)).eval(), case.map((5, 7))
    other = case.build((5, 7)).eval()
    assert not torch.equal(other(x), layer(x))
    other.load_state_dict(layer.state_dict())
    for same in (other, copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(same(x), layer(x))


@by_space
@by_case
def test_counted_products_are_those_of_the_formula(case, space):
    layer, x = case.build(space).eval(), case.map(space, batch=1)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        layer(x)
    assert counter.get_total_flops() == 2 * row(case.row).cost(layer, space)


@by_case
def test_two_runs_give_the_same_bits(case):
    layer, x = case.build((5, 7), dtype=torch.float32), case.map((5, 7), dtype=torch.float32)
    layer.eval()
    assert torch.equal(layer(x), layer(x))


@by_case
def test_a_map_of_other_channels_is_refused_in_a_sentence(case):
    layer = case.build((5, 7))
    with pytest.raises(ShapeError, match=rf"^{type(layer).__name__}: the map must be \(batch, {CHANNELS}, \*space\)"):
        layer(torch.randn(2, CHANNELS + 1, 5, 7, dtype=torch.float64))
    with pytest.raises(ShapeError, match="attention_map: at must name a position"):
        layer.attention_map(case.map((5, 7)), at=(5, 0))


@by_case
def test_meta_tensors_go_through(case):
    layer = case.build((5, 7)).to("meta")
    out = layer(torch.empty(2, CHANNELS, 5, 7, dtype=torch.float64, device="meta"))
    assert out.shape == case.build((5, 7))(case.map((5, 7))).shape
