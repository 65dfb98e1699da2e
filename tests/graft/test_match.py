import pytest
import torch
from torch import nn

from foveal.errors import NoMatchError, OptionError, ShapeError
from foveal.graft import insert_, replace_
from foveal.graft.match import matches

from .dummies import Block, Mean, Net


@pytest.mark.parametrize(
    ("glob", "name", "does"),
    [
        ("layer*.*.conv2", "layer1.0.conv2", True),
        ("layer*.*.conv2", "layer1.0.branch.conv2", False),
        ("layer[2-4].*.conv2", "layer1.0.conv2", False),
        ("layer[2-4].*.conv2", "layer4.11.conv2", True),
        ("layer[!1].*", "layer2.0", True),
        ("layer[!1].*", "layer1.0", False),
        ("layer?", "layer1", True),
        ("layer?", "layer.", False),
        ("*", "layer1.0", False),
        ("**", "layer1.0", True),
        ("**.conv2", "conv2", True),
        ("**.conv2", "a.b.conv2", True),
        ("**.conv2", "a.myconv2", False),
        ("backbone.**.conv2", "backbone.conv2", True),
        ("a.b", "aXb", False),
    ],
)
def test_a_star_stays_between_dots_and_two_cross_them(glob, name, does):
    assert matches(glob, name) is does


@pytest.mark.parametrize(
    ("where", "sites"),
    [
        ("layer1.*.conv2", ["layer1.0.conv2", "layer1.1.conv2"]),
        (["layer2.0.conv1", "layer1.0.conv2"], ["layer1.0.conv2", "layer2.0.conv1"]),
        (nn.Dropout, ["drop"]),
        ((Block, "drop"), ["layer1.0", "layer1.1", "layer2.0", "drop"]),
        (lambda site: site.stride == 2 and isinstance(site.module, nn.Conv2d), ["layer2.0.conv1"]),
        (lambda site: site.size == (31, 31) and isinstance(site.module, nn.BatchNorm2d), []),
    ],
)  # fmt: skip
def test_places_are_meant_by_glob_type_or_predicate(where, sites):
    if not sites:
        with pytest.raises(NoMatchError, match=r"predicate holds for none of the \d+ sites"):
            insert_(Net(), where, Mean)
    else:
        assert [row.site for row in insert_(Net(), where, Mean).rows] == sites


def test_a_misspelt_pattern_names_the_nearest_names():
    with pytest.raises(NoMatchError, match=r"replace_: no module is named like 'layer1.0.con2'. .*layer1.0.conv2"):
        replace_(Net(), "layer1.0.con2", Mean)


def test_a_pattern_for_a_wrapped_model_points_to_the_inner_one():
    told = "no module is named like 'layer1'. The model is wrapped by DataParallel: graft the inner one, model.module"
    with pytest.raises(NoMatchError, match=told):
        insert_(nn.DataParallel(Net()), "layer1", Mean)


def test_a_pattern_for_a_distributed_model_points_to_the_inner_one(tmp_path):
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        wrapped = nn.parallel.DistributedDataParallel(Net())
        with pytest.raises(NoMatchError, match="wrapped by DistributedDataParallel: graft the inner one, model.module"):
            insert_(wrapped, "layer1", Mean)
    finally:
        torch.distributed.destroy_process_group()


def test_one_misspelt_pattern_in_a_list_is_an_error():
    with pytest.raises(NoMatchError, match="layer9"):
        replace_(Net(), ["layer1.0.conv2", "layer9.*"], Mean)


def test_a_type_that_is_not_there_names_the_nearest_types():
    with pytest.raises(NoMatchError, match=r"the model has no Conv3d. The nearest types are Conv2d"):
        replace_(Net(), nn.Conv3d, Mean)


@pytest.mark.parametrize(
    ("where", "told"),
    [
        (lambda site: 1 / 0, "ZeroDivisionError: division by zero. Pass a function of one Site that returns True"),
        (lambda: True, r"TypeError: .*takes 0 positional arguments but 1 was given"),
        (lambda site: torch.zeros(2), "RuntimeError: Boolean value of Tensor"),
    ],
)
def test_a_predicate_that_fails_names_the_site(where, told):
    with pytest.raises(OptionError, match=rf"insert_: the predicate failed on site 'layer1': {told}") as caught:
        insert_(Net(), where, Mean)
    assert caught.value.__cause__ is not None


@pytest.mark.parametrize("where", [None, [], ()])
def test_no_pattern_is_another_error_than_no_match(where):
    with pytest.raises(OptionError, match="no place was given"):
        replace_(Net(), where, Mean)


def test_matching_only_what_cannot_take_a_layer_is_a_third_error():
    with pytest.raises(
        ShapeError, match=r"'head' matches only modules that cannot take the layer: 'head' \(it takes \(1, 24\)"
    ):
        replace_(Net(), "head", Mean)


def test_matching_some_that_cannot_take_a_layer_names_those():
    with pytest.raises(ShapeError, match=r"matches 3 modules, of which 1 cannot take the layer: 'head'"):
        replace_(Net(), ["layer1.*.conv2", "head"], Mean)


def test_a_place_inside_a_replaced_place_is_refused():
    with pytest.raises(ShapeError, match=r"'layer2.0.conv1'.*inside 'layer2'"):
        replace_(Net(), ["layer2", "layer2.0.conv1"], Mean)
