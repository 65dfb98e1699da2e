"""Sampling, neighbours and gathering against definitions that walk over the points one by one."""

import re

import pytest
import torch

from foveal.errors import OptionError, ShapeError
from foveal.models.points import farthest_points, gather_points, nearest_points
from foveal.models.points.neighbours import HELD

LATTICE = torch.cartesian_prod(*[torch.arange(3.0, dtype=torch.float64)] * 3).mT


def clouds(batch, n, seed=0):
    return torch.randn(batch, 3, n, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def shuffled(points, batch):
    """The same points in another order in every cloud."""
    draw = torch.Generator().manual_seed(1)
    return torch.stack([points[:, torch.randperm(points.shape[1], generator=draw)] for _ in range(batch)])


CLOUDS = {
    "random": clouds(3, 41),
    "ties": shuffled(LATTICE, 2),
    "duplicates": clouds(2, 5).repeat(1, 1, 3),
    "one point": clouds(2, 1),
    "plane": torch.cat((clouds(2, 9)[:, :2], torch.zeros(2, 1, 9, dtype=torch.float64)), 1),
}


def squared(a, b):
    return sum((float(x) - float(y)) ** 2 for x, y in zip(a, b, strict=True))


def farthest(points, count):
    """Farthest point sampling as it is told: the first of those that are farthest from all that were taken."""
    taken = [0]
    while len(taken) < count:
        away = [min(squared(p, points[t]) for t in taken) for p in points]
        taken.append(away.index(max(away)))
    return taken


@pytest.mark.parametrize("name", CLOUDS)
def test_every_sample_is_the_first_point_farthest_from_those_before(name):
    xyz = CLOUDS[name]
    for count in {1, max(1, xyz.shape[2] // 2), xyz.shape[2]}:
        assert farthest_points(xyz, count).tolist() == [farthest(cloud.mT.tolist(), count) for cloud in xyz]


@pytest.mark.parametrize("held", [HELD, 1, 100])
@pytest.mark.parametrize("name", CLOUDS)
def test_neighbours_are_the_first_of_all_points_sorted_by_distance_then_index(name, held):
    xyz = CLOUDS[name]
    centres = xyz[:, :, : max(1, xyz.shape[2] // 2)] + (0.25 if name == "random" else 0)
    count = min(7, xyz.shape[2])
    wanted = [
        [sorted(range(xyz.shape[2]), key=lambda i: (squared(cloud[i], centre), i))[:count] for centre in around]
        for cloud, around in zip(xyz.mT.tolist(), centres.mT.tolist(), strict=True)
    ]
    assert nearest_points(xyz, centres, count, held=held).tolist() == wanted


@pytest.mark.parametrize("broken", [torch.nan, torch.inf])
def test_points_that_are_no_numbers_are_taken_last_and_disturb_no_other(broken):
    xyz = clouds(2, 9)
    xyz[0, 1, 4], xyz[1, 0, 0] = broken, broken
    for cloud, gone in zip(xyz, (4, 0), strict=True):
        kept = [n for n in range(9) if n != gone]
        whole = farthest_points(cloud[None], 9)[0].tolist()
        assert whole[:8] == [kept[n] for n in farthest(cloud.mT[kept].tolist(), 8)]
        near = nearest_points(cloud[None], cloud[None, :, kept], 9)[0]
        assert near[:, 8].tolist() == [gone] * 8
        alone = nearest_points(cloud[None, :, kept], cloud[None, :, kept], 8)[0]
        assert torch.equal(near[:, :8], torch.tensor(kept)[alone])
    nothing = torch.full((1, 3, 5), torch.nan)
    assert farthest_points(nothing, 5).tolist() == [[0] * 5]
    assert nearest_points(xyz[:1], nothing[:, :, :1].double(), 3).tolist() == [[[0, 1, 2]]]


def test_points_far_from_the_origin_keep_their_neighbours():
    near = torch.tensor([[[0.0, 0.0, 0.0], [1.0, 0, 0], [0.0, 0.5, 0]]]).mT
    assert nearest_points(near + 4096, near + 4096, 2).tolist() == [[[0, 2], [1, 0], [2, 0]]]


def test_gathered_features_stand_where_the_index_says_and_their_gradients_add_up():
    features, index = clouds(2, 6).requires_grad_(), torch.tensor([[[0, 0], [5, 0]], [[1, 2], [2, 2]]])
    out = gather_points(features, index)
    assert out.shape == (2, 3, 2, 2)
    for b in range(2):
        torch.testing.assert_close(out[b], features[b][:, index[b]], rtol=0, atol=0)
    out.sum().backward()
    counts = torch.stack([torch.bincount(each.flatten(), minlength=6) for each in index])
    torch.testing.assert_close(features.grad, counts[:, None].expand(-1, 3, -1).double())
    assert torch.autograd.gradcheck(lambda x: gather_points(x, index), features)


def test_gathering_passes_no_gradient_through_an_operator_that_adds_in_any_order():
    x = torch.randn(2, 4, 9, requires_grad=True)
    node, names = gather_points(x, torch.zeros(2, 5, 3, dtype=torch.long)).grad_fn, set()
    while node is not None:
        names.add(type(node).__name__)
        node = node.next_functions[0][0] if node.next_functions else None
    assert "EmbeddingBackward0" in names
    assert not any(word in name for name in names for word in ("Gather", "Index", "Scatter"))


@pytest.mark.parametrize(
    ("call", "error", "told"),
    [
        (lambda: farthest_points(torch.zeros(2, 3, 4), 5), ShapeError,
         "farthest_points: 5 points are asked for, got clouds of 4. Resample them to more."),
        (lambda: nearest_points(torch.zeros(2, 3, 4), torch.zeros(2, 3, 1), 5), ShapeError,
         "nearest_points: 5 points are asked for, got clouds of 4. Resample them to more."),
        (lambda: farthest_points(torch.zeros(2, 3, 4), 0), OptionError,
         "farthest_points: count must be an integer of at least 1, got 0."),
        (lambda: farthest_points(torch.zeros(4, 3), 2), ShapeError,
         "farthest_points: points must be (batch, coordinates, n), got (4, 3)."),
        (lambda: nearest_points(torch.zeros(2, 3, 4), torch.zeros(2, 2, 1), 1), ShapeError,
         "nearest_points: centres must be (2, 3, 'm'), as many coordinates as the points, got (2, 2, 1)."),
    ],
)  # fmt: skip
def test_a_call_that_cannot_be_is_refused_in_a_sentence(call, error, told):
    with pytest.raises(error, match=f"^{re.escape(told)}"):
        call()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_points_of_few_digits_are_compared_in_more(dtype):
    xyz = clouds(2, 200).to(dtype)
    assert torch.equal(farthest_points(xyz, 50), farthest_points(xyz.double(), 50))
    assert torch.equal(nearest_points(xyz, xyz[:, :, :9], 20), nearest_points(xyz.double(), xyz[:, :, :9].double(), 20))


def test_samples_are_one_operator_of_a_program_however_many_they_are():
    x, seen = clouds(1, 300).float(), []
    torch.library.opcheck(
        torch.ops.foveal.farthest_points.default, (x, 7), test_utils=("test_schema", "test_faketensor")
    )
    compiled = torch.compile(
        lambda xyz: farthest_points(xyz, 200), fullgraph=True, backend=lambda graph, _: seen.append(graph) or graph
    )
    assert torch.equal(compiled(x), farthest_points(x, 200))
    called = [node.target for node in seen[0].graph.nodes if node.op == "call_function"]
    assert torch.ops.foveal.farthest_points.default in called and len(called) < 9


class Neighbours(torch.nn.Module):
    def forward(self, xyz):
        chosen = farthest_points(xyz, 5)
        return chosen, nearest_points(xyz, gather_points(xyz, chosen), 7)


def test_samples_and_neighbours_are_the_same_in_onnx_where_distances_are_equal(tmp_path):
    runtime = pytest.importorskip("onnxruntime")
    xyz = CLOUDS["ties"].float()
    torch.onnx.export(Neighbours().eval(), (xyz,), dynamo=True, verbose=False).save(str(tmp_path / "a.onnx"))
    session = runtime.InferenceSession(str(tmp_path / "a.onnx"), providers=["CPUExecutionProvider"])
    for found, wanted in zip(
        session.run(None, {session.get_inputs()[0].name: xyz.numpy()}), Neighbours()(xyz), strict=True
    ):
        assert found.tolist() == wanted.tolist()
