"""Fills the README's blocks with what the demo, a graft and bench-cpu printed. Run by ``make readme``.

A block stands between ``<!-- name -->`` and ``<!-- /name -->``; nothing in it is written by hand.
"""

from __future__ import annotations

import contextlib
import io
import json
import re
import shutil
from pathlib import Path

import timm
from rich.console import Console
from table import Row

import foveal
from foveal.analysis.comparison import headline, summarise

ROOT = Path(__file__).parents[1]
DEMO = ROOT / "runs" / "demo"
PICTURE = ROOT / "docs" / "images" / "demo.png"
TIMES = ROOT / "benchmarks" / "results" / "cpu.json"


def graft() -> str:
    model = timm.create_model("resnet50")
    record = foveal.insert_(model, "layer[34]", foveal.EfficientAttention.like(key_channels=64), identity=True)
    with contextlib.redirect_stdout(io.StringIO()) as told:
        print(record)
    lines = [line.rstrip() for line in told.getvalue().splitlines()]
    return "```text\n" + "\n".join(lines).strip("\n") + "\n```"


def comparison() -> str:
    results = json.loads((DEMO / "results.json").read_text())
    compared, told = summarise(results["records"]), results["environment"]
    first = {r["mechanism"]: r for r in reversed(results["records"])}
    machine = f"{told['cpu']}, threads a run: {told['threads']}, torch {told['packages']['torch']}"
    lines = [
        f"`make demo` on {machine}. {headline(compared)}",
        "",
        "| mechanism | accuracy by seed | parameters | MACs | inference | training step | training memory |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, record in reversed(first.items()):
        seeds = [r["accuracy"] for r in results["records"] if r["mechanism"] == name and r["status"] == "done"]
        lines.append(
            f"| {name} | {', '.join(f'{100 * a:.1f} %' for a in seeds)} | {record['parameters'] / 1e3:.1f} k "
            f"| {record['macs'] / 1e6:.2f} M | {record['inference_ms']['ratio']:.2f} "
            f"| {record['training_ms']['ratio']:.2f} | {record['training_peak_bytes'] / 2**20:.1f} MiB |"
        )
    PICTURE.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(DEMO / "summary.png", PICTURE)
    lines += ["", "Times are ratios to `none`, medians of rounds in turns.", ""]
    lines.append(
        "![Accuracy against the time of a training step, and where a marked point looks](docs/images/demo.png)"
    )
    return "\n".join(lines)


def cpu() -> str:
    """Every figure that has a goal."""
    stored = json.loads(TIMES.read_text())
    told = ", ".join(f"{name} {value}" for name, value in stored["environment"].items())
    rows = [Row(**row) for row in stored["rows"]]
    lines = [f"Printed by `{stored['command']}` on: {told}.", "", "| work | measured | goal |", "|---|---|---|"]
    lines += [f"| {row.group}: {row.work} | {row.told} | {row.goal} |" for row in rows if row.goal]
    return "\n".join(lines)


def main() -> None:
    readme = ROOT / "README.md"
    text = readme.read_text()
    for block in (graft, comparison, cpu):
        name = block.__name__
        text, found = re.subn(
            rf"<!-- {name} -->.*?<!-- /{name} -->",
            lambda _, name=name, block=block: f"<!-- {name} -->\n{block()}\n<!-- /{name} -->",
            text,
            flags=re.DOTALL,
        )
        if found != 1:
            raise SystemExit(f"readme: README.md needs exactly one block {name}, has {found}.")
    readme.write_text(text)
    Console().print("README.md and docs/images/demo.png written")


if __name__ == "__main__":
    main()
