"""Streaming gives what the layer gives, whatever the bands, the source and where the result goes."""

import copy
import math

import numpy as np
import pytest
import torch
from torch.testing import assert_close

import foveal
from foveal import streaming
from foveal.analysis import peak_memory
from foveal.errors import DataError, OptionError, ShapeError
from foveal.streaming.evaluation import evaluation
from foveal.streaming.run import fitting_rows

CHANNELS = 6
LAYERS = {
    "efficient": lambda **k: foveal.EfficientAttention(CHANNELS, key_channels=2, **k),
    "efficient, heads": lambda **k: foveal.EfficientAttention(CHANNELS, key_channels=4, heads=2, **k),
    "efficient, scaling": lambda **k: foveal.EfficientAttention(
        CHANNELS, key_channels=4, heads=2, normalization="scaling", **k
    ),
    "efficient, unfolded": lambda **k: foveal.EfficientAttention(
        CHANNELS, key_channels=40, value_channels=4, heads=4, residual=False, bias=False, **k
    ),
    "efficient, unprojected": lambda **k: foveal.EfficientAttention(CHANNELS, key_channels=3, projection="auto", **k),
    "external": lambda **k: foveal.ExternalAttention(CHANNELS, slots=3, **k),
    "external, slots alone": lambda **k: foveal.ExternalAttention(
        CHANNELS, slots=40, normalization="softmax", norm=False, activation=False, **k
    ),
    "external, tied": lambda **k: foveal.ExternalAttention(
        CHANNELS, slots=3, memories="tied", bias=False, residual=False, **k
    ),
    "multi-head external": lambda **k: foveal.MultiHeadExternalAttention(CHANNELS, heads=2, slots=3, **k),
    "multi-head external, unfolded": lambda **k: foveal.MultiHeadExternalAttention(
        CHANNELS, heads=3, slots=40, expansion=1, memory_bias=False, residual=True, **k
    ),
    "explicit, uniform": lambda **k: foveal.ExplicitAttention(
        CHANNELS, 8, heads=2, decay="uniform", bias=True, stride=2, **k
    ),
    "explicit, gaussian": lambda **k: foveal.ExplicitAttention(CHANNELS, 8, heads=2, value_channels=2, **k),
    "explicit, gaussian by head": lambda **k: foveal.ExplicitAttention(
        CHANNELS, 8, heads=2, per_head_radius=True, bias=True, stride=3, **k
    ),
    "explicit, manhattan": lambda **k: foveal.ExplicitAttention(
        CHANNELS, 8, heads=2, decay="manhattan", offset=0.0, stride=2, **k
    ),
    "explicit, manhattan by head": lambda **k: foveal.ExplicitAttention(
        CHANNELS, 8, heads=2, decay="manhattan", per_head_radius=True, radius=0.1, **k
    ),
}
SPACES = [(1, 1), (5, 7), (13, 1), (1, 8), (31, 4)]
by_layer = pytest.mark.parametrize("name", LAYERS)


def build(name, dtype=torch.float64):
    layer = LAYERS[name](dtype=dtype).eval()
    for parameter in layer.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.3)
    if getattr(layer, "radius", None) is not None and layer.radius.dim():
        layer.radius.data[1] = 0.2
    if isinstance(getattr(layer, "norm", None), torch.nn.modules.batchnorm._BatchNorm):
        layer.norm.running_mean.normal_(std=0.3)
        layer.norm.running_var.uniform_(0.5, 2)
    return layer


def whole(layer, x):
    with torch.no_grad():
        return layer(x)


@pytest.mark.parametrize("space", SPACES, ids=str)
@by_layer
def test_bands_of_any_size_give_what_the_layer_gives(name, space):
    layer, x = build(name), torch.randn(2, CHANNELS, *space, dtype=torch.float64)
    wanted = whole(layer, x)
    for rows in (None, 1, 2, 5, 100):
        assert_close(streaming.run(layer, x, rows=rows), wanted, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("radius", [0.75, 0.02, 0.0])
@pytest.mark.parametrize("offset", [0.0, 1.0])
@pytest.mark.parametrize("stride", [1, 2])
def test_a_narrow_gaussian_takes_the_rows_around_a_band(radius, offset, stride, monkeypatch):
    monkeypatch.setattr("foveal.functional.explicit_bands.MOST_POINTS", 8)
    options = {"decay": "gaussian", "radius": radius, "offset": offset, "stride": stride, "dtype": torch.float64}
    layer = foveal.ExplicitAttention(CHANNELS, 4, heads=2, **options)
    x = torch.randn(2, CHANNELS, 61, 3, dtype=torch.float64)
    how = evaluation(layer, tuple(x.shape))
    assert 0 < how.halo <= 60 and (radius > 0.1) == (how.halo == 60)
    for source in (x, list(x.split([1, 2, 40, 18], 2))):
        for rows in (1, 7, 40, None):
            assert_close(streaming.run(layer, source, rows=rows), whole(layer, x), rtol=1e-9, atol=1e-11)


@by_layer
def test_float32_is_as_near_to_float64_as_the_layer_itself(name):
    layer, x = build(name, torch.float32), 3 * torch.randn(1, CHANNELS, 23, 19)
    truth = whole(copy.deepcopy(layer).double(), x.double())
    error = (streaming.run(layer, x, rows=4).double() - truth).abs().max()
    allowed = (whole(layer, x).double() - truth).abs().max()
    assert error <= 2 * allowed + 1e-7 * truth.abs().max()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@by_layer
def test_low_precision_stays_near(name, dtype):
    layer, x = build(name), torch.randn(1, CHANNELS, 23, 19, dtype=torch.float64)
    wanted = whole(layer, x)
    out = streaming.run(copy.deepcopy(layer).to(dtype), x.to(dtype), rows=3)
    assert out.dtype == dtype
    scale = wanted.square().mean().sqrt()
    assert (out.double() - wanted).square().mean().sqrt() < 8 * torch.finfo(dtype).eps * scale


@by_layer
def test_large_scores_in_some_bands_alone_stay_finite(name):
    layer, x = build(name, torch.float32), torch.randn(1, CHANNELS, 12, 5)
    x[:, :, 4:6] *= 1e4
    x[:, :, 9:] *= 1e-4
    wanted = whole(layer, x)
    assert_close(streaming.run(layer, x, rows=2), wanted, rtol=1e-4, atol=1e-4 * wanted.abs().max().item())


def test_runs_within_a_band_are_summed_one_by_one(monkeypatch):
    monkeypatch.setattr("foveal.streaming.evaluation.RUN", 7)
    for name in ("efficient, scaling", "efficient, heads", "external", "multi-head external, unfolded"):
        layer, x = build(name), torch.randn(2, CHANNELS, 6, 5, dtype=torch.float64)
        assert_close(streaming.run(layer, x, rows=4), whole(layer, x))


@by_layer
def test_files_bands_and_maps_without_a_batch_give_the_same(name, tmp_path):
    layer, x = build(name, torch.float32), torch.randn(CHANNELS, 9, 5)
    wanted = whole(layer, x[None])[0]
    file, out = tmp_path / "map.npy", tmp_path / "result.npy"
    np.save(file, x.numpy())
    assert streaming.run(layer, str(file), out, rows=2) == out
    close = {"rtol": 1e-5, "atol": 1e-6}
    assert_close(torch.from_numpy(np.load(out)), wanted, **close)
    assert [p.name for p in sorted(tmp_path.iterdir())] == ["map.npy", "result.npy"]
    mapped = np.load(file, mmap_mode="r")
    held = np.full(tuple(wanted.shape), np.nan, dtype=np.float32)
    assert streaming.run(layer, mapped, held, rows=4) is held
    assert_close(torch.from_numpy(held), wanted, **close)
    uneven = list(x.split([1, 5, 3], 1))
    assert_close(streaming.run(layer, uneven, rows=4), wanted, **close)
    into = torch.full_like(wanted, math.nan, dtype=torch.float64)
    assert_close(streaming.run(layer, [b.numpy() for b in uneven], into).float(), wanted, **close)


@by_layer
def test_an_empty_batch_gives_an_empty_map(name):
    layer, x = build(name, torch.float32), torch.randn(1, CHANNELS, 40, 30)
    assert streaming.run(layer, x[:0]).shape == (0, *whole(layer, x).shape[1:])


def test_arrays_in_any_layout_give_the_same():
    layer, x = build("efficient", torch.float32), np.random.default_rng(0).standard_normal((CHANNELS, 9, 5), "float32")
    wanted = streaming.run(layer, x.copy(), rows=4)
    for other in (x[:, ::-1].copy()[:, ::-1], np.asfortranarray(x), x.astype(">f4"), np.repeat(x, 2, 2)[..., ::2]):
        assert torch.equal(streaming.run(layer, other, rows=4), wanted)
    last = torch.from_numpy(x)[None].to(memory_format=torch.channels_last)
    assert torch.equal(streaming.run(layer, last, rows=4)[0], wanted)


def test_the_result_may_take_the_place_of_the_map():
    for name in ("efficient", "external", "multi-head external"):
        layer, x = build(name), torch.randn(1, CHANNELS, 9, 5, dtype=torch.float64)
        wanted = whole(layer, x)
        assert_close(streaming.run(layer, x, x, rows=2), wanted)


def test_autocast_has_no_effect():
    layer, x = build("explicit, manhattan", torch.float32), torch.randn(1, CHANNELS, 9, 5)
    wanted = streaming.run(layer, x, rows=2)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(streaming.run(layer, x, rows=2), wanted)


def test_torch_files_of_bfloat16_are_read_and_written(tmp_path):
    layer, x = build("efficient").bfloat16(), torch.randn(1, CHANNELS, 8, 4).bfloat16()
    source, out = (
        torch.from_file(str(tmp_path / name), shared=True, size=x.numel(), dtype=torch.bfloat16).view_as(x)
        for name in "ab"
    )
    source.copy_(x)
    streaming.run(layer, source, out, rows=3)
    assert_close(out.float(), whole(layer, x).float(), rtol=0.05, atol=0.05)


def test_a_run_that_ends_early_leaves_no_file_and_keeps_the_old_one(tmp_path):
    layer, x, out = build("efficient"), torch.randn(1, CHANNELS, 8, 4, dtype=torch.float64), tmp_path / "out.npy"
    out.write_bytes(b"before")

    def stop(done, total):
        if done == 12:
            assert [p.name for p in tmp_path.iterdir() if p.name != "out.npy"] != []
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        streaming.run(layer, x, out, rows=2, progress=stop)
    assert out.read_bytes() == b"before"
    assert [p.name for p in tmp_path.iterdir()] == ["out.npy"]


def test_progress_counts_the_rows_of_both_walks():
    told = []
    layer, x = build("efficient"), torch.randn(1, CHANNELS, 5, 4, dtype=torch.float64)
    streaming.run(layer, x, rows=2, progress=lambda done, total: told.append((done, total)))
    assert told == [(2, 10), (4, 10), (5, 10), (7, 10), (9, 10), (10, 10)]


def test_a_result_needs_no_gradient():
    assert not streaming.run(build("explicit, gaussian"), torch.randn(1, CHANNELS, 5, 4).double()).requires_grad


def test_a_narrow_gaussian_stays_within_its_memory():
    layer, x = foveal.ExplicitAttention(CHANNELS, 8, radius=0.005), torch.randn(1, CHANNELS, 1500, 90)
    out = torch.empty_like(whole(layer, x))
    assert evaluation(layer, tuple(x.shape)).halo > 0
    assert peak_memory(lambda: streaming.run(layer, x, out, memory=1 << 23)) <= 1 << 23
    assert_close(out, whole(layer, x), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("memory", [1 << 20, 1 << 22])
@by_layer
def test_a_run_stays_within_its_memory(name, memory):
    layer, x = build(name, torch.float32), torch.randn(1, CHANNELS, 700, 90)
    out = torch.empty_like(whole(layer, x))
    streaming.run(layer, x[:, :, :2], memory=1 << 24)  # what is made once
    assert peak_memory(lambda: streaming.run(layer, x, out, memory=memory)) <= memory
    assert_close(out, whole(layer, x), rtol=1e-4, atol=1e-5)


def test_too_little_memory_names_what_is_needed():
    layer, x = build("explicit, manhattan"), torch.randn(1, CHANNELS, 64, 9, dtype=torch.float64)
    with pytest.raises(OptionError, match=r"memory must be at least \d+ bytes for this layer and a map of 64 x 9") as e:
        streaming.run(layer, x, memory=1000)
    least = int(str(e.value).split("memory=")[1].split()[0])
    assert_close(streaming.run(layer, x, memory=least), whole(layer, x))


def test_more_memory_gives_larger_bands_up_to_a_limit():
    shape = (1, CHANNELS, 4096, 1024)
    how = evaluation(build("efficient", torch.float32), shape)
    rows = [fitting_rows(how, shape, torch.float32, 1 << k) for k in (23, 25, 27, 34)]
    assert rows == sorted(rows) and rows[0] < rows[-1] == 256


@pytest.mark.parametrize(
    ("error", "said", "call"),
    [
        (OptionError, "the layer must be one of EfficientAttention", lambda x: (torch.nn.Conv2d(6, 6, 1), x)),
        (OptionError, "the layer must be one of", lambda x: (foveal.LocalAttention(6, 8, heads=2), x)),
        (OptionError, "asks for backend 'map'", lambda x: (foveal.EfficientAttention(6, backend="map"), x)),
        (OptionError, "takes its statistics from the map", lambda x: (foveal.ExternalAttention(6), x)),
        (OptionError, "decay 'linear' is no product", lambda x: (foveal.ExplicitAttention(6, 8, decay="linear"), x)),
        (ShapeError, r"must have the 6 channels .* got 5 channels", lambda x: (foveal.EfficientAttention(6), x[:, :5])),
        (ShapeError, "type torch.float32", lambda x: (foveal.EfficientAttention(6), x.double())),
        (ShapeError, r"the map must be \(batch, channels", lambda x: (foveal.EfficientAttention(6), x[0, 0])),
        (ShapeError, "out must be None", lambda x: (foveal.EfficientAttention(6), x, torch.empty(1, 6, 4, 4))),
        (ShapeError, "without loss", lambda x: (foveal.EfficientAttention(6), x, torch.empty_like(x).half())),
        (ShapeError, "without loss", lambda x: (foveal.EfficientAttention(6), x, np.empty(x.shape, np.float16))),
        (OptionError, "which ends", lambda x: (foveal.EfficientAttention(6), iter(x.split(2, 2)))),
        (ShapeError, "equal but for their rows", lambda x: (foveal.EfficientAttention(6), [x, x[:, :, :, :2]])),
        (ShapeError, "at least one band", lambda x: (foveal.EfficientAttention(6), [])),
        (ShapeError, "got int", lambda x: (foveal.EfficientAttention(6), 3)),
        (DataError, "existing .npy file", lambda x: (foveal.EfficientAttention(6), "nowhere.npy")),
        (DataError, "folder that exists", lambda x: (foveal.EfficientAttention(6), x, "nowhere/out.npy")),
        (
            OptionError,
            "holds no bfloat16",
            lambda x: (foveal.EfficientAttention(6, dtype=torch.bfloat16), x.bfloat16(), "out.npy"),
        ),
    ],
)
def test_what_cannot_be_streamed_is_refused_in_a_sentence(error, said, call):
    with pytest.raises(error, match=rf"^streaming\.run: .*{said}"):
        streaming.run(*call(torch.randn(1, CHANNELS, 5, 4)))


def test_rows_must_be_a_count():
    with pytest.raises(OptionError, match="rows must be None or an integer of at least 1, got 0"):
        streaming.run(build("efficient"), torch.randn(1, CHANNELS, 5, 4, dtype=torch.float64), rows=0)


def test_bands_that_change_between_walks_are_noticed():
    class Changing:
        def __init__(self):
            self.walks = 0

        def __iter__(self):
            self.walks += 1
            return iter([torch.randn(1, CHANNELS, 5 - (self.walks > 2), 4, dtype=torch.float64)])

    with pytest.raises(DataError, match="the bands have 4 rows at this walk and had 5"):
        streaming.run(build("efficient"), Changing())
