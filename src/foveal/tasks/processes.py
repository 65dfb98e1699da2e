"""Jobs in processes of this machine, each with its share of the threads."""

from __future__ import annotations

import multiprocessing
import pickle
import signal
import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from typing import Any

import torch

from foveal.errors import FovealError
from foveal.tasks.jobs import PATIENCE, Events, Losses, Record, Where, Work, termination_interrupts, threads_of_a_run

PAUSE = 0.1  # seconds between two messages within an epoch


def in_processes(work: Work, names: Sequence[str], count: int, events: Events) -> dict[str, Record]:
    """Do every job, so many at a time; see ``run_jobs``."""
    with threads_of_a_run(Where(count)) as threads, termination_interrupts():
        crew = _Crew(work, names, threads, events)
        try:
            crew.hire(count)
            while len(crew.done) < len(names):
                crew.hand_out()
                crew.listen()
        finally:
            crew.dismiss()
    return crew.done


class _Hand:
    """A process that does one job at a time."""

    def __init__(self, work: Work, threads: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_work, args=(work, threads, theirs))
        self.name: str | None = None
        self.process.start()
        # The only other end is then that of the process: once it dies, reading here ends too.
        theirs.close()

    def give(self, name: str) -> None:
        """Hand over a job."""
        self.name = name
        # A process that is dead already is found out by listening.
        with suppress(OSError):
            self.pipe.send(name)

    def hear(self) -> tuple[str, Any] | None:
        """The next message; None where the process is dead."""
        try:
            return self.pipe.recv()
        except (EOFError, OSError):
            self.process.join()
            return None

    def dismiss(self) -> None:
        """End who has nothing to do, and ask who has to stop, which writes a checkpoint."""
        if self.name is not None and self.process.is_alive():
            self.process.terminate()
        self.pipe.close()


class _Crew:
    """The processes, what waits and what is done."""

    def __init__(self, work: Work, names: Sequence[str], threads: int, events: Events) -> None:
        self.work, self.threads, self.events = work, threads, events
        self.hands: list[_Hand] = []
        self.waiting, self.done = deque(names), dict[str, Record]()
        self.losses = Losses(work, events)

    def hire(self, count: int) -> None:
        for _ in range(count):
            self.hands.append(_Hand(self.work, self.threads))

    def hand_out(self) -> None:
        for hand in self.hands:
            if hand.name is None and self.waiting:
                hand.give(self.waiting.popleft())

    def listen(self) -> None:
        """Wait for messages and take one of each who has some."""
        busy = [hand for hand in self.hands if hand.name is not None]
        ready = wait([hand.pipe for hand in busy])
        for hand in [hand for hand in busy if hand.pipe in ready]:
            assert hand.name is not None
            heard = hand.hear()
            if heard is None:
                self._lose(hand, hand.name)
            elif heard[0] == "at":
                self.events.at(hand.name, *heard[1])
            elif heard[0] == "done":
                self._finish(hand.name, heard[1])
                hand.name = None
            else:
                raise heard[1]

    def _lose(self, hand: _Hand, name: str) -> None:
        self.hands.remove(hand)
        record = self.losses.again(name, f"its process was ended from outside (status {hand.process.exitcode})")
        if record is None:
            self.waiting.appendleft(name)
        else:
            self._finish(name, record)
        if self.waiting:
            self.hire(1)

    def _finish(self, name: str, record: Record) -> None:
        self.done[name] = record
        self.events.done(name, record)

    def dismiss(self) -> None:
        for hand in self.hands:
            hand.dismiss()
        until = time.monotonic() + PATIENCE
        for hand in self.hands:
            hand.process.join(max(0.0, until - time.monotonic()))
            if hand.process.is_alive():
                hand.process.kill()


def _work(work: Work, threads: int, pipe: Connection[Any, Any]) -> None:
    """What a process does: take a name, do the job, tell; until it is dismissed."""
    # Ctrl-C reaches every process of a terminal; the asking one passes it on, once, as SIGTERM.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(threads)
    # Ends with an error of the pipe when this process is dismissed, or the asking one is gone.
    with suppress(EOFError, OSError, KeyboardInterrupt):
        while True:
            name = pipe.recv()
            message: tuple[str, Any]
            try:
                message = "done", work(name, _Teller(pipe))
            except Exception as error:
                message = "error", _sendable(error)
            pipe.send(message)


class _Teller:
    """Tells the asking process now and then; where that is gone, ends this one as being asked to stop does."""

    def __init__(self, pipe: Connection[Any, Any]) -> None:
        self.pipe, self.told, self.alone = pipe, 0.0, False

    def __call__(self, epochs: float, metrics: Mapping[str, float]) -> None:
        now = time.monotonic()
        if self.alone or (now - self.told < PAUSE and epochs != int(epochs)):
            return
        self.told = now
        try:
            self.pipe.send(("at", (epochs, dict(metrics))))
        except OSError:
            self.alone = True
            signal.raise_signal(signal.SIGTERM)


def _sendable(error: Exception) -> Exception:
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return FovealError(f"{type(error).__name__}: {error}")
    return error
