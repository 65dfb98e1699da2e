"""The comparison: one backbone, the same data, seeds and budget, with each mechanism in turn.

A folder holds one comparison::

    compare.json            what was asked
    runs/<mechanism>-<seed>/  config.json environment.json metrics.jsonl checkpoint/ result.json
    costs.json              what each model costs, measured in turns on this machine
    results.json            one record a mechanism and seed; see docs/results-schema.md
    report.html             the same to look at

Whatever of it is there is not made again, so the same command goes on where it was stopped.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor, nn

from foveal.data import ImageData, load
from foveal.errors import DataError, FovealError, OptionError
from foveal.tasks.run_folder import environment, read_json, write_json
from foveal.tasks.settings import MECHANISMS, Settings, split_names

SCHEMA = 1
LR, LR_FINE = 5e-3, 5e-4


class Watch(Protocol):
    """Is told how far a comparison is."""

    def begin(self, settings: Settings, data: ImageData, runs: int) -> None: ...
    def run(self, mechanism: str, seed: int, epochs: float, metrics: dict[str, float]) -> None: ...
    def finished(self, record: dict[str, Any]) -> None: ...
    def phase(self, name: str) -> None: ...


class _Silent:
    def begin(self, settings: Settings, data: ImageData, runs: int) -> None: ...
    def run(self, mechanism: str, seed: int, epochs: float, metrics: dict[str, float]) -> None: ...
    def finished(self, record: dict[str, Any]) -> None: ...
    def phase(self, name: str) -> None: ...


def compare(
    data: str | os.PathLike[str] = "digits",
    *,
    out: str | os.PathLike[str],
    backbone: str | None = None,
    mechanisms: str | Sequence[str] = MECHANISMS,
    epochs: int = 20,
    seeds: int = 2,
    sites: str | Sequence[str] = (),
    weights: str | os.PathLike[str] | None = None,
    batch_size: int = 64,
    size: int | None = None,
    lr: float | None = None,
    watch: Watch | None = None,
) -> dict[str, Any]:
    """Train one backbone with each mechanism and report what each reaches, costs and looks at.

    Args:
        data: ``digits``, ``digit-pairs``, or a folder of images.
        out: folder for everything it makes; the same call goes on where it was stopped.
        backbone: a name of timm; None takes one that fits the data.
        mechanisms: names, or one string with commas between them.
        epochs: for every run.
        seeds: how many, from 0.
        sites: module patterns instead of the papers' places, ``"layer3"`` for all or ``"local=layer3.*.conv2"`` for one.
        weights: start from this checkpoint of the backbone; inserted attention then starts as the identity.
        batch_size: of training.
        size: height and width of the images; None takes the data's own.
        lr: highest learning rate; None takes 0.005, or 0.0005 with ``weights``.
        watch: is told about progress.

    Returns:
        What ``results.json`` holds.

    Raises:
        OptionError: a name or number is wrong, or ``out`` holds another comparison.
        DataError: data or weights cannot be read, or ``out`` cannot be written.
    """
    settings = Settings(
        os.fspath(data), backbone, split_names(mechanisms), epochs, seeds, split_names(sites),
        None if weights is None else os.fspath(weights), batch_size, size, lr,
    )  # fmt: skip
    settings.check()
    return Comparison(settings, Path(out), watch or _Silent()).carry_out()


class Comparison:
    """One comparison in one folder."""

    def __init__(self, settings: Settings, out: Path, watch: Watch) -> None:
        self.settings, self.out, self.watch = settings, out, watch
        self.data = load(settings.data, size=settings.size)
        self.backbone = settings.backbone or self.data.backbone
        self.lr = settings.lr or (LR_FINE if settings.weights else LR)
        self._state: dict[str, Tensor] | None = None

    @property
    def config(self) -> dict[str, Any]:
        """Everything that decides the numbers, with nothing left to a default."""
        filled = {"backbone": self.backbone, "lr": self.lr, "size": self.data.size}
        return {**self.settings.record(), **filled, "data_fingerprint": self.data.fingerprint}

    def carry_out(self) -> dict[str, Any]:
        """All runs, then costs, results and report."""
        self._check_out()
        if read_json(self.out / "results.json") is None:
            self._check_models()
        with _locked(self.out):
            write_json(self.out / "compare.json", self.config)
            pairs = [(name, seed) for seed in range(self.settings.seeds) for name in self.settings.mechanisms]
            self.watch.begin(self.settings, self.data, len(pairs))
            runs = [self._run(name, seed) for name, seed in pairs]
            results = self._results(runs)
            write_json(self.out / "results.json", results)
            self._report(results, runs)
        return results

    def model(self, mechanism: str) -> tuple[nn.Module, list[str]]:
        """The backbone with a mechanism, and the names of its sites. Draws the backbone's weights first, so they are
        the same for every mechanism of a seed."""
        from foveal import models
        from foveal.models.backbones import backbone, load_weights_, read_weights

        model = backbone(self.backbone, classes=len(self.data.classes), channels=self.data.channels)
        if self.settings.weights is not None:
            self._state = self._state or read_weights(self.settings.weights)
            load_weights_(model, self._state, self.settings.weights)
        sites = self.settings.sites_for(mechanism)
        graft = models.with_attention(
            model, mechanism, sites=sites, identity=self.settings.weights is not None, example=self.example(2)
        )
        return model, list(graft.layers) if graft is not None else []

    def example(self, count: int) -> Tensor:
        """The first images of the validation data as a batch."""
        import torch

        return torch.stack([self.data.val[n % len(self.data.val)][0] for n in range(count)])

    def folder(self, mechanism: str, seed: int) -> Path:
        """The folder of one run."""
        return self.out / "runs" / f"{mechanism}-{seed}"

    def _check_out(self) -> None:
        held = read_json(self.out / "compare.json") if self.out.is_dir() else None
        if held is not None:
            for key, value in self.config.items():
                if held.get(key) != value:
                    raise OptionError(
                        f"compare: {self.out} holds another comparison: its {key} is {held.get(key)!r}, asked for is "
                        f"{value!r}. Use another --out, or the command that it was made with."
                    )
        elif self.out.is_dir() and any(path.name != LOCK for path in self.out.iterdir()):
            raise OptionError(f"compare: {self.out} is not empty and holds no comparison. Use a new folder for --out.")
        try:
            (self.out / "runs").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataError(
                f"compare: {self.out} cannot be written: {error.strerror}. Use another folder for --out."
            ) from error

    def _check_models(self) -> None:
        """Build every model once, so that what does not fit is said before the first run."""
        import torch

        self.watch.phase("checking that every mechanism fits")
        for mechanism in self.settings.mechanisms:
            model, _ = self.model(mechanism)
            try:
                with torch.no_grad():
                    model.eval()(self.example(2))
            except FovealError:
                raise
            except (RuntimeError, ValueError, AssertionError) as error:
                raise OptionError(
                    f"compare: {self.backbone} with {mechanism} does not take images of {self.data.channels} channels and "
                    f"{self.data.size} pixels: {str(error).splitlines()[0]}. Use another --backbone, --size or --sites."
                ) from error

    def _run(self, mechanism: str, seed: int) -> dict[str, Any]:
        """One run, or its result where it is there."""
        import torch

        from foveal.tasks.classification import Classification, Recipe
        from foveal.tasks.loop import Plan, fit
        from foveal.tasks.task import DivergedError

        folder = self.folder(mechanism, seed)
        record: dict[str, Any] | None = read_json(folder / "result.json")
        if record is None:
            sites: list[str] = []

            def make() -> nn.Module:
                model, sites[:] = self.model(mechanism)
                return model

            folder.mkdir(parents=True, exist_ok=True)
            where = environment()
            write_json(folder / "config.json", {**self.config, "mechanism": mechanism, "seed": seed})
            write_json(folder / "environment.json", where)
            recipe = Recipe(lr=self.lr, batch_size=self.settings.batch_size)
            plan = Plan(self.settings.epochs, seed)
            record = {"mechanism": mechanism, "seed": seed, "epochs": self.settings.epochs}
            try:
                metrics = fit(
                    Classification(self.data, make, recipe), plan, folder,
                    watch=lambda done, told: self.watch.run(mechanism, seed, done, dict(told)),
                )  # fmt: skip
                record |= {"status": "done", **metrics}
            except (DivergedError, torch.OutOfMemoryError, MemoryError) as error:
                record |= {"status": "failed", "reason": f"{type(error).__name__}: {str(error).splitlines()[0]}"}
            record |= {"sites": sites, "environment": where, "commit": where["commit"]}
            write_json(folder / "result.json", record)
        self.watch.finished(record)
        return record

    def _results(self, runs: list[dict[str, Any]]) -> dict[str, Any]:
        from foveal.models import MECHANISMS as ROWS

        costs = read_json(self.out / "costs.json")
        if costs is None:
            costs = self._measure()
            write_json(self.out / "costs.json", costs)
        return {
            "schema": SCHEMA,
            "command": self._command(),
            "config": self.config,
            "data": self.data.summary(),
            "mechanisms": {
                name: {"title": ROWS[name].title, "paper": ROWS[name].paper, "where": ROWS[name].where}
                for name in self.settings.mechanisms
            },
            "environment": costs["environment"],
            "records": [{**run, **costs["models"][run["mechanism"]]} for run in runs],
        }

    def _measure(self) -> dict[str, Any]:
        import torch

        from foveal.analysis import measure_models

        self.watch.phase("measuring time and memory in turns")
        torch.manual_seed(0)
        last = torch.channels_last
        models = {name: self.model(name)[0].to(memory_format=last) for name in self.settings.mechanisms}  # type: ignore[call-overload]
        example = self.example(min(self.settings.batch_size, 64)).contiguous(memory_format=last)
        measured = measure_models(models, example)
        return {"environment": environment(), "models": {name: asdict(told) for name, told in measured.items()}}

    def _report(self, results: dict[str, Any], runs: list[dict[str, Any]]) -> None:
        from foveal.tasks.looks import looks
        from foveal.viz import write_report

        self.watch.phase("drawing the report")
        first = {run["mechanism"]: run["seed"] for run in reversed(runs) if run["status"] == "done"}
        trained: dict[str, Callable[[], nn.Module]] = {
            name: lambda name=name: self._trained(name, first[name])  # type: ignore[misc]
            for name in self.settings.mechanisms
            if name in first
        }
        write_report(results, looks(trained, self.data), self.out / "report.html")

    def _trained(self, mechanism: str, seed: int) -> nn.Module:
        from foveal.tasks import checkpoint

        model, _ = self.model(mechanism)
        model.load_state_dict(checkpoint.weights(self.folder(mechanism, seed)))
        return model.eval()

    def _command(self) -> str:
        """The command that makes this comparison."""
        words = ["foveal", "compare"]
        for key, value in self.settings.record().items():
            if value not in (None, []):
                words += [f"--{key.replace('_', '-')}", ",".join(value) if isinstance(value, list) else str(value)]
        return shlex.join([*words, "--out", str(self.out)])


LOCK = ".lock"


@contextmanager
def _locked(out: Path) -> Iterator[None]:
    """Nobody else works in this folder; the system frees the lock when the process ends, however it ends."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    with open(out / LOCK, "w", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise OptionError(f"compare: another process works in {out}. Wait for it, or use another --out.") from error
        yield
