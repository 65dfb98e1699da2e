"""Where the processes of one attempt find each other, apart from those of attempts before.

torchrun's agent keeps one key-value store through all restarts. The addresses that gloo wrote there before a worker
died would be found again after the restart, and processes then try to reach ones that are gone (``connectFullMesh
failed … Connection refused``). So every attempt writes under a name of its own. The agent's restart count is no such
name: agents of other machines restart their workers because the membership changed, and do not count that. The
processes therefore agree on a name first, through the same store, and that must not be fooled by old keys either.
"""

from __future__ import annotations

import json
import re
import time
import uuid
from datetime import timedelta
from typing import Any

import torch.distributed as dist
from torch.distributed.rendezvous import rendezvous

from foveal.errors import BackendError, ElsewhereError, FovealError

Store = Any  # torch's stubs do not export its stores
POLL = 0.02  # seconds between looks for the name of this attempt
FAILED = "failed"  # the key of the word of the first process that failed
WAIT = 10.0  # seconds that the main process has to say what another has met too
LOST = re.compile(
    r"(closed|reset) by peer|Broken pipe|gloo.*timed out|NCCL error|remote process.*(exit|terminat)", re.I
)


def attempt_store(timeout: timedelta) -> tuple[Store, int, int]:
    """The store of this attempt, this process's rank and the number of processes, from torchrun's environment."""
    store, me, world = next(rendezvous("env://", timeout=timeout))
    name = _offer(store, world) if me == 0 else _join(store, me, timeout)
    return dist.PrefixStore(f"foveal/{name}", store), me, world  # type: ignore[attr-defined]


def _offer(store: Store, world: int) -> str:
    """Rank 0 names the attempt, and confirms it to those of the others that have answered to this very name."""
    name = uuid.uuid4().hex
    store.set("foveal/attempt", name)
    answers = [store.get(f"foveal/{name}/answer/{rank}").decode() for rank in range(1, world)]
    store.set(f"foveal/{name}/confirmed", json.dumps(answers))
    return name


def _join(store: Store, me: int, timeout: timedelta) -> str:
    """The others answer to the name they find, with a word of their own, until one is confirmed with that word.

    A name from an earlier attempt was confirmed with the words of processes that are gone.
    """
    own, end = uuid.uuid4().hex, time.monotonic() + timeout.total_seconds()
    answered = ""
    while True:
        name = store.get("foveal/attempt").decode()
        if name != answered:
            store.set(f"foveal/{name}/answer/{me}", own)
            answered = name
        confirmed = f"foveal/{name}/confirmed"
        if store.check([confirmed]) and json.loads(store.get(confirmed))[me - 1] == own:
            return name
        if time.monotonic() > end:
            raise TimeoutError(f"no process 0 within {timeout}")
        time.sleep(POLL)


def said_once(error: FovealError, store: Store, me: int) -> FovealError:
    """The error as this process has to say it; another where one of the others says it.

    What all processes meet, the main one says. What one alone meets, that one says, with its number.
    """
    text = f"{type(error).__name__}: {error}"
    try:
        if me:
            _wait(store)
        first = store.compare_set(FAILED, "", text if me == 0 else f"{me} {text}").decode()
    except RuntimeError:  # the store went with the process that held it
        return error
    if me == 0:
        return error if first == text else ElsewhereError(first)
    if first != f"{me} {text}":
        return ElsewhereError(first)
    return type(error)(f"process {me}: {error}")


def _wait(store: Store) -> None:
    end = time.monotonic() + WAIT
    while time.monotonic() < end and not store.check([FAILED]):
        time.sleep(POLL)


def lost(error: RuntimeError) -> BackendError:
    """What to say when an exchange failed because another process is gone."""
    reason = LOST.search(str(error))
    return BackendError(
        "distributed: a run needs all its processes, got one that is gone "
        f"({reason.group(0) if reason else error}). Give the same command again to go on from the checkpoint; torchrun "
        "--max-restarts 3 does so by itself."
    )
