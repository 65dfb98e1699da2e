"""Sets of clouds in their published layouts: what is read, what is damaged, what is drawn, what is made here."""

import json
import pickle
import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from data import points_miniatures as miniatures
from foveal.data.generated import generated, write
from foveal.data.points import catalog, hdf5, solids
from foveal.data.points.augmentation import augmented, rotation, taken, unit_sphere
from foveal.data.points.options import PointAugmentation, PointOptions
from foveal.errors import DataError, OptionError
from foveal.tasks.reading import Reader

h5py = pytest.importorskip("h5py")
STILL = PointAugmentation(dropout=0, scale=(1, 1), shift=0, shuffle=False)


def options(name, path, **given):
    given = {"points": 40, "workers": 0, "augmentation": STILL, "unit_sphere": False} | given
    return PointOptions(name=name.split()[0], path=str(path), **given)


@pytest.mark.parametrize("normals", [False, True])
@pytest.mark.parametrize("layout", miniatures.WRITE)
def test_every_cloud_of_a_layout_is_read_as_it_was_written(layout, normals, tmp_path):
    written = miniatures.WRITE[layout](tmp_path)
    data = catalog.load(options(layout, tmp_path, normals=normals))
    wanted = {"train": written["train"] + written.get("val", []), "val": written["test"]}
    for side, rows in wanted.items():
        batch = getattr(data, side).batch(range(len(rows)))
        assert len(getattr(data, side)) == len(rows)
        assert batch["labels"].tolist() == [label for _, label, _ in rows]
        for points, (cloud, _, _) in zip(batch["points"], rows, strict=True):
            torch.testing.assert_close(points.mT, torch.tensor(cloud[:, : 6 if normals else 3]), rtol=0, atol=1e-6)
        if rows[0][2] is not None:
            assert batch["parts"].tolist() == [parts.tolist() for _, _, parts in rows]
    assert data.classes == (miniatures.CLASSES if "modelnet" in layout else tuple(miniatures.CATEGORIES))


def test_val_lists_are_learned_from_or_measured_on(tmp_path):
    written = miniatures.shapenet_hdf5(tmp_path)
    held = catalog.load(options("shapenet-part", tmp_path, held_out="val"))
    assert (len(held.train), len(held.val)) == (len(written["train"]), len(written["val"]))
    assert held.fingerprint != catalog.load(options("shapenet-part", tmp_path)).fingerprint


def test_parts_of_the_text_layout_are_numbered_as_the_field_does(tmp_path):
    miniatures.shapenet_text(tmp_path)
    data = catalog.load(options("shapenet-part", tmp_path))
    assert data.parts == miniatures.PARTS
    assert (len(data.part_names), data.part_names[37], data.part_names[49]) == (50, "Mug 1", "Table 2")


def edit(path, name, change):
    with h5py.File(path, "r+") as file:
        values = file[name][()]
        change(values)
        file[name][...] = values


def shifted(folder, shift):
    """Every cloud of a set moved along all axes, in float64."""
    for path in folder.rglob("*.h5"):
        with h5py.File(path, "r+") as file:
            moved = file["data"][()].astype(np.float64) + shift
            del file["data"]
            file["data"] = moved
    for path in folder.rglob("*/*.txt"):
        if path.stem[-1].isdigit():
            np.savetxt(path, np.loadtxt(path, delimiter=",") + np.repeat([shift, 0], 3), delimiter=",", fmt="%.9f")


def first_text(home):
    return next(path for path in sorted(home.rglob("*.txt")) if path.parent != home)


def rewritten(path, change):
    lines = path.read_text().splitlines()
    path.write_text("\n".join(change(lines)) + "\n")


def without(path, name):
    with h5py.File(path, "r+") as file:
        del file[name]


def garbage(path):
    """Bytes of packed blocks in the middle; what the file says of itself stays."""
    raw = bytearray(path.read_bytes())
    with h5py.File(path) as file:
        place = file["data"].id.get_chunk_info(0)
    raw[place.byte_offset : place.byte_offset + place.size] = bytes(place.size)
    path.write_bytes(raw)


H5 = "ply_data_train0.h5"
DAMAGE = {
    "cut off": ("modelnet40 hdf5", lambda home: (home / H5).write_bytes((home / H5).read_bytes()[:-900]),
                "ply_data_train0.h5 is no whole HDF5 file: .*truncated.* Fetch or unpack it anew"),
    "no HDF5": ("modelnet40 hdf5", lambda home: (home / H5).write_text("<html>"), "is no whole HDF5 file"),
    "empty": ("modelnet40 hdf5", lambda home: (home / H5).write_bytes(b""), "ply_data_train0.h5 is empty"),
    "packed blocks": ("modelnet40 hdf5", lambda home: garbage(home / H5), "ply_data_train0.h5 cannot be read"),
    "gone": ("modelnet40 hdf5", lambda home: (home / "ply_data_train1.h5").unlink(),
             "there is no .*ply_data_train1.h5, which .*train_files.txt names"),
    "no data": ("modelnet40 hdf5", lambda home: without(home / H5, "data"),
                "lacks the dataset 'data', it holds label, normal"),
    "no labels": ("modelnet40 hdf5", lambda home: without(home / H5, "label"), "lacks the dataset 'label'"),
    "no parts": ("shapenet-part hdf5", lambda home: without(home / H5, "pid"), "lacks the dataset 'pid'"),
    "label": ("modelnet40 hdf5", lambda home: edit(home / H5, "label", lambda v: v.__setitem__(2, 3)),
              "ply_data_train0.h5 has label 3 in row 2, labels of 3 classes are 0 to 2"),
    "NaN": ("modelnet40 hdf5", lambda home: edit(home / "ply_data_test0.h5", "data", lambda v: v[1, 7].fill(np.nan)),
            r"ply_data_test0.h5, row 1 \(ply_data_test0.h5:1\), has 1 of 40 points that are no finite numbers, the "
            "first is point 7"),
    "infinite": ("shapenet-part hdf5",
                 lambda home: edit(home / H5, "data", lambda v: v[3, :2].fill(np.inf)), "row 3 .* has 2 of 40 points"),
    "part": ("shapenet-part hdf5", lambda home: edit(home / H5, "pid", lambda v: v[1].__setitem__(4, 0)),
             "row 1 .* is a Bag, whose parts are 4 to 5, got part 0 at point 4"),
    "table": ("shapenet-part hdf5",
              lambda home: (home / "overallid_to_catid_partid.json").write_text(json.dumps([["02691156", 0]])),
              "has no parts of Bag, Mug"),
    "table of lists": ("shapenet-part hdf5",
                       lambda home: (home / "overallid_to_catid_partid.json").write_text("[[[1], 0]]"),
                       "must hold a category and a part a row, got"),
    "list": ("modelnet40 hdf5", lambda home: (home / "test_files.txt").write_text("\n"), "test_files.txt is empty"),
    "no number": ("modelnet40 text", lambda home: rewritten(first_text(home), lambda a: [*a[:3], "1,2,x,4,5,6"]),
                  r"airplane_0001.txt\) is no cloud: line 4 holds 'x' where a number is wanted"),
    "short line": ("modelnet40 text", lambda home: rewritten(first_text(home), lambda a: [*a[:3], "1,2,3"]),
                   "line 4 holds 3 numbers, those before 6"),
    "no points": ("modelnet40 text", lambda home: first_text(home).write_text(""), "is no cloud: the file is empty"),
    "text gone": ("modelnet40 text", lambda home: first_text(home).unlink(), "there is no .*airplane_0001.txt"),
    "text NaN": ("modelnet40 text", lambda home: rewritten(first_text(home), lambda a: ["nan,0,0,0,0,1", *a[1:]]),
                 r"\(airplane/airplane_0001.txt\) has 1 of 40 points that are no finite numbers, the first is point 0"),
    "columns": ("shapenet-part text", lambda home: rewritten(first_text(home), lambda a: [x[:-9] for x in a]),
                "must have 7 numbers a line, got 6"),
    "half a part": ("shapenet-part text",
                    lambda home: rewritten(first_text(home), lambda a: [f"{a[0][:-8]}0.500000", *a[1:]]),
                    "is a Airplane, whose parts are 0 to 3, got part -1 at point 0"),
    "class": ("modelnet40 text", lambda home: rewritten(home / "modelnet40_train.txt", lambda a: [*a, "sofa_0001"]),
              "names sofa_0001, and there is no class 'sofa'"),
    "split": ("shapenet-part text",
              lambda home: (home / "train_test_split" / "shuffled_test_file_list.json").write_text("[3"), "is no JSON"),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_told_with_its_file_and_place(damage, tmp_path):
    layout, change, told = DAMAGE[damage]
    miniatures.WRITE[layout](tmp_path)
    change(next(each for each in tmp_path.iterdir() if each.is_dir()))
    with pytest.raises(DataError, match=f"^load: .*{told}"):
        catalog.load(options(layout, tmp_path, verify="whole"))


def test_damage_that_nobody_looked_for_is_told_when_it_is_read(tmp_path):
    miniatures.modelnet_hdf5(tmp_path)
    edit(tmp_path / "modelnet40_ply_hdf5_2048" / H5, "data", lambda v: v[4, 0].fill(np.nan))
    data = catalog.load(options("modelnet40", tmp_path, verify="sizes"))
    data.train.batch([0, 1, 2, 3])
    with pytest.raises(DataError, match="row 4"):
        data.train.batch([3, 4])


@pytest.mark.parametrize("layout", ["modelnet40 hdf5", "shapenet-part text"])
def test_what_is_left_out_leaves_all_else(layout, tmp_path):
    miniatures.WRITE[layout](tmp_path)
    whole = catalog.load(options(layout, tmp_path))
    gone = whole.train.clouds.names[1]
    (tmp_path / "skip.txt").write_text(f"{gone}\n")
    data = catalog.load(options(layout, tmp_path, skip=str(tmp_path / "skip.txt")))
    assert list(data.train.clouds.names) == [name for name in whole.train.clouds.names if name != gone]
    torch.testing.assert_close(data.train[1], whole.train[2])
    assert data.skipped == (f"{gone}: it is named by --data.skip",)
    (tmp_path / "skip.txt").write_text("nobody\n")
    with pytest.raises(DataError, match="names nobody, which is no cloud of this set"):
        catalog.load(options(layout, tmp_path, skip=str(tmp_path / "skip.txt")))


@pytest.mark.parametrize("verify", [None, "whole"])
def test_a_text_file_that_is_missing_can_be_left_out_by_the_name_that_its_error_tells(verify, tmp_path):
    miniatures.modelnet_text(tmp_path)
    home = tmp_path / "modelnet40_normal_resampled"
    gone, empty = home / "airplane" / "airplane_0001.txt", sorted((home / "xbox").iterdir())[0]
    gone.unlink()
    empty.write_text("")
    skip = tmp_path / "skip.txt"
    skip.write_text("")
    for path, told in ((gone, "there is no .*, which the lists name"), (empty, "the file is empty")):
        with pytest.raises(DataError, match=told) as raised:
            catalog.load(options("modelnet40 text", tmp_path, skip=str(skip), verify=verify))
        assert str(path) in str(raised.value)
        name = str(raised.value).partition("(")[2].partition(")")[0]
        skip.write_text(f"{skip.read_text()}{name}\n")
    data = catalog.load(options("modelnet40 text", tmp_path, skip=str(skip), verify=verify))
    assert len(data.train) + len(data.val) == 7


@pytest.mark.parametrize("name", ["modelnet40", "shapenet-part"])
def test_a_folder_without_the_files_is_told_how_it_has_to_look(name, tmp_path):
    with pytest.raises(DataError, match=f"there is no {name} in .* Fetch .* unpack it, and give its folder"):
        catalog.load(options(name, tmp_path))
    with pytest.raises(DataError, match="needs --data.path"):
        catalog.load(PointOptions(name=name))


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"name": "scannet"}, "there is no set of clouds 'scannet'"),
        ({"points": 0}, "points must be at least 1, got 0"),
        ({"held_out": "train"}, "there is no held_out 'train'"),
        ({"augmentation": PointAugmentation(dropout=1)}, "dropout must be at least 0 and below 1, got 1"),
        ({"augmentation": PointAugmentation(scale=(1.5, 0.5))}, "scale must be two factors above 0, the smaller first"),
        ({"augmentation": PointAugmentation(shift=float("nan"))}, "shift must be a number of at least 0, got nan"),
    ],
)
def test_options_out_of_range_are_refused(changed, told):
    with pytest.raises(OptionError, match=f"^load: {re.escape(told)}"):
        catalog.check(replace(PointOptions(), **changed))


@pytest.mark.parametrize("layout", ["modelnet40 hdf5", "modelnet40 text", "shapenet-part hdf5"])
def test_fewer_points_than_asked_are_all_there_before_some_are_repeated(layout, tmp_path):
    written = miniatures.WRITE[layout](tmp_path)
    data = catalog.load(options(layout, tmp_path, points=100))
    own = torch.tensor(written["test"][0][0][:, :3]).mT
    batch = data.val.batch([0])
    torch.testing.assert_close(batch["points"][0], torch.cat((own, own, own), 1)[:, :100], rtol=0, atol=1e-6)
    data.train.at(3, 1)
    trained = data.train[0]["points"]
    torch.testing.assert_close(trained[:, :40], torch.tensor(written["train"][0][0][:, :3]).mT, rtol=0, atol=1e-6)
    assert not torch.equal(trained[:, 40:80], trained[:, :40])
    if "shapenet" in layout:
        assert batch["counts"].tolist() == [40]


def test_of_more_points_the_first_or_random_ones_are_taken(tmp_path):
    written = miniatures.modelnet_hdf5(tmp_path)
    own = torch.tensor(written["train"][0][0][:, :3])
    first = catalog.load(options("modelnet40", tmp_path, points=16)).train[0]["points"].mT
    assert torch.equal(first, own[:16])
    data = catalog.load(options("modelnet40", tmp_path, points=16, subset="random"))
    drawn = [data.train[0]["points"].mT, (data.train.at(0, 1), data.train[0]["points"].mT)[1]]
    assert not torch.equal(*drawn)
    for points in drawn:
        rows = [int((own == point).all(1).nonzero().squeeze()) for point in points]
        assert len(set(rows)) == 16
    assert torch.equal(data.val[0]["points"], data.val[0]["points"])


def test_a_cloud_depends_on_seed_epoch_and_index_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(hdf5, "KEPT", 0)  # so that a worker reads
    miniatures.shapenet_hdf5(tmp_path)
    given = options("shapenet-part", tmp_path, augmentation=PointAugmentation(rotation="any", jitter=0.01))
    data = catalog.load(given)
    data.train.at(5, 2)
    together = data.train.batch([0, 1, 2, 3, 4, 5])
    alone = [data.train.batch([n]) for n in (5, 2)]
    for n, batch in zip((5, 2), alone, strict=True):
        assert all(torch.equal(batch[name][0], together[name][n]) for name in batch)
    assert data.train.decodes
    (worked,) = Reader(1).read(catalog.load(given).train, 5, 2, [[0, 1, 2, 3, 4, 5]])
    assert all(torch.equal(worked[name], together[name]) for name in together)
    data.train.at(5, 3)
    assert not torch.equal(data.train[0]["points"], together["points"][0])


def test_open_files_stay_in_their_process(tmp_path, monkeypatch):
    monkeypatch.setattr(hdf5, "KEPT", 0)  # so that files stay open
    written = miniatures.modelnet_hdf5(tmp_path)
    clouds = catalog.load(options("modelnet40", tmp_path)).train.clouds
    assert np.array_equal(clouds.read(6).points, written["train"][6][0][:, :3])
    assert clouds._handles
    other = pickle.loads(pickle.dumps(clouds))
    assert not other._handles
    assert np.array_equal(other.read(6).points, clouds.read(6).points)


def test_parts_go_with_their_points_through_all_that_is_drawn(tmp_path):
    miniatures.shapenet_hdf5(tmp_path)
    drawn = PointAugmentation(dropout=0.5, scale=(0.5, 2), shift=0)  # the sign of x stays
    data = catalog.load(options("shapenet-part", tmp_path, augmentation=drawn, subset="random", points=30))
    for n in range(len(data.train)):
        item = data.train[n]
        first, second = list(data.parts.values())[int(item["labels"])][:2]
        assert torch.equal(item["parts"], torch.where(item["points"][0] > 0, second, first))


def test_what_is_drawn_stays_within_what_the_options_say():
    points, generator = torch.randn(4000, 6, generator=torch.Generator().manual_seed(0)), torch.Generator()
    lost = []
    for seed in range(20):
        drawn = PointAugmentation(dropout=0.875, scale=(0.5, 2), shift=0.2, shuffle=False)
        moved, index = augmented(points, drawn, generator.manual_seed(seed))
        # Each axis by itself is a line: factor and shift.
        x, y = points[index][:, :3].double(), moved[:, :3].double()
        factor = ((x - x.mean(0)) * (y - y.mean(0))).sum(0) / (x - x.mean(0)).square().sum(0)
        shift = y.mean(0) - factor * x.mean(0)
        torch.testing.assert_close(y, factor * x + shift, rtol=0, atol=1e-5)
        assert ((factor > 0.5) & (factor < 2)).all() and (shift.abs() <= 0.2).all()
        lost.append(float((index == 0).double().mean()))
        torch.testing.assert_close(moved[:, 3:].norm(dim=1), torch.ones(4000))
    assert 0.6 < max(lost) < 0.895 and min(lost) < 0.2


@pytest.mark.parametrize("kind", ["none", "vertical", "any"])
def test_a_turn_keeps_distances_and_handedness(kind):
    turns = [rotation(kind, torch.Generator().manual_seed(seed)).double() for seed in range(5)]
    for turn in turns:
        torch.testing.assert_close(turn @ turn.mT, torch.eye(3).double(), rtol=0, atol=1e-6)
        assert torch.linalg.det(turn) > 0
        assert kind == "any" or torch.equal(turn[1], torch.tensor([0.0, 1, 0]).double())
    assert (kind == "none") == torch.equal(turns[0], turns[1])


@pytest.mark.parametrize("layout", ["clouds text", "clouds hdf5"])
def test_places_on_a_map_keep_their_digits_until_they_are_in_the_unit_sphere(layout, tmp_path):
    found = []
    for name, shift in (("near", 0.0), ("far", 4e6)):
        (tmp_path / name).mkdir()
        miniatures.WRITE[layout.replace("clouds", "modelnet40")](tmp_path / name)
        shifted(tmp_path / name, shift)
        data = catalog.load(options(layout, tmp_path / name, unit_sphere=True))
        found.append(data.val.batch([0, 1])["points"])
    assert found[1].dtype == torch.float32
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=1e-5)


def test_clouds_in_the_unit_sphere_have_their_mean_at_the_origin_and_reach_one():
    cloud = unit_sphere(torch.randn(50, 6) * 7 + 3)
    torch.testing.assert_close(cloud[:, :3].mean(0), torch.zeros(3), rtol=0, atol=1e-6)
    torch.testing.assert_close(cloud[:, :3].norm(dim=1).max(), torch.tensor(1.0))
    assert torch.equal(unit_sphere(torch.ones(5, 3)), torch.zeros(5, 3))


def test_which_points_are_taken_without_chance_is_the_same_each_time():
    assert taken(3, 7, generator=None, random=True).tolist() == [0, 1, 2, 0, 1, 2, 0]


def test_generated_sets_are_read_like_published_ones_and_written_the_same_each_time(tmp_path, monkeypatch):
    monkeypatch.setattr(solids, "SIDES", {"train": 5, "test": 2})
    for name in ("solids", "solid-parts"):
        once = generated(name)
        again = write(name, tmp_path / name)
        for path in once.iterdir():
            assert path.read_bytes() == (again / path.name).read_bytes()
        data = catalog.load(PointOptions(name=name, points=64))
        assert data.classes == tuple(solids.SOLIDS) and (len(data.train), len(data.val)) == (25, 10)
        counts = torch.bincount(torch.tensor(data.train.labels))
        assert counts.tolist() == [5] * 5
        assert data.val[0]["points"].norm(dim=0).max() == pytest.approx(1, abs=1e-5)
    assert data.part_names[:2] == ("cone side", "cone base")


def test_parts_of_solids_are_what_their_names_say(monkeypatch):
    monkeypatch.setattr(solids, "NOISE", 0)
    for seed in range(5):
        xyz, parts = solids.solid("sphere", (seed,), cut=True)
        away = np.linalg.norm(xyz, axis=1)
        assert np.ptp(away[parts == 0]) < 1e-4 < away[parts == 0].max() - away[parts == 1].min()
        for name, flat in (("cone", 1), ("sphere", 1)):
            xyz, parts = solids.solid(name, (seed,), cut=True)
            thick = [np.linalg.svd(xyz[parts == n] - xyz[parts == n].mean(0))[1][2] for n in (flat, 1 - flat)]
            assert thick[0] < 1e-3 < thick[1]
        xyz, parts = solids.solid("torus", (seed,))
        axis = np.linalg.svd(xyz - xyz.mean(0))[2][2]
        around = np.linalg.norm(np.cross(xyz, axis), axis=1)
        assert around[parts == 1].max() < around[parts == 0].min() + 0.1
