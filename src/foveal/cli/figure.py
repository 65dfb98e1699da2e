"""``foveal figure``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro
from tyro.conf import Positional

from foveal.cli.said import check_folder, print_written

FIGURES = {
    "explicit-1": "ExpAtt, figure 1: attention of marked pixels by content, content and position, and explicit",
    "explicit-3": "ExpAtt, figure 3: the learned radius by layer",
    "efficient-1": "Efficient Attention, figure 1: what five query points look at",
    "efficient-3": "Efficient Attention, figure 3: memory and operations by size",
    "efficient-5": "Efficient Attention, figure 5: global maps, which all queries share",
    "local-offsets": "Stand-alone self-attention: relative-offset logits by head",
    "external-4": "External attention, figure 4: attention maps of memory slots",
    "external-5": "External attention, figure 5: two rows of M_k in every head of the last layer",
}
ABOUT = "Draw a figure of the papers from your models and images, as PNG and SVG.\n\n" + "\n".join(
    [f"  {name:<14} {told}" for name, told in FIGURES.items()]
    + [
        "",
        "examples:",
        "  foveal figure efficient-1 --image photo.jpg --model foveal_efficient_resnet50_res12 --out points.png",
        "  foveal figure explicit-1 --model content=runs/a --model position=runs/b --model explicit=runs/c",
        "  foveal figure efficient-5 --image china --image flower --layer 'layer1*'",
        "  foveal figure efficient-3 --out cost.svg",
    ]
)
_CONTENT = (
    "content=foveal_augmented_resnet50,positions=none",
    "content + position=foveal_augmented_resnet50",
    "explicit=foveal_explicit_resnet50",
)
_MODELS: dict[str, tuple[str, ...]] = {
    "explicit-1": _CONTENT,
    "explicit-3": ("foveal_explicit_resnet50",),
    "efficient-1": ("foveal_efficient_resnet50_res12",),
    "efficient-5": ("foveal_efficient_resnet50_res12",),
    "local-offsets": ("foveal_local_resnet26",),
    "external-4": ("foveal_eamlp_7",),
    "external-5": ("foveal_eamlp_14",),
}


@dataclass(frozen=True)
class Figure:
    """The options of ``figure``."""

    name: Positional[str]
    """Which figure; the list is above."""
    model: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = field(default=())
    """A run, or a model of timm or foveal with random weights; label=NAME,option=value too. Several where a figure
    compares. The paper's where left out."""
    image: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = field(default=())
    """A file, or china, flower, digit-0 to digit-9, which ship with scikit-learn."""
    layer: str = "*"
    """A glob over module names; the last layer with a map fine enough to look at where left out."""
    at: tuple[str, ...] = ()
    """Pixels row,column of the image as the model takes it; those that stand out where left out."""
    slots: tuple[int, ...] = (0, 1)
    """Rows of M_k, for external-5."""
    out: str | None = None
    """.png or .svg, or a path without either for both; the figure's name where left out."""
    json: bool = False
    """Print what was written and which layer was asked as JSON."""

    when_interrupted = "No unfinished file is left."

    def run(self) -> int:
        from foveal.errors import NoMatchError, OptionError

        if self.name not in FIGURES:
            raise NoMatchError(f"figure: there is no figure {self.name!r}. There are {', '.join(FIGURES)}.")
        paths = self._paths()
        for path in paths:
            check_folder("--out", str(path))
        if self.name == "efficient-3" and self.model:
            raise OptionError("figure: efficient-3 is drawn from the paper's formulas, without a model. Drop --model.")
        draw, caption = self._made()
        for path in paths:
            draw(path)
        if self.json:
            import json

            print(json.dumps({"figure": self.name, "written": [str(path) for path in paths], "caption": caption}))
        else:
            print(caption)
            for path in paths:
                print_written(str(path))
        return 0

    def _paths(self) -> list[Path]:
        from foveal.errors import OptionError

        path = Path(self.out or self.name)
        if path.suffix.lower() in (".png", ".svg"):
            return [path]
        if path.suffix and self.out:
            raise OptionError(f"figure: --out must end in .png or .svg, or in neither for both, got {self.out!r}.")
        return [path.with_name(path.name + kind) for kind in (".png", ".svg")]

    def _made(self) -> tuple[Callable[[Path], Any], str]:
        """How it is drawn, and what is told of it."""
        from foveal.viz import figure_charts, sheets

        if self.name == "efficient-3":
            from foveal.analysis.figures import requirements

            rows = requirements()
            return (lambda path: figure_charts.draw_requirements(rows, path)), FIGURES[self.name]
        from foveal.tasks.figures import figure, weights_told
        from foveal.tasks.shown import shown

        models = dict(shown(text) for text in self.model or _MODELS[self.name])
        if self.name == "explicit-3":
            from foveal.analysis.figures import learned_radii

            radii = {label: learned_radii(trained.model) for label, trained in models.items()}
            weights = weights_told(models)
            return (lambda path: figure_charts.draw_radii(radii, path, weights)), f"{FIGURES[self.name]}\n{weights}"
        sheet = figure(self.name, models, self.image, layer=self.layer, at=self.at, slots=self.slots)
        return (lambda path: sheets.draw_sheet(sheet, path)), f"{FIGURES[self.name]}\n{sheet.caption}"
