"""The runs of a comparison: one mechanism and seed each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from foveal.errors import DivergedError, FovealError
from foveal.tasks.classification import Classification
from foveal.tasks.jobs import Events, Record, Tell, Where, Work, run_jobs
from foveal.tasks.loop import Plan, fit
from foveal.tasks.run_folder import read_json, run_environment, write_json
from foveal.tasks.subject import Subject
from foveal.tasks.watch import Watch


def run_folder(out: Path, mechanism: str, seed: int) -> Path:
    """The folder of one run."""
    return out / "runs" / named(mechanism, seed)


def run(subject: Subject, out: Path, mechanism: str, seed: int, tell: Tell) -> Record:
    """One run, or its result where it is there. A run that fails has a result too: the reason."""
    folder = run_folder(out, mechanism, seed)
    record: Record | None = read_json(folder / "result.json")
    if record is not None:
        return record
    sites: list[str] = []

    def make() -> nn.Module:
        model, sites[:] = subject.model(mechanism)
        return model

    folder.mkdir(parents=True, exist_ok=True)
    where, epochs = run_environment(), subject.settings.epochs
    # What a trained model needs to answer where the data are not.
    kept = {"classes": list(subject.data.classes), "preparation": subject.data.preparation.record()}
    write_json(folder / "config.json", {**subject.config, "mechanism": mechanism, "seed": seed, **kept})
    write_json(folder / "environment.json", where)
    task = Classification(subject.data, make, subject.recipe)
    record = {"mechanism": mechanism, "seed": seed, "epochs": epochs}
    try:
        record |= {"status": "done", **fit(task, Plan(epochs, seed), folder, watch=tell)}
    except (DivergedError, torch.OutOfMemoryError, MemoryError) as error:
        record |= {"status": "failed", "reason": f"{type(error).__name__}: {str(error).splitlines()[0]}"}
    record |= {"sites": sites, "environment": where, "commit": where["commit"]}
    write_json(folder / "result.json", record)
    return record


def run_all(subject: Subject, out: Path, where: Where, watch: Watch) -> list[Record]:
    """Every mechanism with every seed; seed by seed, so that what is there is always comparable."""
    pairs = [(name, seed) for seed in range(subject.settings.seeds) for name in subject.settings.mechanisms]
    watch.begin(subject.settings, subject.data, len(pairs))
    done: dict[str, Record] = {}
    for pair in pairs:
        record = read_json(run_folder(out, *pair) / "result.json")
        if record is not None:
            done[named(*pair)] = record
            watch.finished(record)
    left = [named(*pair) for pair in pairs if named(*pair) not in done]
    done |= run_jobs(_Runs(subject, out.absolute()), left, where, _Told(watch))
    return [done[named(*pair)] for pair in pairs]


def named(mechanism: str, seed: int) -> str:
    """The name of a run's job and folder."""
    return f"{mechanism}-{seed}"


def _pair(name: str) -> tuple[str, int]:
    mechanism, _, seed = name.rpartition("-")
    return mechanism, int(seed)


@dataclass(frozen=True)
class _Runs(Work):
    """The runs as jobs."""

    subject: Subject
    out: Path

    def __call__(self, name: str, tell: Tell) -> Record:
        return run(self.subject, self.out, *_pair(name), tell)

    def folder(self, name: str) -> Path:
        return run_folder(self.out, *_pair(name))

    def lost(self, name: str, reason: str) -> Record:
        raise FovealError(
            f"compare: {name} did not end: {reason}, perhaps for want of memory. Give the same command again, with "
            "fewer --jobs."
        )


@dataclass(frozen=True)
class _Told(Events):
    """Tells a comparison's watch what the jobs say."""

    watch: Watch

    def at(self, name: str, epochs: float, metrics: Mapping[str, float]) -> None:
        self.watch.run(*_pair(name), epochs, metrics)

    def done(self, name: str, record: Record) -> None:
        self.watch.finished(record)

    def said(self, line: str) -> None:
        self.watch.phase(line)
