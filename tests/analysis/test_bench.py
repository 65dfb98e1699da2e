"""Nothing is timed that computes something else, memory is what is known, and what cannot run says why."""

import time
from dataclasses import replace

import pytest
import torch
from torch import nn

from foveal.analysis.bench import LEAST_ROUNDS, bench, steps, timed
from foveal.analysis.sides import SIDES, SUITES, Built, Setting, Side, chosen, definition, side
from foveal.errors import NoMatchError, OptionError
from foveal.layers.registry import REGISTRY

# Uncompiled flex_attention is what the side says it is.
pytestmark = pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")

MIB = 1 << 20
SMALL = Setting(channels=16, size=(7, 14), batch=2)
HALO = replace(SMALL, size=(7, 7))


def measured(*sides, setting=SMALL, **options):
    result = bench("test", sides, setting, **{"seconds": 0.02, **options})
    return {record.name: record for record in result.sides}


def a_side(module, other=None, name="side"):
    return Side(name, "for a test", lambda setting: Built(module, other))


class Plus(nn.Module):
    """The map, a parameter added; ``error`` is what it is wrong by."""

    def __init__(self, error=0.0, slope=1.0):
        super().__init__()
        self.shift, self.error, self.slope = nn.Parameter(torch.zeros(())), error, slope

    def forward(self, x):
        moved = x + self.shift + self.error
        # The same result, another gradient.
        return moved if self.slope == 1.0 else self.slope * moved - ((self.slope - 1.0) * moved).detach()


def test_a_side_that_computes_something_else_has_no_figure():
    records = measured(a_side(Plus(), Plus(), "right"), a_side(Plus(0.1), Plus(), "wrong"))
    assert records["right"].forward_ms.rounds >= LEAST_ROUNDS and not records["right"].wrong
    wrong = records["wrong"]
    assert wrong.wrong and wrong.reason.startswith("its result is off by")
    assert (wrong.forward_ms, wrong.training_ms, wrong.forward_peak_bytes) == (None, None, None)


def test_a_side_with_wrong_gradients_has_no_figure_either():
    record = measured(a_side(Plus(slope=2.0), Plus()))["side"]
    assert record.wrong and record.reason.startswith("a gradient is off by")
    assert (record.forward_ms, record.training_ms) == (None, None)


def test_results_that_are_not_finite_are_not_timed():
    record = measured(a_side(Plus(float("nan"))), a_side(Plus(), name="sound"))["side"]
    assert record.reason == "ArithmeticError: results are not finite" and record.forward_ms is None


def test_a_known_allocation_of_256_mebibytes_is_seen():
    class Large(Plus):
        def forward(self, x):
            torch.empty(256 * MIB // 4)
            return super().forward(x)

    record = measured(a_side(Large()))["side"]
    assert 256 * MIB <= record.forward_peak_bytes < 257 * MIB
    assert 256 * MIB <= record.training_peak_bytes < 257 * MIB


def test_a_side_that_cannot_train_is_timed_in_inference_alone():
    class Forward(Plus):
        def forward(self, x):
            if torch.is_grad_enabled():
                raise NotImplementedError("no backward here")
            return super().forward(x)

    records = measured(a_side(Forward()), a_side(Plus(), name="both"))
    assert records["side"].training_reason == "NotImplementedError: no backward here"
    assert records["side"].forward_ms is not None and records["side"].training_ms is None
    assert records["both"].training_ms.ratio == 1.0  # to the first that trains


def test_a_side_that_does_not_run_says_why_and_the_others_go_on():
    records = measured(side("natten"), a_side(nn.Conv2d(3, 3, 1), name="other channels"), side("conv3x3"))
    assert records["other channels"].reason.startswith("RuntimeError: ")
    assert records["conv3x3"].forward_ms.ratio == 1.0
    if records["natten"].forward_ms is None:
        assert records["natten"].reason == "NATTEN is not installed."


@pytest.mark.parametrize("row", REGISTRY, ids=lambda row: row.name)
def test_every_layer_agrees_with_its_definition_and_is_measured(row):
    record = measured(side(row.name))[row.name]
    assert record.error < 2e-4 and record.reason is None and record.training_reason is None
    assert record.macs == 2 * SMALL.layer(row.name).macs(SMALL.size)
    assert record.forward_peak_bytes > 0 and record.training_peak_bytes > record.forward_peak_bytes
    assert record.floor_ms > 0 and record.bound in ("memory", "products")


@pytest.mark.parametrize("name", ["efficient:published", "external:published", "non_local:published", "sdpa", "flex"])
def test_every_other_evaluation_of_a_layer_agrees_with_its_definition(name):
    record = measured(side(name))[name]
    assert record.error < 2e-4 and record.forward_ms is not None, record.reason


def test_flex_attention_says_that_it_does_not_train_on_a_cpu():
    assert "backward" in measured(side("flex"))["flex"].training_reason


@pytest.mark.parametrize("name", ["halo", "bottleneck", "lambda", "timm_non_local", "conv3x3"])
def test_layers_of_others_are_measured_and_have_no_definition(name):
    record = measured(side(name), setting=HALO)[name]
    assert record.error is None and record.reason is None
    assert record.forward_ms is not None and record.macs > 0


def test_a_layer_that_starts_as_the_identity_is_compared_with_something_in_it():
    layer = SMALL.layer("non_local")
    x = torch.randn(SMALL.shape)
    assert not torch.allclose(layer.eval()(x), x)
    assert definition(layer).backend == "reference" and layer.backend is None


def test_a_slow_side_leaves_the_others_their_rounds():
    def sleep(duration):
        return lambda: time.sleep(duration)

    told = timed({"first": sleep(0.001), "slow": sleep(0.1), "quick": sleep(0.002)}, seconds=0.2)
    assert list(told) == ["first", "slow", "quick"]
    assert told["slow"].rounds <= 5 < told["quick"].rounds == told["first"].rounds
    assert told["slow"].ratio > told["quick"].ratio > 1.0
    assert timed({}, seconds=1.0) == {}


def test_what_is_done_next_is_told_as_often_as_promised():
    told = []
    sides = [side("conv3x3"), side("efficient")]
    measured(*sides, watch=told.append)
    assert len(told) == steps(sides) and told[0] == "checking conv3x3"


def test_every_suite_names_sides_that_there_are():
    for suite in SUITES.values():
        title, sides = chosen([suite.name])
        assert title == suite.name and len(sides) == len(set(sides)) >= 4
    assert [s.name for s in chosen(["layers"])[1]] == [row.name for row in REGISTRY]


def test_one_name_is_a_suite_and_several_are_sides():
    assert len(chosen(["local"])[1]) > 2
    assert [s.name for s in chosen(["local", "LocalAttention:tiled", "halo"])[1]] == ["local", "local:tiled", "halo"]
    assert chosen(["LocalAttention"])[1] == (SIDES["local"],)


@pytest.mark.parametrize(
    ("names", "kind", "told"),
    [
        (["lokal"], NoMatchError, r"^bench: there is no suite or side 'lokal'\. Did you mean local"),
        (["local:fast"], NoMatchError, r"^bench: local has no backend 'fast'\. It has native, triton, tiled"),
        (["external:fast"], NoMatchError, r"It has native, triton, slots, reference, published\.$"),
        (["halo", "halo"], OptionError, r"^bench: halo is there twice\. Name every side once\."),
    ],
)
def test_sides_that_there_are_not_are_told(names, kind, told):
    with pytest.raises(kind, match=told):
        chosen(names)


def test_options_go_to_the_layers_and_a_wrong_one_is_an_error():
    setting = replace(SMALL, options={"kernel_size": 3})
    assert setting.layer("local").kernel_size == 3
    with pytest.raises(OptionError, match=r"^EfficientAttention: there is no option 'kernel_size'"):
        measured(side("local"), side("efficient"), setting=setting)


def test_a_layer_that_does_not_fit_the_map_leaves_the_others_measured():
    records = measured(side("local"), side("external"), setting=replace(SMALL, channels=6))
    assert records["local"].reason.startswith("LocalAttention: heads must divide channels_out=6")
    assert records["external"].forward_ms is not None


@pytest.mark.parametrize("wrong", [{"seconds": 0.0}, {"setting": replace(SMALL, batch=0)}])
def test_sizes_and_times_are_positive(wrong):
    with pytest.raises(OptionError, match=r"^bench: --seconds, --batch and --channels must be positive"):
        measured(side("conv3x3"), **wrong)
