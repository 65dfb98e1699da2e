"""Small layers and models that stand in for real ones."""

import torch
from torch import nn

from foveal.errors import ShapeError
from foveal.layers.base import AttentionLayer


class Mean(AttentionLayer):
    """Every position gets a projection of itself and of the mean of all positions."""

    def __init__(self, channels_in, channels_out, *, stride=1):
        super().__init__()
        self.value = nn.Linear(channels_in, channels_out)
        self.stride = stride

    @classmethod
    def from_site(cls, site, **options):
        return cls(site.channels_in, site.channels_out, stride=site.stride, **options)

    def forward(self, x):
        picked = x[(..., *[slice(None, None, self.stride)] * (x.dim() - 2))]
        whole = picked + x.mean(dim=tuple(range(2, x.dim())), keepdim=True)
        return self.value(whole.movedim(1, -1)).movedim(-1, 1)

    def attention_map(self, x, *, at):
        return torch.full((x.shape[0], 1, *x.shape[2:]), 1 / x[0, 0].numel())


class Sized(Mean):
    """A layer with one parameter a position."""

    def __init__(self, channels_in, channels_out, *, stride=1, size):
        if size is None:
            raise ShapeError("Sized: needs the size of the map.")
        super().__init__(channels_in, channels_out, stride=stride)
        self.table = nn.Parameter(torch.zeros(size))

    @classmethod
    def from_site(cls, site, **options):
        return cls(site.channels_in, site.channels_out, stride=site.stride, size=site.size, **options)


class Gate(nn.Module):
    """A channel gate, as a library without sites would write it."""

    def __init__(self, channels):
        super().__init__()
        self.fc = nn.Conv2d(channels, channels, 1)

    def forward(self, x):
        return x * self.fc(x.mean((2, 3), keepdim=True)).sigmoid()


class Block(nn.Module):
    def __init__(self, channels_in, channels_out, stride=1, dims=2):
        super().__init__()
        conv, norm = getattr(nn, f"Conv{dims}d"), getattr(nn, f"BatchNorm{dims}d")
        self.conv1 = conv(channels_in, channels_out, 3, stride, 1)
        self.norm1 = norm(channels_out)
        self.conv2 = conv(channels_out, channels_out, 3, 1, 1, bias=False)

    def forward(self, x):
        return self.conv2(self.norm1(self.conv1(x)).relu())


class Net(nn.Module):
    """Two stages in one, two or three axes."""

    def __init__(self, dims=2):
        super().__init__()
        self.layer1 = nn.Sequential(Block(3, 16, 1, dims), Block(16, 16, 1, dims))
        self.layer2 = nn.Sequential(Block(16, 24, 2, dims))
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(24, 5)

    def forward(self, x):
        x = self.drop(self.layer2(self.layer1(x)))
        return self.head(x.flatten(2).mean(2))


class Twice(nn.Module):
    """One convolution under two names."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.first = nn.Conv2d(8, 8, 3, padding=1)
        self.second = self.first

    def forward(self, x):
        return self.second(self.first(self.stem(x)).relu())


def states(model):
    """All that a graft could leave behind: tensors, objects, flags, hooks and attributes."""
    return (
        {key: (id(value), value.clone()) for key, value in model.state_dict(keep_vars=True).items()},
        [(name, id(module), module.training) for name, module in model.named_modules(remove_duplicate=False)],
        [
            (list(module._forward_hooks), list(module._forward_pre_hooks), list(module._load_state_dict_pre_hooks))
            for module in model.modules()
        ],
        [sorted(module.__dict__) for module in model.modules()],
        [parameter.requires_grad for parameter in model.parameters()],
        torch.get_rng_state(),
    )


def assert_same(before, after, random_state=True):
    assert before[0].keys() == after[0].keys()
    for key, (identity, value) in before[0].items():
        assert after[0][key][0] == identity
        assert torch.equal(after[0][key][1], value)
    assert before[1:5] == after[1:5]
    if random_state:
        assert torch.equal(before[5], after[5])
