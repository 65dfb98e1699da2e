"""The runs of a comparison: one mechanism and seed each, one after the other or some at a time."""

from __future__ import annotations

import multiprocessing
import os
import queue
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch
from torch import nn

from foveal.errors import DivergedError, FovealError
from foveal.tasks.classification import Classification, Recipe
from foveal.tasks.loop import Plan, fit
from foveal.tasks.run_folder import environment, read_json, write_json
from foveal.tasks.subject import Subject
from foveal.tasks.watch import Watch

Pair = tuple[str, int]
Record = dict[str, Any]
Tell = Callable[[float, Mapping[str, float]], None]


def run_folder(out: Path, mechanism: str, seed: int) -> Path:
    """The folder of one run."""
    return out / "runs" / f"{mechanism}-{seed}"


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
    where, epochs = environment(), subject.settings.epochs
    write_json(folder / "config.json", {**subject.config, "mechanism": mechanism, "seed": seed})
    write_json(folder / "environment.json", where)
    task = Classification(subject.data, make, Recipe(lr=subject.lr, batch_size=subject.settings.batch_size))
    record = {"mechanism": mechanism, "seed": seed, "epochs": epochs}
    try:
        record |= {"status": "done", **fit(task, Plan(epochs, seed), folder, watch=tell)}
    except (DivergedError, torch.OutOfMemoryError, MemoryError) as error:
        record |= {"status": "failed", "reason": f"{type(error).__name__}: {str(error).splitlines()[0]}"}
    record |= {"sites": sites, "environment": where, "commit": where["commit"]}
    write_json(folder / "result.json", record)
    return record


def run_all(subject: Subject, out: Path, jobs: int, watch: Watch) -> list[Record]:
    """Every mechanism with every seed; seed by seed, so that what is there is always comparable."""
    pairs = [(name, seed) for seed in range(subject.settings.seeds) for name in subject.settings.mechanisms]
    watch.begin(subject.settings, subject.data, len(pairs))
    done: dict[Pair, Record] = {}
    for pair in pairs:
        record = read_json(run_folder(out, *pair) / "result.json")
        if record is not None:
            done[pair] = record
            watch.finished(record)
    left = [pair for pair in pairs if pair not in done]
    if jobs > 1 and len(left) > 1:
        done |= _in_processes(subject, out, left, min(jobs, len(left)), watch)
    else:
        for name, seed in left:
            done[name, seed] = run(subject, out, name, seed, lambda at, told, n=name, s=seed: watch.run(n, s, at, told))  # type: ignore[misc]
            watch.finished(done[name, seed])
    return [done[pair] for pair in pairs]


@contextmanager
def threads_of_a_run(jobs: int) -> Iterator[int]:
    """With the threads that a run has when so many run at a time: costs are measured as the runs were trained."""
    before = torch.get_num_threads()
    torch.set_num_threads(max(1, before // jobs))
    try:
        yield torch.get_num_threads()
    finally:
        torch.set_num_threads(before)


def _in_processes(subject: Subject, out: Path, pairs: list[Pair], jobs: int, watch: Watch) -> dict[Pair, Record]:
    context = multiprocessing.get_context("spawn")
    work, told = context.Queue(), context.Queue()
    for pair in [*pairs, *[None] * jobs]:
        work.put(pair)
    with threads_of_a_run(jobs) as threads:
        processes = [context.Process(target=_work, args=(subject, out, threads, work, told)) for _ in range(jobs)]
    done: dict[Pair, Record] = {}
    try:
        for process in processes:
            process.start()
        while len(done) < len(pairs):
            try:
                kind, *content = told.get(timeout=1.0)
            except queue.Empty:
                _raise_if_dead(processes)
                continue
            if kind == "at":
                watch.run(*content)
            elif kind == "done":
                done[content[0]["mechanism"], content[0]["seed"]] = content[0]
                watch.finished(content[0])
            else:
                raise content[0]
    finally:
        _stop(processes, finished=len(done) == len(pairs))
    return done


def _work(subject: Subject, out: Path, threads: int, work: Any, told: Any) -> None:
    """What a process does: take a run, do it, tell; until there are none, or the process that asked is gone."""
    # Ctrl-C reaches every process of a terminal; the asking one passes it on, once, as SIGTERM.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(threads)
    parent = multiprocessing.parent_process()
    while (pair := work.get()) is not None:
        mechanism, seed = pair

        def tell(at: float, metrics: Mapping[str, float], pair: Pair = (mechanism, seed)) -> None:
            if parent is not None and not parent.is_alive():
                os._exit(1)
            told.put(("at", *pair, at, dict(metrics)))

        try:
            told.put(("done", run(subject, out, mechanism, seed, tell)))
        except KeyboardInterrupt:
            return
        except Exception as error:
            told.put(("error", error))
            return


def _raise_if_dead(processes: Sequence[BaseProcess]) -> None:
    for process in processes:
        if process.exitcode not in (None, 0):
            raise FovealError(
                f"compare: a process that trained was ended from outside (status {process.exitcode}), perhaps for want "
                "of memory. Give the same command again, with fewer --jobs."
            )


def _stop(processes: Sequence[BaseProcess], *, finished: bool) -> None:
    """End all processes; those that are training first write a checkpoint."""
    for process in processes:
        if not finished and process.is_alive():
            process.terminate()
    for process in processes:
        if process.pid is not None:
            process.join(60)
            if process.is_alive():
                process.kill()
