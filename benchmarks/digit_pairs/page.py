"""Stores the study's results beside this file and writes docs/digit-pairs.md and its pictures from them.

    python benchmarks/digit_pairs/page.py [runs/digit-pairs]

Without a folder of runs the page is written from what is stored. Every statement of the page that depends on results is
made by a rule that stands here.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Sequence
from math import sqrt
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from shortcuts import BOUND
from study import BACKBONES, SETTING

from foveal.analysis.comparison import headline, join, summarise
from foveal.data.digit_pairs import CELLS, SIZE, TRAIN, VAL

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PAGE, IMAGES = ROOT / "docs" / "digit-pairs.md", ROOT / "docs" / "images"
CHANCE, LEARNED = 0.55, 0.6  # three deviations of 2,000 guesses are 3.4 points
STUDENT = {1: 12.71, 2: 4.30, 3: 3.18, 4: 2.78}  # two-sided five per cent points by degrees of freedom
Results = dict[str, Any]
Accuracies = dict[int, float]


def store(runs: Path) -> None:
    """Copy what ``foveal compare`` wrote, of the system its name alone."""
    for depth in BACKBONES:
        whole = runs / depth / "results.json"
        results = json.loads(whole.read_text()) if whole.is_file() else so_far(runs / depth)
        for told in (results, *results["records"]):
            told["environment"]["system"] = told["environment"]["system"].partition("-")[0]
        (HERE / f"{depth}.json").write_text(json.dumps(results, indent=1) + "\n")
        if (runs / depth / "summary.png").is_file():
            shutil.copyfile(runs / depth / "summary.png", IMAGES / f"digit-pairs-{depth}.png")


def so_far(runs: Path) -> Results:
    """The runs that have ended of a comparison that has not: without costs."""
    config = json.loads((runs / "compare.json").read_text())
    asked = [(seed, name) for seed in range(config["seeds"]) for name in config["mechanisms"]]
    ended = [path for seed, name in asked if (path := runs / "runs" / f"{name}-{seed}" / "result.json").is_file()]
    records = [json.loads(path.read_text()) for path in ended]
    return {"config": config, "records": records, "environment": dict(records[0]["environment"]), "command": ""}


def accuracies(results: Results, mechanism: str) -> Accuracies:
    """By seed, of the runs that ended."""
    own = [record for record in results["records"] if record["mechanism"] == mechanism]
    return {record["seed"]: record["accuracy"] for record in own if record["status"] == "done"}


def row(results: Results, mechanism: str, window: int) -> str:
    record = next((record for record in results["records"] if record["mechanism"] == mechanism), {})
    own, base = accuracies(results, mechanism), accuracies(results, "none")
    seconds = [r["train_seconds"] for r in results["records"] if r["mechanism"] == mechanism and r["status"] == "done"]
    sees = f"{window} px" if window < 2 * SIZE else "all"
    cells = [
        mechanism,
        sees,
        ", ".join(f"{100 * own[seed]:.1f}" for seed in sorted(own)),
        spread(list(own.values())),
        "" if mechanism == "none" else difference(own, base),
        f"{record['parameters'] / 1e3:.1f} k" if "parameters" in record else "",
        f"{2 * record['macs'] / 1e6:.2f} M" if "macs" in record else "",
        f"{record['training_ms']['ratio']:.2f}" if "training_ms" in record else "",
        f"{fmean(seconds):.0f}" if seconds else "",
    ]
    return f"| {' | '.join(cells)} |"


def spread(values: Sequence[float]) -> str:
    """Mean and deviation over seeds, in per cent."""
    if not values:
        return ""
    told = f"{100 * fmean(values):.1f}"
    return f"{told} ± {100 * stdev(values):.1f}" if len(values) > 1 else told


def difference(own: Accuracies, other: Accuracies) -> str:
    """Mean difference of runs with the same seed, with its 95 % interval, in points."""
    pairs = [100 * (own[seed] - other[seed]) for seed in sorted(own.keys() & other.keys())]
    if len(pairs) < 2:
        return "".join(f"{pair:+.1f}" for pair in pairs)
    half = STUDENT[len(pairs) - 1] * stdev(pairs) / sqrt(len(pairs))
    return f"{fmean(pairs):+.1f} ({fmean(pairs) - half:+.1f} to {fmean(pairs) + half:+.1f})"


def table(results: Results, windows: dict[str, int]) -> list[str]:
    lines = [
        "| mechanism | sees | accuracy by seed, % | mean ± deviation | minus `none`, paired by seed (95 %) "
        "| parameters | FLOPs | training step | seconds a run |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    return lines + [row(results, name, windows[name]) for name in results["config"]["mechanisms"]]


def sorts(results: Results) -> dict[str, list[str]]:
    """Mechanisms by what their seeds did: none above chance, all learned, or neither."""
    found: dict[str, list[str]] = {"chance": [], "learned": [], "between": []}
    for name in results["config"]["mechanisms"]:
        own = accuracies(results, name).values()
        kind = "chance" if max(own) < CHANCE else "learned" if min(own) > LEARNED else "between"
        found[kind].append(f"`{name}`")
    return found


def said(found: dict[str, list[str]]) -> str:
    told = [
        (found["learned"], f"above {100 * LEARNED:.0f} % with every seed"),
        (found["between"], "above chance with some seeds only, or little"),
        (found["chance"], f"near chance with every seed (below {100 * CHANCE:.0f} %)"),
    ]
    return "; ".join(f"{join(names)} {words}" for names, words in told if names) + "."


def deeper(shallow: Results, deep: Results) -> list[str]:
    lines = ["| mechanism | shallow, % | deep, % | deep minus shallow, paired by seed (95 %) |", "|---|---|---|---|"]
    for name in shallow["config"]["mechanisms"]:
        one, two = accuracies(shallow, name), accuracies(deep, name)
        lines.append(
            f"| {name} | {spread(list(one.values()))} | {spread(list(two.values()))} | {difference(two, one)} |"
        )
    return lines


def place(results: Results) -> str:
    told, commits = results["environment"], sorted({str(record["commit"]) for record in results["records"]})
    return (
        f"{told['cpu']}, {told['cores']} cores, threads a run: {told['threads']}, torch {told['packages']['torch']}, "
        f"commit {join(commits)}"
    )


def block(results: Results, windows: dict[str, int], depth: str) -> str:
    """What one depth came to."""
    wanted = len(results["config"]["mechanisms"]) * results["config"]["seeds"]
    part = f"**{len(results['records'])} of {wanted} runs have ended.** " if len(results["records"]) < wanted else ""
    lines = [
        f"{part}Of ten mechanisms: {said(sorts(results))}",
        f"{headline(summarise(results['records']))} (Differences of means over all seeds, at one per cent.)",
        "",
        *table(results, windows),
        "",
        f"`{results['command'] or 'foveal compare'}` on {place(results)}.",
        "*Training step* is the time of one to that of `none`, median of rounds in turns. Seconds are wall time of a",
        "run among others, on a machine that did other work too.",
        "FLOPs are twice the multiply-accumulates of one image.",
    ]
    if (IMAGES / f"digit-pairs-{depth}.png").is_file():
        lines += ["", f"![Accuracy against a training step's time, {depth} backbone](images/digit-pairs-{depth}.png)"]
    return "\n".join(lines)


def reading(shallow: Results, deep: Results) -> str:
    """What follows from the results, by rule."""
    base, deep_base = (fmean(accuracies(results, "none").values()) for results in (shallow, deep))
    enough = "what attention gives the shallow one, a second block a stage gives too"
    lines = [
        f"- Without attention the shallow backbone reaches {100 * base:.1f} %, the deep one {100 * deep_base:.1f} %"
        + (f": {enough}." if base < CHANCE < LEARNED < deep_base else ".")
    ]
    gates = {name: list(accuracies(shallow, name).values()) for name in ("se", "eca", "cbam")}
    if learned := [f"`{name}`" for name, values in gates.items() if min(values) > LEARNED]:
        lines.append(
            f"- Gates are enough on the shallow backbone: {join(learned)}, without attention between positions."
        )
    if stuck := [f"`{name}`" for name, values in gates.items() if max(values) < CHANCE]:
        lines.append(
            f"- {join(stuck)} stayed at chance on the shallow backbone, although products of averages over the map\n"
            "  could tell: this is about what the budget finds and not about what can be computed."
        )
    if min(accuracies(shallow, "explicit").values()) > LEARNED:
        content = difference(accuracies(shallow, "efficient"), accuracies(shallow, "explicit"))
        lines.append(
            "- `explicit`, whose maps do not depend on the image, learned it too: carrying something across the board\n"
            f"  is enough, choosing where to look is not needed. `efficient` minus `explicit`: {content} points."
        )
    others = [name for name in deep["config"]["mechanisms"] if name != "none"]
    below = [f"`{name}`" for name in others if fmean(accuracies(deep, name).values()) < deep_base]
    lines.append(f"- On the deep backbone {join(below) or 'no mechanism'} ended below no attention on average.")
    return "\n".join(lines)


def page() -> str:
    found = json.loads((HERE / "shortcuts.json").read_text())
    stored = {depth: json.loads((HERE / f"{depth}.json").read_text()) for depth in BACKBONES}
    windows, bound = found["windows"], found["shortcuts"][BOUND]
    return (HERE / "page.md").read_text().format(
        size=SIZE, cells=CELLS, train=TRAIN, val=VAL, setting=SETTING, span=SIZE, best=f"{100 * bound:.1f} %",
        shortcuts="\n".join(f"| {name} | {100 * value:.1f} % |" for name, value in found["shortcuts"].items()),
        narrow=windows["shallow"]["none"], wide=windows["deep"]["none"],
        **{depth: block(results, windows[depth], depth) for depth, results in stored.items()},
        deeper="\n".join(deeper(stored["shallow"], stored["deep"])), reading=reading(stored["shallow"], stored["deep"]),
    )  # fmt: skip


def main() -> None:
    if len(sys.argv) > 1:
        store(Path(sys.argv[1]))
    PAGE.write_text(page(), encoding="utf-8")
    print(f"Written: {PAGE.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
