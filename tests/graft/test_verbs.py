import copy
import pickle
import re

import pytest
import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from foveal import layers
from foveal.errors import OptionError, ShapeError
from foveal.graft import Tokens, augment_, insert_, replace_
from foveal.layers.augmented_conv import AugmentedConv
from foveal.layers.base import AttentionLayer

from .dummies import Block, Gate, Mean, Net, Sized, Twice, assert_same, states

X = torch.rand(2, 3, 10, 7, generator=torch.Generator().manual_seed(3))


def double(model):
    return model.double().eval()


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("verb", [replace_, insert_, augment_])
def test_every_verb_works_in_one_two_and_three_axes(verb, dims):
    model, x = Net(dims).eval(), torch.rand(2, 3, *(6, 5, 4)[:dims])
    before = model(x)
    options = {"ratio": 0.5} if verb is augment_ else {}
    graft = verb(model, "layer*.*.conv1", Mean, example=x, **options)
    assert len(graft.layers) == 3
    assert model(x).shape == before.shape
    assert not torch.equal(model(x), before)


def test_a_replaced_convolution_is_the_layer_itself():
    model = Net()
    graft = replace_(model, "layer2.0.conv1", Mean.like(), example=X)
    assert model.layer2[0].conv1 is graft.layers["layer2.0.conv1"]
    assert (model.layer2[0].conv1.value.in_features, model.layer2[0].conv1.stride) == (16, 2)


def test_an_inserted_layer_runs_after_its_module():
    model = double(Net())
    wanted = nn.Sequential(copy.deepcopy(model.layer1), layer := Mean(16, 16).double(), copy.deepcopy(model.layer2))
    insert_(model, "layer1", lambda site: layer, example=X.double())
    features = model.layer2(model.layer1(X.double()))
    torch.testing.assert_close(features, wanted(X.double()))


@pytest.mark.parametrize("where", ["layer1", "layer1.0", "layer1.0.conv2", "layer2.0.norm1", "drop"])
def test_an_insertion_that_starts_as_the_identity_changes_no_bit(where):
    model = Net().eval()
    before = model(X)
    graft = insert_(model, where, Mean, identity=True, example=X)
    assert torch.equal(model(X), before)
    scale = next(p for name, p in model.named_parameters() if name.endswith("scale"))
    nn.init.ones_(scale)
    assert not torch.equal(model(X), before)
    model(X).sum().backward()
    assert all(p.grad is not None for p in graft.layers[where].parameters())


def test_a_blend_of_scale_one_is_the_layer():
    model = Net().eval()
    insert_(model, "layer1", Mean, identity=True, example=X)
    blend = model.layer1.attention
    nn.init.ones_(blend.scale)
    y = torch.rand(2, 16, 4, 5)
    torch.testing.assert_close(blend(y), blend.layer(y))


def test_several_insertions_at_one_place_run_in_order():
    model = double(Net())
    block = copy.deepcopy(model.layer1[0])
    first, second = Mean(16, 16).double(), Mean(16, 16).double()
    insert_(model, "layer1.0", lambda site: first, example=X.double())
    insert_(model, "layer1.0", lambda site: second, example=X.double())
    torch.testing.assert_close(model.layer1[0](X.double()), second(first(block(X.double()))))


def test_a_layer_can_be_inserted_after_the_model_itself():
    for model in (nn.Sequential(nn.Conv2d(3, 4, 3)), Block(3, 4)):
        keys = list(model.state_dict())
        before = model.eval()(X)
        graft = insert_(model, "", Mean, identity=True, example=X)
        assert torch.equal(model(X), before)
        assert list(model.state_dict())[: len(keys)] == keys
        graft.undo()


def test_the_model_itself_cannot_be_replaced():
    with pytest.raises(ShapeError, match="it is the model itself"):
        replace_(nn.Conv2d(3, 4, 3), "", Mean, example=X)


def test_a_copy_runs_its_own_inserted_layer():
    model = Net().eval()
    insert_(model, "layer1.0", Mean, example=X)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(other(X), model(X))
        other.layer1[0].attention.value.weight.data.zero_()
        assert not torch.equal(other(X), model(X))


def test_hooks_of_a_new_process_do_not_displace_an_inserted_layer(monkeypatch):
    model = Net().eval()
    insert_(model, "layer1.0", Mean, example=X)
    wanted, saved = model(X), pickle.dumps(model)
    monkeypatch.setattr(RemovableHandle, "next_id", 0)  # as in a process that has registered no hook yet
    model = pickle.loads(saved)
    handles = [model.layer1[0].register_forward_hook(lambda *_: None) for _ in range(5000)]
    assert torch.equal(model(X), wanted)
    for handle in handles:
        handle.remove()
    assert torch.equal(model(X), wanted)


def test_other_hooks_see_the_output_of_the_inserted_layer():
    model, seen = Net().eval(), []
    model.layer1[1].register_forward_hook(lambda module, args, output: seen.append(output))
    model.layer2.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    insert_(model, "layer1.1", Mean, example=X)
    seen.clear()
    model(X)
    assert seen[0] is seen[1]


def test_an_inserted_model_compiles_in_one_graph():
    model = Net().eval()
    insert_(model, "layer1.0", Mean, identity=True, example=X)
    nn.init.normal_(model.layer1[0].attention.scale)
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(X), model(X))
    with pytest.raises(OptionError, match="insert_: the model was compiled by torch.compile .* is model._orig_mod"):
        insert_(compiled, "layer1", Mean, example=X)


def test_a_shared_module_is_replaced_under_every_name_by_one_layer():
    model = Twice()
    graft = replace_(model, "second", Mean, example=X)
    assert model.first is model.second
    assert graft.new == ("first.value.weight", "first.value.bias", "second.value.weight", "second.value.bias")
    assert graft.rows[0].macs_after == 2 * 8 * 8 * 2 * 70
    graft.undo()
    assert isinstance(model.second, nn.Conv2d)
    assert model.first is model.second


def test_an_augmented_convolution_keeps_its_first_filters():
    model = Net().eval()
    whole = model.layer1[0].conv1
    graft = augment_(model, "layer1.0.conv1", Mean, ratio=0.5, example=X)
    augmented = model.layer1[0].conv1
    assert isinstance(augmented, AugmentedConv)
    assert torch.equal(augmented.conv.weight, whole.weight[:8])
    torch.testing.assert_close(augmented(X)[:, :8], whole(X)[:, :8])
    torch.testing.assert_close(augmented(X)[:, 8:], graft.layers["layer1.0.conv1"](X))
    assert augmented.attention_map(X, at=(1, 2)).shape == (2, 1, 10, 7)
    assert graft.moved == {
        "layer1.0.conv1.weight": "layer1.0.conv1.conv.weight",
        "layer1.0.conv1.bias": "layer1.0.conv1.conv.bias",
    }
    assert graft.dropped == ()


@pytest.mark.parametrize(
    ("options", "count"),
    [
        ({"ratio": 0.1}, 8),
        ({"ratio": 0.7}, 16),
        ({"ratio": 0.1, "multiple_of": 3}, 3),
        ({"channels": 5}, 5),
        ({"channels": lambda site: site.channels_out // 2}, 12),
    ],
)
def test_attention_channels_follow_the_ratio_or_the_number(options, count):
    model = Net()
    augment_(model, "layer2.0.conv2", Mean, example=X, **options)
    assert model.layer2[0].conv2.attention.value.out_features == count


@pytest.mark.parametrize("options", [{}, {"ratio": 0.1, "channels": 4}, {"ratio": 1.0}, {"ratio": -1}, {"channels": 0}])
def test_a_share_of_channels_that_makes_no_sense_is_an_error(options):
    with pytest.raises(OptionError, match="augment_: "):
        augment_(Net(), "layer2.0.conv2", Mean, example=X, **options)


@pytest.mark.parametrize(
    ("module", "reason"),
    [
        (nn.Conv2d(8, 16, 3, groups=2), "grouped"),
        (nn.Conv2d(8, 8, 3, groups=8), "depthwise"),
        (nn.ConvTranspose2d(8, 8, 3), "a ConvTranspose2d has no filters to split"),
        (nn.utils.parametrizations.weight_norm(nn.Conv2d(8, 16, 3)), "parametrization"),
        (nn.Conv2d(8, 8, 1), "leave none of its 8 filters"),
    ],
)
def test_a_convolution_that_cannot_be_split_is_refused_with_the_reason(module, reason):
    model = nn.Sequential(nn.Conv2d(3, 8, 1), module)
    with pytest.raises(ShapeError, match=reason):
        augment_(model, "1", Mean, channels=8, example=X)


def test_a_graft_in_inference_mode_is_refused():
    model = Net()
    told = r"insert_: layers built inside torch.inference_mode\(\) could never be trained. Leave the region to graft"
    with torch.inference_mode(), pytest.raises(OptionError, match=told):
        insert_(model, "layer1", Mean, example=X)


def test_a_compiled_part_is_refused():
    model = Net()
    model.layer1 = torch.compile(model.layer1)
    with pytest.raises(
        OptionError, match="the module 'layer1' was compiled .* Graft first, then compile: .* layer1._o"
    ):
        insert_(model, "layer2", Mean, example=X)
    model = Net()
    model.layer1.compile()
    with pytest.raises(OptionError, match="the module 'layer1' was compiled in place .* Graft first, then compile"):
        insert_(model, "layer2", Mean, example=X)
    model = Net()
    model.compile()
    with pytest.raises(OptionError, match="the model was compiled in place .* Graft first, then compile"):
        insert_(model, "layer2", Mean, example=X)


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_a_scripted_model_is_refused():
    scripted = torch.jit.trace(Net().eval(), X)
    with pytest.raises(OptionError, match="the model was scripted and cannot be changed. Graft first, then script"):
        insert_(scripted, "layer2", Mean, example=X)


@pytest.mark.parametrize(
    ("layer", "told"), [(None, "None"), (3, "3"), ("se", "'se'"), (nn.ReLU, "the class ReLU"), (Net, "the class Net")]
)
def test_what_builds_no_layer_is_told_plainly(layer, told):
    wanted = f"replace_: wants what builds a layer for a site, got {told}. Pass an AttentionLayer class, Layer.like"
    with pytest.raises(OptionError, match=re.escape(wanted)):
        replace_(Net(), "layer1", layer, example=X)


LAYERS = [layer for layer in vars(layers).values() if isinstance(layer, type) and issubclass(layer, AttentionLayer)]


@pytest.mark.parametrize("layer", [layer for layer in LAYERS if layer is not AttentionLayer])
def test_a_misspelt_option_is_named_with_its_layer(layer):
    told = rf"insert_: the layer for 'layer1' cannot be built: .*{layer.__name__}.*'haeds'"
    with pytest.raises(OptionError, match=told):
        insert_(Net(), "layer1", layer.like(haeds=2), example=X)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"ratio": "a"}, "ratio must be a number between 0 and 1, both excluded, got 'a'. Pass 0.25 for a quarter"),
        ({"ratio": 1.0}, "ratio must be a number between 0 and 1, both excluded, got 1.0."),
        ({"ratio": 0.5, "multiple_of": 2.5}, "multiple_of must be a whole number, 1 or more, got 2.5. Pass 1"),
        ({"ratio": 0.5, "multiple_of": True}, "multiple_of must be a whole number, 1 or more, got True."),
        ({"channels": "a"}, "channels must be a whole number, 1 or more, or a function of the site, got 'a'."),
        ({"channels": lambda site: 0.5}, "channels must give a whole number, 1 or more, got 0.5 for 'layer1.0.conv1'."),
        ({"channels": lambda: 8}, "channels failed on site 'layer1.0.conv1': TypeError: "),
    ],
)
def test_an_option_of_the_wrong_kind_is_named(options, told):
    with pytest.raises(OptionError, match=f"augment_: {re.escape(told)}"):
        augment_(Net(), "layer1.0.conv1", Mean, example=X, **options)


def test_the_identity_is_a_yes_or_no():
    with pytest.raises(OptionError, match="insert_: identity must be True or False, got 'yes'."):
        insert_(Net(), "layer1", Mean, identity="yes", example=X)


def test_a_layer_of_another_library_is_built_from_the_site():
    model = Net().eval()
    graft = insert_(model, "layer*", lambda site: Gate(site.channels_out), identity=True, example=X)
    assert [type(layer) for layer in graft.layers.values()] == [Gate, Gate]


def test_a_layer_sees_the_site_it_will_stand_at():
    seen = []

    def note(site):
        seen.append((site.name, site.channels_in, site.channels_out, site.stride, site.size, site.size_out))
        return Mean.from_site(site)

    replace_(Net(), "layer2.0.conv1", note, example=X)
    insert_(Net(), "layer2.0.conv1", note, example=X)
    augment_(Net(), "layer2.0.conv1", note, channels=7, example=X)
    name = "layer2.0.conv1"
    assert seen == [
        (name, 16, 24, 2, (10, 7), (5, 4)),
        (name, 24, 24, 1, (5, 4), (5, 4)),
        (name, 16, 7, 2, (10, 7), (5, 4)),
    ]


def half_way(site):
    if site.name == "layer2.0.conv2":
        raise RuntimeError("no such thing")
    return Mean.from_site(site)


@pytest.mark.parametrize(
    ("verb", "where", "layer", "told"),
    [
        (
            replace_,
            "layer*.*.conv2",
            half_way,
            "the layer for 'layer2.0.conv2' cannot be built: RuntimeError: no such thing",
        ),
        (
            replace_,
            "layer*.*.conv1",
            lambda site: Mean(16, 16),
            "'layer1.0.conv1' .it fails on an input of .2, 3, 10, 7.: ",
        ),
        (replace_, "layer2.0.conv1", lambda site: Mean(16, 24), r"needs \(2, 24, 5, 4\).*turns \(2, 16, 10, 7\) into"),
        (insert_, ["layer1", "head"], Mean, "of which 1 cannot take the layer: 'head'"),
        (insert_, "layer*", lambda site: nn.MaxPool2d(2), r"needs \(2, 16, 10, 7\) there"),
        (insert_, "layer*", lambda site: None, "must be an nn.Module, got a NoneType"),
        (insert_, "layer*", nn.Identity(), "got a module that is already built, of the class Identity"),
        (augment_, "layer*.*", Mean, "a Block has no filters to split"),
    ],
)
def test_a_failure_leaves_the_model_untouched(verb, where, layer, told):
    model = Net()
    model.layer1.eval()
    model.layer2.requires_grad_(False)
    before = states(model)
    with pytest.raises((ShapeError, OptionError), match=told):
        verb(model, where, layer, example=X, **({"channels": 4} if verb is augment_ else {}))
    assert_same(before, states(model))


def test_a_layer_that_needs_a_size_asks_for_an_example_where_the_model_cannot_be_traced():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 8, 3, 1, 1)

        def forward(self, x, needed):
            return self.conv(x) + needed

    with pytest.raises(ShapeError, match=r"needs the size of the map.*could not be traced.*pass example="):
        replace_(Odd(), "conv", Sized)
    replace_(Odd(), "conv", Sized, example=(X, 1))
    graft = replace_(Odd(), "conv", Mean)
    assert "?" in str(graft)


def test_a_new_layer_takes_the_mode_dtype_and_place_of_the_old_one():
    model = Net().double()
    model.layer1.eval()
    insert_(model, "layer*", Mean, identity=True, example=X.double())
    assert not any(module.training for module in model.layer1.attention.modules())
    assert all(module.training for module in model.layer2.attention.modules())
    assert all(p.dtype == torch.float64 for p in model.parameters())


def test_a_builder_may_wrap_the_old_module():
    model = Net().eval()
    before = model(X)
    graft = replace_(model, "layer1.0.conv2", lambda site: nn.Sequential(site.module, nn.Identity()), example=X)
    assert torch.equal(model(X), before)
    assert graft.moved == {"layer1.0.conv2.weight": "layer1.0.conv2.0.weight"}
    assert graft.new == graft.dropped == ()


def test_tokens_are_a_map_with_one_axis():
    model = nn.Sequential(nn.Linear(3, 6), nn.LayerNorm(6), nn.Linear(6, 4)).eval()
    x = torch.rand(2, 9, 3)
    graft = insert_(model, "1", Mean, example=x)
    assert isinstance(model[1].attention, Tokens)
    assert graft.rows[0].size == (9,)
    assert graft.rows[0].after == "LayerNorm → Mean on tokens"
    y = torch.rand(2, 9, 6)
    torch.testing.assert_close(model[1].attention(y), graft.layers["1"](y.mT).mT)


def test_layers_follow_the_fused_encoder_layers_of_torch():
    encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 2, 32, batch_first=True), 2).eval()
    x = torch.rand(2, 5, 16)
    with torch.no_grad():
        before = encoder(x)
        graft = insert_(encoder, "layers.*", Mean, example=x)
        assert graft.rows[0].macs_before == 5 * 2 * (4 * 16 * 16 + 2 * 16 * 32 + 2 * 5 * 16)
        assert not torch.allclose(encoder(x), before)


def test_a_place_called_with_more_than_its_input_is_refused_only_if_the_rest_says_something():
    class Masked(nn.Module):
        def __init__(self, mask):
            super().__init__()
            self.inner, self.conv, self.mask = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1), mask
            self.inner.forward = lambda x, mask: nn.Conv2d.forward(self.inner, x)

        def forward(self, x):
            return self.inner(self.conv(x), mask=self.mask)

    with pytest.raises(ShapeError, match="with more than its input, mask"):
        replace_(Masked(torch.ones(1)), "inner", Mean, example=X)
    model = Masked(None)
    replace_(model, "inner", Mean, example=X)
    model(X)
    model.mask = torch.ones(1)
    with pytest.raises(OptionError, match="now mask came too"):
        model(X)


def test_a_container_that_runs_all_its_children_is_refused():
    class Chain(nn.ModuleDict):
        def forward(self, x):
            for layer in self.values():
                x = layer(x)
            return x

    class Loop(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 1)

        def forward(self, x):
            for layer in self.children():
                x = layer(x)
            return x

    for inner in (Chain({"conv": nn.Conv2d(3, 3, 1)}), Loop()):
        with pytest.raises(ShapeError, match="it would run the new layer as one of them"):
            insert_(nn.Sequential(inner), "0", Mean, example=X)


def test_a_module_that_is_never_run_is_refused():
    class Lists(nn.Module):
        def __init__(self):
            super().__init__()
            self.parts = nn.ModuleList([nn.Conv2d(3, 3, 1)])
            self.spare = nn.Conv2d(3, 3, 1)

        def forward(self, x):
            return self.parts[0](x)

    with pytest.raises(ShapeError, match=r"'spare' \(the model never runs it itself"):
        replace_(Lists(), "spare", Mean, example=X)
    with pytest.raises(ShapeError, match=r"'parts' \(it is a list of modules"):
        insert_(Lists(), "parts", Mean, example=X)
