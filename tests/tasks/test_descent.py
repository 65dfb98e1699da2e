"""What surrounds a step: parts, clipping, averages, low precision, compiled models, and what a machine cannot do."""

import pytest
import torch
from torch import nn

from foveal.errors import OptionError
from foveal.tasks.averaging import Average
from foveal.tasks.checkpoint import read, weights
from foveal.tasks.loop import Plan, fit
from foveal.tasks.task import Task, first_length
from tests.tasks.tiny import Tiny, plan


class Lines(Task):
    """A linear model on batches of 7, without dropout, batch norm or noise."""

    steps_per_epoch = 4

    def __init__(self, sizes=(7,), scale=1.0, lr=0.1):
        self.sizes, self.scale, self.lr = sizes, scale, lr

    def build(self):
        self.models = {"model": nn.Linear(5, 3)}

    def optimizers(self):
        return {"model": torch.optim.SGD(self.models["model"].parameters(), lr=self.lr, momentum=0.9)}

    def batches(self, seed, epoch, start):
        for n in range(start, self.steps_per_epoch):
            x = torch.randn(7, 5, generator=torch.Generator().manual_seed(100 * epoch + n))
            yield list(zip(x.split(self.sizes), x.square()[:, :3].split(self.sizes), strict=True))

    def step(self, batch, turn):
        x, y = batch
        self.seen = self.models[turn](x)
        return {"loss": self.scale * (self.seen.float() - y).square().mean(), "size": x.abs().mean()}

    def evaluate(self):
        return {}


def trained(folder, task, **options):
    """The weights after two epochs, and the metrics."""
    folder.mkdir(parents=True, exist_ok=True)
    metrics = fit(task, Plan(2, 0, tensorboard=False, **options), folder)
    return torch.cat([p.detach().flatten() for p in task.models["model"].parameters()]), metrics


@pytest.mark.parametrize("sizes", [(4, 3), (1, 5, 1), (1,) * 7])
def test_parts_of_any_size_add_up_to_the_whole_batch(tmp_path, sizes):
    whole, told = trained(tmp_path / "whole", Lines())
    parts, said = trained(tmp_path / "parts", Lines(sizes), accumulate=len(sizes))
    torch.testing.assert_close(parts, whole, rtol=1e-6, atol=1e-7)
    assert {k: said[k] for k in ("train_loss", "train_size")} == pytest.approx(
        {k: told[k] for k in ("train_loss", "train_size")}, rel=1e-6
    )


def test_a_task_that_gives_other_parts_than_the_plan_says_is_refused(tmp_path):
    with pytest.raises(ValueError, match="a step has 2 parts where the plan accumulates 1"):
        trained(tmp_path, Lines((4, 3)))


def test_the_size_of_a_part_is_that_of_its_first_tensor():
    assert first_length({"a": (1, [torch.ones(3, 2), torch.ones(5)])}) == 3
    assert first_length((torch.tensor(2.0), torch.ones(4))) == 1
    assert first_length("none") == 1


def test_clipping_bounds_the_step_and_leaves_small_gradients(tmp_path):
    free, _ = trained(tmp_path / "free", Lines())
    loose, _ = trained(tmp_path / "loose", Lines(), clip=1e6)
    assert torch.equal(free, loose)
    begin = torch.cat([p.flatten() for p in first_weights()])
    tight, _ = trained(tmp_path / "tight", Lines(lr=1.0), clip=1e-3)
    # With momentum 0.9 a step is at most ten clipped gradients long, and there are eight.
    assert 0 < (tight - begin).norm() <= 8 * 10 * 1e-3
    assert (free - begin).norm() > 0.1


def first_weights():
    torch.manual_seed(0)
    return [p.detach().clone() for p in nn.Linear(5, 3).parameters()]


@pytest.mark.parametrize(("warmup", "start"), [(False, 0), (True, 0), (False, 7)])
def test_an_average_is_the_recursion_of_its_definition(warmup, start):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    average = Average(model, 0.9, warmup, start)
    kept = {k: v.clone() for k, v in model.state_dict().items()}
    for step in range(1, 30):
        with torch.no_grad():
            model[0].weight.add_(torch.randn(2, 2))
        model(torch.randn(5, 2))
        average.update(model)
        decay = 0.0 if step <= max(start, 1) else min(0.9, 1 - step ** (-2 / 3)) if warmup else 0.9
        for key, value in model.state_dict().items():
            kept[key] = kept[key] * decay + value * (1 - decay) if value.is_floating_point() else value.clone()
    for key, value in average.module.state_dict().items():
        torch.testing.assert_close(value, kept[key])
    assert not torch.equal(average.module[1].running_mean, model[1].running_mean)
    assert not average.module.training
    assert not any(p.requires_grad for p in average.module.parameters())


def test_what_is_evaluated_and_kept_is_the_average_and_what_learns_is_not(tmp_path):
    plain, averaged = Tiny(), Tiny()
    (tmp_path / "plain").mkdir()
    (tmp_path / "averaged").mkdir()
    fit(plain, plan(), tmp_path / "plain")
    metrics = fit(averaged, plan(ema=0.9), tmp_path / "averaged")
    state = plain.models["model"].state_dict()
    saved = read(tmp_path / "averaged")
    assert all(torch.equal(value, state[key]) for key, value in saved.tensors("model").items())
    kept = averaged.models["model"].state_dict()
    assert all(torch.equal(value, kept[key]) for key, value in weights(tmp_path / "averaged").items())
    assert not torch.equal(kept["0.weight"], state["0.weight"])
    assert averaged.evaluate()["size"] == metrics["size"]


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_low_precision_is_that_of_the_products_and_ends_near_full_precision(tmp_path, precision):
    # A loss so small that the scaler's first factor, 65536, overflows nothing.
    full, _ = trained(tmp_path / "full", Lines(scale=1e-3, lr=100.0))
    task = Lines(scale=1e-3, lr=100.0)
    low, _ = trained(tmp_path / "low", task, precision=precision)
    assert task.seen.dtype == {"bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    assert low.dtype == torch.float32
    assert not torch.equal(low, full)
    torch.testing.assert_close(low, full, rtol=0.05, atol=0.05)


def test_steps_that_the_scaler_skips_are_no_divergence_and_are_remembered(tmp_path):
    # 1e5 times the scaler's first factor of 65536 overflows the gradient of a product in fp16.
    task = Lines(scale=1e5, lr=1e-9)
    weights_, metrics = trained(tmp_path, task, precision="fp16")
    assert weights_.isfinite().all()
    assert metrics["train_loss"] > 0
    scaler = read(tmp_path).state()["scaler"]
    assert scaler["scale"] < 65536


def test_a_scaler_that_only_falls_is_a_divergence(tmp_path):
    from foveal.errors import DivergedError

    task = Lines()
    task.steps_per_epoch = 100
    real = task.step
    task.step = lambda batch, turn: {"loss": real(batch, turn)["loss"] * float("nan")}
    with pytest.raises(DivergedError, match=r"loss became nan in step 30 of epoch 1"):
        trained(tmp_path, task, precision="fp16")


def test_a_compiled_model_has_the_same_names_and_nearly_the_same_weights(tmp_path, monkeypatch):
    compiled = []
    monkeypatch.setattr(nn.Module, "compile", lambda self: compiled.append(self))
    trained(tmp_path / "compiled", Lines(), compile=True)
    assert len(compiled) == 1
    names = read(tmp_path / "compiled").tensors("model").keys()
    assert set(names) == {"weight", "bias"}


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"sync_norm": True}, r"fit: sync_norm needs CUDA, .* got cpu\. Leave it out \(--no-sync-norm\)"),
        ({"shard": True}, r"fit: shard splits a model over processes, got one process\. Start it by torchrun"),
    ],
)
@pytest.mark.skipif(torch.cuda.is_available(), reason="for machines without CUDA")
def test_what_the_machine_has_not_is_one_sentence(tmp_path, options, told):
    with pytest.raises(OptionError, match=told):
        trained(tmp_path, Lines(), **options)


def test_best_must_name_a_metric(tmp_path):
    with pytest.raises(OptionError, match=r"fit: best names a metric, got 'accuracy'\. Use one of train_loss"):
        trained(tmp_path, Lines(), best="accuracy")
