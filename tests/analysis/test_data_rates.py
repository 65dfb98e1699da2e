"""Rates of the input pipeline are those of the stages that they name."""

import time
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from PIL import Image
from torch import nn

from foveal.analysis.data_rates import ROUNDS, data_rates, steps
from foveal.analysis.photographs import write_photographs
from foveal.data import load, load_options
from foveal.data.augmentation import Augment
from foveal.data.blending import Blend
from foveal.data.images import ImageData
from foveal.data.options import Augmentation, DataOptions
from foveal.data.pictures import PictureSplit
from foveal.data.preparation import Preparation

PREPARATION = Preparation(8, 1.0, "bilinear", (0.5,) * 3, (0.5,) * 3, 3)


class Slow(PictureSplit):
    """Reads an image in three milliseconds and draws it in one."""

    def image(self, index: int) -> Image.Image:
        time.sleep(3e-3)
        return Image.new("RGB", (8, 8))


class SlowAugment(Augment):
    def __call__(self, image: Image.Image, seed: int) -> torch.Tensor:
        time.sleep(1e-3)
        return torch.zeros(3, 8, 8)


def _slow() -> ImageData:
    split = Slow([0, 1] * 40, PREPARATION, SlowAugment(Augmentation(crop="none"), PREPARATION))
    return replace(load("digits"), name="slow", channels=3, train=split)


def _reads(asked: list[int]):
    def read(workers: int, chosen: Sequence[list[int]]):
        asked.append(workers)
        for indices in chosen:
            time.sleep(1e-3)
            yield torch.zeros(len(indices), 3, 8, 8), torch.zeros(len(indices), dtype=torch.int64)

    return read


def test_each_stage_is_timed_by_itself_and_the_whole_is_their_sum():
    found = data_rates(_slow(), _reads([]), batch=8, workers=(0,), seconds=0.01)
    by_name = {row.stage: row for row in found.stages}
    assert list(by_name) == ["read and decode", "transform", "collate", "all of these"]
    # Sleeping takes three milliseconds at least, however busy the machine is.
    assert by_name["read and decode"].median < 334 and by_name["transform"].median < 1000
    assert by_name["all of these"].median < 250
    assert by_name["transform"].median > by_name["read and decode"].median
    assert by_name["collate"].median > 2 * by_name["transform"].median
    assert all(row.q1 <= row.median <= row.q3 and row.rounds == ROUNDS for row in found.stages)


def test_every_number_of_workers_has_a_row_and_the_model_too():
    asked, told = [], []
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 2))
    blend = Blend(Augmentation(mixup=0.2), 2)
    found = data_rates(
        _slow(), _reads(asked), batch=8, workers=(0, 3), seconds=0.01, model=model, blend=blend, watch=told.append
    )  # fmt: skip
    assert [row.workers for row in found.loader] == [0, 3]
    assert asked.count(0) == asked.count(3) == ROUNDS + 1
    # Eight images in a millisecond, at most.
    assert all(row.median < 8000 and row.start_seconds > 0 for row in found.loader)
    assert found.model.median > 0 and found.blend.stage == "mixup and cutmix"
    assert len(told) == steps((0, 3), True)


def test_what_is_in_memory_is_taken_at_once_and_needs_no_workers():
    found = data_rates(load("digit-pairs"), _reads([]), batch=8, workers=(0, 1, 2), seconds=0.01)
    assert [row.stage for row in found.stages] == ["batch at once"]
    assert [row.workers for row in found.loader] == [0]
    assert found.model is None and found.blend is None
    assert (found.data, found.size, found.images) == ("digit-pairs", 24, 8000)


def test_photographs_are_whole_jpegs_of_two_classes_and_differ(tmp_path):
    write_photographs(tmp_path, 20)
    files = sorted(tmp_path.rglob("*.jpg"))
    assert len(files) == 20 and len({file.read_bytes() for file in files}) == 20
    assert all(Image.open(file).size == (500, 375) for file in files)
    data = load_options(DataOptions("folder", path=str(tmp_path), size=32))
    assert data.classes == ("china", "flower") and (len(data.train), len(data.val)) == (16, 4)


@pytest.mark.parametrize("seed", [0, 1])
def test_photographs_are_the_same_for_the_same_seed(tmp_path, seed):
    one, other = (write_photographs(tmp_path / name, 20, seed=s) for name, s in (("one", seed), ("other", 0)))
    same = [file.read_bytes() == (other / file.relative_to(one)).read_bytes() for file in sorted(one.rglob("*.jpg"))]
    assert all(same) if seed == 0 else not any(same)
