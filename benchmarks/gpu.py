"""foveal's Triton kernels on this GPU against unfolding, flex_attention, NATTEN, floors and convolutions.

Run by ``make bench-gpu``, which writes benchmarks/results/gpu.json and the GPU section of docs/benchmarks.md. ``--only
GROUP`` runs one group and writes nothing, ``--tune`` looks for the fastest configurations first and stores them where
the kernels find them, ``--page`` makes the section from the stored results again.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from gpu_rivals import Attend, flex, natten
from table import GPU_SECTION, Row, Table, agree, replaced
from torch import Tensor, nn

import foveal
from foveal.analysis import interleaved, peak_memory
from foveal.functional.local import reference
from foveal.kernels.pytorch.local import backward_flops, flops
from foveal.kernels.triton import local as kernels
from foveal.kernels.triton.configs import Config, key_of, rule, tuned_file

ROOT = Path(__file__).parents[1]
WINDOW = 7
Step = Callable[[], Any]
# Batch, side and depth of a head, of which there are eight: ResNet-50's stages, then large maps.
SIZES = [(64, 56, 8), (64, 28, 16), (64, 14, 32)] + [(1, side, depth) for depth in (32, 64) for side in (128, 256, 512)]


@dataclass
class Bench:
    """One run: where, how large, and what was found. ``tiny`` only shows that the code runs."""

    tiny: bool = False
    table: Table = field(default_factory=Table)
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.device = torch.device("cpu" if self.tiny else "cuda")
        self.dtype = torch.float32 if self.tiny else torch.bfloat16
        self.timing: dict[str, Any] = {"rounds": 1, "seconds": 1e-3, "warmup": 0} if self.tiny else {"seconds": 3.0}

    @property
    def window(self) -> list[int]:
        return [3, 3] if self.tiny else [WINDOW] * 2

    def maps(self, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
        """Random numbers, channels last, as the layers make them."""
        x = torch.randn(shape, device=self.device).to(dtype or self.dtype)
        return x.movedim((1, 2), (-2, -1)).contiguous().movedim((-2, -1), (1, 2)).requires_grad_()

    def milliseconds(self, call: Callable[[], Any]) -> float:
        return interleaved({"it": call}, **self.timing)["it"].median

    @contextmanager
    def attempt(self, what: str) -> Iterator[None]:
        """A rival that does not fit the memory, or does not compile, is a note and not the end of the run."""
        try:
            yield
        except (torch.OutOfMemoryError, RuntimeError, NotImplementedError, ImportError) as error:
            torch.cuda.empty_cache()
            told = str(error).strip().splitlines()
            self.note(f"{what}: {type(error).__name__}{': ' + told[0][:160] if told else ''}")

    def note(self, text: str) -> None:
        self.notes.append(text)
        print(f"  note: {text}", flush=True)


def floors(bench: Bench) -> tuple[float, float]:
    """Bytes a second that a copy moves, and operations a second of a large matrix product in the run's type."""
    count, side = (1 << 12, 64) if bench.tiny else (1 << 29, 8192)
    source = torch.zeros(count, dtype=torch.uint8, device=bench.device)
    target = torch.empty_like(source)
    a = torch.randn(side, side, device=bench.device).to(bench.dtype)
    moved = 2e3 * count / bench.milliseconds(lambda: target.copy_(source))
    done = 2e3 * side**3 / bench.milliseconds(lambda: a @ a)
    bench.table.group = "The floors of this GPU"
    bench.table.add("bytes a second of a copy, read and written", [moved / 1e12], "TB/s")
    bench.table.add(f"operations a second of a product of {side}², {bench.dtype}", [done / 1e12], "TFLOP/s")
    return moved, done


@dataclass
class Local:
    """Local attention of one size, without tables where rivals have none."""

    bench: Bench
    batch: int
    side: int
    depth: int
    heads: int

    def __post_init__(self) -> None:
        shape = (self.batch, self.heads, self.depth, self.side, self.side)
        self.qkv = [self.bench.maps(*shape) for _ in range(3)]
        self.upstream = torch.randn_like(self.qkv[0])
        self.title = f"{self.batch} x {self.heads} heads of {self.depth}, {self.side}²"

    def config(self, form: str, direction: str) -> Config:
        """The rule's where it has this form."""
        made = rule(direction, 2, self.depth, self.depth, self.bench.window, self.bench.dtype)
        if made.form == form:
            return made
        gather = Config("gather", (1, 2, 16 if self.depth > 16 else 32), max(2, 64 // self.depth))
        return gather if form == "gather" else Config("tile", (1, 8, 8), 32)

    def ours(self, form: str | None = None) -> Attend:
        """By the rule, or in one form."""
        given = [None if form is None else self.config(form, d) for d in ("forward", "backward")]
        settings: Any = ([], None, self.bench.window, [1, 1], 1.0, True, *given)
        return lambda q, k, v: kernels.local_attention(q, k, v, *settings)

    def unfolded(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return reference(q, k, v, [], None, self.bench.window, [1, 1], 1.0, True)

    def tiled(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return foveal.local_attention(q, k, v, kernel_size=self.bench.window, border="mask", backend="tiled")

    def calls(self, run: Attend) -> dict[str, Step]:
        """Forward for its result alone, and with the gradients of q, k and v."""

        def forward() -> Tensor:
            with torch.no_grad():
                return run(*self.qkv)

        def train() -> Any:
            return torch.autograd.grad(run(*self.qkv), self.qkv, self.upstream)

        return {"forward": forward, "forward + backward": train}

    def check(self) -> None:
        """Both forms equal the definition on one head in float32; in the run's type they share all but roundings."""
        shape = (1, 1, self.depth, self.side, self.side)
        qkv = [self.bench.maps(*shape, dtype=torch.float32) for _ in range(3)]
        upstream = torch.randn_like(qkv[0])
        told = []
        for run in (self.unfolded, self.ours("gather"), self.ours("tile")):
            out = run(*qkv)
            told.append([out.detach(), *torch.autograd.grad(out, qkv, upstream)])
        for form, came in zip(("gather", "tile"), told[1:], strict=True):
            agree(f"{self.title}, {form}", came, told[0])

    def floor(self, way: str, moved: float, done: float) -> float:
        """Milliseconds that neither a faster copy nor faster products can save."""
        q, count = self.qkv[0], 4 if way == "forward" else 12
        shape, window = tuple(q.shape), self.bench.window
        work = flops(shape, shape, 0, window)
        if way != "forward":
            # q, k, v and out; then these, the gradient of out and three gradients.
            work += backward_flops(shape, shape, 0, window)
        return 1e3 * max(count * q.numel() * q.element_size() / moved, work / done)


def local(bench: Bench, moved: float, done: float) -> None:
    """The operation at every size: rivals, both forms, floors, memory."""
    for batch, side, depth in [(1, 5, 8)] if bench.tiny else SIZES:
        size = Local(bench, batch, side, depth, 1 if bench.tiny else 8)
        size.check()
        rivals: dict[str, Attend] = {"unfolding": size.unfolded, "tiled PyTorch": size.tiled}
        if bench.tiny:
            bench.note("flex_attention has no backward on a CPU")
        else:
            with bench.attempt(f"{size.title}: flex_attention"):
                rivals["flex_attention"] = flex(side, bench.window[0], bench.device)
        if find_spec("natten"):
            rivals["NATTEN"] = natten(bench.window[0])
        goals = {"unfolding": 5.0, "flex_attention": 1.0, "NATTEN": 1.0}
        mine = size.calls(size.ours())
        bench.table.group = "Local attention, window 7: times"
        for way, call in mine.items():
            for name, rival in rivals.items():
                with bench.attempt(f"{size.title}: {name}, {way}"):
                    against = size.calls(rival)[way]
                    bench.table.faster(
                        f"{size.title}: {way}, against {name}", call, against, least=goals.get(name), **bench.timing
                    )
            forms = [size.calls(size.ours(form))[way] for form in ("gather", "tile")]
            with bench.attempt(f"{size.title}: forms, {way}"):
                bench.table.share(f"{size.title}: {way}, gather form against tile form", *forms, **bench.timing)
            spent = bench.milliseconds(call)
            bench.table.add(f"{size.title}: {way}", [spent], "ms")
            least = 0.5 if depth >= 32 else None
            share = size.floor(way, moved, done) / spent
            bench.table.add(f"{size.title}: {way}, of the larger floor", [share], "of the rate", least=least)
        bench.table.group = "Local attention, window 7: peak memory beyond the inputs, forward + backward"
        for name, run in {"foveal": size.ours(), **rivals}.items():
            with bench.attempt(f"{size.title}: memory of {name}"):
                used = peak_memory(size.calls(run)["forward + backward"], device=bench.device)
                bench.table.add(f"{size.title}: {name}", [used / 2**20], "MiB")


def layers(bench: Bench, *_: float) -> None:
    """Layers with the kernels against the same layers in PyTorch, weights shared."""
    bench.table.group = "Layers with Triton kernels against their PyTorch forms"
    made: list[tuple[str, Callable[[str | None], nn.Module], tuple[int, ...]]] = [
        (
            f"local, {side}², {channels} channels",
            lambda backend, c=channels: foveal.LocalAttention(c, c, kernel_size=WINDOW, heads=8, backend=backend),
            (64, channels, side, side),
        )
        for side, channels in ((56, 64), (28, 128), (14, 256))
    ]
    made += [
        (
            "efficient, 56², 256 channels, d_k 64",
            lambda backend: foveal.EfficientAttention(256, key_channels=64, backend=backend),
            (64, 256, 56, 56),
        ),
        (
            "external, 65², 512 channels, 64 slots",
            lambda backend: foveal.ExternalAttention(512, slots=64, backend=backend),
            (8, 512, 65, 65),
        ),
        (
            "explicit, Gaussian, 56², 24 channels",
            lambda backend: foveal.ExplicitAttention(24, 24, heads=8, backend=backend),
            (64, 24, 56, 56),
        ),
    ]
    if bench.tiny:
        made = [
            ("local", lambda b: foveal.LocalAttention(8, 8, kernel_size=3, heads=1, backend=b), (1, 8, 4, 4)),
            ("efficient", lambda b: foveal.EfficientAttention(8, key_channels=4, backend=b), (1, 8, 4, 4)),
            ("external", lambda b: foveal.ExternalAttention(8, slots=3, backend=b), (1, 8, 4, 4)),
            ("explicit", lambda b: foveal.ExplicitAttention(8, 8, heads=2, backend=b), (1, 8, 4, 4)),
        ]
    for name, build, shape in made:
        theirs = build(None).to(bench.device, bench.dtype)
        ours = build("triton").to(bench.device, bench.dtype)
        ours.load_state_dict(theirs.state_dict())
        x = torch.randn(shape, device=bench.device).to(bench.dtype).contiguous(memory_format=torch.channels_last)
        x.requires_grad_()
        sides = [_layer_calls(layer, x) for layer in (ours, theirs)]
        for way in sides[0]:
            bench.table.faster(f"{name}: {way}", *(side[way] for side in sides), least=2.0, **bench.timing)


def _layer_calls(layer: nn.Module, x: Tensor) -> dict[str, Step]:
    upstream = torch.randn_like(x)

    def forward() -> Tensor:
        with torch.no_grad():
            return layer(x)

    def train() -> Any:
        return torch.autograd.grad(layer(x), [x, *layer.parameters()], upstream, allow_unused=True)

    return {"forward": forward, "forward + backward": train}


def resnet(bench: Bench, *_: float) -> None:
    """ResNet-50 with local attention for every 3x3 convolution but the stem's, against timm's, bfloat16 autocast."""
    import timm

    bench.table.group = "ResNet-50 with local attention against timm's resnet50, bfloat16 autocast, channels last"
    name, where, shape = ("resnet10t", "layer1.0.conv1", (2, 3, 16, 16)) if bench.tiny else (
        "resnet50", "layer*.*.conv2", (64, 3, 224, 224))  # fmt: skip
    models = [timm.create_model(name) for _ in range(2)]
    like = foveal.LocalAttention.like(kernel_size=bench.window[0], heads=1 if bench.tiny else 8, backend="triton")
    foveal.replace_(models[0], where, like)
    x = torch.randn(shape, device=bench.device).contiguous(memory_format=torch.channels_last)
    labels = torch.arange(shape[0], device=bench.device)

    def steps(model: nn.Module) -> dict[str, Step]:
        model.to(bench.device, memory_format=torch.channels_last)
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9)

        def infer() -> Tensor:
            with torch.inference_mode(), torch.autocast(bench.device.type, torch.bfloat16):
                return model.eval()(x)

        def train() -> None:
            model.train()
            optimizer.zero_grad()
            with torch.autocast(bench.device.type, torch.bfloat16):
                loss = nn.functional.cross_entropy(model(x), labels)
            loss.backward()
            optimizer.step()

        return {"inference": infer, "training step": train}

    sides = [steps(model) for model in models]
    for way in sides[0]:
        most = 1.3 if way == "training step" else None
        bench.table.share(f"{way}, batch {shape[0]}", *(side[way] for side in sides), most=most, **bench.timing)
        for who, side in zip(("foveal", "timm"), sides, strict=True):
            used = peak_memory(side[way], device=bench.device)
            bench.table.add(f"{way}, peak memory: {who}", [used / 2**20], "MiB")


GROUPS = {"local": local, "layers": layers, "resnet": resnet}


def candidates(bench: Bench, direction: str, depth: int) -> list[Config]:
    """Configurations worth a try for two space axes."""
    shared = [(warps, stages) for warps in (2, 4, 8) for stages in (1, 2, 3)]
    tiles = [(1, 4, 8), (1, 8, 8), (1, 4, 16), (1, 8, 16)]
    tried = [Config("tile", t, block, w, s) for t in tiles for block in (16, 32, 64) for w, s in shared]
    if depth <= 32:
        strips = [(1, 1, 32), (1, 2, 32), (1, 4, 32), (1, 4, 16)]
        tried += [Config("gather", t, c, w, 2) for t in strips for c in (2, 4, 8, 16) for w in (2, 4, 8)]
    return [rule(direction, 2, depth, depth, bench.window, bench.dtype), *tried]


def tune(bench: Bench) -> None:
    """The fastest configuration of every depth, by both directions, into the file that the kernels read."""
    found: dict[str, list[int]] = {}
    for depth in (8,) if bench.tiny else (8, 16, 32, 64, 128):
        side = 5 if bench.tiny else 128
        size = Local(bench, 1, side, depth, 1 if bench.tiny else 8)
        for direction, way in (("forward", "forward"), ("backward", "forward + backward")):
            tried = candidates(bench, direction, depth)
            times = {c: _time_of(bench, size, way, **{direction: c}) for c in (tried[:2] if bench.tiny else tried)}
            best = min(times, key=lambda config: times[config])
            found[key_of(direction, 2, depth, depth, bench.window, bench.dtype)] = best.flat()
            print(f"  {direction}, depth {depth}: {best}, {times[best]:.3f} ms; by the rule {times[tried[0]]:.3f} ms")
    path = tuned_file("interpreter" if bench.tiny else torch.cuda.get_device_name())
    replaced(path, json.dumps({"torch": torch.__version__, "configs": found}, indent=1) + "\n")
    print(f"  {path} written", flush=True)


def _time_of(bench: Bench, size: Local, way: str, **configs: Config) -> float:
    """Of one configuration; those that a GPU cannot hold take for ever."""

    def run(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return kernels.local_attention(q, k, v, [], None, bench.window, [1, 1], 1.0, True, **configs)

    try:
        return bench.milliseconds(size.calls(run)[way])
    except Exception as error:  # Triton's compiler and launcher raise types of their own
        print(f"    {configs} does not run: {type(error).__name__}")
        return float("inf")


def section(stored: dict[str, Any] | None) -> str:
    """The GPU section of docs/benchmarks.md, from the stored results alone."""
    lines = ["# Time and memory on GPUs", ""]
    if stored is None:
        lines += [
            "No GPU has been at hand yet: the Triton kernels have never run on hardware, and nothing is known of their",
            "speed. They are tested in Triton's interpreter, compiled for an H100, marked so by `foveal info`, and run",
            "by name alone. `make test-gpu` and `make bench-gpu` check and measure them where there is one.",
        ]
        return "\n".join(lines)
    rows = [Row(**row) for row in stored["rows"]]
    missed = sum(row.reached is False for row in rows)
    told = stored["environment"]
    packages = ", ".join(f"{name} {version}" for name, version in told["packages"].items() if version)
    lines += [f"Printed by `{stored['command']}` on {', '.join(told['gpus']) or 'no GPU'}; {packages}; commit"]
    lines += [f"{told['commit']}.", "", f"Goals missed: {missed} of {sum(row.reached is not None for row in rows)}."]
    for group in dict.fromkeys(row.group for row in rows):
        lines += ["", f"## {group}", "", "| work | measured | goal |", "|---|---|---|"]
        lines += [f"| {row.work} | {row.told} | {row.goal} |" for row in rows if row.group == group]
    if stored["notes"]:
        lines += ["", "Not measured:", "", *(f"- {note}" for note in stored["notes"])]
    return "\n".join(lines)


def write(folder: Path, stored: dict[str, Any] | None) -> None:
    """The results, and the section of the page that is made from them."""
    results, page = folder / "benchmarks" / "results" / "gpu.json", folder / "docs" / "benchmarks.md"
    if stored is None:
        stored = json.loads(results.read_text()) if results.exists() else None
    else:
        replaced(results, json.dumps(stored, indent=1) + "\n")
    text = page.read_text() if page.exists() else ""
    first, last = GPU_SECTION
    before = text.split(first)[0].rstrip("\n") + "\n\n" if text else ""
    after = text.split(last)[1] if last in text else "\n"
    replaced(page, f"{before}{first}\n{section(stored)}\n{last}{after}")


def environment() -> dict[str, Any]:
    """Machine, versions and commit."""
    from foveal.tasks.run_folder import environment as of_runs

    told = of_runs()
    kept = {name: told[name] for name in ("commit", "python", "system", "cpu", "gpus")}
    packages = {name: _version(name) for name in ("foveal", "torch", "triton", "timm", "natten")}
    return {**kept, "packages": packages, "cuda": torch.version.cuda}


def _version(name: str) -> str | None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(name)
    except PackageNotFoundError:
        return None


def measure(bench: Bench, only: str | None) -> None:
    """All groups, or one."""
    moved, done = floors(bench)
    if not find_spec("natten"):
        bench.note("NATTEN is not installed")
    started = time.perf_counter()
    for name, run in GROUPS.items():
        if only in (None, name):
            print(f"\n{name} ({time.perf_counter() - started:.0f} s so far)", flush=True)
            run(bench, moved, done)
    missed = sum(row.reached is False for row in bench.table.rows)
    print(f"\n{time.perf_counter() - started:.0f} s; goals missed: {missed}")


def main() -> int:
    """What the command line asks for; 2 where there is no GPU."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=GROUPS, help="run one group; write nothing")
    parser.add_argument("--tune", action="store_true", help="find and store the fastest configurations first")
    parser.add_argument("--page", action="store_true", help="make the GPU section of docs/benchmarks.md again")
    parser.add_argument("--tiny", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, default=ROOT, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.page:
        write(asked.folder, None)
        return 0
    if not asked.tiny and not torch.cuda.is_available():
        print("bench-gpu: there is no NVIDIA GPU that torch can use; run this where there is one.", file=sys.stderr)
        return 2
    torch.manual_seed(0)
    bench = Bench(asked.tiny)
    if asked.tune:
        tune(bench)
    measure(bench, asked.only)
    if asked.only is None:
        rows = [asdict(row) for row in bench.table.rows]
        found = {"command": "make bench-gpu", "environment": environment(), "rows": rows, "notes": bench.notes}
        write(asked.folder, found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
