"""What collections of images really hold, in every loader of files; what was found out is remembered and no longer."""

import errno
import os
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from data import miniatures
from foveal.data import DataOptions, checks, load_options
from foveal.data.checks import Memory, look
from foveal.data.listing import Paths, files_of, images_under
from foveal.data.picture import UnreadableError, check_picture, quiet, read_picture
from foveal.errors import DataError, OptionError

LOADERS = {
    "folder": (miniatures.folder, "train/bee", "jpg"),
    "imagenet": (miniatures.imagenet, f"train/{miniatures.WNIDS[1]}", "JPEG"),
    "tiny-imagenet": (miniatures.tiny_imagenet, f"tiny-imagenet-200/train/{miniatures.WNIDS[1]}/images", "JPEG"),
}


def told_of(data) -> dict[str, str]:
    return {Path(line.partition(": ")[0]).stem: line.partition(": ")[2] for line in data.skipped}


@pytest.mark.parametrize("verify", ["whole", "ends"])
@pytest.mark.parametrize("name", LOADERS)
def test_broken_images_are_left_out_by_name_and_odd_ones_are_read(tmp_path, name, verify):
    make, place, suffix = LOADERS[name]
    path = make(tmp_path)
    before = len(load_options(DataOptions(name=name, path=str(path), size=16)).train)
    for kind, odd in miniatures.READABLE.items():
        (path / place / f"{kind}.{suffix}").write_bytes(odd())
    for kind, (broken, _) in miniatures.BROKEN.items():
        (path / place / f"{kind}.{suffix}").write_bytes(broken())
    data = load_options(DataOptions(name=name, path=str(path), size=16, verify=verify))
    assert len(data.train) == before + len(miniatures.READABLE)
    told = told_of(data)
    assert told.keys() == miniatures.BROKEN.keys()
    assert all(word in told[kind] for kind, (_, word) in miniatures.BROKEN.items())
    for split in (data.train, data.val):
        for n in range(len(split)):
            image, _ = split[n]
            assert image.shape == (3, 16, 16) and image.isfinite().all()


@pytest.mark.parametrize("kind", miniatures.READABLE)
def test_odd_images_are_the_same_from_a_file_and_from_bytes(tmp_path, kind):
    raw = miniatures.READABLE[kind]()
    (tmp_path / "odd").write_bytes(raw)
    one, other = read_picture(tmp_path / "odd"), read_picture(raw)
    assert one.mode == other.mode == "RGB"
    assert one.tobytes() == other.tobytes()


def test_the_ends_tell_a_cut_image_and_only_the_whole_tells_damage_within(tmp_path):
    raw = miniatures.encoded(miniatures.Image.fromarray(miniatures.pixels(1, 1, (300, 300))), "PNG")
    hole = raw[: len(raw) // 2] + bytes(2000) + raw[len(raw) // 2 + 2000 :]
    check_picture(hole, whole=False)
    for source, whole in ((hole, True), (raw[:-40], False), (raw[: len(raw) // 2], False)):
        with pytest.raises(UnreadableError):
            check_picture(source, whole=whole)
    check_picture(raw, whole=True)
    check_picture(miniatures.jpeg(1, 1) + b"words after the end", whole=False)


def test_damage_that_was_not_looked_for_stops_with_the_file_and_what_to_do(tmp_path):
    path = miniatures.folder(tmp_path)
    cut = path / "train" / "bee" / "1.jpg"
    cut.write_bytes(miniatures.jpeg(1, 1, (200, 200))[:5000])
    options = DataOptions(name="folder", path=str(path), size=16, verify="sizes")
    split = load_options(options).train
    broken = [n for n, name in enumerate(split.paths) if name == cut]
    with pytest.raises(DataError, match=r"bee/1.jpg cannot be read: .*truncated.* Restore it and go on, or name"):
        split[broken[0]]
    (tmp_path / "skip.txt").write_text(f"train/bee/1.jpg\n\n{path / 'val' / 'ant' / '0.jpg'}\n")
    left = load_options(DataOptions(name="folder", path=str(path), size=16, skip=str(tmp_path / "skip.txt")))
    assert (len(left.train), len(left.val)) == (8, 5)
    assert all("named by --data.skip" in line for line in left.skipped) and len(left.skipped) == 2


def test_a_skip_file_that_names_nothing_is_refused(tmp_path):
    path = str(miniatures.folder(tmp_path))
    (tmp_path / "skip.txt").write_text("train/bee/11.jpg\n")
    with pytest.raises(DataError, match=r"skip.txt names train/bee/11.jpg, which is no image of"):
        load_options(DataOptions(name="folder", path=path, skip=str(tmp_path / "skip.txt")))
    with pytest.raises(DataError, match=r"there is no file .*none.txt to name images to skip"):
        load_options(DataOptions(name="folder", path=path, skip=str(tmp_path / "none.txt")))
    with pytest.raises(OptionError, match=r"no verify 'all'. Use whole, ends or sizes"):
        load_options(DataOptions(name="folder", path=path, verify="all"))


@pytest.fixture
def looked(monkeypatch):
    """The files that are really looked at; everything is remembered."""
    seen: list[str] = []

    def noted(files, chosen, *, whole):
        seen.extend(files.names[n] for n in chosen)
        return look(files, chosen, whole=whole)

    monkeypatch.setattr(checks, "REMEMBERED_FROM", 1)
    monkeypatch.setattr(checks, "look", noted)
    return seen


def test_only_folders_that_changed_are_looked_at_again(tmp_path, looked):
    path = miniatures.folder(tmp_path)
    (path / "train" / "bee" / "cut.jpg").write_bytes(miniatures.jpeg(1, 1, (200, 200))[:5000])
    options = DataOptions(name="folder", path=str(path))
    first = load_options(options)
    assert len(looked) == 16 and len(first.skipped) == 1
    again = load_options(options)
    assert len(looked) == 16 and again.skipped == first.skipped
    load_options(DataOptions(name="folder", path=str(path), verify="ends"))
    assert len(looked) == 16
    whole = path / "val" / "cat" / "0.jpg"
    whole.write_bytes(miniatures.jpeg(1, 1, (200, 200))[:5000])
    changed = load_options(options)
    assert sorted(looked[16:]) == ["val/cat/0.jpg", "val/cat/1.jpg"]
    assert "val/cat/0.jpg" in " ".join(changed.skipped)


def test_what_was_looked_at_less_closely_is_looked_at_again(tmp_path, looked):
    path = str(miniatures.folder(tmp_path))
    load_options(DataOptions(name="folder", path=path, verify="ends"))
    load_options(DataOptions(name="folder", path=path, verify="whole"))
    assert len(looked) == 30


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"format": 1, "of": "x"}', b'{"format": 0}', b"\xff\xfe"])
def test_a_damaged_memory_is_no_memory(tmp_path, looked, content):
    path = miniatures.folder(tmp_path)
    load_options(DataOptions(name="folder", path=str(path)))
    memory = Memory(f"images of {path.resolve()}").path
    assert memory.is_file()
    memory.write_bytes(content)
    load_options(DataOptions(name="folder", path=str(path)))
    assert len(looked) == 30


def test_a_home_that_cannot_be_written_to_does_no_harm(tmp_path, looked, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    path = str(miniatures.folder(tmp_path / "data"))
    assert len(load_options(DataOptions(name="folder", path=path)).train) == 9


def test_a_disk_that_fails_is_no_broken_image(tmp_path, looked, monkeypatch):
    path = miniatures.folder(tmp_path)
    own = miniatures.Image.open

    def fails(source, *rest):
        if str(source).endswith("bee/1.jpg"):
            raise OSError(errno.EIO, "Input/output error")
        return own(source, *rest)

    monkeypatch.setattr(miniatures.Image, "open", fails)
    with pytest.raises(DataError, match=r"^load: .*bee/1.jpg cannot be opened: Input/output error. Make it readable"):
        load_options(DataOptions(name="folder", path=str(path)))
    monkeypatch.setattr(miniatures.Image, "open", own)
    assert load_options(DataOptions(name="folder", path=str(path))).skipped == ()


def test_large_sets_are_looked_at_less_closely_and_the_options_decide(monkeypatch):
    assert checks.level_of(DataOptions(), 50_000) == "whole"
    assert checks.level_of(DataOptions(), 50_001) == "ends"
    assert checks.level_of(DataOptions(verify="whole"), 10**7) == "whole"


def test_packed_paths_are_the_paths(tmp_path):
    names = ["a/b.png", "ü/名.jpg", os.fsdecode(b"a/\xff.png"), "x"]
    paths = Paths(tmp_path, names)
    assert list(paths) == [tmp_path / name for name in names]
    assert (paths[-1], paths[1:3]) == (tmp_path / "x", [tmp_path / "ü/名.jpg", tmp_path / os.fsdecode(b"a/\xff.png")])
    with pytest.raises(IndexError):
        paths[4]


def test_links_hidden_files_and_other_files_are_what_they_are(tmp_path):
    photo = miniatures.photo(tmp_path / "a" / "deep" / "1.JPG")
    (tmp_path / "a" / "link.png").symlink_to(photo)
    (tmp_path / "a" / "broken.png").symlink_to(tmp_path / "nowhere.png")
    (tmp_path / "a" / ".hidden.jpg").touch()
    (tmp_path / "a" / "words.txt").touch()
    sizes = {name: size for name, size, _ in images_under(tmp_path, "a")}
    assert sizes == {"a/broken.png": 0, "a/deep/1.JPG": photo.stat().st_size, "a/link.png": photo.stat().st_size}


@pytest.fixture(scope="module")
def many(tmp_path_factory) -> Path:
    """20,000 files of a byte in 20 folders."""
    root = tmp_path_factory.mktemp("many")
    for folder in range(20):
        (root / f"{folder:02}").mkdir()
        for n in range(1000):
            (root / f"{folder:02}" / f"n_{n:06}.JPEG").write_bytes(b"x")
    return root


def test_listing_takes_time_in_proportion_to_the_files(many):
    def seconds(folders: int) -> float:
        names = [f"{n:02}" for n in range(folders)]
        times = []
        for _ in range(3):
            began = time.perf_counter()
            files = files_of(many, names)
            load = Paths(many, files.names)
            times.append(time.perf_counter() - began)
            assert len(load) == 1000 * folders
        return min(times)

    assert seconds(20) < 3 * (20 / 5) * seconds(5)


def test_a_list_of_files_is_small_and_sent_to_workers_quickly(many):
    files = files_of(many, [f"{n:02}" for n in range(20)])
    assert len(files.paths().packed) < 20 * len(files)
    assert files.labels.dtype == np.int32 and files.labels.tolist() == [n // 1000 for n in range(20000)]


def test_warnings_are_as_they_were_after_reading(tmp_path):
    import warnings

    before = list(warnings.filters)
    load_options(DataOptions(name="folder", path=str(miniatures.folder(tmp_path)))).train[0]
    assert warnings.filters == before


def test_labels_are_plain_numbers(tmp_path):
    data = load_options(DataOptions(name="folder", path=str(miniatures.folder(tmp_path)), size=16))
    assert type(data.train[4][1]) is int and data.train.batch([0, 8])[1].dtype == torch.int64


def test_readers_that_overlap_leave_the_warnings_of_the_process_as_they_were():
    before, first, second = list(warnings.filters), quiet(), quiet()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    with warnings.catch_warnings(record=True) as caught:
        warnings.warn("of a decoder", stacklevel=1)
    assert not caught
    second.__exit__(None, None, None)
    assert warnings.filters == before
