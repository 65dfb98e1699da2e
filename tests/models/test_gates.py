"""ResNets with channel gates: the printed counts, the place of a gate, the details of the authors' codes."""

import pytest
import timm
import torch

import foveal.models  # noqa: F401  registers them
from foveal.errors import OptionError
from foveal.models.catalog import CATALOG

MILLIONS = {
    "se": {34: 22.0, 50: 28.1, 101: 49.3, 152: 66.8},
    "cbam": {34: 22.0, 50: 28.1, 101: 49.3},
}
PLAIN = {34: 21_797_672, 50: 25_557_032, 101: 44_549_160, 152: 60_192_808}
ECA_IN_UNITS_OF_2_20 = {34: 20.79, 50: 24.37, 101: 42.49, 152: 57.40}
GATED = [f"foveal_{gate}_resnet{depth}" for gate in ("se", "eca", "cbam") for depth in PLAIN]


def on_meta(name, **options):
    with torch.device("meta"):
        return timm.create_model(name, **options)


def parameters(model):
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("name", GATED)
def test_counts_are_those_of_the_table(name):
    assert parameters(on_meta(name)) == CATALOG[name].parameters


@pytest.mark.parametrize(("gate", "depth"), [(gate, depth) for gate in MILLIONS for depth in MILLIONS[gate]])
def test_counts_are_those_that_the_papers_print(gate, depth):
    assert round(CATALOG[f"foveal_{gate}_resnet{depth}"].parameters / 1e6, 1) == MILLIONS[gate][depth]


@pytest.mark.parametrize("depth", PLAIN)
def test_se_prints_the_same_without_biases(depth):
    count = parameters(on_meta(f"foveal_se_resnet{depth}", bias=False))
    assert count < CATALOG[f"foveal_se_resnet{depth}"].parameters
    assert round(count / 1e6, 1) == MILLIONS["se"][depth]


@pytest.mark.parametrize("depth", PLAIN)
def test_eca_is_counted_in_units_of_2_20_and_is_never_smaller_than_the_plain_network(depth):
    count = CATALOG[f"foveal_eca_resnet{depth}"].parameters
    assert round(count / 2**20, 2) == ECA_IN_UNITS_OF_2_20[depth]
    assert 0 < count - PLAIN[depth] < 250


@pytest.mark.parametrize(("depth", "sizes"), [(34, [3, 3, 5, 7]), (50, [3, 5, 5, 7]), (101, [3, 3, 5, 7])])
def test_eca_has_the_kernels_of_the_released_networks(depth, sizes):
    model = on_meta(f"foveal_eca_resnet{depth}")
    assert [model.get_submodule(f"layer{stage}.0.se.conv").kernel_size[0] for stage in (1, 2, 3, 4)] == sizes


def test_eca_takes_the_kernels_of_its_formula_and_refuses_even_ones():
    model = on_meta("foveal_eca_resnet50", kernel_sizes=(5, 5, 5, 7))
    assert model.get_submodule("layer1.2.se.conv").kernel_size == (5,)
    with pytest.raises(OptionError, match=r"^eca_resnet: kernel_sizes must be four odd sizes, one a stage, got \(3, 4"):
        on_meta("foveal_eca_resnet50", kernel_sizes=(3, 4, 5, 7))


@pytest.mark.parametrize("gate", ["se", "eca", "cbam"])
@pytest.mark.parametrize(("depth", "norm"), [(34, "bn2"), (50, "bn3")])
def test_a_gate_follows_the_last_norm_of_every_block(gate, depth, norm):
    model = timm.create_model(f"foveal_{gate}_resnet{depth}", num_classes=2).eval()
    given, taken = {}, {}
    for name, part in model.named_modules():
        block = name.rpartition(".")[0]
        if name.endswith(f".{norm}"):
            part.register_forward_hook(lambda _, args, out, block=block: given.update({block: out}))
        if name.endswith(".se"):
            part.register_forward_hook(lambda _, args, out, block=block: taken.update({block: args[0]}))
    model(torch.zeros(1, 3, 33, 32))
    assert len(taken) == 16
    assert all(taken[block] is given[block] for block in taken)


def test_weights_of_timms_own_gated_network_load():
    assert set(on_meta("seresnet50").state_dict()) == set(on_meta("foveal_se_resnet50").state_dict())


def test_spatial_gates_of_cbam_start_at_a_half():
    gate = timm.create_model("foveal_cbam_resnet34").get_submodule("layer2.0.se")
    x = torch.randn(2, 128, 5, 7)
    torch.testing.assert_close(gate.spatial(x), x / 2)
    assert gate.spatial.conv.bn.momentum == 0.01


@pytest.mark.parametrize("gate", ["se", "eca", "cbam"])
def test_every_parameter_learns_from_images_of_odd_size(gate):
    model = timm.create_model(f"foveal_{gate}_resnet34", num_classes=5, in_chans=2, zero_init_last=False)
    model(torch.randn(2, 2, 65, 48)).square().mean().backward()
    dead = [key for key, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert not dead
    assert all(p.grad.any() for key, p in model.named_parameters() if ".se." in key and ".spatial.conv.conv" not in key)
