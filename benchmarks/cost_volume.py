"""What PSMNet's cost volume costs, stored and not stored, and how much of the network that is.

    python benchmarks/cost_volume.py [--threads 1] [--seconds 20] [--whole]

Three forms of the first convolution behind the volume, in turns, with gradients and without: not stored
(``volume_conv``, which PSMNet uses), the volume stored one disparity after the other as in the authors' code, and
stored by one indexing. Each is first checked against the stored one. ``--whole`` times the network with the first two
instead.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from unittest.mock import patch

import torch
import torch.nn.functional as F
from table import agree
from torch import Tensor

from foveal.analysis import interleaved
from foveal.models import psmnet
from foveal.models.stereo import cost_volume, volume_conv
from foveal.models.stereo.volume import VolumeConv

Form = Callable[[Tensor, Tensor, Tensor, int], Tensor]


def stored(left: Tensor, right: Tensor, weight: Tensor, disparities: int) -> Tensor:
    return F.conv3d(cost_volume(left, right, disparities), weight, padding=1)


def indexed(left: Tensor, right: Tensor, weight: Tensor, disparities: int) -> Tensor:
    columns = torch.arange(left.shape[3], device=left.device)
    source = columns - torch.arange(disparities, device=left.device)[:, None]
    seen = (source >= 0)[:, None]
    shifted = right[..., source.clamp(min=0)].movedim(3, 2)
    volume = torch.cat((left.unsqueeze(2).expand_as(shifted), shifted), 1) * seen
    return F.conv3d(volume, weight, padding=1)


FORMS: dict[str, Form] = {
    "not stored": volume_conv,
    "stored, a disparity at a time": stored,
    "stored, indexed": indexed,
}


def step(form: Form, given: list[Tensor], disparities: int) -> Callable[[], object]:
    return lambda: torch.autograd.grad(form(*given, disparities).sum(), given)


def forward(form: Form, given: list[Tensor], disparities: int) -> Callable[[], object]:
    def run() -> Tensor:
        with torch.no_grad():
            return form(*given, disparities)

    return run


def compare(title: str, calls: dict[str, Callable[[], object]], seconds: float) -> None:
    told = interleaved(calls, seconds=seconds, least=3)
    for name, timing in told.items():
        spread = f"({timing.ratio_q1:.2f} to {timing.ratio_q3:.2f})"
        print(
            f"| {title} | {name} | {timing.median:.1f} ms | {timing.ratio:.2f} {spread} | {timing.rounds} |", flush=True
        )


def convolutions(size: tuple[int, int], disparities: int, seconds: float) -> None:
    given = [torch.randn(1, 32, *size, requires_grad=True) for _ in "lr"]
    given.append((0.05 * torch.randn(32, 64, 3, 3, 3)).requires_grad_())
    with torch.no_grad():
        wanted = stored(*given, disparities)
        for name, form in FORMS.items():
            agree(name, form(*given, disparities), wanted)
    for title, make in (("forward", forward), ("forward and backward", step)):
        calls = {name: make(form, given, disparities) for name, form in FORMS.items()}
        compare(f"{title}, volume {disparities} x {size[0]} x {size[1]}", calls, seconds)


def whole(size: tuple[int, int], disparity: int, seconds: float) -> None:
    model, images = psmnet(max_disparity=disparity), torch.randn(2, 2, 3, *size)

    def infer() -> object:
        with torch.no_grad():
            return model.eval()(*images)

    def train() -> object:
        model.zero_grad()
        return torch.stack(model.train()(*images)).mean().backward()

    def by(form: Form, work: Callable[[], object]) -> Callable[[], object]:
        def call() -> object:
            with patch.object(VolumeConv, "forward", lambda self, left, right, d: form(left, right, self.weight, d)):
                return work()

        return call

    for title, work in (("inference", infer), ("training step", train)):
        calls = {name: by(form, work) for name, form in list(FORMS.items())[:2]}
        compare(f"PSMNet, {title}, 2 pairs of {size[0]} x {size[1]}, {disparity} disparities", calls, seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=20, help="of each comparison")
    parser.add_argument("--whole", action="store_true", help="time the network instead")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    torch.manual_seed(0)
    print(f"threads {asked.threads}, torch {torch.__version__}\n")
    print("| work | form | median | ratio to the first (quartiles) | rounds |\n|---|---|---|---|---|")
    if asked.whole:
        whole((128, 256), 96, asked.seconds)
    else:
        convolutions((16, 32), 12, asked.seconds)
        convolutions((64, 128), 48, asked.seconds)


if __name__ == "__main__":
    main()
