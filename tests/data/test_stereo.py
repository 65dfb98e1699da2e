"""Stereo sets in their true layouts, whole and damaged."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from data.stereo_miniatures import kitti2012, kitti2015, pair, plain_pfm, put, scene_flow, sequence
from foveal.data.generated import GENERATED
from foveal.data.preparation import IMAGENET_MEAN, IMAGENET_STD
from foveal.data.stereo import photo_planes
from foveal.data.stereo.options import StereoData
from foveal.data.stereo.sets import PUBLISHED, load_stereo
from foveal.errors import DataError, OptionError

FLOW = StereoData("scene-flow", crop=(16, 32))
KITTI = StereoData("kitti2015", crop=(16, 32), train_pairs=3)


def load(path, options=FLOW, **changes):
    return load_stereo(replace(options, path=str(path), **changes))


def lefts(samples):
    return [pair.left for pair in samples.pairs]


def images(seed, size=(32, 48)):
    """What a pair of a miniature is, normalised by hand."""
    left, right, disparity = pair(seed, size)
    return [*((x / 255.0 - IMAGENET_MEAN) / IMAGENET_STD for x in (left, right)), disparity]


def close(item, wanted):
    for got, want in zip(item[:2], wanted[:2], strict=True):
        np.testing.assert_allclose(got.permute(1, 2, 0).numpy(), want, atol=1e-5)
    np.testing.assert_array_equal(item[2].numpy(), wanted[2])


def frames(samples):
    return {name.split("_cleanpass/")[1] for name in lefts(samples)}


FLYING = {"TRAIN/A/0000/left/0006.png", "TRAIN/A/0000/left/0007.png", "TRAIN/C/0012/left/0006.png"}
MONKAA = {"a_rain_of_stones_x2/left/0000.png", "a_rain_of_stones_x2/left/0001.png"}
DRIVING = {f"15mm_focallength/scene_backwards/fast/left/000{n}.png" for n in (1, 2)}
TEST = {"TEST/B/0001/left/0006.png", "TEST/B/0001/left/0007.png"}


def together(root):
    """All archives unpacked into one folder."""
    apart = scene_flow(root / "apart")
    for name in ("FlyingThings3D", "Monkaa", "Driving"):
        for kind in ("frames_cleanpass", "disparity"):
            shutil.copytree(apart / name / kind, root / "one" / kind, dirs_exist_ok=True)
    return root / "one"


@pytest.mark.parametrize("write", [scene_flow, lambda root: scene_flow(root, renamed=True), together])
def test_scene_flow_trains_on_all_but_the_test_part_of_flyingthings(write, tmp_path):
    data = load(write(tmp_path))
    assert len(data.train) == 7 and frames(data.train) == FLYING | MONKAA | DRIVING
    assert len(data.val) == 2 and frames(data.val) == TEST
    assert lefts(data.train) == sorted(lefts(data.train)) and not data.skipped
    left, right, disparity = data.val.batch([0, 1])
    close((left[1], right[1], disparity[1]), images(27))


def test_subsets_and_the_other_rendering_are_chosen_by_name(tmp_path):
    scene_flow(tmp_path)
    assert frames(load(tmp_path, subsets=("monkaa",)).train) == MONKAA
    assert frames(load(tmp_path, subsets=("driving", "flyingthings3d")).train) == DRIVING | FLYING
    assert len(load(scene_flow(tmp_path / "final", kind="finalpass"), frames="finalpass").train) == 7
    with pytest.raises(DataError, match=r"holds no pairs of .*flyingthings3d.* in frames_finalpass\. Fetch"):
        load(tmp_path / "Monkaa", frames="finalpass")
    with pytest.raises(OptionError, match=r"--data\.subsets is empty"):
        load(tmp_path, subsets=())


def test_a_set_that_holds_the_negative_gives_the_same_disparities(tmp_path):
    data = load(scene_flow(tmp_path, sign=-1))
    assert data.val[0][2].unique().tolist() == [3.0]


def test_kitti_takes_the_first_pairs_by_name_to_train_on_and_leaves_the_second_moment_out(tmp_path):
    data = load(kitti2015(tmp_path), KITTI)
    assert lefts(data.train) == [f"training/image_2/00000{n}_10.png" for n in range(3)]
    assert lefts(data.val) == [f"training/image_2/00000{n}_10.png" for n in (3, 4)]
    wanted = images(3, (34, 53))
    wanted[2][:4] = np.nan
    close(data.val[0], wanted)
    assert len(load(tmp_path / "training", KITTI, train_all=True).train) == 5
    noc = load(tmp_path, KITTI, hidden=False)
    assert noc.val[0][2][:, :3].isnan().all() and not data.val[0][2][4:, :3].isnan().any()
    assert data.fingerprint != noc.fingerprint


def test_kitti_2012_is_read_in_colour_where_it_is_there_and_else_in_grey(tmp_path):
    options = replace(KITTI, name="kitti2012")
    grey = load(kitti2012(tmp_path, grey=True), options)
    assert lefts(grey.val)[0] == "training/image_0/000003_10.png"
    left = grey.val[0][0] * torch.tensor(IMAGENET_STD)[:, None, None] + torch.tensor(IMAGENET_MEAN)[:, None, None]
    assert (left[0] - left[2]).abs().max() < 1e-6
    assert lefts(load(kitti2012(tmp_path), options).val)[0] == "training/colored_0/000003_10.png"


def test_a_window_is_the_same_of_both_images_and_follows_from_seed_epoch_and_index_alone(tmp_path):
    data = load(scene_flow(tmp_path)).train
    taken = {}
    for epoch in (0, 1):
        data.at(5, epoch)
        left, right, disparity = data.batch([4, 0])
        assert left.shape == right.shape == (2, 3, 16, 32) and disparity.shape == (2, 16, 32)
        taken[epoch] = left
        # Shifted by 3 pixels, the right window holds what the left one does.
        torch.testing.assert_close(left[..., 3:], right[..., :-3], rtol=0, atol=0)
    assert not torch.equal(taken[0], taken[1])
    data.at(5, 0)
    assert torch.equal(data.batch([0, 4])[0].flip(0), taken[0])
    data.at(6, 0)
    assert not torch.equal(data.batch([4, 0])[0], taken[0])


def test_pairs_with_a_damaged_file_are_left_out_with_the_reason(tmp_path):
    scene_flow(tmp_path)
    at = tmp_path / "FlyingThings3D"
    whole = load(tmp_path).fingerprint
    (at / "frames_cleanpass/TRAIN/A/0000/right/0006.png").write_bytes(b"")
    cut = at / "disparity/TRAIN/C/0012/left/0006.pfm"
    cut.write_bytes(cut.read_bytes()[:-5])
    data = load(tmp_path)
    assert data.skipped == (
        "FlyingThings3D/disparity/TRAIN/C/0012/left/0006.pfm: its header asks for 6,144 bytes of values, it has 6,139",
        "FlyingThings3D/frames_cleanpass/TRAIN/A/0000/right/0006.png: the file is empty",
    )
    assert (
        frames(data.train) == FLYING - {"TRAIN/A/0000/left/0006.png", "TRAIN/C/0012/left/0006.png"} | MONKAA | DRIVING
    )
    assert data.fingerprint != whole
    for name in ("0006", "0007"):
        (at / f"disparity/TEST/B/0001/left/{name}.pfm").write_bytes(b"")
    with pytest.raises(DataError, match=r"holds no whole pair for validation: .*: the file is empty, say\."):
        load(tmp_path)


def test_a_pair_can_be_left_out_by_name(tmp_path):
    scene_flow(tmp_path)
    out = tmp_path / "out.txt"
    out.write_text("Monkaa/frames_cleanpass/a_rain_of_stones_x2/left/0001.png\n")
    assert frames(load(tmp_path, skip=str(out)).train) == FLYING | DRIVING | {"a_rain_of_stones_x2/left/0000.png"}
    out.write_text("Monkaa/0001.png\n")
    with pytest.raises(DataError, match="which is no image of"):
        load(tmp_path, skip=str(out))


@pytest.mark.parametrize(
    "part", ["frames_cleanpass/TRAIN/A/0000/right/0007.png", "disparity/TRAIN/A/0000/left/0007.pfm"]
)
def test_a_file_of_a_pair_that_is_missing_is_named(part, tmp_path):
    scene_flow(tmp_path)
    (tmp_path / "FlyingThings3D" / part).unlink()
    with pytest.raises(DataError, match=rf"^load: \S+left/0007\.png has no FlyingThings3D/{part} beside it\. Unpack"):
        load(tmp_path)
    kitti2015(tmp_path)
    (tmp_path / "training/disp_occ_0/000002_10.png").unlink()
    with pytest.raises(DataError, match=r"has no training/disp_occ_0/000002_10\.png beside it"):
        load(tmp_path, KITTI)


def test_images_of_unequal_sizes_and_windows_that_do_not_fit_are_refused(tmp_path):
    sequence(tmp_path / "frames_cleanpass", tmp_path / "disparity", "TRAIN/A/0000", (0, 1))
    sequence(tmp_path / "frames_cleanpass", tmp_path / "disparity", "TEST/A/0000", (0,))
    put(tmp_path / "disparity/TRAIN/A/0000/left/0001.pfm", plain_pfm(np.ones((32, 47), np.float32)))
    data = load(tmp_path, subsets=("flyingthings3d",))
    with pytest.raises(
        DataError, match=r"have 3 x 32 x 48, 3 x 32 x 48, 32 x 47 pixels|32 x 48, 32 x 48, 32 x 47 pixels"
    ):
        data.train[1]
    data = load(tmp_path, subsets=("flyingthings3d",), crop=(48, 48))
    with pytest.raises(
        DataError, match=r"has 32 x 48 pixels, the window of training 48 x 48\. Use a smaller --data\.crop"
    ):
        data.train[0]
    with pytest.raises(OptionError, match="multiples of 16, got 40 and 48"):
        load(tmp_path, crop=(40, 48))


def test_what_is_not_there_is_told_with_the_page_to_fetch_it_from(tmp_path):
    for name, page in (("scene-flow", "lmb.informatik"), ("kitti2012", "stereo_flow"), ("kitti2015", "scene_flow")):
        with pytest.raises(DataError, match=rf"^load: {name} needs --data\.path, .* got none\. Fetch .*{page}"):
            load_stereo(StereoData(name))
        with pytest.raises(DataError, match=rf"^load: there is no folder .*{page}"):
            load(tmp_path / "no", StereoData(name))
        with pytest.raises(DataError, match=rf"^load: .*{page}"):
            load(tmp_path, StereoData(name))
    with pytest.raises(DataError, match=r"holds 5 pairs, --data\.train-pairs 160 leaves none"):
        load(kitti2015(tmp_path), KITTI, train_pairs=160)
    for name, options in (
        ("train-pairs", replace(FLOW, train_pairs=3)),
        ("frames", replace(KITTI, frames="finalpass")),
    ):
        with pytest.raises(OptionError, match=rf"^load: --data\.{name} means nothing for {options.name}\."):
            load_stereo(options)
    with pytest.raises(OptionError, match="no stereo set 'middlebury'"):
        load_stereo(StereoData("middlebury"))


@pytest.fixture(scope="module")
def planes(tmp_path_factory):
    """Two pairs of each part of photo-planes."""
    folder = tmp_path_factory.mktemp("planes")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(photo_planes, "COUNTS", {"TRAIN": 2, "TEST": 2})
        photo_planes.write(folder)
    return folder


def test_generated_pairs_are_read_as_scene_flow_is(planes):
    data = load(planes, StereoData(crop=(48, 96)))
    assert (len(data.train), len(data.val)) == (2, 2) and not data.skipped
    left, right, disparity = data.val[1]
    assert left.shape == right.shape == (3, photo_planes.ROWS, photo_planes.COLUMNS)
    assert disparity.min() >= photo_planes.LEAST and disparity.max() <= photo_planes.MOST
    assert (disparity % 1).unique().numel() > 50, "disparities are fractions of pixels"


def test_the_generated_set_has_as_many_pairs_as_is_said_and_is_made_by_name():
    assert tuple(photo_planes.COUNTS.values()) == PUBLISHED["photo-planes"]
    assert GENERATED["photo-planes"] == f"{photo_planes.__name__}:{photo_planes.write.__name__}"


def test_generated_bytes_are_the_same_each_time(planes, tmp_path, monkeypatch):
    monkeypatch.setattr(photo_planes, "COUNTS", {"TRAIN": 1, "TEST": 0})
    photo_planes.write(tmp_path)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) == 3
    assert all(path.read_bytes() == (planes / path.relative_to(tmp_path)).read_bytes() for path in files)


def views(part, index):
    textures = [photograph[:, slice(*photo_planes.PARTS[part])] for photograph in photo_planes._photographs()]
    planes = photo_planes.scene(textures, seed=(list(photo_planes.PARTS).index(part), index))
    return [photo_planes.render(planes, textures, right=right) for right in (False, True)]


def warped(right, disparity):
    """The right image, or a map of it, at x - d, between pixels by linear interpolation."""
    rows, columns = disparity.shape
    at = np.arange(columns) - disparity
    low = np.clip(np.floor(at).astype(int), 0, columns - 2)
    share = np.clip(at - low, 0, 1)[(...,) + (None,) * (right.ndim - 2)]
    row = np.arange(rows)[:, None]
    return right[row, low] * (1 - share) + right[row, low + 1] * share, at >= 0


@pytest.mark.parametrize(("part", "index"), [("TRAIN", 0), ("TRAIN", 7), ("TEST", 3)])
def test_the_right_image_moved_by_the_disparity_is_the_left_one_where_nothing_hides_it(part, index):
    left, right = views(part, index)
    other, inside = warped(right.disparity.astype(float), left.disparity)
    # Seen by both cameras, and no border of a plane within a pixel, where colours mix.
    seen = inside & (abs(other - left.disparity) < 0.25)
    for axis in (0, 1):
        step = abs(np.diff(left.disparity, axis=axis)) > 0.25
        pad = [(0, 0), (0, 0)]
        for side in ((1, 0), (0, 1)):
            pad[axis] = side
            seen &= ~np.pad(step, pad)
    assert 0.5 < seen.mean() < 0.99, "some of it is hidden"

    def error(shift):
        moved, _ = warped(right.image.astype(float), left.disparity + shift)
        return abs(moved - left.image)[seen].mean()

    assert error(0.0) < 4
    assert error(0.0) < 0.5 * min(error(-0.5), error(0.5)), "half a pixel off is seen"


def test_training_and_held_out_pairs_share_no_column_of_the_photographs():
    (first, end), (start, last) = photo_planes.PARTS["TRAIN"], photo_planes.PARTS["TEST"]
    assert 0 == first < end < start < last == photo_planes._photographs()[0].shape[1]


def test_always_answering_the_median_is_off_by_2_4_pixels_on_the_held_out_pairs():
    textures = [photograph[:, slice(*photo_planes.PARTS["TEST"])] for photograph in photo_planes._photographs()]
    y, x = np.mgrid[: photo_planes.ROWS, : photo_planes.COLUMNS].astype(float)
    scenes = [photo_planes.scene(textures, seed=(1, n)) for n in range(photo_planes.COUNTS["TEST"])]
    maps = np.stack([photo_planes._nearest(planes, x, y, right=False)[0] for planes in scenes])
    assert abs(maps - np.median(maps)).mean() == pytest.approx(2.4, abs=0.05), "what docs/stereo.md says"
