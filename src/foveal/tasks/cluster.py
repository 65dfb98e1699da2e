"""Jobs on a Ray cluster: one task a job, with its cores and GPUs declared.

A task whose worker or machine dies is given to the cluster again and goes on from the checkpoint in the job's folder,
wherever it then runs: the folder must be one that every machine of the cluster sees under the same path. Each task
makes sure of that before it trains. How far a job is stands in a file of its folder, too.
"""

from __future__ import annotations

import json
import os
import platform
import socket
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import Any

from foveal.errors import BackendError, DataError, FovealError
from foveal.tasks.jobs import PATIENCE, Events, Losses, Record, Tell, Where, Work, termination_interrupts

POLL, PAUSE = 1.0, 2.0  # seconds between looks at the jobs, and between two lines of a job about itself
KNOCK = 5.0  # seconds for a cluster to answer
PROGRESS = ".progress"
SEEN = 30.0  # seconds until a new file must be seen by every machine


def on_cluster(work: Work, names: Sequence[str], where: Where, events: Events) -> dict[str, Record]:
    """Do every job on a cluster, as many at a time as it has room for; see ``run_jobs``.

    Raises:
        BackendError: Ray is not installed, or no cluster answers.
    """
    ray = _ray()
    with _connected(ray, str(where.cluster)), termination_interrupts(), _sign(work, names) as sign:
        sitting = _Sitting(ray, work, where, events, sign)
        sitting.tell_what_lacks()
        for name in names:
            sitting.submit(name)
        try:
            while sitting.running:
                sitting.listen()
        except BaseException:
            sitting.stop()
            raise
        return sitting.done


def check_installed() -> None:
    """Raise BackendError where Ray is not installed."""
    _ray()


class _Sitting:
    """What runs on the cluster and what is done."""

    def __init__(self, ray: ModuleType, work: Work, where: Where, events: Events, sign: Path) -> None:
        self.ray, self.work, self.where, self.events = ray, work, where, events
        # A worker that dies is told of and counted here, so Ray itself tries nothing again.
        options = {"num_cpus": where.cpus, "num_gpus": where.gpus, "max_retries": 0}
        self.task = ray.remote(**options)(_task)
        self.given = [ray.put(work), where.cpus, sign, os.getcwd()]
        self.running: dict[Any, str] = {}
        self.done: dict[str, Record] = {}
        self.losses = Losses(work, events)
        self.seen: dict[str, str] = {}

    def tell_what_lacks(self) -> None:
        """Say aloud where no machine can take a run: a cluster that grows may bring one, another never will."""
        nodes = [node["Resources"] for node in self.ray.nodes() if node["Alive"]]
        if not any(n.get("CPU", 0) >= self.where.cpus and n.get("GPU", 0) >= self.where.gpus for n in nodes):
            most = f"{max(n.get('CPU', 0) for n in nodes):g} CPUs and {max(n.get('GPU', 0) for n in nodes):g} GPUs"
            self.events.said(
                f"No machine of the cluster has {self.where.cpus} CPUs and {self.where.gpus:g} GPUs for a run, the "
                f"largest have {most}: the runs wait until one joins. Ctrl-C ends that."
            )

    def submit(self, name: str) -> None:
        self.running[self.task.options(name=name).remote(*self.given, name)] = name

    def listen(self) -> None:
        """Wait a moment for jobs that end, and tell how far the others are."""
        ready, _ = self.ray.wait(list(self.running), timeout=POLL)
        for reference in ready:
            self._settle(self.running.pop(reference), reference)
        for name in self.running.values():
            with suppress(OSError, ValueError):
                text = (self.work.folder(name) / PROGRESS).read_text(encoding="utf-8")
                if text != self.seen.get(name):
                    self.seen[name] = text
                    self.events.at(name, *json.loads(text))

    def _settle(self, name: str, reference: Any) -> None:
        gone = self.ray.exceptions
        lost = (
            gone.WorkerCrashedError, gone.NodeDiedError, gone.OutOfMemoryError, gone.LocalRayletDiedError,
            gone.ObjectLostError, gone.TaskCancelledError,
        )  # fmt: skip
        try:
            record = self.ray.get(reference)
        except lost as error:
            again = self.losses.again(name, f"its worker was ended from outside ({type(error).__name__})")
            if again is None:
                self.submit(name)
                return
            record = again
        except gone.RayTaskError as error:
            if isinstance(error.cause, FovealError):
                raise error.cause from None
            raise
        except gone.RayError as error:
            raise BackendError(f"cluster: {name} could not be run: {_line(error)}. Look at that machine.") from error
        self.done[name] = record
        self.events.done(name, record)

    def stop(self) -> None:
        """Ask what runs to stop; it writes a checkpoint first."""
        left = list(self.running)
        with suppress(self.ray.exceptions.RayError):
            for reference in left:
                self.ray.cancel(reference)
            if left:
                self.ray.wait(left, num_returns=len(left), timeout=PATIENCE)


def _task(work: Work, cpus: int, sign: Path, folder: str, name: str) -> Record:
    """What a worker does: the job, in the folder where the command was given, if this machine has it."""
    import torch

    torch.set_num_threads(cpus)
    until = time.monotonic() + SEEN
    while not sign.exists():
        if time.monotonic() > until:
            raise DataError(
                f"cluster: {platform.node()} does not see {sign.parent}, or sees another folder of that name. Use "
                "an --out that all machines of the cluster share."
            )
        time.sleep(POLL)
    # Relative paths of data then mean the same as where the command was given.
    with suppress(OSError):
        os.chdir(folder)
    return work(name, _teller(work.folder(name) / PROGRESS))


def _teller(path: Path) -> Tell:
    told = [0.0]

    def tell(epochs: float, metrics: Mapping[str, float]) -> None:
        now = time.monotonic()
        if now - told[0] >= PAUSE or epochs == int(epochs):
            told[0] = now
            part = path.with_name(f"{PROGRESS}.part")
            # A line that cannot be written is missed in a display only.
            with suppress(OSError):
                part.write_text(json.dumps([epochs, dict(metrics)]), encoding="utf-8")
                part.replace(path)

    return tell


@contextmanager
def _sign(work: Work, names: Sequence[str]) -> Iterator[Path]:
    """A file beside the jobs' folders by which a machine knows that it sees the same ones."""
    path = work.folder(names[0]).absolute().parent / f".cluster-{uuid.uuid4().hex[:12]}"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)
        for name in names:
            (work.folder(name) / PROGRESS).unlink(missing_ok=True)


def _ray() -> ModuleType:
    # Ray tells its makers about its use unless this is said before it is imported.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError as error:
        raise BackendError(
            "cluster: --cluster needs Ray, which is not installed. Install foveal with the extra named cluster: pip "
            "install 'foveal[cluster]', or leave --cluster out."
        ) from error
    return ray


@contextmanager
def _connected(ray: ModuleType, address: str) -> Iterator[None]:
    """Connected to a cluster that runs; one that this process is connected to already is taken, and kept."""
    if ray.is_initialized():
        held = ray.get_runtime_context().gcs_address
        if address not in ("auto", held):
            raise BackendError(
                f"cluster: --cluster {address} is wanted, but this process is connected to {held} already. Use "
                "--cluster auto, or ray.shutdown() first."
            )
        yield
        return
    try:
        _knock(address)
        ray.init(address=address, log_to_driver=False, logging_level="error")
    except (RuntimeError, ValueError, OSError) as error:
        raise BackendError(
            f"cluster: no Ray cluster answers at {address!r}: {_line(error)}. Start one with ray start --head, and on "
            "every other machine with ray start --address=HOST:PORT, or leave --cluster out."
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


def _knock(address: str) -> None:
    """Raise where nobody listens: Ray itself waits for a minute there and then ends the process."""
    host, colon, port = address.rpartition("://")[2].rpartition(":")
    if colon and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), timeout=KNOCK).close()


def _line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__).rstrip(".")
