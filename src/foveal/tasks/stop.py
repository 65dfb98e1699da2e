"""Being asked to stop: by Ctrl-C, by SIGTERM or by SIGUSR1, as batch systems do some time before they kill."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


def leave_to_parent(worker: int) -> None:
    """For processes that read data: signals that reach the whole group are the training process's to answer.

    It then writes a checkpoint and dismisses them; were they to die first, it would fail instead.
    """
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def stop_asked(*, patient: bool = False) -> Iterator[list[int]]:
    """Holds the signal once someone asks to stop; the loop then ends after its step.

    A second Ctrl-C ends it at once, unless it is ``patient``: the processes of torchrun hear of one Ctrl-C twice, from
    the terminal and from torchrun. The other signals may come any number of times, from the batch system and from
    whoever passes them on.
    """
    asked: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return

    def note(number: int, frame: FrameType | None) -> None:
        if asked and number == signal.SIGINT and not patient:
            raise KeyboardInterrupt
        asked.append(number)

    heard = [number for number in SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, note) for number in heard}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
