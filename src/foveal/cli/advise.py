"""``foveal advise``."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from foveal.cli.said import counting_warnings

if TYPE_CHECKING:
    from foveal.analysis.advice import Advice
    from foveal.analysis.calibration import Calibration
    from foveal.analysis.crossover import Crossover
    from foveal.analysis.prediction_check import Checked
    from foveal.analysis.target import Size, Target

ABOUT = """Say which attention mechanism fits a model within a budget, and where, without training or running it.
Each mechanism is counted at its paper's place in the model, in each stage of it, and at each single site. Time is
predicted once the speeds of this machine are measured (--calibrate, under a minute, kept in the cache folder).

budgets, of the whole model; several must all hold:
  latency=+10%   latency=5ms     predicted time of an inference; needs a calibration
  macs=+10%      macs=500M       multiply-accumulates of an inference
  memory=+10%    memory=64MiB    highest memory of activations in inference
  params=+10%    params=+2M      parameters; a plus is what is added, without one it is the model's whole

examples:
  foveal advise resnet50 --budget macs=+10%
  foveal advise resnet50 --budget latency=+10% params=+1M --calibrate
  foveal advise resnet18 --size 128 128 --mechanisms nonlocal,efficient --each site
  foveal advise convnext_tiny --sites stages.2 --budget macs=+5%
  foveal advise package.module:callable num_classes=10 --budget memory=64MiB --json
  foveal advise resnet50 --check
"""


@dataclass(frozen=True)
class Advise:
    """The options of ``advise``."""

    model: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="[MODEL]")] = ""
    """A model of timm or of foveal, or package.module:callable; with --calibrate or --check it may be left out."""
    options: tyro.conf.Positional[tuple[str, ...]] = ()
    """Options of its constructor, name=value, right after the name."""
    size: tuple[int, ...] = ()
    """Rows and columns of the image; one number is a square. The model's own where left out."""
    budget: tuple[str, ...] = ()
    """What the model may cost with the mechanism in it; the first is what candidates are ranked by."""
    batch: int = 1
    """Samples."""
    mechanisms: str = ""
    """Names with commas between them; all where left out."""
    sites: tuple[str, ...] = ()
    """Module patterns instead of the papers' places."""
    each: str = "stage"
    """How finely places are shown: model (whole places), stage, or site."""
    device: str = "cpu"
    """cpu, or cuda."""
    threads: int | None = None
    """Threads of torch; all cores where left out."""
    calibrate: bool = False
    """Measure the speeds of this machine anew, and keep them."""
    check: bool = False
    """Measure layers and models that speeds do not come from, and tell how far predictions are from them."""
    json: bool = False
    """Print everything as JSON instead of tables."""

    when_interrupted = "No calibration was written."

    def run(self) -> int:
        from foveal.analysis.budgets import parse_budgets
        from foveal.analysis.target import check_size
        from foveal.cli.threads import use_threads

        budgets = parse_budgets(self.budget)
        self._check_options()
        if self.size:
            # Before a model is made.
            check_size(self.size)
        use_threads(self.threads)
        with counting_warnings():
            target = self._target() if self.model else None
            calibration, path, trouble = self._calibration(needed=any(b.quantity == "latency" for b in budgets))
            advice = crossed = None
            if target is not None:
                advice, crossed = self._advice(target, target.sized(self.size), budgets, calibration)
            checked = self._check(calibration, target)
        if self.json:
            print(json.dumps(_plain(advice, crossed, calibration, path, checked), indent=1))
            return 0
        from foveal.cli.advise_tables import print_advice, print_calibration, print_check, print_crossovers

        if advice is not None and crossed is not None:
            print_advice(advice, self.each)
            print_crossovers(crossed, calibrated=calibration is not None)
        if checked:
            print_check(checked)
        print_calibration(calibration, path, trouble)
        return 0

    def _check_options(self) -> None:
        import torch

        from foveal.errors import OptionError

        if not self.model and not self.calibrate and not self.check:
            raise OptionError(
                "advise: name a model, as in foveal advise resnet50, or measure this machine: --calibrate."
            )
        if self.batch < 1:
            raise OptionError(f"advise: --batch must be at least 1, got {self.batch}.")
        if self.each not in ("model", "stage", "site"):
            raise OptionError(f"advise: --each must be model, stage or site, got {self.each!r}.")
        if self.device not in ("cpu", "cuda"):
            raise OptionError(f"advise: --device must be cpu or cuda, got {self.device!r}.")
        if self.device == "cuda" and not torch.cuda.is_available():
            raise OptionError("advise: --device cuda needs a GPU that torch sees, and there is none. Use --device cpu.")

    def _target(self) -> Target:
        from foveal.analysis.target import find, layer_row, parse_options
        from foveal.errors import OptionError

        if layer_row(self.model) is not None:
            raise OptionError(
                f"advise: {self.model!r} is a layer; a model is wanted that it goes into, as in foveal advise resnet50."
            )
        return find(self.model, options=parse_options(self.options))

    def _names(self) -> list[str]:
        return [name for name in (part.strip() for part in self.mechanisms.split(",")) if name]

    def _calibration(self, *, needed: bool) -> tuple[Calibration | None, Path, str | None]:
        """The speeds, the file they are in, and why there are none where a file is there."""
        from foveal.analysis.calibration import calibrate, load, measure, path_of, save, this_place
        from foveal.analysis.calibration_layers import measured
        from foveal.cli.waiting import bar
        from foveal.errors import DataError, OptionError

        place = this_place(self.device)
        if self.calibrate:
            with bar("calibrating", len(measured()), quiet=self.json) as watch:
                calibration = calibrate(measure(measured(), device=self.device, watch=watch), place)
            return calibration, save(calibration), None
        try:
            found = load(place)
        except DataError as error:
            if needed or self.check:
                raise
            return None, path_of(place), str(error)
        if found is None and self.check:
            raise OptionError("advise: --check needs the speeds of this machine, not measured yet. Add --calibrate.")
        return found, path_of(place), None

    def _advice(
        self, target: Target, size: Size, budgets: Any, calibration: Calibration | None
    ) -> tuple[Advice, list[Crossover]]:
        from foveal.analysis.advice import advise
        from foveal.analysis.crossover import crossovers
        from foveal.cli.waiting import bar
        from foveal.models.mechanisms import MECHANISMS

        speeds = calibration.speeds if calibration is not None else None
        names = self._names()
        with bar("counting", len(names or MECHANISMS) + 1, quiet=self.json) as watch:
            advice = advise(
                target, size, budgets, batch=self.batch, speeds=speeds, names=names, sites=self.sites,
                device=self.device, watch=watch,
            )  # fmt: skip
            watch("crossovers")
            widths = {"nonlocal": advice.channels.get("nonlocal", ()), "conv3x3": advice.channels.get("local", ())}
            return advice, crossovers(widths, speeds, device=self.device)

    def _check(self, calibration: Calibration | None, target: Target | None) -> list[Checked]:
        if not self.check or calibration is None:
            return []
        from foveal.analysis.calibration_layers import checked
        from foveal.analysis.prediction_check import check_layers, check_models
        from foveal.cli.waiting import bar
        from foveal.models.mechanisms import MECHANISMS

        names = [name for name in self._names() or MECHANISMS if name != "none"]
        steps = len(checked()) + (len(names) + 1 if target is not None else 0)
        with bar("checking", steps, quiet=self.json) as watch:
            rows = check_layers(calibration.speeds, device=self.device, watch=watch)
            if target is not None:
                rows += check_models(
                    calibration.speeds, target, target.sized(self.size), names, sites=self.sites, batch=self.batch,
                    device=self.device, watch=watch,
                )  # fmt: skip
        return rows


def _plain(
    advice: Advice | None,
    crossed: list[Crossover] | None,
    calibration: Calibration | None,
    path: Path,
    checked: list[Checked],
) -> dict[str, Any]:
    from foveal.analysis.prediction_check import median_error

    told: dict[str, Any] = {
        "unit": "latency in milliseconds, predicted; macs are multiply-accumulates; memory is in bytes",
        "advice": None if advice is None else asdict(advice),
        "crossovers": [asdict(row) for row in crossed or []],
        "calibration": None if calibration is None else {"path": str(path), **asdict(calibration)},
    }
    if advice is not None:
        told["advice"]["candidates"] = [{**asdict(c), "fits": c.fits} for c in advice.candidates]
    if checked:
        kinds = {kind: [row for row in checked if row.kind == kind] for kind in ("layer", "model")}
        told["check"] = {
            "median_error": {kind: median_error(rows) for kind, rows in kinds.items() if rows},
            "rows": [{**asdict(row), "error": row.error} for row in checked],
        }
    return told
