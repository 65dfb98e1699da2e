"""The ledger: verdicts at printed precision, each paper's counting, and every cell that is known to reproduce."""

import math
from pathlib import Path

import pytest
import timm
import torch
from torch import nn

import foveal
from foveal.analysis import count
from foveal.analysis.ledger import PAPERS, Run, Verdict, ledger, summary
from foveal.analysis.ledger import complexity as formulas
from foveal.analysis.ledger.conventions import (
    AA_NET,
    CONVENTIONS,
    COPIED,
    MEBI,
    MILLIONS,
    MODULES,
    PROFILER,
    TWO,
    Tally,
)
from foveal.analysis.ledger.efficient import figure_3
from foveal.analysis.ledger.generation import PARTS, network
from foveal.analysis.ledger.papers import ALONE, row_cells
from foveal.analysis.ledger.points import segmenter
from foveal.analysis.ledger.records import PAPER, Column, Row, Table
from foveal.analysis.ledger.tally import figure
from foveal.analysis.ledger.verdict import CUT, UNKNOWN, is_figure, is_near, judge
from foveal.analysis.ledger.work import Work, work_of, work_on
from foveal.errors import OptionError

PAGE = Path(__file__).parents[2] / "docs" / "ledger.md"
EQUAL, DIFFERS, NOT_RUN, COUNTED = Verdict.EQUAL, Verdict.DIFFERS, Verdict.NOT_RUN, Verdict.COUNTED


@pytest.fixture(scope="module")
def cells():
    return ledger()


@pytest.mark.parametrize(
    ("published", "value"),
    [("24.5", 24.522), ("24.5", 24.45), ("24.5", 24.549999), ("0.32", 0.3202), ("30", 29.877), ("2.5", 2.45), ("0", 0),
     ("2.4", 2.45), ("3.50", 3.504872)],
)  # fmt: skip
def test_a_figure_that_rounds_to_the_printed_one_is_equal(published, value):
    assert judge(published, value, "a reason that is not needed") == (EQUAL, "")


@pytest.mark.parametrize(("published", "value", "right"), [("14.1", 14.19, "14.2"), ("32", 32.58, "33")])
def test_a_figure_that_was_cut_off_differs_and_says_so(published, value, right):
    assert judge(published, value) == (DIFFERS, f"{CUT}: {right}")
    assert judge(published, value, "another reason") == (DIFFERS, "another reason")


@pytest.mark.parametrize(("published", "value"), [("24.5", 24.5500001), ("24.5", 24.44), ("25.6", 25.5), ("2.3", 2.45)])
def test_a_figure_that_does_not_round_to_the_printed_one_differs(published, value):
    assert judge(published, value)[0] is DIFFERS
    assert judge(published, value, "why")[1] == "why"


def test_near_is_a_tenth_as_printed():
    assert is_near("8.3", 8.4036) and is_near("7.2", 7.077)
    assert not is_near("6.0", 5.836)


def test_only_numbers_are_figures():
    assert all(map(is_figure, ("3", "3.50", "412")))
    assert not any(map(is_figure, ("OOM", "NaN", "-", "2 d n", "1.2.3")))


def test_a_million_is_2_to_the_20_for_eca_net_alone():
    tally = Tally(25_557_112, 0, Work())
    assert judge("25.6", MILLIONS.read(tally))[0] is EQUAL
    assert judge("24.37", MEBI.read(tally))[0] is EQUAL
    assert [rule.name for rule in CONVENTIONS if "2^20" in rule.name] == [MEBI.name]


@pytest.mark.parametrize(
    ("model", "rule", "printed"),
    [
        ("resnet50", MILLIONS, "25.6"), ("resnet50", TWO, "8.2"), ("resnet101", TWO, "15.6"),
        ("resnet152", TWO, "23.0"),
        ("resnet50", MODULES, "4.089"), ("resnet50", PROFILER, "4.12"), ("mobilenetv2_100", PROFILER, "0.32"),
        ("resnet101", COPIED, "7.6"), ("resnet152", COPIED, "11.3"), ("resnet50", COPIED, "3.86"),
    ],
)  # fmt: skip
def test_a_convention_gives_the_published_figure_of_a_plain_network(model, rule, printed):
    assert judge(printed, figure(model, {}, (3, 224, 224), rule))[0] is EQUAL


def test_counting_strides_as_first_published_leaves_the_model_as_it_was():
    before = figure("resnet50", {}, (3, 64, 64), MODULES)
    figure("resnet50", {}, (3, 64, 64), COPIED)
    assert figure("resnet50", {}, (3, 64, 64), MODULES) == before


ATTENTIONS = [
    foveal.EfficientAttention(8, key_channels=4, projection="auto"),
    foveal.ExplicitAttention(8, 6, heads=2),
    foveal.LocalAttention(8, 8, kernel_size=3, heads=2),
    foveal.LocalAttention(8, 8, kernel_size=5, heads=2, relative=False),
    foveal.ExternalAttention(8, slots=4),
    foveal.NonLocal(8),
    foveal.AugmentedAttention(8, 4, key_channels=8, heads=2, size=(6, 5)),
]


@pytest.mark.parametrize("layer", ATTENTIONS, ids=lambda layer: type(layer).__name__)
def test_the_definition_of_a_layer_has_its_projections_at_every_position(layer):
    done = work_of(layer.to("meta"), (8, 6, 5))
    weights = sum(part.weight.numel() for part in layer.modules() if isinstance(part, nn.Linear))
    assert done.linear == 30 * weights
    assert done.products > 0


def test_a_definition_counts_every_product_of_weights_and_values():
    n, space = 30, (8, 6, 5)
    assert work_of(foveal.ExplicitAttention(8, 6, heads=2).to("meta"), space).products == n * n * 6
    assert work_of(foveal.NonLocal(8, key_channels=2, value_channels=4).to("meta"), space).products == n * n * 6
    assert work_of(foveal.LocalAttention(8, 8, kernel_size=3, heads=2).to("meta"), space).products == n * 8 * 9 * 3
    positions = foveal.LocalAttention(8, 8, kernel_size=3, heads=2, content=False).to("meta")
    assert work_of(positions, space).products == n * 8 * 9 * 2


def test_a_strided_attention_is_counted_after_its_pool_by_aa_net_s_rule():
    strided = foveal.AugmentedAttention(8, 4, key_channels=8, heads=2, stride=2).to("meta")
    done = work_of(strided, (8, 6, 6))
    assert done.early == done.linear * 27 // 36
    assert AA_NET.read(Tally(0, 0, done)) == pytest.approx(2e-9 * done.linear / 4)


def test_work_inside_an_attention_layer_is_counted_once():
    layer = foveal.EfficientAttention(8, key_channels=4).to("meta")
    alone = work_of(layer, (8, 4, 4))
    assert work_of(nn.Sequential(layer, nn.ReLU()), (8, 4, 4)) == alone + Work(activated=8 * 16)


@pytest.mark.parametrize("formula", [*formulas.EFFICIENT, *formulas.EXPLICIT], ids=lambda f: f"{f.row}-{f.column}")
def test_every_formula_of_the_cost_tables_is_what_is_counted_or_says_why_not(formula):
    if formula.value is None:
        assert formula.why
        return
    sizes = formulas.SIZES if formula in formulas.EFFICIENT else formulas.HEADED
    agrees = all(formula.counted(s) == formula.value(s) for s in sizes)
    assert agrees != bool(formula.why)


def test_figure_3_is_table_1_at_the_sizes_of_the_text():
    bars = {bar.space: bar for bar in figure_3()}
    assert bars[64, 64].non_local_bytes / bars[64, 64].efficient_bytes == pytest.approx(17, abs=0.1)
    assert bars[256, 256].non_local_bytes == pytest.approx(17.2e9, rel=0.005)
    assert bars[256, 256].non_local_operations == pytest.approx(2 * 412e9, rel=0.005)
    assert bars[64, 64, 32].non_local_bytes / bars[64, 64, 32].efficient_bytes == pytest.approx(513, abs=0.1)


REPRODUCES = {
    ("explicit", "2"): {"parameters", "FLOPs"},
    ("explicit", "3"): {"parameters"},
    ("explicit", "4"): {"parameters"},
    ("augmented", "ImageNet"): {"parameters"},
    ("augmented", "ratios"): {"parameters"},
    ("local", "1"): {"parameters"},
    ("local", "3"): {"parameters"},
    ("external", "ImageNet"): {"parameters"},
    ("external", "PCT"): {"parameters"},
}
CUT_OFF = {
    ("local", "1", "ResNet-38 conv stem + attention"),
    ("local", "1", "ResNet-38 full attention"),
    ("local", "3", "convolution in 34, attention in 12"),
    ("local", "6", "positions only"),
}


def test_every_count_that_is_known_to_reproduce_is_equal(cells):
    # CIFAR-10's parameters are those of the 100-way network in the paper.
    asked = [
        cell
        for cell in cells
        if cell.column in REPRODUCES.get((cell.paper, cell.table), ())
        and cell.published
        and not (cell.title.endswith("CIFAR-10") and cell.column == "parameters")
        and (cell.paper, cell.table, cell.row) not in CUT_OFF
    ]
    assert len(asked) > 70
    assert [(cell.paper, cell.row, cell.ours) for cell in asked if cell.verdict is not EQUAL] == []


def test_the_parameters_of_stand_alone_attention_that_differ_were_cut_off(cells):
    found = {
        (cell.paper, cell.table, cell.row)
        for cell in cells
        if cell.paper == "local" and cell.column == "parameters" and cell.why.startswith(CUT)
    }
    assert found == CUT_OFF


def test_operations_are_a_tenth_of_a_g_apart_but_for_four_networks(cells):
    far = {
        cell.row
        for cell in cells
        if cell.column == "FLOPs"
        and cell.verdict not in (NOT_RUN, COUNTED)
        and not is_near(cell.published, cell.ours)
        and not cell.title.startswith("RetinaNet, COCO")
    }
    assert far == {"ResNet-38 full attention", "AA-WRN-28-10", "NPCT", "SPCT"}


def test_no_cell_lacks_a_source_a_verdict_or_a_reason(cells):
    for cell in cells:
        if cell.verdict is COUNTED:
            assert cell.ours is not None and cell.why == ALONE
            assert (cell.published, cell.difference, cell.source, cell.certainty) == ("", None, "", "")
            continue
        assert cell.published and cell.source and cell.certainty in ("high", "medium", "low")
        assert bool(cell.why) == (cell.verdict is not EQUAL), cell
        assert cell.why != UNKNOWN, cell
        assert (cell.ours is None) == (cell.verdict is NOT_RUN), cell
        assert cell.ours is None or math.isfinite(cell.ours)


def test_the_summary_counts_every_cell_once(cells):
    total = summary(cells)
    assert total.cells == len(cells) == total.equal + total.differs + total.not_run + total.counted


def test_every_model_that_a_row_names_is_there():
    named = {row.model for _, tables in PAPERS.values() for table in tables for row in table.rows if row.model}
    assert sorted(name for name in named if not timm.is_model(name) and not hasattr(foveal.models, name)) == []


def test_every_reason_is_for_a_column_that_the_table_has():
    for _, tables in PAPERS.values():
        for table in tables:
            columns = {column.name for column in table.columns} | {""}
            for row in table.rows:
                assert row.why.keys() | row.rules.keys() | row.sources.keys() | row.computed.keys() <= columns


def test_the_page_is_what_the_ledger_says_now(cells):
    from foveal.viz.ledger import markdown

    made = markdown(cells, "foveal ledger --markdown")
    assert PAGE.read_text(encoding="utf-8") == made, "Run: foveal ledger --markdown > docs/ledger.md"


SMALL = Table(
    "made up", "1", "A table", (Column("parameters", "M", MILLIONS), Column("top-1", "%", metric="accuracy")),
    (Row("ResNet18", "11.7 69.8", "resnet18"), Row("of nobody", "1.0 50.0", "foveal_of_nobody")), PAPER,
    data="imagenet",
)  # fmt: skip


def test_an_accuracy_is_not_run_without_a_run_and_compared_with_one():
    runs = [Run("resnet18", "imagenet", {"accuracy": 69.76}, 2, 90)]
    assert [cell.verdict for cell in row_cells(SMALL, SMALL.rows[0])] == [EQUAL, NOT_RUN]
    assert row_cells(SMALL, SMALL.rows[0])[1].why == "not run here"
    assert row_cells(SMALL, SMALL.rows[0], runs)[1].verdict is EQUAL
    lower = row_cells(SMALL, SMALL.rows[0], [Run("resnet18", "imagenet", {"accuracy": 60.0}, 1, 3)])[1]
    assert lower.verdict is DIFFERS
    assert lower.difference == pytest.approx(-9.8)
    assert lower.why == "your run: 3 epochs, 1 seed; training is not the paper's"


@pytest.mark.parametrize(("model", "data"), [("resnet18", "cifar10"), ("resnet34", "imagenet")])
def test_a_run_of_another_model_or_on_other_data_is_not_taken(model, data):
    runs = [Run(model, data, {"accuracy": 69.8}, 1, 90)]
    assert row_cells(SMALL, SMALL.rows[0], runs)[1].verdict is NOT_RUN


def test_a_model_that_is_not_there_is_named_as_the_reason():
    parameters, accuracy = row_cells(SMALL, SMALL.rows[1])
    assert parameters.why == "model not in foveal yet: foveal_of_nobody"
    assert accuracy.why == "not run here: model not in foveal yet: foveal_of_nobody"


def test_a_wrong_paper_is_named_with_those_there_are():
    with pytest.raises(OptionError, match=r"^ledger: there is no paper 'resnet'. Use one of explicit, augmented, "):
        ledger(["resnet"])


def test_progress_is_told_row_by_row():
    told = []
    ledger(["external"], tell=lambda done, total: told.append((done, total)))
    assert told[-1][0] == told[-1][1] == len(told)


def test_counting_leaves_no_hook_and_takes_no_memory():
    model = timm.create_model("resnet18")
    with torch.device("meta"):
        empty = timm.create_model("resnet18")
    work_of(empty, (3, 32, 32))
    assert not any(module._forward_hooks for module in empty.modules())
    assert all(parameter.is_meta for parameter in empty.parameters())
    assert sum(p.numel() for p in model.parameters()) == sum(p.numel() for p in empty.parameters())


def test_a_claim_of_more_holds_for_anything_larger():
    assert judge(">68", 68.9) == (EQUAL, "")
    assert judge(">68", 68.0, "why") == (DIFFERS, "why")
    assert is_figure(">3.2")


def test_plain_detectors_and_all_but_attention_of_unstated_widths_have_the_parameters_printed(cells):
    asked = [cell for cell in cells if cell.title.startswith("RetinaNet, COCO") and cell.column == "parameters"]
    differ = {(cell.paper, cell.row) for cell in asked if cell.verdict is not EQUAL}
    assert len(asked) == 12
    # The text has attention in the pyramid; with its convolutions kept the same rows are equal.
    heads = {("local", "attention, conv stem + attention"), ("local", "attention, full attention")}
    assert differ == heads | {("augmented", "AA-ResNet50"), ("augmented", "AA-ResNet101")}
    kept = {(cell.paper, cell.row) for cell in asked if cell.verdict is EQUAL and "kept" in cell.title}
    assert kept == heads


def test_plain_detectors_have_the_operations_printed(cells):
    plain = {"ResNet50", "ResNet101", "convolution, baseline", "convolution, full attention"}
    found = [
        cell.verdict
        for cell in cells
        if cell.title.startswith("RetinaNet, COCO") and cell.column == "FLOPs" and cell.row in plain
    ]
    assert found == [EQUAL] * 4


def test_a_table_without_memory_names_the_map_that_takes_it(cells):
    reasons = {cell.row: cell.why for cell in cells if cell.published == "OOM" and "Mask R-CNN" in cell.title}
    assert set(reasons) == {"NL at fpn1", "NL at fpn2"}
    assert "71680 x 71680 is 20.55 GB" in reasons["NL at fpn1"]
    assert "17920 x 17920 is 1.28 GB" in reasons["NL at fpn2"]


def test_modules_at_the_sites_of_the_detector_hold_the_floats_of_the_formulas(cells):
    assert [cell.verdict for cell in cells if cell.table == "sites"] == [EQUAL] * 18


# Counted on paper from the layout of the SAGAN of 32 pixels: multiply-accumulates of an image, then parameters.
C, D, LATENT, CLASSES = 256, 128, 128, 10


def attention_by_hand(c):
    """Queries and keys of an eighth, values of a half, and back; keys and values pooled from 16 x 16 to 8 x 8."""
    weights = c * c // 8 * 2 + c * c // 2 * 2
    return 256 * weights + 256 * 64 * (c // 8 + c // 2), weights + 1


def generator_by_hand():
    macs, weights = LATENT * C * 16, LATENT * C * 16 + C * 16
    for size in (8, 16, 32):
        # Both convolutions see the doubled map, the shortcut the map before.
        macs += 2 * size**2 * C * C * 9 + (size // 2) ** 2 * C * C
        weights += 2 * (C * C * 9 + C) + C * C + C + 4 * CLASSES * C
    attended = attention_by_hand(C)
    return macs + 32**2 * C * 3 * 9 + attended[0], weights + 2 * C + C * 3 * 9 + 3 + attended[1]


def discriminator_by_hand():
    macs = 32**2 * (3 + D) * D * 9 + 16**2 * 3 * D  # to 16 x 16, the shortcut after the pool
    macs += 2 * 16**2 * D * D * 9 + 8**2 * D * D + 4 * 8**2 * D * D * 9 + D
    weights = (3 + D) * D * 9 + 2 * D + 3 * D + D  # the first block
    weights += 6 * (D * D * 9 + D) + D * D + D + D + 1 + CLASSES * D
    attended = attention_by_hand(D)
    return macs + attended[0], weights + attended[1]


@pytest.mark.parametrize("part", PARTS)
def test_the_networks_of_sagan_cost_what_their_layout_comes_to_by_hand(cells, part):
    macs, weights = generator_by_hand() if part == "generator" else discriminator_by_hand()
    own = {
        cell.column: cell.ours
        for cell in cells
        if cell.title == "Image generation, CIFAR-10" and cell.row == "SAGAN" and cell.column.startswith(part)
    }
    assert own == {f"{part}, parameters": weights / 1e6, f"{part}, FLOPs": macs / 1e9}


@pytest.mark.parametrize("attention", ["none", "self"])
@pytest.mark.parametrize("part", PARTS)
def test_what_torch_counts_of_a_gan_is_what_the_ledger_has(part, attention):
    with torch.device("meta"):
        model, inputs = network(part, attention, 32, 10)
    done, counted = work_on(model, *inputs), count(model, inputs)
    # The largest singular value of each weight is found at every use, for however many images.
    norms = sum(each.macs for each in counted.modules if each.kind == "_SpectralNorm")
    # Fused attention fills queries and keys, an eighth, with zeros up to the values, a half of the channels.
    channels = C if part == "generator" else D
    filled = 256 * 64 * (channels // 2 - channels // 8) if attention == "self" else 0
    assert counted.macs == done.linear + done.products + norms + filled
    assert norms < 0.02 * counted.macs and counted.uncounted == ()


def test_what_torch_counts_of_a_part_segmenter_is_what_the_ledger_has():
    with torch.device("meta"):
        model, inputs = segmenter("offset")
    done, counted = work_on(model, *inputs), count(model, inputs)
    assert counted.macs == done.linear + done.products


def test_every_generator_discriminator_and_point_network_has_parameters_and_operations(cells):
    asked = [cell for cell in cells if cell.verdict is COUNTED]
    gans = {(cell.title, cell.row) for cell in asked if cell.table == "GAN"}
    assert len(gans) == 6 and len([cell for cell in asked if cell.table == "GAN"]) == 24
    points = [cell for cell in asked if cell.table in ("PCT", "parts")]
    assert len(asked) == 24 + len(points) and len(points) == 8
    assert all(cell.ours > 0 for cell in asked)
