"""Many runs of one recipe, and the table that they come to.

A folder holds one sweep::

    sweep.json         every run that was asked for, with its recipe
    runs/<run>/        a run each; see foveal.tasks.train
    failed/<run>.json  why a run failed, with the traceback
    results.json       the table and one record a run
    results.csv        the table
    report.html        the same to look at

Whatever of it is there is not made again, so the same command goes on where it was stopped, and a grid that has grown
trains what is new.
"""

from __future__ import annotations

import os
import shlex
import traceback
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from foveal.analysis.grid_table import as_csv, grid_table
from foveal.errors import DataError, FovealError, OptionError
from foveal.tasks.grid import Grid, Run
from foveal.tasks.jobs import Events, Record, Tell, Where, Work, run_jobs
from foveal.tasks.kinds import kind_of
from foveal.tasks.out_folder import LOCK, alone_in, check_path, make_folder
from foveal.tasks.plain import as_plain
from foveal.tasks.preview import Preview, preview
from foveal.tasks.recipe import Training
from foveal.tasks.run_folder import environment, read_json, write_json

SCHEMA = 1
WHO = "sweep"
FREE = ("about", "path", "workers", "verify")  # change no number


class Watch(Events, Protocol):
    """Who is told how far a sweep is."""

    def begin(self, runs: tuple[Run, ...]) -> None:
        """These runs are asked for."""


class Silent(Watch):
    """Tells nobody."""

    def begin(self, runs: tuple[Run, ...]) -> None: ...
    def at(self, name: str, epochs: float, metrics: Mapping[str, float]) -> None: ...
    def done(self, name: str, record: Record) -> None: ...
    def said(self, line: str) -> None: ...


def plan(grid: Grid) -> dict[str, Preview]:
    """What each row would be, without training: parameters, images and steps.

    Raises:
        FovealError: a row names a model, mechanism or data set that is not there or does not fit.
    """
    first = {run.row: run.recipe for run in reversed(grid.runs)}
    return {row: preview(first[row]) for row in grid.rows}


def sweep(
    grid: Grid,
    out: str | os.PathLike[str],
    where: Where,
    *,
    retry: bool = False,
    save_seconds: float | None = None,
    command: str = "",
    watch: Watch | None = None,
) -> dict[str, Any]:
    """Train every run of a grid into a folder, and gather them in one table.

    A run that fails is recorded with its reason and stops no other.

    Args:
        grid: what ``read_grid`` gives.
        out: the folder; on a cluster one that every machine sees.
        where: on this machine or on a cluster.
        retry: try failed runs again, from their checkpoints.
        save_seconds: least time between two checkpoints; changes no number.
        command: what made it, for the report.
        watch: is told about progress.

    Returns:
        What ``results.json`` holds.

    Raises:
        OptionError: the folder holds something else, or runs of the same names with other recipes.
        BackendError: the cluster does not answer.
        KeyboardInterrupt: it was interrupted; every run that trained has a checkpoint of that moment.
    """
    where.check(WHO)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise OptionError("sweep: it starts its runs itself and is no program for torchrun. Use --jobs or --cluster.")
    folder, watch = check_path(out, WHO), watch or Silent()
    held = _check_held(folder, grid)
    plan(grid)
    for recipe in {run.recipe.data: run.recipe for run in grid.runs if run.recipe.data.path is None}.values():
        # Data that are nowhere would fail every run with the same words.
        kind_of(recipe).load(recipe)
    make_folder(folder / "runs", WHO)
    make_folder(folder / "failed", WHO)
    with alone_in(folder, WHO):
        asked = {run.name: {"row": run.row, "recipe": as_plain(run.recipe)} for run in grid.runs}
        write_json(folder / "sweep.json", {"schema": SCHEMA, "runs": held | asked})
        records = _train(grid, folder, where, retry, save_seconds, watch)
        results = gather(grid, records, command or default_command(grid, folder))
        write_json(folder / "results.json", results)
        _write(folder / "results.csv", as_csv(results["table"]))
        from foveal.viz.sweep import sweep_page

        _write(folder / "report.html", sweep_page(results))
    return results


def gather(grid: Grid, records: list[Record], command: str) -> dict[str, Any]:
    """The content of ``results.json``."""
    metrics = kind_of(grid.base).metrics
    return {
        "schema": SCHEMA,
        "command": command,
        "grid": grid.name,
        "about": asdict(grid.about),
        "table": grid_table(records, grid.published, metrics),
        "measures": {name: metric._asdict() for name, metric in metrics.items()},
        "environment": environment(),
        "records": records,
    }


def default_command(grid: Grid, out: Path) -> str:
    """The command that makes a sweep."""
    return shlex.join(["foveal", "sweep", grid.name, "--out", str(out)])


def _train(
    grid: Grid, folder: Path, where: Where, retry: bool, save_seconds: float | None, watch: Watch
) -> list[Record]:
    work = _Runs(folder.absolute(), {run.name: run for run in grid.runs}, save_seconds)
    watch.begin(grid.runs)
    done: dict[str, Record] = {}
    for run in grid.runs:
        if retry:
            work.failure(run.name).unlink(missing_ok=True)
        record = work.held(run.name)
        if record is not None:
            done[run.name] = record
            watch.done(run.name, record)
    left = [run.name for run in grid.runs if run.name not in done]
    done |= run_jobs(work, left, where, watch)
    return [done[run.name] for run in grid.runs]


@dataclass(frozen=True)
class _Runs(Work):
    """The runs as jobs."""

    out: Path
    runs: Mapping[str, Run]
    save_seconds: float | None

    def folder(self, name: str) -> Path:
        return self.out / "runs" / name

    def failure(self, name: str) -> Path:
        """Where the reason stands."""
        return self.out / "failed" / f"{name}.json"

    def held(self, name: str) -> Record | None:
        """The record of a run that is done or has failed."""
        failed: Record | None = read_json(self.failure(name))
        result = read_json(self.folder(name) / "result.json")
        if result is not None:
            return self._record(name, **result)
        return failed

    def __call__(self, name: str, tell: Tell) -> Record:
        from foveal.tasks.train import train

        try:
            result = train(self.runs[name].recipe, self.folder(name), watch=tell, save_seconds=self.save_seconds)
        except Exception as error:
            return self._failed(name, f"{type(error).__name__}: {_line(error)}", traceback.format_exc())
        return self._record(name, **result)

    def lost(self, name: str, reason: str) -> Record:
        return self._failed(name, f"{reason}, perhaps for want of memory", "")

    def _failed(self, name: str, reason: str, trace: str) -> Record:
        record = self._record(name, status="failed", reason=reason)
        write_json(self.failure(name), {**record, "traceback": trace})
        return record

    def _record(self, name: str, **told: Any) -> Record:
        run = self.runs[name]
        return {"run": name, "row": run.row, "seed": run.recipe.seed, **told}


def _check_held(folder: Path, grid: Grid) -> dict[str, Any]:
    """The runs that a folder holds already; raises where they are others of the same names."""
    held = read_json(folder / "sweep.json") if folder.is_dir() else None
    if held is None:
        if folder.is_dir() and any(path.name not in (LOCK, "runs", "failed") for path in folder.iterdir()):
            raise OptionError(f"sweep: {folder} is not empty and holds no sweep. Use a new folder for --out.")
        return {}
    try:
        runs = {str(name): dict(told) for name, told in held["runs"].items()}
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise DataError(f"sweep: {folder / 'sweep.json'} is damaged. Use another --out, or delete it.") from error
    for run in grid.runs:
        if run.name in runs:
            _check_same(folder, run.name, runs[run.name].get("recipe", {}), run.recipe)
    return runs


def _check_same(folder: Path, name: str, held: Mapping[str, Any], recipe: Training) -> None:
    before, now = dict(_leaves(held)), dict(_leaves(as_plain(recipe)))
    for option, value in now.items():
        if before.get(option) != value:
            raise OptionError(
                f"sweep: {folder} holds another run {name}: its {option} is {before.get(option)!r}, asked for is "
                f"{value!r}. Use another --out, or {option} as it was."
            )


def _leaves(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for name, value in values.items():
        if name not in FREE:
            found += _leaves(value, f"{prefix}{name}.") if isinstance(value, Mapping) else [(prefix + name, value)]
    return found


def _write(path: Path, text: str) -> None:
    part = path.with_name(path.name + ".part")
    try:
        part.write_text(text, encoding="utf-8")
        part.replace(path)
    except OSError as error:
        raise DataError(f"sweep: {path} could not be written: {error.strerror}. Make room and try again.") from error


def _line(error: BaseException) -> str:
    """The first line of a message; what a user caused is one sentence anyway."""
    text = " ".join(str(error).split()) if isinstance(error, FovealError) else str(error).strip().partition("\n")[0]
    return text.rstrip(".") or "no reason given"
