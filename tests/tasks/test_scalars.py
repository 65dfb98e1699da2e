"""TensorBoard sees each step once, whatever cut a run off."""

import io
from collections import defaultdict

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from foveal.tasks.loop import fit
from foveal.tasks.scalars import Scalars
from tests.tasks.tiny import STEPS, Tiny, plan


def shown(folder):
    """What TensorBoard shows: for each tag the steps and values."""
    events = EventAccumulator(str(folder / "tensorboard"), size_guidance={"scalars": 0}).Reload()
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_losses_rates_and_metrics_are_shown_once_a_step_though_the_run_was_cut_off(tmp_path):
    told = {}
    for name in ("whole", "cut"):
        folder = tmp_path / name
        folder.mkdir()
        asked = plan(tensorboard=True, save_seconds=1e9)
        if name == "cut":
            for stop in (4, 8):
                with pytest.raises(Stopped):
                    fit(Broken(stop), plan(tensorboard=True, save_seconds=1e9, save_steps=2), folder)
            assert len(list((folder / "tensorboard").iterdir())) == 2
        fit(Tiny(), asked, folder)
        told[name] = shown(folder)
    assert told["cut"] == told["whole"]
    steps = list(range(1, 3 * STEPS + 1))
    assert [step for step, _ in told["whole"]["step/loss"]] == steps
    assert [step for step, _ in told["whole"]["rate/model"]] == steps
    assert [step for step, _ in told["whole"]["epoch/size"]] == [STEPS, 2 * STEPS, 3 * STEPS]
    assert told["whole"]["rate/model"][0][1] == pytest.approx(1e-2)


def test_pictures_are_shown_at_their_steps_as_they_are(tmp_path):
    drawn = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    scalars = Scalars(tmp_path, 0)
    scalars.show(3, {})
    assert not (tmp_path / "tensorboard").exists()
    for step in (0, 5):
        scalars.show(step, {"samples": drawn + step})
    scalars.close()
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    shown = events.Images("samples")
    assert [(each.step, each.width, each.height) for each in shown] == [(0, 4, 2), (5, 4, 2)]
    assert (np.asarray(Image.open(io.BytesIO(shown[1].encoded_image_string))) == drawn + 5).all()


class Stopped(Exception):
    """Raised where a process would have died."""


class Broken(Tiny):
    def __init__(self, left):
        super().__init__()
        self.left = left

    def step(self, batch, turn):
        self.left -= 1
        if self.left == 0:
            raise Stopped
        return super().step(batch, turn)


def test_a_file_whose_end_was_cut_off_hides_nothing_of_the_next(tmp_path):
    for start in (0, 3):
        scalars = Scalars(tmp_path, start)
        for step in range(start, start + 5):
            scalars.add(step, {"loss": float(step)})
        scalars.close()
        if start == 0:
            (path,) = (tmp_path / "tensorboard").iterdir()
            path.write_bytes(path.read_bytes()[:-7])
    assert shown(tmp_path) == {"loss": [(n, float(n)) for n in range(8)]}


def test_nothing_is_written_before_the_first_scalar(tmp_path):
    scalars = Scalars(tmp_path, 0)
    scalars.flush()
    scalars.close()
    assert not (tmp_path / "tensorboard").exists()


def test_a_long_epoch_shows_about_fifty_losses(tmp_path):
    class Long(Tiny):
        def batches(self, seed, epoch, start):
            for n in range(start, self.steps_per_epoch):
                yield next(iter(super().batches(seed, epoch, n % STEPS)))

    task = Long()
    task.steps_per_epoch = 120
    fit(task, plan(1, tensorboard=True, save_seconds=1e9), tmp_path)
    counts = defaultdict(int, {tag: len(values) for tag, values in shown(tmp_path).items()})
    assert counts["step/loss"] == 60
    assert counts["epoch/size"] == 1
