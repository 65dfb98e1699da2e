"""Jobs of a moment: their processes are killed, or they raise, by the words of their names.

``killed`` dies once in mid-run, ``doomed`` each time, ``wrong`` raises, ``slow`` waits in every step to be stopped.
"""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from foveal.errors import OptionError
from foveal.tasks.jobs import Record, Tell, Work
from tests.tasks import tiny

EPOCHS = 3


@dataclass(frozen=True)
class Jobs(Work):
    """Each trains a tiny model in a folder of its own; the record names the weights and who trained them."""

    out: Path

    def folder(self, name: str) -> Path:
        return self.out / "runs" / name

    def __call__(self, name: str, tell: Tell) -> Record:
        folder = self.folder(name)
        folder.mkdir(parents=True, exist_ok=True)
        first = not (folder / "begun").exists()
        (folder / "begun").touch()
        tell(0.0, {})
        if "wrong" in name:
            raise OptionError("tiny: the rate is wrong. Use another.")
        if "doomed" in name:
            os.kill(os.getpid(), signal.SIGKILL)
        options: dict[str, Any] = {"stop": 7 if first and "killed" in name else 0}
        if "slow" in name:
            options["wait"] = 0.2 if first else 0.0
        digest = train(folder, options.pop("wait", 0.0), tell, **options)
        tell(float(EPOCHS), {"size": 1.0})
        (folder / "ended").touch()
        return {"name": name, "digest": digest, "process": os.getpid(), "threads": torch.get_num_threads()}

    def lost(self, name: str, reason: str) -> Record:
        return {"name": name, "reason": reason}


class Patient(tiny.Tiny):
    """Takes its time in every step."""

    wait, sign = 0.0, Path()

    def step(self, batch: Any, turn: str) -> Any:
        self.sign.touch()
        time.sleep(self.wait)
        return super().step(batch, turn)


def train(folder: Path, wait: float, tell: Tell, stop: int = 0) -> str:
    task = Patient(stop=stop)
    task.wait, task.sign = wait, folder / "stepping"
    tiny.fit(task, tiny.Plan(EPOCHS, 0, save_seconds=0.0 if not wait else 1000.0), folder, watch=tell)
    return tiny.weights_digest(task.models["model"])


class Told:
    """Keeps what jobs say."""

    def __init__(self) -> None:
        self.epochs: dict[str, float] = {}
        self.records: dict[str, Record] = {}
        self.lines: list[str] = []

    def at(self, name: str, epochs: float, metrics: Any) -> None:
        self.epochs[name] = epochs

    def done(self, name: str, record: Record) -> None:
        self.records[name] = record

    def said(self, line: str) -> None:
        self.lines.append(line)
