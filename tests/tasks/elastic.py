"""Kill a worker of torchrun with SIGKILL, time and again: does the run end with the weights of one that nobody killed?

python -m tests.tasks.elastic --times 10             two processes under one agent
python -m tests.tasks.elastic --times 3 --agents 2   one process under each of two agents, as on two machines

Each time another process is killed, in another step; prints a line each, and exits with 1 where one ends otherwise.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from tests.tasks.several import EPOCHS, STEPS, kept

ROOT = Path(__file__).parents[2]
PATIENCE = 300.0  # seconds for a run that is killed once, on a machine that does much else


def launch(folder: Path, *names: str, agents: int = 1, processes: int = 2, restarts: int = 0) -> list[subprocess.Popen]:
    """torchrun with the program of ``several``, in as many agents as machines would have."""
    folder.mkdir(parents=True, exist_ok=True)
    program = ["-m", "tests.tasks.several", str(folder), *names]
    asked = [sys.executable, "-m", "torch.distributed.run", "--max-restarts", str(restarts)]
    if agents == 1:
        asked += ["--standalone", "--nproc-per-node", str(processes)]
    else:
        meeting = ["--rdzv-backend", "c10d", "--rdzv-id", "test", "--rdzv-endpoint", f"localhost:{_free_port()}"]
        asked += ["--nnodes", str(agents), "--nproc-per-node", str(processes // agents), *meeting]
    started = []
    for number in range(agents):
        with open(folder / f"agent{number}.log", "w") as log:
            environment = {**os.environ, "OMP_NUM_THREADS": "1"}
            started.append(subprocess.Popen([*asked, *program], cwd=ROOT, stdout=log, stderr=log, env=environment))
    return started


def ended(agents: list[subprocess.Popen], folder: Path) -> None:
    """Wait for the agents; raise where one fails or takes too long."""
    until = time.monotonic() + PATIENCE
    try:
        for agent in agents:
            if agent.wait(max(0.1, until - time.monotonic())):
                raise AssertionError(f"torchrun failed: {logs(folder)}")
    except subprocess.TimeoutExpired:
        raise AssertionError(f"torchrun did not end within {PATIENCE:.0f} s: {logs(folder)}") from None
    finally:
        for agent in agents:
            agent.terminate()
            agent.wait()


def logs(folder: Path) -> str:
    """The end of what the agents and processes said."""
    return "\n".join(path.read_text()[-3000:] for path in sorted(folder.glob("*.log")))


def kill(folder: Path, process: int, step: int, agents: list[subprocess.Popen]) -> int:
    """Kill a process once it has begun a step; returns which one it had begun."""
    own = folder / f"process{process}"
    while all(agent.poll() is None for agent in agents):
        if own.exists():
            number, done = map(int, own.read_text().split())
            if done >= step:
                os.kill(number, signal.SIGKILL)
                return done
        time.sleep(0.002)
    raise AssertionError(f"torchrun ended before anyone was killed: {logs(folder)}")


def differing(one: Path, other: Path) -> list[str]:
    """Names of the tensors in two last checkpoints that are not the same bit for bit."""
    left, right = kept(one), kept(other)
    return [name for name in left if not torch.equal(left[name], right[name])]


def killed_once(folder: Path, whole: Path, process: int, step: int, agents: int = 1) -> str:
    """Kill a process in a step and let torchrun go on; raises where the run does not end as ``whole`` did."""
    begun = time.monotonic()
    running = launch(folder, "random:slow", agents=agents, restarts=3)
    at = kill(folder, process, step, running)
    ended(running, folder)
    if names := differing(folder / "random_slow", whole):
        raise AssertionError(f"{len(names)} tensors differ after process {process} was killed in step {at}: {names[0]}")
    return f"process {process} killed in step {at}, the same weights after {time.monotonic() - begun:.1f} s"


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port: int = free.getsockname()[1]
    return port


def say(line: str) -> None:
    """Print a line at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--times", type=int, default=10)
    options.add_argument("--agents", type=int, default=1, choices=(1, 2))
    options.add_argument("--seed", type=int, default=0)
    given = options.parse_args()
    drawn, failed = random.Random(given.seed), 0
    with tempfile.TemporaryDirectory() as name:
        whole = Path(name) / "whole"
        ended(launch(whole, "random"), whole)
        for number in range(given.times):
            process, step = number % 2, drawn.randrange(1, EPOCHS * STEPS - 1)
            try:
                told = killed_once(Path(name) / str(number), whole / "random", process, step, given.agents)
            except AssertionError as error:
                told, failed = f"FAILED: {error}", failed + 1
            say(f"{number + 1}: {told}")
    say(f"{given.times - failed} of {given.times} ended with the weights of a run that nobody killed")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
