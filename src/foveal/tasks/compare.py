"""The comparison: one backbone, the same data, seeds and budget, with each mechanism in turn.

A folder holds one comparison::

    compare.json              what was asked
    runs/<mechanism>-<seed>/  config.json environment.json metrics.csv tensorboard/ checkpoints/ result.json
    costs.json                what each model costs, measured in turns on this machine
    results.json              one record a mechanism and seed; see docs/results-schema.md
    report.html               the same to look at
    summary.png               accuracy against cost and some maps, in one picture

Whatever of it is there is not made again, so the same command goes on where it was stopped.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from foveal.data import load
from foveal.tasks.jobs import Where, threads_of_a_run
from foveal.tasks.out_folder import alone_in, check_out, check_path, make_folder
from foveal.tasks.run_folder import environment, read_json, write_json
from foveal.tasks.runs import run_all, run_folder
from foveal.tasks.settings import MECHANISMS, Settings, split_names
from foveal.tasks.subject import Subject
from foveal.tasks.watch import Silent, Watch

SCHEMA = 1
EXAMPLES = 64  # images of a batch that is timed, at most


def compare(
    data: str | os.PathLike[str] = "digits",
    *,
    out: str | os.PathLike[str],
    backbone: str | None = None,
    mechanisms: str | Sequence[str] = MECHANISMS,
    epochs: int = 20,
    seeds: int = 2,
    sites: str | Sequence[str] = (),
    weights: str | os.PathLike[str] | None = None,
    batch_size: int = 64,
    size: int | None = None,
    lr: float | None = None,
    jobs: int = 1,
    cluster: str | None = None,
    cpus: int = 1,
    gpus: float = 0.0,
    watch: Watch | None = None,
) -> dict[str, Any]:
    """Train one backbone with each mechanism and report what each reaches, costs and looks at.

    Args:
        data: ``digits``, ``digit-pairs``, or a folder of images.
        out: folder for everything it makes; the same call goes on where it was stopped.
        backbone: a name of timm; None takes one that fits the data.
        mechanisms: names, or one string with commas between them.
        epochs: for every run.
        seeds: how many, from 0.
        sites: module patterns instead of the papers' places, ``"layer3"`` for all,
            ``"local=layer3.*.conv2"`` for one.
        weights: start from this checkpoint of the backbone; inserted attention then starts as the identity.
        batch_size: of training.
        size: height and width of the images; None takes the data's own.
        lr: highest learning rate; None takes 0.005, or 0.0005 with ``weights``.
        jobs: runs at a time, each in a process of its own with its share of the threads; small models gain most.
        cluster: run on a Ray cluster instead: ``auto`` for the one that this machine belongs to, or its address;
            ``out`` must then be a folder that every machine sees.
        cpus: cores of a run on a cluster.
        gpus: GPUs of a run on a cluster, or a share of one.
        watch: is told about progress.

    Returns:
        What ``results.json`` holds.

    Raises:
        OptionError: a name or number is wrong, or ``out`` holds another comparison.
        DataError: data or weights cannot be read, or ``out`` cannot be written.
    """
    settings = Settings(
        os.fspath(data), backbone, split_names(mechanisms), epochs, seeds, split_names(sites),
        None if weights is None else os.fspath(weights), batch_size, size, lr,
    )  # fmt: skip
    settings.check()
    where = Where(jobs, cluster, cpus, gpus)
    where.check("compare")
    watch, folder = watch or Silent(), check_path(out)
    watch.phase("reading the data")
    subject = Subject(settings, load(settings.data, size=settings.size))
    check_out(folder, subject.config)
    if read_json(folder / "results.json") is None:
        watch.phase("checking that every mechanism fits")
        subject.check_models()
    make_folder(folder / "runs")
    with alone_in(folder):
        write_json(folder / "compare.json", subject.config)
        runs = run_all(subject, folder, where, watch)
        results = gather(subject, folder, runs, where, watch)
        write_json(folder / "results.json", results)
        draw(subject, folder, results, watch)
    return results


def gather(subject: Subject, out: Path, runs: list[dict[str, Any]], where: Where, watch: Watch) -> dict[str, Any]:
    """The content of ``results.json``; costs are measured where they are not there yet."""
    from foveal.models import MECHANISMS as ROWS

    costs = read_json(out / "costs.json")
    if costs is None:
        watch.phase("measuring time and memory in turns")
        with threads_of_a_run(where):
            costs = {"environment": environment(), "models": measure(subject)}
        write_json(out / "costs.json", costs)
    names = subject.settings.mechanisms
    return {
        "schema": SCHEMA,
        "command": command(subject.settings, out),
        "config": subject.config,
        "data": subject.data.summary(),
        "mechanisms": {
            name: {"title": ROWS[name].title, "paper": ROWS[name].paper, "where": ROWS[name].where} for name in names
        },
        "environment": costs["environment"],
        "records": [{**run, **costs["models"][run["mechanism"]]} for run in runs],
    }


def measure(subject: Subject) -> dict[str, Any]:
    """What each model costs, measured in turns."""
    import torch

    from foveal.analysis import measure_models

    torch.manual_seed(0)
    last = torch.channels_last
    models = {name: subject.model(name)[0].to(memory_format=last) for name in subject.settings.mechanisms}
    example = subject.example(min(subject.settings.batch_size, EXAMPLES)).contiguous(memory_format=last)
    return {name: asdict(measured) for name, measured in measure_models(models, example).items()}


def draw(subject: Subject, out: Path, results: dict[str, Any], watch: Watch) -> None:
    """Write ``report.html`` and ``summary.png``, with maps of the first seed of each mechanism that finished."""
    from foveal.tasks.looks import looks
    from foveal.viz import write_report, write_summary_png

    watch.phase("drawing the report")
    done = {run["mechanism"]: run["seed"] for run in reversed(results["records"]) if run["status"] == "done"}
    trained: dict[str, Callable[[], nn.Module]] = {
        name: partial(_trained, subject, name, run_folder(out, name, done[name]))
        for name in subject.settings.mechanisms
        if name in done
    }
    shown = looks(trained, subject.data)
    write_report(results, shown, out / "report.html")
    if done:
        write_summary_png(results, shown, out / "summary.png")


def _trained(subject: Subject, mechanism: str, folder: Path) -> nn.Module:
    from foveal.tasks import checkpoint

    model, _ = subject.model(mechanism)
    model.load_state_dict(checkpoint.weights(folder))
    return model.eval()


def command(settings: Settings, out: Path) -> str:
    """The command that makes a comparison."""
    words = ["foveal", "compare"]
    for key, value in settings.record().items():
        if value not in (None, []):
            words += [f"--{key.replace('_', '-')}", ",".join(value) if isinstance(value, list) else str(value)]
    return shlex.join([*words, "--out", str(out)])
