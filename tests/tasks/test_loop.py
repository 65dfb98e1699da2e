"""The loop: what is interrupted goes on as if nothing had been, one seed repeats, and any number of models learn."""

import shutil
import signal

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from foveal.errors import DivergedError
from foveal.tasks.loop import Plan, fit
from foveal.tasks.run_folder import read_metrics
from foveal.tasks.task import Task, weights_digest
from tests.tasks.tiny import STEPS, Tiny, train


@pytest.mark.parametrize("stop", range(1, 3 * STEPS, 4))
def test_an_interrupted_run_ends_with_the_same_weights(tmp_path, stop):
    whole = train(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "cut", stop=stop, how=signal.SIGINT)
    assert train(tmp_path / "cut") == whole


def test_the_signal_handlers_are_put_back(tmp_path):
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    train(tmp_path / "a", epochs=1)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_one_seed_repeats_and_another_differs(tmp_path):
    one, again, other = (train(tmp_path / name, seed=seed) for name, seed in (("a", 0), ("b", 0), ("c", 1)))
    assert one == again != other


def test_a_finished_run_is_not_trained_again(tmp_path):
    whole = train(tmp_path / "run")
    assert train(tmp_path / "run", stop=1) == whole


def test_a_loss_that_is_no_number_ends_the_run_with_a_reason(tmp_path):
    with pytest.raises(
        DivergedError, match=r"fit: loss became (nan|inf) in step \d+ of epoch \d+. Its batch is in .*diverged.pt"
    ):
        train(tmp_path / "run", epochs=40, lr=1e30)


class Adversaries(Task):
    """Two models, two optimisers, two turns a step."""

    steps_per_epoch = 4

    def build(self):
        self.models = {"maker": nn.Linear(2, 2), "judge": nn.Linear(2, 1)}
        self.asked = []

    def optimizers(self):
        return {name: torch.optim.Adam(model.parameters(), lr=1e-2) for name, model in self.models.items()}

    def batches(self, seed, epoch, start):
        return [[torch.ones(3, 2)]] * (self.steps_per_epoch - start)

    def turns(self, step):
        return ("judge", "maker") if step % 2 else ("judge",)

    def step(self, batch, turn):
        self.asked.append(turn)
        judged = self.models["judge"](self.models["maker"](batch)).mean()
        return {"loss": judged if turn == "judge" else -judged}

    def evaluate(self):
        return {}


def test_several_models_take_their_turns(tmp_path):
    task = Adversaries()
    metrics = fit(task, Plan(1, 0), tmp_path)
    assert task.asked == ["judge", "judge", "maker"] * 2
    assert {"train_judge_loss", "train_maker_loss"} <= metrics.keys()
    assert {path.name for path in (tmp_path / "checkpoints" / "last").iterdir()} == {
        "maker.safetensors", "judge.safetensors", "state.pt", "manifest.json"
    }  # fmt: skip


class Averaged(Adversaries):
    """Only the maker is averaged; it moves by one at each of its steps, and its loss is the number of the step."""

    measured_at_start = True

    def __init__(self, at_start=True):
        self.measured_at_start, self.begun, self.evaluated = at_start, None, 0

    def prepare(self):
        self.prepared = torch.rand(1)

    def averaged(self):
        return ("maker",)

    def optimizers(self):
        return {name: torch.optim.SGD(model.parameters(), lr=1.0) for name, model in self.models.items()}

    def step(self, batch, turn):
        self.asked.append(turn)
        parameters = self.models[turn].parameters()
        return {"loss": -sum(weight.sum() for weight in parameters), "number": torch.tensor(float(len(self.asked)))}

    def evaluate(self):
        self.evaluated += 1
        bias = self.models["maker"].bias[0].item()
        self.begun = bias if self.begun is None else self.begun
        return {"moved": bias - self.begun}

    def pictures(self):
        return {"looks": np.full((2, 3, 3), 10 * self.evaluated, np.uint8)}

    def state(self):
        return {"begun": self.begun}

    def load_state(self, state):
        self.begun = state["begun"]


def test_a_model_is_averaged_over_its_own_steps_alone(tmp_path):
    metrics = fit(Averaged(), Plan(2, 0, ema=0.5, ema_warmup=False, ema_start=2), tmp_path)
    # Four steps of the maker: 1 and 2 are taken as they are, then halves of what was and what is.
    assert metrics["moved"] == pytest.approx((2 / 2 + 3 / 2) / 2 + 4 / 2)
    names = {path.name for path in (tmp_path / "checkpoints" / "last").iterdir()}
    assert {"maker.average.safetensors", "judge.safetensors"} <= names
    assert "judge.average.safetensors" not in names


def test_the_mean_of_what_a_turn_writes_down_is_over_the_steps_that_have_it(tmp_path):
    metrics = fit(Averaged(), Plan(1, 0), tmp_path)
    assert metrics["train_judge_number"] == pytest.approx((1 + 2 + 4 + 5) / 4)
    assert metrics["train_maker_number"] == pytest.approx((3 + 6) / 2)


def test_a_run_that_is_measured_at_its_start_has_an_epoch_0(tmp_path):
    task = Averaged()
    fit(task, Plan(2, 0, save_seconds=0), tmp_path)
    lines = read_metrics(tmp_path)
    assert [line["epoch"] for line in lines] == [0, 1, 2]
    assert [line["moved"] for line in lines] == pytest.approx([0, 2, 4])
    assert "train_maker_loss" not in lines[0]
    shown = [Image.open(tmp_path / "looks" / f"epoch-000{n}.png").getpixel((2, 1)) for n in range(3)]
    assert shown == [(10,) * 3, (20,) * 3, (30,) * 3]
    fit(task, Plan(3, 0, save_seconds=0), tmp_path)
    assert [line["moved"] for line in read_metrics(tmp_path)] == pytest.approx([0, 2, 4, 6])


def test_a_run_that_died_before_its_first_checkpoint_has_one_epoch_0(tmp_path):
    fit(Averaged(), Plan(1, 0), tmp_path)
    shutil.rmtree(tmp_path / "checkpoints")
    fit(Averaged(), Plan(1, 0), tmp_path)
    assert [line["epoch"] for line in read_metrics(tmp_path)] == [0, 1]


def test_what_a_task_prepares_and_measures_changes_no_number(tmp_path):
    weights = []
    for at_start in (False, True):
        task = Averaged(at_start)
        (tmp_path / str(at_start)).mkdir()
        fit(task, Plan(1, 0), tmp_path / str(at_start))
        weights.append(weights_digest(task.models["judge"]))
    assert weights[0] == weights[1]


def test_progress_is_told_in_epochs(tmp_path):
    told = []
    fit(Tiny(), Plan(2, 0), tmp_path, watch=lambda at, metrics: told.append(at))
    assert told == sorted(told)
    assert told[-1] == 2.0
    assert len(told) == 2 * (STEPS + 1)
