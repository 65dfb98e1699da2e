"""The small backbones are timm models like any other."""

import pytest
import timm
import torch

import foveal.models  # noqa: F401  registers them


@pytest.mark.parametrize(
    ("name", "size", "sizes"),
    [
        ("foveal_resnet_mini", 8, [8, 4, 4]),
        ("foveal_resnet_mini_s2", 64, [32, 16, 16]),
        ("foveal_resnet_mini_s2_deep", 64, [32, 16, 16]),
    ],
)
def test_stages_have_the_sizes_that_their_name_says(name, size, sizes):
    model = timm.create_model(name, in_chans=1, num_classes=3).eval()
    x = torch.randn(2, 1, size, size)
    assert model(x).shape == (2, 3)
    features = timm.create_model(name, in_chans=1, features_only=True, out_indices=(1, 2, 3)).eval()
    maps = features(x)
    assert [m.shape[-1] for m in maps] == sizes
    assert [size // r for r in features.feature_info.reduction()] == sizes
    assert [m.shape[1] for m in maps] == features.feature_info.channels()


def test_the_fourth_stage_of_timm_leaves_no_trace_in_the_model():
    names = dict(timm.create_model("foveal_resnet_mini").named_modules())
    assert "layer3.0.bn3" in names
    assert not any(name.startswith("layer4") for name in names)


def test_weights_are_drawn_alike_from_one_seed():
    def drawn():
        torch.manual_seed(3)
        return timm.create_model("foveal_resnet_mini", num_classes=4).state_dict()

    one, two = drawn(), drawn()
    assert all(torch.equal(one[key], two[key]) for key in one)


@pytest.mark.parametrize(("name", "pixels"), [("foveal_resnet_mini_s2", 19), ("foveal_resnet_mini_s2_deep", 47)])
def test_a_position_of_the_last_map_sees_as_many_pixels_as_the_docs_say(name, pixels):
    model = timm.create_model(name, in_chans=1, num_classes=2).double().eval()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.ones_(module.weight)  # timm starts the last norm of a block at zero
    x = torch.randn(1, 1, 97, 97, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(model.forward_features(x)[0, :, 12, 12].sum(), x)
    rows = gradient[0, 0].any(1).nonzero()
    assert int(rows.max() - rows.min()) + 1 == pixels
