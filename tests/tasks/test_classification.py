"""Learning classes: the same images whatever the parts, processes and workers, and counts that are exact."""

import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from torch import nn

from data import miniatures
from foveal.data import load_options
from foveal.data.options import Augmentation, DataOptions
from foveal.errors import OptionError
from foveal.tasks import distributed
from foveal.tasks.classification import Classification
from foveal.tasks.reading import Reader
from foveal.tasks.recipe import OptimizerOptions, Recipe

RECIPE = Recipe(batch_size=96)


class Linear(nn.Module):
    """Scores that tell the pixels apart, so that every image counts."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(10, 64, generator=torch.Generator().manual_seed(1)))

    def forward(self, x):
        return x.flatten(1) @ self.weight.T


@pytest.fixture(scope="module")
def digits():
    return load_options(DataOptions())


def made(digits, **changes):
    task = Classification(digits, Linear, replace(RECIPE, **changes))
    task.build()
    return task


def images_of(task, start=0):
    return [[part[0][0] for part in parts] for parts in task.batches(3, 1, start)]


def test_parts_together_are_the_whole_step(digits):
    whole, parts = images_of(made(digits)), images_of(made(digits, accumulate=3))
    assert [len(step) for step in parts] == [3] * len(whole)
    assert all(torch.equal(one[0], torch.cat(step)) for one, step in zip(whole, parts, strict=True))


def test_an_epoch_goes_on_from_any_step(digits):
    whole = images_of(made(digits, accumulate=2))
    for start in (0, 1, len(whole) - 1, len(whole)):
        rest = images_of(made(digits, accumulate=2), start)
        assert len(rest) == len(whole) - start
        assert all(
            torch.equal(a, b)
            for one, two in zip(rest, whole[start:], strict=True)
            for a, b in zip(one, two, strict=True)
        )


@pytest.mark.parametrize("world", [2, 3])
def test_the_shares_of_all_processes_together_are_the_whole(digits, monkeypatch, world):
    task = made(digits)
    whole, told = images_of(task), task.evaluate()
    monkeypatch.setattr(distributed, "world", lambda: world)
    shares, counts = [], []
    monkeypatch.setattr(distributed, "summed", lambda values: counts.append(values) or values)
    for rank in range(world):
        monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
        one = made(digits)
        shares.append(images_of(one))
        one.evaluate()
    assert all(torch.equal(step[0], torch.cat([own[n][0] for own in shares])) for n, step in enumerate(whole))
    total = {name: sum(count[name] for count in counts) / len(digits.val) for name in counts[0]}
    assert total["first"] == told["accuracy"]
    assert total["any"] == told["accuracy_top5"]
    assert total["loss"] == pytest.approx(told["loss"], rel=1e-6)


def test_accuracies_and_loss_are_those_of_one_batch_of_everything(digits):
    task = made(digits, batch_size=7)
    told = task.evaluate()
    images, labels = digits.val.batch(range(len(digits.val)))
    logits = task.models["model"](images)
    ranks = (logits > logits.gather(1, labels[:, None])).sum(1)
    assert told["accuracy"] == (ranks < 1).double().mean().item()
    assert told["accuracy_top5"] == (ranks < 5).double().mean().item()
    assert told["loss"] == pytest.approx(nn.functional.cross_entropy(logits, labels).item(), rel=1e-5)


def test_blended_labels_share_the_loss_as_the_images_are_shared(digits):
    blended = replace(RECIPE, data=DataOptions(augmentation=Augmentation(mixup=1.0)), smoothing=0.2)
    task = Classification(digits, Linear, blended)
    task.build()
    ((batch,), *_) = task.batches(0, 0, 0)
    images, soft = task.blend(*batch[0], *batch[1])
    assert not torch.equal(images, batch[0][0])
    smooth = soft * 0.8 + 0.2 / 10
    expected = -(smooth * task.models["model"](images).log_softmax(1)).sum(1).mean()
    torch.testing.assert_close(task.step(batch, "model")["loss"], expected)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"batch_size": 10**6}, "--batch-size must be at most the"),
        (
            {"batch_size": 10, "accumulate": 4},
            "--batch-size must be a multiple of 4 (processes times --accumulate), got 10.",
        ),
    ],
)
def test_what_does_not_fit_the_data_is_said(digits, changes, told):
    with pytest.raises(OptionError) as error:
        made(digits, **changes)
    assert told in str(error.value)


def test_the_factor_on_rates_is_that_of_the_schedule(digits):
    task = made(digits, optimizer=OptimizerOptions("sgd", lr=0.2))
    assert [task.schedule(epoch, 10) for epoch in (0, 5, 10)] == pytest.approx([1, 0.5, 0])


def test_workers_that_live_on_read_what_no_workers_read(tmp_path):
    folder = miniatures.folder(tmp_path, classes=2, per_class=4)
    data = load_options(DataOptions(name="folder", path=str(folder), size=16))
    assert data.train.decodes
    reader, plain = Reader(2), Reader(0)
    before = torch.random.get_rng_state()
    for epoch in range(2):
        chosen = [[5, 2, 0], [7, 1], [3]]
        pairs = list(
            zip(reader.read(data.train, 9, epoch, chosen), plain.read(data.train, 9, epoch, chosen), strict=True)
        )
        assert all(torch.equal(one, two) for pair in pairs for one, two in zip(*pair, strict=True))
    processes = [loader._iterator._workers for _, loader in reader._loaders.values()]
    assert [len(workers) for workers in processes] == [2]
    assert torch.equal(before, torch.random.get_rng_state())


def test_what_a_worker_cannot_read_is_one_sentence(tmp_path):
    folder = miniatures.folder(tmp_path, classes=2, per_class=4)
    data = load_options(DataOptions(name="folder", path=str(folder), size=16))
    for path in (folder / "train").rglob("*.jpg"):
        path.write_bytes(b"gone")
    told = []
    for workers in (0, 1):
        with pytest.raises(Exception, match="jpg") as error:
            list(Reader(workers).read(data.train, 0, 0, [[0]]))
        told.append((type(error.value), str(error.value)))
    assert told[0] == told[1]
    assert "Traceback" not in told[1][1]


def test_odd_parts_of_a_blended_step_are_refused():
    augmentation = Augmentation(mixup=0.2)
    recipe = Recipe(data=DataOptions(augmentation=augmentation), batch_size=12, accumulate=4)
    with pytest.raises(OptionError, match=r"must have an even number of images, got 3. Use --batch-size 16, say"):
        Classification(load_options(DataOptions()), torch.nn.Identity, recipe)


def test_a_process_with_workers_ends_though_garbage_or_an_error_holds_their_iterator(tmp_path):
    miniatures.folder(tmp_path / "photos")
    program = (
        "import gc\n"
        "from foveal.data import load_options\n"
        "from foveal.data.options import DataOptions\n"
        "from foveal.tasks.reading import Reader\n"
        f"data = load_options(DataOptions('folder', {str(tmp_path / 'photos')!r}, size=16))\n"
        "batches = Reader(1).read(data.train, 0, 0, [[0, 1]] * 8)\n"
        "next(batches)\n"
        "ring = [batches]\n"
        "ring.append(ring)\n"
        "del batches, ring\n"
        "gc.collect()\n"
        "batches = Reader(1).read(data.train, 0, 0, [[0, 1]] * 8)\n"
        "next(batches)\n"
        "raise SystemExit(7)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], timeout=120, check=False)
    assert done.returncode == 7


def test_first_five_are_no_metric_of_five_classes(digits):
    few = replace(digits, classes=digits.classes[:5])
    with pytest.raises(OptionError, match="accuracy_top5 says nothing of 5 classes"):
        Classification(few, Linear, replace(RECIPE, best="accuracy_top5"))
