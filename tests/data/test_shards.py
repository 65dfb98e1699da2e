"""Tar shards: what webdataset's writer makes is read at any place, in an order that keeps to a few files at a time."""

import gzip
import io
import json
import pickle
import tarfile
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader

from data import miniatures
from foveal.data import DataOptions, load_options, shard_index, shards
from foveal.errors import DataError


def given(path: Path, name: str = "shards", **options):
    return load_options(DataOptions(name=name, path=str(path), **{"size": 16, **options}))


def write(path: Path, members: list[tuple[str, bytes]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


@pytest.mark.parametrize("labels", ["cls", "json"])
def test_every_sample_is_the_one_that_webdataset_reads(tmp_path, labels):
    import webdataset

    data = given(miniatures.shards(tmp_path, labels=labels))
    files = [str(path) for path in sorted(tmp_path.glob("train/*.tar"))]
    theirs = list(webdataset.WebDataset(files, shardshuffle=False))
    assert len(theirs) == len(data.train) == 12
    for n, sample in enumerate(theirs):
        told = int(sample["cls"]) if labels == "cls" else json.loads(sample["json"])["label"]
        assert (data.train.labels[n], data.train.paths[n].stem) == (told, sample["__key__"])
        theirs_decoded = miniatures.Image.open(io.BytesIO(sample["jpg"])).tobytes()
        assert data.train.image(n).tobytes() == theirs_decoded


def test_an_order_has_every_image_once_and_keeps_to_some_files(tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "MIXED", 2)
    split = given(miniatures.shards(tmp_path, classes=4, per_class=8, per_shard=4)).train
    order = split.order(3, 1)
    assert order.sort().values.tolist() == list(range(32))
    assert torch.equal(order, split.order(3, 1))
    assert not torch.equal(order, split.order(3, 2)) and not torch.equal(order, split.order(4, 1))
    for first in range(0, 32, 8):
        read = {split.paths[n].parent.name for n in order[first : first + 8].tolist()}
        assert len(read) == 2


def test_workers_read_what_one_process_reads_and_files_are_opened_again_elsewhere(tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "OPEN", 2)
    split = given(miniatures.shards(tmp_path, per_shard=2)).train
    split.at(1, 1)
    order = split.order(1, 1).tolist()
    here = torch.stack([split[n][0] for n in order])
    assert len(split._open) == 2
    loader = DataLoader(split, batch_sampler=[order[n : n + 3] for n in range(0, 12, 3)], num_workers=2)
    assert torch.equal(torch.cat([images for images, _ in loader]), here)
    assert torch.equal(torch.stack([pickle.loads(pickle.dumps(split))[n][0] for n in order]), here)


def test_a_shard_is_looked_into_once_until_it_changes(tmp_path, monkeypatch):
    looked = []
    own = shard_index._build
    monkeypatch.setattr(shard_index, "_build", lambda path, level: looked.append(path.name) or own(path, level))
    miniatures.shards(tmp_path)
    first = given(tmp_path)
    assert len(looked) == 5
    again = given(tmp_path)
    assert len(looked) == 5
    assert torch.equal(first.train[5][0], again.train[5][0]) and first.fingerprint == again.fingerprint
    given(tmp_path, verify="ends")
    assert len(looked) == 5  # less than what was found out
    write(tmp_path / "val" / "imagenet-val-000001.tar", [("x.jpg", miniatures.jpeg(2, 2)), ("x.cls", b"2")])
    changed = given(tmp_path)
    assert looked[5:] == ["imagenet-val-000001.tar"]
    assert changed.fingerprint != first.fingerprint and changed.val.paths[-1].name == "x.jpg"


def test_imagenets_thousand_classes_have_their_words(tmp_path):
    data = given(miniatures.shards(tmp_path), "imagenet-shards")
    assert len(data.classes) == 1000 and data.classes[:2] == ("tench", "goldfish")
    assert data.name == "imagenet-shards"


def test_classes_have_the_names_of_their_file_or_numbers(tmp_path):
    miniatures.shards(tmp_path)
    assert given(tmp_path).classes == ("0", "1", "2")
    (tmp_path / "classes.txt").write_text("ant\nbee\ncat\n")
    assert given(tmp_path).classes == ("ant", "bee", "cat")
    (tmp_path / "classes.txt").write_text("ant\nbee\nant\n")
    with pytest.raises(DataError, match=r"classes.txt names 'ant' twice. Give every class a name of its own"):
        given(tmp_path)
    (tmp_path / "classes.txt").write_text("ant\nbee\n")
    with pytest.raises(
        DataError, match=r"labels in .* go from 0 to 2, for 2 classes. Number them from 0, and name all"
    ):
        given(tmp_path)


def test_tar_files_of_one_folder_are_told_apart_by_their_names(tmp_path):
    for name in ("set-train-000.tar", "set-validation-000.tar", "constrained.tar"):
        write(
            tmp_path / name,
            [(f"{n}.{s}", c) for n in (0, 1) for s, c in (("jpg", miniatures.jpeg(n, n)), ("cls", b"%d" % n))],
        )
    data = given(tmp_path)
    assert (len(data.train), len(data.val)) == (2, 2)


def test_samples_that_cannot_be_used_are_left_out_with_the_reason(tmp_path):
    miniatures.shards(tmp_path)
    members = [(f"{name}.png", make()) for name, make in miniatures.READABLE.items()]
    members += [(f"{name}.jpg", make()) for name, (make, _) in miniatures.BROKEN.items()]
    members += [(f"{name}.cls", b"1") for name, _ in [*miniatures.READABLE.items(), *miniatures.BROKEN.items()]]
    members += [("no-class.jpg", miniatures.jpeg(0, 0)), ("no-image.cls", b"1"), ("odd.cls", b"one"), ("odd.jpg", b"x")]
    write(tmp_path / "train" / "odd-train.tar", members)
    data = given(tmp_path)
    assert len(data.train) == 12 + len(miniatures.READABLE)
    told = {Path(line.partition(": ")[0]).stem: line.partition(": ")[2] for line in data.skipped}
    assert told.keys() == {*miniatures.BROKEN, "no-class", "no-image", "odd"}
    for name, (_, word) in miniatures.BROKEN.items():
        assert word in told[name]
    assert "no number in .cls" in told["no-class"] and "no number in .cls" in told["odd"]
    assert "has cls and no jpg, jpeg, png, webp" in told["no-image"]
    for n in range(len(data.train)):
        assert data.train[n][0].isfinite().all()


@pytest.mark.parametrize("label", [b"99999999999999999999", b"-2147483649"])
def test_a_label_that_no_class_can_have_is_none(tmp_path, label):
    miniatures.shards(tmp_path)
    write(tmp_path / "train" / "odd-train.tar", [("odd.jpg", miniatures.jpeg(0, 0)), ("odd.cls", label)])
    (told,) = given(tmp_path).skipped
    assert "odd.jpg: the sample has no class: no number in .cls" in told


def test_one_large_label_does_not_make_as_many_classes(tmp_path):
    miniatures.shards(tmp_path)
    write(tmp_path / "train" / "odd-train.tar", [("odd.jpg", miniatures.jpeg(0, 0)), ("odd.cls", b"2000000000")])
    with pytest.raises(DataError, match=r"go from 0 to 2000000000, for \d+ classes. Number them from 0"):
        given(tmp_path)


def test_an_image_that_breaks_later_stops_training_with_its_name(tmp_path):
    miniatures.shards(tmp_path)
    data = given(tmp_path)
    path = tmp_path / "train" / "imagenet-train-000000.tar"
    raw = bytearray(path.read_bytes())
    start = int(data.train._offsets[1])
    raw[start : start + 400] = bytes(400)
    path.write_bytes(raw)
    with pytest.raises(
        DataError,
        match=r"imagenet-train-000000.tar/n01443537_0001.jpg cannot be read: .* Restore it",
    ):
        data.train[1]
    (tmp_path / "skip.txt").write_text("train/imagenet-train-000000.tar/n01443537_0001.jpg\n")
    left = given(tmp_path, skip=str(tmp_path / "skip.txt"), verify="sizes")
    assert len(left.train) == 11
    assert left.skipped[0].endswith("n01443537_0001.jpg: it is named by --data.skip")


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda raw: raw[:5000], r"is (no whole tar file|cut off)"),
        (lambda raw: raw[: len(raw) // 2 // 512 * 512], r"is (no whole tar file|cut off)"),
        (lambda raw: raw[: -(-len(raw.rstrip(b"\0")) // 512) * 512], r"is cut off: .* no end mark of a tar"),
        (lambda raw: b"", r"is (no whole tar file|cut off)"),
        (lambda raw: gzip.compress(raw), r"is no whole tar file .* unpack it where it is compressed"),
    ],
)
def test_a_damaged_shard_is_named(tmp_path, damage, told):
    miniatures.shards(tmp_path)
    path = tmp_path / "train" / "imagenet-train-000001.tar"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError, match=rf"imagenet-train-000001.tar {told}"):
        given(tmp_path)


def test_a_sample_with_two_images_of_a_kind_is_refused(tmp_path):
    miniatures.shards(tmp_path)
    twice = [("a.jpg", miniatures.jpeg(0, 0)), ("a.cls", b"0"), ("a.jpg", miniatures.jpeg(0, 1))]
    write(tmp_path / "train" / "more-train.tar", twice)
    with pytest.raises(DataError, match=r"more-train.tar holds a.jpg twice"):
        given(tmp_path)


def test_missing_shards_are_told_with_what_is_wanted(tmp_path):
    with pytest.raises(DataError, match=r"holds 0 tar files to train on and 0 to validate with. It must hold train/"):
        given(tmp_path)
    (tmp_path / "train-0.tar.gz").touch()
    with pytest.raises(DataError, match=r"Unpack train-0.tar.gz and the others first"):
        given(tmp_path)
    with pytest.raises(DataError, match=r"there is no folder .*nowhere. It must hold train/\*.tar"):
        given(tmp_path / "nowhere")


class Trap:
    def __reduce__(self):
        return (Path.touch, (Path("trap-went-off"),))


def test_nothing_in_a_shard_is_unpickled(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    miniatures.shards(tmp_path)
    trap = pickle.dumps(Trap())
    members = [("a.jpg", miniatures.jpeg(0, 0)), ("a.cls", b"0"), ("a.pyd", trap), ("a.pickle", trap), ("a.pth", trap)]
    write(tmp_path / "train" / "trap-train.tar", members)
    data = given(tmp_path)
    assert len([data.train[n] for n in range(len(data.train))]) == 13
    assert not Path("trap-went-off").exists()
