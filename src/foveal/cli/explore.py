"""``foveal explore``."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated

import tyro

from foveal.cli.said import check_folder, print_written

if TYPE_CHECKING:
    from foveal.app.shelf import Shelf

ABOUT = """Open a local web page that shows where every head of every attention layer looks.

examples:
  foveal explore
  foveal explore --model foveal_local_resnet50 --model foveal_explicit_resnet50 --image photo.jpg
  foveal explore --model runs/demo/runs/local-0 --image digit-3
  foveal explore --model foveal_efficient_resnet50_res12 --image china --export page.html
"""
LOOPBACK = ("127.0.0.1", "localhost", "::1")
MODELS = ("foveal_local_resnet26", "foveal_efficient_resnet50_res12", "foveal_explicit_resnet50")


@dataclass(frozen=True)
class Explore:
    """The options of the explorer."""

    model: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = field(default=())
    """A run, or a model of timm or foveal with random weights; several stand side by side."""
    image: str = "flower"
    """What the page begins with: a file, or china, flower, digit-0 to digit-9, which ship with scikit-learn."""
    port: int = 8765
    """0 takes any that is free."""
    host: str = "127.0.0.1"
    """Address to listen on. Whoever reaches another than 127.0.0.1 can use the page; there is no password."""
    no_browser: bool = False
    """Only print the address."""
    export: str | None = None
    """Write one page that needs no server into this .html file, instead of starting one."""
    layer: str = "*"
    """Layers that an exported page holds, a glob over module names; the last fine one of each model where left out."""

    when_interrupted = "The explorer is closed."

    def run(self) -> int:
        from foveal.errors import OptionError

        if self.export is not None:
            if not self.export.lower().endswith(".html"):
                raise OptionError(f"explore: --export must end in .html, got {self.export!r}.")
            check_folder("--export", self.export)
        if not 0 <= self.port <= 65535:
            raise OptionError(f"explore: --port must be 0 to 65535, got {self.port}. Leave it out for 8765.")
        shelf, first = self._shelf()
        if self.export is None:
            from foveal.app.serving import serve

            serve(shelf, first, self.host, self.port, ready=self._ready)
            return 0
        from foveal.app.export import export

        size = export(shelf, first, self.export, layer=self.layer)
        print(f"{size / 1e6:.1f} MB, needs no server and no network.")
        print_written(self.export)
        return 0

    def _ready(self, address: str) -> None:
        import webbrowser

        print(f"The explorer is at {address} (Ctrl-C ends it).", flush=True)
        if self.host not in LOOPBACK:
            print(f"warning: whoever reaches {self.host} can use it; there is no password.", file=sys.stderr)
        if not self.no_browser:
            webbrowser.open(address)

    def _shelf(self) -> tuple[Shelf, str]:
        from foveal.errors import OptionError

        try:
            import fastapi  # noqa: F401
            import uvicorn  # noqa: F401
        except ImportError as error:
            raise OptionError(f"explore: {error.name} is not installed. Give pip install 'foveal[app]'.") from error
        from foveal.app.shelf import Shelf
        from foveal.cli.waiting import bar
        from foveal.tasks.shown import SAMPLES, sample

        shelf, texts = Shelf(), self.model or MODELS
        first = shelf.add(sample(self.image), self.image if self.image in SAMPLES else "")
        with bar("loading models", len(texts)) as watch:
            for text in texts:
                watch(text)
                shelf.load(text)
        return shelf, first
