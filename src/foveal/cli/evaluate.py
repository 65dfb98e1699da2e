"""``foveal evaluate``."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from foveal.cli.said import check_folder, opened, print_written
from foveal.errors import OptionError

if TYPE_CHECKING:
    from foveal.tasks.evaluate import Evaluation
    from foveal.tasks.trained import Trained

ABOUT = """Measure a trained model on validation images: accuracy, loss, calibration, accuracy by class.
RUN is a folder of foveal train, one run of foveal compare, or a .safetensors file of foveal.models.save. The last
weights of a run give what it measured itself. Runs of other tasks are measured by their own metrics.

examples:
  foveal evaluate runs/cifar
  foveal evaluate runs/cifar --which best --json
  foveal evaluate runs/photos --data.path /new/place/photos
  foveal evaluate runs/demo/runs/local-0 --confusion confusion.html
  foveal evaluate model.safetensors --data photos
  foveal evaluate runs/detection --results detections.json
  foveal evaluate runs/points --votes 10
"""
SHOWN = 20  # classes that the table shows; JSON holds all


@dataclass(frozen=True)
class Evaluate:
    """The options of ``evaluate``."""

    source: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Folder of a run, or a file of a model."""
    data: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None
    """Another data set with the same classes, by name or the path of its folder."""
    data_path: Annotated[str | None, tyro.conf.arg(name="data.path", metavar="PATH")] = None
    """Where the files of the data set lie now."""
    which: Literal["last", "best"] = "last"
    """Weights after the last epoch, or after the best."""
    confusion: Annotated[str | None, tyro.conf.arg(metavar="FILE")] = None
    """Also write which class is taken for which: .csv for the numbers, .html to look at."""
    results: Annotated[str | None, tyro.conf.arg(metavar="FILE.json")] = None
    """Also write every box and mask in COCO's format of results (detection)."""
    votes: int | None = None
    """Also measure answers averaged over so many scaled copies of each cloud (points)."""
    json: bool = False
    """Print JSON instead of tables."""

    when_interrupted = "Nothing was written."

    def run(self) -> int:
        from foveal.tasks.opened import task_of

        task = task_of(self.source)
        if task != "classification":
            from foveal.cli.evaluate_task import evaluate_task

            return evaluate_task(self, task)
        self._check()
        from foveal.cli.waiting import counter
        from foveal.tasks.evaluate import data_of, evaluate

        trained = opened(self.source, self.which)
        data = data_of(trained, self.data, self.data_path)
        with counter("images", total=len(data.val), quiet=self.json) as tell:
            evaluation = evaluate(trained, data, tell=tell)
        if self.json:
            print(json.dumps(as_json(trained, evaluation, data.name), indent=1))
        else:
            print_evaluation(trained, evaluation, data.name)
        if self.confusion is not None:
            self._write(self.confusion, trained, evaluation, data.name)
        return 0

    def _check(self) -> None:
        if self.results is not None:
            raise OptionError("evaluate: --results is for detection, this run is of classification. Leave it out.")
        if self.votes is not None:
            raise OptionError("evaluate: --votes is for points, this run is of classification. Leave it out.")
        if self.confusion is not None and Path(self.confusion).suffix.lower() not in (".csv", ".html"):
            raise OptionError(f"evaluate: --confusion must end in .csv or .html, got {self.confusion!r}.")
        check_folder("--confusion", self.confusion)

    def _write(self, path: str, trained: Trained, evaluation: Evaluation, data: str) -> None:
        from foveal.tasks.evaluate import write_confusion
        from foveal.viz.confusion import write_confusion_page

        if Path(path).suffix.lower() == ".csv":
            write_confusion(Path(path), evaluation)
        else:
            facts = {**trained.facts(), "Evaluated on": data, "Accuracy": percent(evaluation.metrics["accuracy"])}
            write_confusion_page(path, evaluation.confusion, evaluation.classes, facts, self._command())
        print_written(path, quiet=self.json)

    def _command(self) -> str:
        words = ["foveal", "evaluate", self.source]
        given = {"data": self.data, "data.path": self.data_path, "confusion": self.confusion}
        words += ["--which", self.which] if self.which != "last" else []
        return shlex.join(words + [word for key, value in given.items() if value for word in (f"--{key}", value)])


def as_json(trained: Trained, evaluation: Evaluation, data: str) -> dict[str, Any]:
    """What the tables show, with every class."""
    about = None if trained.recipe is None else trained.recipe.about
    return {
        "run": str(trained.source), "model": trained.name, "weights": trained.weights, "data": data,
        **evaluation.record(),
        "recorded": dict(trained.recorded),
        "published": {} if about is None else dict(about.published),
    }  # fmt: skip


def print_evaluation(trained: Trained, evaluation: Evaluation, data: str) -> None:
    """Metrics beside the run's own and the published ones, then classes."""
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=True)
    record = evaluation.record()
    weights = f" ({trained.weights})" if trained.weights else ""
    console.print(f"{trained.name}{weights} on {data}: {evaluation.images:,} images", style="bold", markup=False)
    console.print(_metrics_table(trained, evaluation))
    console.print(_classes_table(evaluation))
    console.print(f"{record['images_per_second']:,.0f} images a second, reading included", markup=False)
    if trained.recipe is not None and trained.recipe.about.published:
        console.print(f"published: {trained.recipe.about.paper}, {trained.recipe.about.table}", markup=False)


def _metrics_table(trained: Trained, evaluation: Evaluation) -> Any:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    published = {} if trained.recipe is None else trained.recipe.about.published
    table = Table(box=SIMPLE_HEAD)
    table.add_column("")
    for head in ("now", *(["in the run"] if trained.recorded else []), *(["published"] if published else [])):
        table.add_column(head, justify="right")
    for name, value in {**evaluation.metrics, "calibration_error": evaluation.calibration_error}.items():
        cells = [_shown(name, value)]
        cells += [_shown(name, trained.recorded.get(name))] if trained.recorded else []
        cells += [f"{published[name]:g} %" if name in published else ""] if published else []
        table.add_row(name.replace("_", " "), *cells)
    return table


def _classes_table(evaluation: Evaluation) -> Any:
    from rich.box import SIMPLE_HEAD
    from rich.markup import escape
    from rich.table import Table

    rows = evaluation.by_class()
    title = None
    if len(rows) > SHOWN:
        rows = sorted(rows, key=lambda row: 2.0 if row["accuracy"] is None else row["accuracy"])[:SHOWN]
        title = f"the {SHOWN} of {len(evaluation.classes):,} classes with the lowest accuracy; --json has all"
    table = Table(box=SIMPLE_HEAD, title=title, title_justify="left")
    for head, side in (("class", "left"), ("images", "right"), ("accuracy", "right"), ("most often taken for", "left")):
        table.add_column(head, justify=side)  # type: ignore[arg-type]
    for row in rows:
        taken = row["taken_for"]
        other = f"{taken['class']} ({taken['images']:,})" if taken else ""
        share = "" if row["accuracy"] is None else percent(row["accuracy"])
        table.add_row(escape(row["class"]), f"{row['images']:,}", share, escape(other))
    return table


def _shown(name: str, value: float | None) -> str:
    if value is None:
        return ""
    return percent(value) if name.startswith(("accuracy", "calibration")) else f"{value:.4f}"


def percent(share: float) -> str:
    """With two digits behind the point, as papers print accuracies."""
    return f"{100 * share:.2f} %"
