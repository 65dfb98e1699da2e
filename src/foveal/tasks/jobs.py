"""Jobs: the same work under many names, done here in turn, in processes, or on a Ray cluster.

All three call the same ``Work`` and end with the same records: a job depends on its name and on nothing that was done
before it. A process that dies in the middle of a job (killed, out of memory, its machine gone) is replaced and the job
goes on from the checkpoint in its folder; what the work itself raises is the user's to mend and is never tried again.
"""

from __future__ import annotations

import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch

from foveal.errors import OptionError
from foveal.tasks.settings import check_cores

Record = dict[str, Any]
Tell = Callable[[float, Mapping[str, float]], None]

TRIES = 3  # processes that a job may cost
PATIENCE = 60.0  # seconds that one who was asked to stop has for its checkpoint


class Work(Protocol):
    """What a job does, by its name. It is pickled to where it is done.

    A failure that is this job's alone is a record too; what is raised ends all jobs.
    """

    def __call__(self, name: str, tell: Tell) -> Record:
        """Do a job, from its checkpoint where there is one; tell epochs and metrics on the way."""

    def folder(self, name: str) -> Path:
        """Where a job keeps its checkpoint."""

    def lost(self, name: str, reason: str) -> Record:
        """The record of a job whose processes died so often that it is given up, or an error that ends all."""


class Events(Protocol):
    """Who is told how far the jobs are."""

    def at(self, name: str, epochs: float, metrics: Mapping[str, float]) -> None:
        """A job has done so many epochs."""

    def done(self, name: str, record: Record) -> None:
        """A job has its record."""

    def said(self, line: str) -> None:
        """Something to know: a process died and its job goes on."""


@dataclass(frozen=True)
class Where:
    """The place of jobs: on this machine ``jobs`` at a time, or on a cluster with so many cores and GPUs for each."""

    jobs: int = 1
    cluster: str | None = None
    cpus: int = 1
    gpus: float = 0.0

    def check(self, who: str) -> None:
        """Raise OptionError for numbers that cannot be, BackendError for a cluster without Ray."""
        if self.jobs < 1:
            raise OptionError(f"{who}: --jobs must be at least 1, got {self.jobs}. Leave it out for one run at a time.")
        check_cores(who, "jobs", self.jobs)
        if self.cluster is None:
            if (self.cpus, self.gpus) != (1, 0.0):
                raise OptionError(
                    f"{who}: --cpus and --gpus are what a run takes of a cluster, got no --cluster. Add --cluster "
                    "auto, or use --jobs and --threads on this machine."
                )
            return
        if self.jobs != 1:
            raise OptionError(
                f"{who}: --jobs {self.jobs} is for runs on this machine; a cluster takes as many as --cpus and --gpus "
                "leave room for. Drop --jobs or --cluster."
            )
        if self.cpus < 1 or not 0 <= self.gpus < float("inf"):
            raise OptionError(
                f"{who}: a run on a cluster needs --cpus of 1 or more and --gpus of 0 or more, got {self.cpus} and "
                f"{self.gpus}. Use --cpus 4 --gpus 1, say."
            )
        from foveal.tasks.cluster import check_installed

        check_installed()


HERE = Where()


def run_jobs(work: Work, names: Sequence[str], where: Where, events: Events) -> dict[str, Record]:
    """Do every job; records by name.

    Raises:
        KeyboardInterrupt: it was interrupted; every job that ran has a checkpoint of that moment.
        FovealError: what the work raised, or a process died time and again and the work has no record for that.
    """
    if where.cluster is not None and names:
        from foveal.tasks.cluster import on_cluster

        return on_cluster(work, names, where, events)
    if min(where.jobs, len(names)) > 1:
        from foveal.tasks.processes import in_processes

        return in_processes(work, names, min(where.jobs, len(names)), events)
    done = {}
    for name in names:
        done[name] = work(name, partial(events.at, name))
        events.done(name, done[name])
    return done


@contextmanager
def threads_of_a_run(where: Where) -> Iterator[int]:
    """With the threads that each job has there: costs are measured as the runs were trained."""
    before = torch.get_num_threads()
    torch.set_num_threads(where.cpus if where.cluster is not None else max(1, before // where.jobs))
    try:
        yield torch.get_num_threads()
    finally:
        torch.set_num_threads(before)


@contextmanager
def termination_interrupts() -> Iterator[None]:
    """SIGTERM does here what Ctrl-C does: all that run are asked to stop."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class Losses:
    """Counts the processes that each job has cost."""

    def __init__(self, work: Work, events: Events) -> None:
        self.work, self.events, self.count = work, events, Counter[str]()

    def again(self, name: str, reason: str) -> Record | None:
        """None where the job is to be tried again, else what becomes of it."""
        self.count[name] += 1
        if self.count[name] >= TRIES:
            return self.work.lost(name, f"{reason}, {TRIES} times")
        self.events.said(f"{name}: {reason}; it goes on from its checkpoint ({self.count[name]} of {TRIES - 1}).")
        return None
