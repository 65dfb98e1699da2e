"""A training beside a run of several processes, by a process of its own: so it is the same whatever their number."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from foveal.errors import DataError
from foveal.tasks.agreement import by_main

# What torchrun tells its processes, which would make the other one wait for them.
TOLD = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
TRAIN = """
import sys, torch
from foveal.errors import FovealError
from foveal.tasks.recipe_files import read_recipe
from foveal.tasks.train import train
torch.set_num_threads(1)
try:
    train(read_recipe(sys.argv[1]), sys.argv[2])
except FovealError as error:
    sys.exit(str(error))
"""
BEAT = 5.0  # seconds; no process waits longer for the others, however long the training


def train_apart(recipe: str, folder: Path) -> None:
    """Train a recipe by one thread of another process, which the main one starts; every process must call.

    Raises:
        DataError: that process failed; with the last line that it said.
    """
    children: list[subprocess.Popen[bytes]] = []
    said = folder.with_name(folder.name + ".txt")
    try:
        by_main(lambda: children.append(_started(recipe, folder, said)))
        while by_main(lambda: _runs(children[0], said)):
            pass
    finally:
        for child in children:
            child.kill()  # nothing where it has ended
            child.wait()


def _started(recipe: str, folder: Path, said: Path) -> subprocess.Popen[bytes]:
    alone = {name: value for name, value in os.environ.items() if name not in TOLD}
    with open(said, "wb") as file:
        return subprocess.Popen([sys.executable, "-c", TRAIN, recipe, str(folder)], env=alone, stdout=file, stderr=file)


def _runs(child: subprocess.Popen[bytes], said: Path) -> bool:
    try:
        status = child.wait(BEAT)
    except subprocess.TimeoutExpired:
        return True
    if status:
        lines = said.read_text(encoding="utf-8", errors="replace").split("\n")
        reason = next((line.strip() for line in reversed(lines) if line.strip()), f"status {status}").rstrip(".")
        raise DataError(
            f"train: the classifier of --evaluation.features could not be trained: {reason}. Give the folder of a run "
            "that is finished."
        )
    return False
