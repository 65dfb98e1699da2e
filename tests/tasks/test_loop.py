"""The loop: what is interrupted goes on as if nothing had been, one seed repeats, and any number of models learn."""

import signal

import pytest
import torch
from tests.tasks.tiny import STEPS, Tiny, train
from torch import nn

from foveal.errors import DivergedError
from foveal.tasks.loop import Plan, fit
from foveal.tasks.task import Task


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


def test_progress_is_told_in_epochs(tmp_path):
    told = []
    fit(Tiny(), Plan(2, 0), tmp_path, watch=lambda at, metrics: told.append(at))
    assert told == sorted(told)
    assert told[-1] == 2.0
    assert len(told) == 2 * (STEPS + 1)
