"""Layers as the papers and their authors' code compute them, written anew, to hold foveal's evaluations against."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from foveal.layers.efficient import EfficientAttention
from foveal.layers.external import ExternalAttention
from foveal.layers.non_local import NonLocal


class EfficientAsPublished(nn.Module):
    """Separate 1x1 convolutions, both softmaxes stored, one head, projection and residual."""

    def __init__(self, layer: EfficientAttention) -> None:
        super().__init__()
        self.query, self.key, self.value = (_conv(p) for p in (layer.query, layer.key, layer.value))
        assert isinstance(layer.output, nn.Linear)
        self.output = _conv(layer.output)

    def forward(self, x: Tensor) -> Tensor:
        q = self.query(x).flatten(2).softmax(1)
        k = self.key(x).flatten(2).softmax(2)
        held = k @ self.value(x).flatten(2).transpose(1, 2)
        return x + self.output((held.transpose(1, 2) @ q).unflatten(2, x.shape[2:]))


class ExternalAsPublished(nn.Module):
    """Convolution, two memories as convolutions, double normalisation, convolution, norm, residual, ReLU."""

    def __init__(self, layer: ExternalAttention) -> None:
        super().__init__()
        self.query, self.output = _conv(layer.query), _conv(layer.output)
        self.memory_key = layer.memory_key
        self.memory_value = layer.memory_key if layer.memory_value is None else layer.memory_value
        self.norm = layer.norm

    def forward(self, x: Tensor) -> Tensor:
        f = self.query(x).flatten(2)
        weights = nn.functional.conv1d(f, self.memory_key[:, :, None]).softmax(-1)
        weights = weights / (1e-9 + weights.sum(1, keepdim=True))
        out = nn.functional.conv1d(weights, self.memory_value.mT[:, :, None]).unflatten(2, x.shape[2:])
        return (x + self.norm(self.output(out))).relu()


class NonLocalAsPublished(nn.Module):
    """Convolutions, the n x n scores stored, softmax, convolution, norm, residual."""

    def __init__(self, layer: NonLocal) -> None:
        super().__init__()
        self.theta, self.phi, self.g, self.w = (_conv(p) for p in (layer.query, layer.key, layer.value, layer.output))
        self.norm = layer.norm

    def forward(self, x: Tensor) -> Tensor:
        theta, phi, g = (project(x).flatten(2) for project in (self.theta, self.phi, self.g))
        weights = (theta.mT @ phi).softmax(-1)
        mixed = (weights @ g.mT).mT.unflatten(2, x.shape[2:])
        return x + self.norm(self.w(mixed))


def _conv(linear: nn.Linear) -> nn.Conv2d:
    conv = nn.Conv2d(linear.in_features, linear.out_features, 1, bias=linear.bias is not None)
    with torch.no_grad():
        conv.weight.copy_(linear.weight[:, :, None, None])
        if linear.bias is not None and conv.bias is not None:
            conv.bias.copy_(linear.bias)
    return conv
