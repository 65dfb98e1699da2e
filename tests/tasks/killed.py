"""A run that is killed again and again, as a program: every attempt is a process of its own, forked off this one.

python -m tests.tasks.killed FOLDER   prints a JSON object: for each way of training the digests of a whole run and of
one that was killed many times, the moments at which it was, and where its checkpoint then stood.
"""

from __future__ import annotations

import gc
import json
import os
import random
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import timm.utils.model_ema  # noqa: F401  # here once, instead of in every attempt
import torch
import torch._dynamo  # which the first optimiser imports
from accelerate import Accelerator

from foveal.tasks import checkpoint
from foveal.tasks.loop import Plan, fit
from foveal.tasks.task import weights_digest
from tests.tasks.tiny import STEPS, Tiny, plan

EPOCHS = 10
ALL = {"accumulate": 2, "ema": 0.9, "clip": 0.5, "best": "size", "epochs": EPOCHS}
WAYS: dict[str, dict[str, Any]] = {
    "plain, a checkpoint a step": {"epochs": EPOCHS},
    "all, a checkpoint every two steps": {**ALL, "save_seconds": 1e9, "save_steps": 2},
    "all in fp16, a checkpoint every three steps": {**ALL, "precision": "fp16", "save_seconds": 1e9, "save_steps": 3},
}


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def at_the(number: int, done: Callable[..., Any]) -> Callable[..., Any]:
    """Does what ``done`` does, and dies before it does so for the n-th time."""
    left = [number]

    def doing(*given: Any, **named: Any) -> Any:
        left[0] -= 1
        if left[0] < 0:
            die()
        return done(*given, **named)

    return doing


def half(number: int) -> Callable[[Path, bytes], None]:
    """Writes files whole, then one in half, and dies."""
    left = [number]

    def write(path: Path, data: bytes) -> None:
        left[0] -= 1
        path.write_bytes(data if left[0] >= 0 else data[: len(data) // 2])
        if left[0] < 0:
            die()

    return write


def attempt(folder: Path, asked: Plan, moment: tuple[str, int] | None) -> int:
    """Train in a process of its own that dies at a moment; returns its exit status, 0 where it came to the end."""
    child = os.fork()
    if child == 0:
        task = Tiny(parts=asked.accumulate)
        kind, number = moment or ("", 0)
        if kind == "step":
            task.stop = number
        elif kind == "evaluation":
            task.evaluate = at_the(number % 2, task.evaluate)
        elif kind == "rename":
            Path.rename = at_the(number, Path.rename)
        elif kind == "write":
            checkpoint.write_flushed = half(number)
        elif kind == "time":
            signal.signal(signal.SIGALRM, lambda *_: die())
            signal.setitimer(signal.ITIMER_REAL, number / 1000)
        try:
            fit(task, asked, folder)
            (folder / "digest").write_text(weights_digest(task.models["model"]))
        except BaseException as error:
            sys.stderr.write(f"{type(error).__name__}: {error}\n")
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def stands(folder: Path) -> int:
    """Steps that the checkpoint of a run has behind it."""
    saved = checkpoint.read(folder)
    at = {"epoch": 0, "step": 0} if saved is None else saved.state()["position"]
    return int(at["epoch"]) * STEPS + int(at["step"])


def kills(draw: random.Random, steps: int) -> list[tuple[str, int]]:
    """Moments: at random steps, and among these one each in what surrounds them."""
    moments = [("step", draw.randint(1, 3 * STEPS)) for _ in range(steps)]
    for other in (("rename", draw.randint(1, 5)), ("write", draw.randint(1, 6)), ("evaluation", 0), ("time", 30)):
        moments.insert(draw.randrange(len(moments)), other)
    return moments


def main(top: Path) -> dict[str, Any]:
    torch.set_num_threads(1)
    Accelerator()  # finds out what there is, once
    gc.freeze()  # a collection in an attempt would copy every page of what was imported
    os.fsync = lambda number: None  # what is flushed survives a loss of power, which no test here brings about
    told: dict[str, Any] = {}
    for number, (way, options) in enumerate(WAYS.items()):
        asked, draw = plan(**options), random.Random(number)
        whole, cut = top / f"{number}-whole", top / f"{number}-cut"
        for folder in (whole, cut):
            folder.mkdir(parents=True)
        statuses, stood, moments = [], [], kills(draw, 10 if number == 1 else 2)
        if attempt(whole, asked, None) != 0:
            raise SystemExit(f"the whole run failed: {way}")
        for moment in moments:
            statuses.append(attempt(cut, asked, moment))
            stood.append(stands(cut))
        statuses.append(attempt(cut, asked, None))
        read = [(folder / "digest").read_text() for folder in (whole, cut)]
        told[way] = {"digests": read, "statuses": statuses, "moments": moments, "stood": stood}
    return told


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(Path(sys.argv[1]))))
