"""CIFAR: both layouts read alike, nothing of a pickle is run, and what is not the published file is said."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from data import miniatures
from foveal.data import Augmentation, DataOptions, load, load_options
from foveal.data.plain_pickle import RefusedError, read_plain_pickle
from foveal.errors import DataError


def given(name: str, path: Path, **options: object) -> DataOptions:
    return DataOptions(name=name, path=str(path), **options)


@pytest.mark.parametrize(("name", "classes", "train"), [("cifar10", 10, 100), ("cifar100", 100, 200)])
def test_both_layouts_hold_the_same_images(tmp_path, name, classes, train):
    made = [getattr(miniatures, f"{name}{kind}")(tmp_path / (kind or "py"), 2) for kind in ("", "_binary")]
    one, other = (load_options(given(name, path)) for path in made)
    assert (len(one.train), len(one.val), len(one.classes)) == (train, 2 * classes, classes)
    assert one.classes == other.classes
    assert torch.equal(one.train.images, other.train.images)
    assert list(one.train.labels) == list(other.train.labels)
    assert one.fingerprint == other.fingerprint


def test_colours_and_rows_are_where_they_were(tmp_path):
    data = load_options(given("cifar10", miniatures.cifar10(tmp_path)))
    shown = (data.val.picture(3).permute(1, 2, 0) * 255).round().byte().numpy()
    assert np.array_equal(shown, miniatures.pixels(3, 5003))
    assert data.classes[data.val.labels[3]] == "cat"


def test_torchvision_reads_the_miniature_alike(tmp_path, monkeypatch):
    from torchvision.datasets import CIFAR100

    monkeypatch.setattr(CIFAR100, "_check_integrity", lambda self: True)
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *_: True)
    theirs = CIFAR100(miniatures.cifar100(tmp_path), train=True)
    ours = load_options(given("cifar100", tmp_path))
    assert np.array_equal(theirs.data.transpose(0, 3, 1, 2), ours.train.images.numpy())
    assert theirs.targets == list(ours.train.labels)
    assert tuple(theirs.classes) == ours.classes


def test_the_folder_itself_is_found_too(tmp_path):
    miniatures.cifar10(tmp_path)
    assert len(load_options(given("cifar10", tmp_path / "cifar-10-batches-py")).train) == 50


@pytest.mark.parametrize("size", [None, 24])
@pytest.mark.parametrize("policy", [None, "rand-m9-mstd0.5-inc1"])
def test_a_batch_is_its_items(tmp_path, size, policy):
    augmentation = Augmentation(policy=policy)
    data = load_options(given("cifar10", miniatures.cifar10(tmp_path, 2), size=size, augmentation=augmentation))
    data.train.at(3, 5)
    chosen = data.train.order(3, 5)[:17].tolist()
    images, labels = data.train.batch(chosen)
    items = [data.train[index] for index in chosen]
    assert torch.equal(images, torch.stack([image for image, _ in items]))
    assert labels.tolist() == [label for _, label in items]
    assert images.shape == (17, 3, size or 32, size or 32)


def test_a_padded_crop_is_a_window_of_the_padded_image_and_sometimes_turned_round(tmp_path):
    data = load_options(given("cifar10", miniatures.cifar10(tmp_path, 4)))
    data.train.at(0, 0)
    padded = torch.nn.functional.pad(data.train.images, (4,) * 4)
    seen = set()
    for index in range(60):
        drawn = data.train[index][0]
        windows = {
            (top, left, turned): window.flip(-1) if turned else window
            for top in range(9)
            for left in range(9)
            for window in [padded[index, :, top : top + 32, left : left + 32]]
            for turned in (False, True)
        }
        equal = [k for k, w in windows.items() if torch.equal(data.preparation.normalised(w.float() / 255), drawn)]
        assert len(equal) == 1
        seen.add(equal[0])
    assert {turned for _, _, turned in seen} == {False, True}
    assert {top for top, _, _ in seen} == set(range(9)) == {left for _, left, _ in seen}


def test_validation_is_what_prepare_makes_of_the_picture(tmp_path):
    for size in (None, 24):
        data = load_options(given("cifar10", miniatures.cifar10(tmp_path / str(size)), size=size))
        assert torch.equal(data.val[4][0], data.prepare(data.val.image(4)))


class Trap:
    def __reduce__(self):
        return (Path.touch, (Path("trap-went-off"),))


@pytest.mark.parametrize("file", ["data_batch_3", "test_batch", "batches.meta"])
def test_a_pickle_that_asks_to_run_anything_is_refused_and_runs_nothing(tmp_path, monkeypatch, file):
    monkeypatch.chdir(tmp_path)
    folder = miniatures.cifar10(tmp_path) / "cifar-10-batches-py"
    (folder / file).write_bytes(pickle.dumps({"data": Trap()}, protocol=2))
    with pytest.raises(DataError, match=rf"{file} is no file of bytes and numbers .* asks for .* Unpack it anew"):
        load_options(given("cifar10", tmp_path))
    assert not (tmp_path / "trap-went-off").exists()


@pytest.mark.parametrize(
    "raw",
    [
        b"cbuiltins\neval\n(V1+1\ntR.",
        b"cnumpy\nload\n.",
        b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c\x04true\x85R.",
        b"P1\n.",
        pickle.dumps(np.arange(4)),
        pickle.dumps([1, 2]),
        pickle.dumps({"x": 1})[:-3],
        b"",
    ],
)
def test_what_is_not_plain_is_refused(raw):
    with pytest.raises(RefusedError):
        read_plain_pickle(raw)


@pytest.mark.parametrize("values", [np.zeros(3), np.array([object()]), np.array(["a"]), np.zeros(3, np.int32)])
def test_only_arrays_of_bytes_are_read(values):
    with pytest.raises(RefusedError):
        read_plain_pickle(pickle.dumps({"data": values}, protocol=4))


def test_arrays_of_bytes_are_read_in_either_order():
    values = np.arange(12, dtype=np.uint8).reshape(3, 4)
    for given_order in (values, np.asfortranarray(values)):
        raw = pickle.dumps({"data": given_order, b"n": 3}, protocol=4)
        read = read_plain_pickle(raw)
        assert np.array_equal(read["data"], values) and read["n"] == 3


def test_missing_data_says_what_to_fetch_and_how_the_folder_looks(tmp_path):
    told = r"no cifar100 in .* Fetch cifar-100-python.tar.gz from https://www.cs.toronto.edu/~kriz/cifar.html, unpack"
    with pytest.raises(DataError, match=told + r".* holds cifar-100-python/ \(train, test, meta\)"):
        load_options(given("cifar100", tmp_path / "nowhere"))
    with pytest.raises(
        DataError, match=r"cifar10 needs --data.path, the path of its folder, got none. Fetch cifar-10-python"
    ):
        load("cifar10")
    (miniatures.cifar10(tmp_path) / "cifar-10-batches-py" / "data_batch_4").unlink()
    with pytest.raises(DataError, match=r"lacks data_batch_4 of cifar10. Unpack cifar-10-python.tar.gz anew"):
        load_options(given("cifar10", tmp_path))


@pytest.mark.parametrize("kind", ["", "_binary"])
def test_a_file_that_was_cut_off_is_named(tmp_path, kind):
    path = getattr(miniatures, f"cifar10{kind}")(tmp_path)
    file = next(path.glob("*/data_batch_2*"))
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(DataError, match=r"data_batch_2.* Unpack"):
        load_options(given("cifar10", path))


def test_labels_out_of_range_are_refused(tmp_path):
    path = miniatures.cifar10_binary(tmp_path)
    file = path / "cifar-10-batches-bin" / "test_batch.bin"
    file.write_bytes(b"\x0b" + file.read_bytes()[1:])
    with pytest.raises(DataError, match=r"test_batch.bin has labels from 1 to 11 for 10 classes"):
        load_options(given("cifar10", path))


def test_a_set_of_the_published_size_has_to_be_the_published_one(tmp_path):
    folder = miniatures.cifar100(tmp_path) / "cifar-100-python"
    for side, count in (("train", 50_000), ("test", 10_000)):
        labels = [n % 100 for n in range(count)]
        rows = {"data": np.zeros((count, 3072), np.uint8), "fine_labels": labels}
        (folder / side).write_bytes(pickle.dumps(rows, protocol=4))
    with pytest.raises(DataError, match=r"train is not the published file: its MD5 is .*, not 16019d7e3df5f242"):
        load_options(given("cifar100", tmp_path))
