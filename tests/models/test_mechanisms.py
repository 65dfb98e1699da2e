"""Each mechanism goes where its paper puts it, on every residual backbone, and says so where it cannot."""

import pytest
import timm
import torch
import torchvision
from torch import nn

from foveal.errors import NoMatchError, OptionError
from foveal.layers import AugmentedConv, LocalAttention
from foveal.models import MECHANISMS, with_attention
from foveal.models.places import Place, residual_blocks, sites_of
from foveal.tasks import settings

INSERTED = [name for name, row in MECHANISMS.items() if row.verb == "insert"]


def mini(**options):
    torch.manual_seed(1)
    return timm.create_model("foveal_resnet_mini", in_chans=1, num_classes=10, **options)


def test_the_names_known_without_torch_are_those_of_the_table():
    assert tuple(MECHANISMS) == settings.MECHANISMS


@pytest.mark.parametrize("name", MECHANISMS)
def test_every_mechanism_learns_in_the_small_backbone(name):
    model, x = mini(), torch.randn(3, 1, 8, 8)
    graft = with_attention(model, name, example=x)
    model(x).square().mean().backward()
    assert model.eval()(x).shape == (3, 10)
    missing = [key for key, p in model.named_parameters() if p.grad is None]
    assert not missing
    assert (graft is None) == (name == "none")


@pytest.mark.parametrize("name", ["cbam", "nonlocal", "augmented", "local", "external", "explicit"])
def test_plain_blocks_take_every_kind_of_place(name):
    model, x = timm.create_model("resnet18", num_classes=5), torch.randn(2, 3, 32, 32)
    assert with_attention(model, name, example=x) is not None
    assert model.eval()(x).shape == (2, 5)


def test_places_in_bottlenecks_are_those_of_the_papers():
    with torch.device("meta"):
        model = timm.create_model("resnet50")
    assert len(residual_blocks(model)) == 16
    assert sites_of(model, Place.LAST_NORMS, "se")[0] == "layer1.0.bn3"
    assert sites_of(model, Place.STAGES, "nonlocal") == ["layer2", "layer3"]
    convs = sites_of(model, Place.CONVS, "explicit")
    assert len(convs) == 13
    assert convs[0] == "layer2.0.conv2"
    assert len(sites_of(model, Place.ALL_CONVS, "local")) == 16


def test_places_in_plain_blocks_are_those_of_the_papers():
    model = torchvision.models.resnet34()
    assert sites_of(model, Place.LAST_NORMS, "se")[0] == "layer1.0.bn2"
    assert len(sites_of(model, Place.FIRST_CONVS, "augmented")) == 4 + 6 + 3
    assert len(sites_of(model, Place.CONVS, "explicit")) == 2 * (4 + 6 + 3)


@pytest.mark.parametrize(("backbone", "share"), [("resnet50", 16), ("resnet18", 32)])
def test_attention_makes_a_tenth_in_bottlenecks_and_a_quarter_in_plain_blocks(backbone, share):
    model = timm.create_model(backbone, num_classes=2)
    with_attention(model, "explicit", sites="layer2.1.conv2", example=torch.zeros(1, 3, 32, 32))
    conv = model.get_submodule("layer2.1.conv2")
    assert isinstance(conv, AugmentedConv)
    assert conv.conv.out_channels == 128 - share


@pytest.mark.parametrize("name", INSERTED)
def test_what_is_inserted_can_start_as_the_identity(name):
    model, x = mini().eval(), torch.randn(2, 1, 8, 8)
    before = model(x)
    with_attention(model, name, identity=True, example=x)
    assert torch.equal(model.eval()(x), before)


def test_sites_override_the_place():
    model = mini()
    graft = with_attention(model, "local", sites="layer3.*.conv2", example=torch.zeros(1, 1, 8, 8))
    assert list(graft.layers) == ["layer3.0.conv2"]
    assert isinstance(model.get_submodule("layer3.0.conv2"), LocalAttention)
    with pytest.raises(NoMatchError, match="layer9"):
        with_attention(mini(), "se", sites=["layer9"])


def test_an_unknown_mechanism_is_answered_with_the_nearest():
    with pytest.raises(OptionError, match=r"no mechanism 'explcit'. Did you mean explicit"):
        with_attention(mini(), "explcit")


def test_a_model_without_residual_blocks_asks_for_sites():
    model = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU())
    with pytest.raises(OptionError, match=r"Sequential has no residual blocks .* Name the modules with sites"):
        with_attention(model, "se")
    assert with_attention(model, "se", sites="0", example=torch.zeros(1, 1, 8, 8)) is not None
