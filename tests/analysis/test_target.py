"""A name finds the one thing it stands for, or the error tells the nearest."""

from urllib.error import URLError

import pytest
from torch import nn

import foveal
from foveal.analysis.target import check_size, find, parse_options
from foveal.errors import NoMatchError, OptionError, ShapeError
from foveal.layers.registry import REGISTRY


@pytest.mark.parametrize("name", ["local", "LocalAttention", "localattention"])
def test_a_layer_has_the_name_of_its_row_and_of_its_class(name):
    target = find(name, channels=32, options={"heads": 4})
    layer = target.build((5, 7))
    assert isinstance(layer, foveal.LocalAttention)
    assert (target.name, layer.channels, layer.channels_out, layer.heads) == ("local", 32, 32, 4)


@pytest.mark.parametrize("row", REGISTRY, ids=lambda row: row.name)
@pytest.mark.parametrize("size", [(4, 6), (3, 4, 2)])
def test_every_row_is_built_for_the_axes_of_its_size(row, size):
    layer = find(row.name).build(size)
    assert isinstance(layer, row.layer)
    assert getattr(layer, "dims", len(size)) == len(size)


def test_relative_positions_of_augmented_attention_fit_the_size():
    layer = find("augmented").build((4, 6))
    assert [len(table[0]) for table in layer.relative] == [7, 11]


def test_a_model_of_timm_brings_its_own_size_and_channels():
    target = find("resnet18")
    assert (target.channels, target.default) == (3, (224, 224))
    assert find("resnet18", channels=1).build((8, 8)).conv1.in_channels == 1
    assert find("vit_tiny_patch16_224", options={"img_size": 64}).default == (64, 64)


def test_a_callable_is_imported_and_called_with_the_options():
    model = find("torch.nn:Conv2d", options=parse_options(["in_channels=3", "out_channels=5", "kernel_size=1"]))
    assert isinstance(model.build((4, 4)), nn.Conv2d)


@pytest.mark.parametrize(
    ("name", "kind", "told"),
    [
        ("lokal", NoMatchError, "find: neither foveal nor timm has a layer or model 'lokal'. Did you mean local"),
        ("resnet5", NoMatchError, "find: neither foveal nor timm has a layer or model 'resnet5'. Did you mean resnet5"),
        ("no.such:Thing", NoMatchError, "find: 'no.such:Thing' cannot be imported: ModuleNotFoundError"),
        ("torch.nn:NoSuch", NoMatchError, "find: 'torch.nn:NoSuch' cannot be imported: AttributeError"),
        ("torch:__version__", OptionError, "find: torch:__version__ is a TorchVersion, not a callable"),
        ("builtins:dict", OptionError, "find: builtins:dict made a dict, a torch.nn.Module is wanted."),
        ("torch.nn:Linear", OptionError, "find: torch.nn:Linear cannot be made of no options: "),
    ],
)
def test_a_name_that_is_nothing_is_told_in_a_sentence(name, kind, told):
    with pytest.raises(kind) as raised:
        find(name)
    assert str(raised.value).startswith(told)


def test_an_option_that_a_layer_lacks_is_told_with_the_nearest():
    with pytest.raises(
        OptionError, match=r"^LocalAttention: there is no option 'kernelsize'. Did you mean kernel_size"
    ):
        find("local", options={"kernelsize": 3})
    with pytest.raises(OptionError, match=r"^find: resnet18 cannot be made of colour=3"):
        find("resnet18", options={"colour": 3})
    with pytest.raises(OptionError, match=r"^local: --channels must be at least 1, got 0"):
        find("local", channels=0)


def fetching():
    raise URLError("no route")


def test_weights_that_do_not_come_are_told_with_what_leaves_them_out():
    with pytest.raises(OptionError, match=r"fetches weights, and they do not come: .*no route.* weights_backbone=None"):
        find(f"{__name__}:fetching")


def test_options_are_literals_or_words():
    assert parse_options(["a=3", "b=True", "c=(1,2)", "d=mask", "e="]) == {
        "a": 3, "b": True, "c": (1, 2), "d": "mask", "e": "",
    }  # fmt: skip
    with pytest.raises(OptionError, match=r"^options: 'heads' must be name=value"):
        parse_options(["heads"])


def test_one_number_is_a_square_and_a_size_is_positive():
    assert check_size((7,)) == (7, 7) and check_size((3, 5)) == (3, 5)
    for size in [(), (0,), (3, -1), (1, 2, 3, 4)]:
        with pytest.raises(ShapeError, match=r"^foveal: --size must be one to three positive numbers, got "):
            check_size(size)
