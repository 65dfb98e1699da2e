"""Records of the papers' figures: they hold the maps of the layers that they name."""

import numpy as np
import pytest
import timm
import torch
from torch import nn

import foveal
import foveal.models
from foveal.analysis import figures
from foveal.analysis.points import marked_points
from foveal.errors import NoMatchError

IMAGE = torch.rand(3, 48, 64)
X = IMAGE[None]
PICTURE = IMAGE.permute(1, 2, 0).double().numpy()


def small(*layers):
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3, stride=4, padding=1), *layers).eval()


def test_each_query_point_has_the_map_that_capture_gives():
    model = small(foveal.EfficientAttention(8, key_channels=4, heads=2))
    points = [(8, 8), (40, 60)]
    sheet = figures.query_points(model, X, PICTURE, points)
    first, *looks = sheet.rows[0]
    assert first.heat is None and first.points == tuple(points)
    with torch.no_grad(), foveal.capture(model) as maps:
        model(X)
    for picture, point in zip(looks, points, strict=True):
        wanted = maps["1"].at_pixel(point, average=True, smooth=True)[0]
        np.testing.assert_allclose(picture.heat, wanted.numpy(), rtol=1e-5)
        assert picture.heat.shape == (48, 64)
    assert "1, efficient, 2 heads, 12x16 positions" in sheet.caption


def test_columns_of_marked_pixels_are_models():
    models = {
        "content": small(foveal.NonLocal(8)),
        "explicit": small(foveal.ExplicitAttention(8, decay="gaussian", heads=2)),
    }
    sheet = figures.marked_pixels(models, {name: X for name in models}, PICTURE, [(5, 6), (30, 50)])
    assert [len(row) for row in sheet.rows] == [3, 3]
    assert [picture.title for picture in sheet.rows[0]] == ["marked pixel", "content", "explicit"]
    peak = np.unravel_index(sheet.rows[1][2].heat.argmax(), (48, 64))
    assert abs(peak[0] - 30) <= 4 and abs(peak[1] - 50) <= 4


def test_shared_maps_are_the_same_ones_for_every_image():
    model = small(foveal.EfficientAttention(8, key_channels=4, heads=2))
    sheet = figures.shared_maps(model, [X, X.flip(3)], [PICTURE, PICTURE[:, ::-1]], "efficient", count=2)
    assert [len(row) for row in sheet.rows] == [3, 3]
    with torch.no_grad(), foveal.capture(model) as maps:
        model(X.flip(3))
    head, index = _named(sheet.rows[0][1].title)
    wanted = maps["1"].grid.on_image(maps["1"].parts()["global_maps"][0, head, index], smooth=True)
    np.testing.assert_allclose(sheet.rows[1][1].heat, wanted.numpy(), rtol=1e-5)


def _named(title):
    """``global map 1, head 0`` as head and map."""
    index, head = (int(word.strip(",")) for word in title.split() if word.strip(",").isdigit())
    return head, index


def test_slots_are_shown_in_every_head():
    model = small(foveal.MultiHeadExternalAttention(8, heads=4, slots=5))
    sheet = figures.slots_by_head(model, X, PICTURE, [0, 3])
    assert [picture.title for row in sheet.rows for picture in row][4] == "slot 3, head 0"
    assert sum(map(len, sheet.rows)) == 8
    with pytest.raises(NoMatchError, match="has the slots 0 to 4, got 9"):
        figures.slots_by_head(model, X, PICTURE, [9])


def test_offset_logits_are_the_mean_over_queries_of_q_r():
    layer = foveal.LocalAttention(8, 8, kernel_size=3, heads=2)
    model = small(layer)
    sheet = figures.offset_logits(model, X)
    x = model[0](X)
    q = layer.split(layer.query(x)).flatten(3)[0]
    rows, columns = layer.relative
    half = q.shape[1] // 2
    wanted = torch.einsum("hdn,hod->hon", q[:, :half], rows.expand(2, -1, -1)).mean(2)[:, :, None]
    wanted = wanted + torch.einsum("hdn,hod->hon", q[:, half:], columns.expand(2, -1, -1)).mean(2)[:, None]
    for head, picture in enumerate(sheet.rows[0]):
        np.testing.assert_allclose(picture.heat, (wanted[head] - wanted.min()).detach().numpy(), atol=1e-6)


def test_radii_are_listed_by_layer_and_none_is_an_error():
    model = small(
        foveal.ExplicitAttention(8, decay="gaussian", heads=2), foveal.ExplicitAttention(8, decay="uniform", heads=2)
    )
    assert figures.learned_radii(model) == {"1": [0.75]}
    with pytest.raises(NoMatchError, match="no layer of the model learns a radius"):
        figures.learned_radii(small())


def test_requirements_are_those_that_the_text_of_the_paper_names():
    rows = {row.size: row for row in figures.requirements()}
    row = rows["64x64"]
    assert round(row.non_local_floats / row.efficient_floats) == 17
    assert int(row.non_local_operations / row.efficient_operations) == 32
    assert rows["256x256"].non_local_floats * 4 == pytest.approx(17.2e9, rel=0.01)


def test_a_model_without_the_mechanism_is_named():
    with pytest.raises(NoMatchError, match="efficient attention is wanted, the layers have non_local"):
        figures.shared_maps(small(foveal.NonLocal(8)), [X], [PICTURE], "efficient")


def test_a_model_is_left_in_the_mode_it_was_in():
    model = timm.create_model("foveal_resnet_mini", in_chans=3)
    foveal.insert_(model, "layer2", foveal.EfficientAttention.like(key_channels=4))
    model.train()
    figures.seen(model, torch.randn(1, 3, 16, 16))
    assert model.training and model.bn1.num_batches_tracked == 0


def test_marked_points_lie_apart_and_off_the_border():
    picture = torch.zeros(1, 60, 60)
    picture[:, 20:24, 30:34] = 1
    picture[:, 0, 0] = 1
    points = marked_points(picture, 3)
    assert 20 <= points[0][0] <= 24 and 30 <= points[0][1] <= 34
    for n, (row, column) in enumerate(points):
        assert 6 <= row < 54 and 6 <= column < 54
        assert all((row - r) ** 2 + (column - c) ** 2 >= 12**2 for r, c in points[:n])
