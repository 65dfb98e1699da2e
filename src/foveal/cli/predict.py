"""``foveal predict``."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from foveal.cli.said import check_folder, opened, print_written
from foveal.errors import DataError, OptionError

if TYPE_CHECKING:
    from foveal.tasks.predict import Looking, Prediction
    from foveal.viz.sheet import Sheet

ABOUT = """Say what is on images: one line of JSON for each on standard output, as they come.
RUN is a folder of foveal train, one run of foveal compare, or a .safetensors file of foveal.models.save. IMAGES are
files, folders with images at any depth, or globs. The data set need not be there. What a run of detection,
segmentation, stereo, points or generation answers, --draw writes as one picture each.

examples:
  foveal predict runs/cifar photo.jpg
  foveal predict runs/cifar photos/ 'more/**/*.png' --top 3 > answers.jsonl
  foveal predict runs/demo/runs/local-0 digits/ --sheet digits.html
  foveal predict runs/detection photos/ --draw drawn --threshold 0.7
  foveal predict runs/stereo left/ --right right/ --draw drawn
  foveal predict runs/gan --count 40 --draw drawn
  foveal predict runs/cifar photos/ | jq -r 'select(.top) | [.image, .top[0].class] | @tsv'
"""


@dataclass(frozen=True)
class Predict:
    """The options of ``predict``."""

    source: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Folder of a run, or a file of a model."""
    images: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="IMAGES…")] = ()
    """Files, folders, globs."""
    top: int | None = None
    """Classes of each image; 5 where left out (classification)."""
    which: Literal["last", "best"] = "last"
    """Weights after the last epoch, or after the best."""
    batch_size: int | None = None
    """What goes through the model at a time: 64 images of classification, 8 pairs, clouds or samples. Images of
    detection and segmentation go alone."""
    sheet: Annotated[str | None, tyro.conf.arg(metavar="FILE.html")] = None
    """Also write the images with their answers as one HTML file, which shows the first 1,000."""
    attention: Literal["marked", "centre", "none"] | None = None
    """On the sheet, where a point looks: the one that stands out most (marked), or the centre. Marked where the model
    has an attention layer."""

    draw: Annotated[str | None, tyro.conf.arg(metavar="FOLDER")] = None
    """Write each answer as a picture into this folder: not for classification."""
    threshold: float | None = None
    """Least score of what is told and drawn (detection)."""
    right: Annotated[tuple[str, ...], tyro.conf.arg(metavar="IMAGES…")] = ()
    """The right image of each pair, in the order of the left ones; folders are paired by names (stereo)."""
    count: int | None = None
    """How many to make; 10 of each class where left out (generation)."""
    seed: int | None = None
    """Of what is drawn at random: codes (generation), or which points of large clouds go together (points)."""

    category: str | None = None
    """What all clouds are of, for a network that names their parts; else the folder or the file's label says it, or it
    is guessed (points)."""

    when_interrupted = "What was printed stands; no sheet was written."

    def run(self) -> int:
        from foveal.tasks.opened import task_of

        task = task_of(self.source)
        if task != "classification":
            from foveal.cli.predict_drawn import predict_drawn

            return predict_drawn(self, task)
        self._check()
        from foveal.cli.waiting import counter
        from foveal.tasks.predict import has_attention, predict

        trained = opened(self.source, self.which)
        looking: Looking = self.attention or ("marked" if has_attention(trained) else "none")
        looking = looking if self.sheet is not None else "none"
        unread = count = 0
        with ExitStack() as stack:
            sheet = None if self.sheet is None else stack.enter_context(self.open_sheet(trained.facts(), self.sheet))
            # Where standard output is a terminal, its lines tell how far it is.
            tell = stack.enter_context(counter("images", quiet=sys.stdout.isatty()))
            answers = predict(
                trained,
                self.images,
                top=5 if self.top is None else self.top,
                batch_size=64 if self.batch_size is None else self.batch_size,
                looking=looking,
            )
            for count, prediction in enumerate(answers, start=1):
                print(json.dumps(prediction.record()), flush=True)
                unread += prediction.error is not None
                if sheet is not None:
                    show(sheet, prediction)
                tell(count)
        if self.sheet is not None:
            print_written(self.sheet, quiet=True)
        if unread:
            raise DataError(
                f"predict: {unread} of {count} images could not be read; each has a line with its error. Give whole "
                "image files."
            )
        return 0

    def _check(self) -> None:
        for name in ("draw", "threshold", "right", "count", "seed", "category"):
            if getattr(self, name) not in (None, ()):
                raise OptionError(f"predict: --{name} means nothing for classification. Use --sheet FILE.html to look.")
        if not self.images:
            raise OptionError("predict: no images are named. Give files, folders or globs after the run.")
        if self.attention is not None and self.sheet is None:
            raise OptionError(f"predict: --attention {self.attention} is drawn on a sheet. Add --sheet FILE.html.")
        self.check_sheet()

    def check_sheet(self) -> None:
        """Raise where no sheet can be written."""
        if self.sheet is not None and not self.sheet.lower().endswith((".html", ".htm")):
            raise OptionError(f"predict: --sheet must end in .html, got {self.sheet!r}.")
        check_folder("--sheet", self.sheet)

    def open_sheet(self, facts: Mapping[str, object], path: str, noun: str = "image") -> Sheet:
        """A sheet that says who answers, and by which command."""
        from foveal.viz.sheet import Sheet

        return Sheet(path, facts, command=self._command(), noun=noun)

    def _command(self) -> str:
        named = [*self.images[:3], *(["…"] if len(self.images) > 3 else [])]
        return shlex.join(["foveal", "predict", self.source, *named]).replace("'…'", "…")


def show(sheet: Sheet, prediction: Prediction) -> None:
    """Put a prediction on a sheet."""
    from foveal.viz.sheet import Answer

    if prediction.error is not None or prediction.picture is None:
        sheet.fail(prediction.image, prediction.error or "")
        return
    picture = prediction.picture.movedim(0, -1).numpy()
    seen = prediction.attention, prediction.point, prediction.layer
    sheet.add(Answer(prediction.image, picture, prediction.top, *seen))
