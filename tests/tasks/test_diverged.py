"""A loss that is no number ends a run, and its batch is kept."""

import errno

import pytest
import torch

from foveal.errors import DivergedError
from foveal.tasks import checkpoint, diverged, run_folder
from foveal.tasks.loop import fit
from foveal.tasks.losses import Bad
from foveal.tasks.task import Task
from tests.tasks.tiny import Tiny, plan


class Poisoned(Tiny):
    """One image of step 3 of epoch 2 is no number."""

    def batches(self, seed, epoch, start):
        for n, parts in enumerate(super().batches(seed, epoch, start), start):
            if (epoch, n) == (1, 2):
                parts[-1][0, 0] = float("nan")
            yield parts

    def identify(self, seed, epoch, step):
        return {"indices": torch.tensor([epoch, step])}


class Broken(Tiny):
    """In step 3 of epoch 2 the loss is a number and its gradient is none."""

    def batches(self, seed, epoch, start):
        for n, parts in enumerate(super().batches(seed, epoch, start), start):
            self.breaks = (epoch, n) == (1, 2)
            yield parts

    def step(self, batch, turn):
        told = super().step(batch, turn)
        weight = next(self.models[turn].parameters())
        return {"loss": told["loss"] + (0 * weight).abs().sqrt().sum()} if self.breaks else told


def test_weights_that_are_no_numbers_are_never_a_checkpoint(tmp_path):
    with pytest.raises(DivergedError, match="in step 4 of epoch 2"):
        fit(Broken(), plan(save_seconds=0.0), tmp_path)
    kept = checkpoint.weights(tmp_path)
    assert all(weight.isfinite().all() for weight in kept.values())
    assert "no checkpoint after step 8: weights are no numbers any more" in (tmp_path / "notes.txt").read_text()


class BrokenAtTheEnd(Broken):
    """The very last gradient is none, and no metric shows it."""

    def batches(self, seed, epoch, start):
        for n, parts in enumerate(super().batches(seed, epoch, start), start):
            self.breaks = (epoch, n) == (plan().epochs - 1, self.steps_per_epoch - 1)
            yield parts

    def evaluate(self):
        return {"accuracy": 1.0}


def test_a_run_does_not_end_with_weights_that_are_no_numbers(tmp_path):
    with pytest.raises(DivergedError, match="weights are no numbers any more after the last epoch. Use a smaller"):
        fit(BrokenAtTheEnd(), plan(), tmp_path)


@pytest.mark.parametrize("parts", [1, 2])
def test_the_batch_is_kept_and_named(tmp_path, parts):
    task = Poisoned(parts=parts)
    with pytest.raises(DivergedError) as caught:
        fit(task, plan(accumulate=parts), tmp_path)
    told = f"fit: loss became nan in step 3 of epoch 2. Its batch is in {tmp_path / 'diverged.pt'}; look at it, or use"
    assert str(caught.value).startswith(told)
    kept = torch.load(tmp_path / "diverged.pt", weights_only=True)
    assert (kept["epoch"], kept["step"], kept["seed"], kept["name"]) == (1, 2, 0, "loss")
    assert kept["value"] != kept["value"]
    assert kept["images"]["indices"].tolist() == [1, 2]
    assert len(kept["parts"]) == parts
    wanted = next(iter(task.batches(0, 1, 2)))
    assert all(torch.equal(a.nan_to_num(9), b.nan_to_num(9)) for a, b in zip(kept["parts"], wanted, strict=True))
    assert torch.cat(kept["parts"]).isnan().sum() == 1


def test_the_checkpoint_before_it_is_whole_and_the_same_command_ends_the_same(tmp_path):
    for _ in range(2):
        with pytest.raises(DivergedError, match="step 3 of epoch 2"):
            fit(Poisoned(), plan(), tmp_path)
    assert run_folder.read_metrics(tmp_path)[-1]["epoch"] == 1


def test_a_full_disk_does_not_hide_the_divergence(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(diverged, "keep_batch", full)
    with pytest.raises(DivergedError, match=r"became nan in step 3 of epoch 2\. Its batch could not be kept: No space"):
        fit(Poisoned(), plan(), tmp_path)


def test_a_metric_that_is_no_number_ends_the_run(tmp_path):
    task = Tiny()
    task.evaluate = lambda: {"size": float("inf")}
    with pytest.raises(DivergedError, match="fit: size became inf after epoch 1. Use a smaller learning rate"):
        fit(task, plan(), tmp_path)


def test_batches_of_anything_are_kept_as_plain_values(tmp_path):
    made = diverged._plain({1: (torch.ones(2, requires_grad=True), [None, True, 2, 0.5, "x", object])})
    torch.save(made, tmp_path / "x.pt")
    back = torch.load(tmp_path / "x.pt", weights_only=True)
    assert back["1"][0].tolist() == [1, 1]
    assert back["1"][1][:5] == [None, True, 2, 0.5, "x"]
    assert back["1"][1][5] == str(object)
    assert Task.identify(Tiny(), 0, 0, 0) == {}


def test_of_several_processes_the_one_that_saw_it_first_keeps_its_batch(tmp_path, monkeypatch):
    monkeypatch.setattr(diverged.distributed, "rank", lambda: 1)
    monkeypatch.setattr(diverged.distributed, "gathered", lambda told: [None, told])
    views = [Bad("loss", float("nan"), 3), Bad("loss", float("inf"), 2)]
    error = diverged.divergence(Poisoned(), plan(), tmp_path, 1, views)
    assert str(error).startswith(f"fit: loss became inf in step 3 of epoch 2. Its batch is in {tmp_path}")
    assert torch.load(tmp_path / "diverged.pt", weights_only=True)["process"] == 1
