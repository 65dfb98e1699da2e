"""SAGAN and EAGAN: the layout's widths and places, blocks against plain definitions, norms, conditions, losses."""

import copy
import re

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrize

import foveal
from foveal.errors import OptionError, ShapeError
from foveal.layers.base import AttentionLayer
from foveal.models.gan import LAYOUTS, Layout, discriminator_hinge, generator_hinge
from foveal.models.gan.attention import ATTENTIONS, attention
from foveal.models.gan.blocks import ConditionalBatchNorm, DiscriminatorBlock, GeneratorBlock

# Generator and discriminator, with 10 and 200 classes.
COUNTS = {
    (32, "none"): (4_304_387, 1_055_105),
    (32, "self"): (4_386_308, 1_075_586),
    (32, "external"): (4_468_484, 1_104_386),
    (64, "none"): (13_366_915, 19_747_521),
    (64, "self"): (13_387_396, 19_752_642),
    (64, "external"): (13_416_196, 19_763_970),
}
# Channels and size of the maps that attention sees.
PLACES = {32: ((256, 16), (128, 16)), 64: ((128, 32), (64, 32))}
CLASSES = {32: 10, 64: 200}


def small(kind="external", size=16, **options):
    torch.manual_seed(0)
    return foveal.models.resnet_gan(
        size, **{"attention": kind, "num_classes": 3, "width": 4, "latent": 6, "in_chans": 1, "slots": 5, **options}
    )


def drawn(model, batch=4, seed=0):
    draw = torch.Generator().manual_seed(seed)
    codes = torch.randn(batch, model.generator.latent, generator=draw)
    return codes, torch.randint(3, (batch,), generator=draw)


@pytest.mark.parametrize(("size", "kind"), COUNTS)
def test_networks_have_the_parameters_the_maps_and_the_attention_of_the_layout(size, kind):
    with torch.device("meta"):
        model = foveal.models.resnet_gan(size, attention=kind, num_classes=CLASSES[size])
    seen = []
    for network in (model.generator, model.discriminator):
        network.attention.register_forward_hook(lambda _, given, out: seen.append((given[0].shape, out.shape)))
    labels = torch.zeros(2, dtype=torch.long, device="meta")
    images = model.generator(torch.empty(2, 128, device="meta"), labels)
    assert images.shape == (2, 3, size, size)
    assert model.discriminator(images, labels).shape == (2,)
    assert seen == [((2, c, s, s), (2, c, s, s)) for c, s in PLACES[size]]
    counted = tuple(sum(p.numel() for p in each.parameters()) for each in (model.generator, model.discriminator))
    assert counted == COUNTS[size, kind]


def test_the_two_layouts_of_the_papers_have_their_widths():
    with torch.device("meta"):
        models = {size: foveal.models.sagan(size) for size in (32, 64)}
    widths = {
        size: (
            [b.conv2.out_channels for b in m.generator.blocks],
            [b.conv2.out_channels for b in m.discriminator.blocks],
        )
        for size, m in models.items()
    }
    assert widths == {
        32: ([256, 256, 256], [128, 128, 128, 128]),
        64: ([512, 256, 128, 64], [64, 128, 256, 512, 1024]),
    }


def test_names_choose_the_attention():
    assert isinstance(foveal.models.sagan(8, width=4).generator.attention.attention, foveal.NonLocal)
    assert isinstance(foveal.models.eagan(8, width=4).discriminator.attention.attention, foveal.ExternalAttention)
    assert isinstance(foveal.models.resnet_gan(8, width=4).generator.attention, nn.Identity)


@pytest.mark.parametrize("size", LAYOUTS)
@pytest.mark.parametrize("kind", ATTENTIONS)
def test_every_layout_makes_images_within_one_and_scores_them(size, kind):
    model = small(kind, size, width=2)
    codes, labels = drawn(model)
    images = model.generator(codes, labels)
    assert images.shape == (4, 1, size, size)
    assert images.abs().max() <= 1
    assert model.discriminator(images, labels).shape == (4,)


@pytest.mark.parametrize("kind", ["self", "external"])
def test_attention_starts_as_the_identity_and_leaves_it(kind):
    torch.manual_seed(0)
    unit, x = attention(kind, 16), torch.randn(2, 16, 6, 6)
    assert torch.equal(unit(x), x)
    unit(x).square().sum().backward()
    assert unit.gamma.grad.abs() > 0
    with torch.no_grad():
        unit.gamma.fill_(0.5)
    assert not torch.allclose(unit(x), x)


def test_self_attention_is_that_of_sagan():
    torch.manual_seed(0)
    unit, x = attention("self", 16).double().eval(), torch.randn(2, 16, 6, 4, dtype=torch.float64)
    with torch.no_grad():
        unit.gamma.fill_(0.7)
    theta, phi, g, out = (getattr(unit.attention, n).weight for n in ("query", "key", "value", "output"))
    assert [tuple(w.shape) for w in (theta, phi, g, out)] == [(2, 16), (2, 16), (8, 16), (16, 8)]
    assert [n for n, _ in unit.named_parameters() if "bias" in n] == []
    keys, values = (F.max_pool2d(F.conv2d(x, w[:, :, None, None]), 2).flatten(2) for w in (phi, g))
    weights = (torch.einsum("dc,bcn->bnd", theta, x.flatten(2)) @ keys).softmax(2)
    attended = torch.einsum("oe,ben->bon", out, values @ weights.mT).unflatten(2, (6, 4))
    torch.testing.assert_close(unit(x), x + 0.7 * attended)


def test_external_attention_is_two_memories_between_two_maps():
    torch.manual_seed(0)
    unit, x = attention("external", 8, slots=5).double().eval(), torch.randn(2, 8, 3, 4, dtype=torch.float64)
    with torch.no_grad():
        unit.gamma.fill_(0.7)
        unit.attention.output.bias.normal_()
    inner = unit.attention
    logits = inner.memory_key @ inner.query.weight @ x.flatten(2)
    weights = logits.softmax(2)
    weights = weights / (weights.sum(1, keepdim=True) + 1e-9)
    attended = inner.output.weight @ inner.memory_value.mT @ weights + inner.output.bias[:, None]
    torch.testing.assert_close(unit(x), x + 0.7 * attended.unflatten(2, (3, 4)))
    assert "bias" not in dict(inner.query.named_parameters())


@pytest.mark.parametrize("kind", ATTENTIONS)
def test_every_linear_map_convolution_embedding_and_memory_has_spectral_norm_one(kind):
    model = small(kind)
    for _ in range(3):
        codes, labels = drawn(model)
        model.discriminator(model.generator(codes, labels), labels)
    model.eval()
    checked = 0
    for name, module in model.named_modules():
        names = ["weight"] if isinstance(module, nn.Linear | nn.Conv2d | nn.Embedding) else []
        names += ["memory_key", "memory_value"] if isinstance(module, foveal.ExternalAttention) else []
        for weight in names:
            assert parametrize.is_parametrized(module, weight), f"{name}.{weight}"
            largest = torch.linalg.matrix_norm(getattr(module, weight).flatten(1), 2)
            torch.testing.assert_close(largest, torch.ones(()), rtol=1e-4, atol=0)
            checked += 1
    assert checked == 25 + {"none": 0, "self": 8, "external": 8}[kind]


def test_weights_start_orthogonal_and_biases_at_zero():
    model = small()
    for name, parameter in model.named_parameters():
        if name.endswith("original"):
            rows = parameter.flatten(1)
            gram = rows @ rows.mT if rows.shape[0] <= rows.shape[1] else rows.mT @ rows
            torch.testing.assert_close(gram, torch.eye(len(gram)), rtol=0, atol=1e-5, msg=name)
        elif name.endswith("bias") and ".norm." not in name and not name.endswith("norm.bias"):
            assert not parameter.any(), name


@pytest.mark.parametrize("kind", ["self", "external"])
def test_one_forward_moves_every_spectral_norm_on_by_one_step(kind):
    torch.manual_seed(0)
    unit = attention(kind, 8, slots=5)
    found = {n: m for n, m in unit.named_modules() if n.endswith(".0")}
    with torch.no_grad():
        for parameter in unit.parameters():
            parameter.normal_()
    before = {n: m._v.clone() for n, m in found.items()}
    unit(torch.randn(2, 8, 4, 4))
    assert len(found) == 4
    for name, norm in found.items():
        weight = unit.get_parameter(name.removesuffix(".0") + ".original")
        torch.testing.assert_close(norm._u, F.normalize(weight @ before[name], dim=0))


def test_a_conditional_norm_scales_and_shifts_by_class():
    torch.manual_seed(0)
    norm, x, labels = ConditionalBatchNorm(5, 3).double(), torch.randn(4, 5, 3, 2, dtype=torch.float64), [2, 0, 0, 1]
    mean, var = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), unbiased=False, keepdim=True)
    out = norm.train()(x, torch.tensor(labels))
    norm.eval()
    for sample, label in enumerate(labels):
        scale, shift = (each.weight[label][:, None, None] for each in (norm.scale, norm.shift))
        wanted = (x - mean)[sample] / (var + 1e-4).sqrt()[0] * (1 + scale) + shift
        torch.testing.assert_close(out[sample], wanted, rtol=1e-3, atol=1e-4)
    assert not torch.allclose(norm.scale.weight[0], norm.scale.weight[1])


def test_a_generator_block_is_what_its_layout_says():
    torch.manual_seed(0)
    block, x = GeneratorBlock(4, 6, 0).double().eval(), torch.randn(2, 4, 3, 5, dtype=torch.float64)
    h = block.norm1.norm(x).clamp(min=0).repeat_interleave(2, 2).repeat_interleave(2, 3)
    h = block.norm2.norm(F.conv2d(h, block.conv1.weight, block.conv1.bias, padding=1)).clamp(min=0)
    h = F.conv2d(h, block.conv2.weight, block.conv2.bias, padding=1)
    beside = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
    wanted = h + F.conv2d(beside, block.shortcut.weight[:, :, None, None], block.shortcut.bias)
    torch.testing.assert_close(block(x, None), wanted)


@pytest.mark.parametrize(("channels", "halve", "first"), [(6, True, False), (4, False, False), (6, True, True)])
def test_a_discriminator_block_is_what_its_layout_says(channels, halve, first):
    torch.manual_seed(0)
    block = DiscriminatorBlock(4, channels, halve=halve, first=first).double().eval()
    x = torch.randn(2, 4, 6, 4, dtype=torch.float64)
    h = F.conv2d(x if first else x.clamp(min=0), block.conv1.weight, block.conv1.bias, padding=1).clamp(min=0)
    h, beside = F.conv2d(h, block.conv2.weight, block.conv2.bias, padding=1), x
    if halve:
        beside = F.conv2d(x, block.shortcut.weight[:, :, None, None], block.shortcut.bias)
        h, beside = (each.unflatten(3, (-1, 2)).unflatten(2, (-1, 2)).mean((3, 5)) for each in (h, beside))
    torch.testing.assert_close(block(x), h + beside)


def test_the_class_enters_the_score_by_its_embedding_times_the_features():
    model = small("self").discriminator.eval()
    images, seen = torch.randn(4, 1, 16, 16), []
    model.linear.register_forward_hook(lambda _, given, out: seen.append((given[0], out)))
    scores = [model(images, torch.full((4,), label)) for label in range(3)]
    features, plain = seen[0]
    for label, score in enumerate(scores):
        torch.testing.assert_close(score, plain[:, 0] + features @ model.embedding.weight[label])
    torch.testing.assert_close(features, seen[2][0])


def test_without_classes_nothing_is_told_and_no_embedding_is_there():
    model = small(num_classes=0)
    assert not any(isinstance(module, nn.Embedding) for module in model.modules())
    assert model.discriminator(model.generator(torch.randn(2, 6))).shape == (2,)


@pytest.mark.parametrize("kind", ATTENTIONS)
def test_one_step_of_each_network_reaches_every_parameter_of_it(kind):
    model = small(kind)
    # Gamma at zero would keep the gradients of the attention at zero in the first step, as it is meant to.
    for network in (model.generator, model.discriminator):
        if kind != "none":
            nn.init.constant_(network.attention.gamma, 0.5)
    codes, labels = drawn(model, 6)
    generator_hinge(model.discriminator(model.generator(codes, labels), labels)).backward()
    assert [n for n, p in model.generator.named_parameters() if p.grad is None or not p.grad.any()] == []
    model.zero_grad()
    fake, real = model.generator(codes, labels).detach(), torch.randn(6, 1, 16, 16)
    discriminator_hinge(model.discriminator(real, labels), model.discriminator(fake, labels)).backward()
    left = [n for n, p in model.discriminator.named_parameters() if p.grad is None or not p.grad.any()]
    # Within the margins the score's constant is pushed up and down alike.
    assert left in ([], ["linear.bias"])
    assert all(p.grad is None for p in model.generator.parameters())


@pytest.mark.parametrize("kind", ATTENTIONS)
def test_a_copy_and_a_loaded_state_give_the_same_images(kind):
    model = small(kind).eval()
    codes, labels = drawn(model)
    other = foveal.models.resnet_gan(16, attention=kind, num_classes=3, width=4, latent=6, in_chans=1, slots=5).eval()
    assert not torch.equal(other.generator(codes, labels), model.generator(codes, labels))
    other.load_state_dict(model.state_dict())
    with torch.no_grad():
        wanted = model.generator(codes, labels)
        torch.testing.assert_close(other.generator(codes, labels), wanted, rtol=0, atol=0)
        torch.testing.assert_close(copy.deepcopy(model.generator)(codes, labels), wanted, rtol=0, atol=0)


@pytest.mark.parametrize("kind", ["self", "external"])
def test_what_a_generator_attends_to_can_be_captured(kind):
    model = small(kind).eval()
    codes, labels = drawn(model, 1)
    with foveal.capture(model.generator, image=(16, 16)) as maps:
        model.generator(codes, labels)
    assert list(maps) == ["attention.attention"]
    assert isinstance(model.generator.attention.attention, AttentionLayer)


def test_hinge_losses_stop_at_the_margin_but_for_the_generator():
    real = torch.tensor([2.0, 1.0, 0.0, -3.0], dtype=torch.float64, requires_grad=True)
    fake = torch.tensor([[-2.0], [-1.0], [0.5]], dtype=torch.float64, requires_grad=True)
    loss = discriminator_hinge(real, fake)
    torch.testing.assert_close(loss, torch.tensor((0 + 0 + 1 + 4) / 4 + (0 + 0 + 1.5) / 3, dtype=torch.float64))
    loss.backward()
    assert real.grad.tolist() == [0, 0, -0.25, -0.25]
    torch.testing.assert_close(fake.grad[:, 0], torch.tensor([0, 0, 1 / 3], dtype=torch.float64))
    torch.testing.assert_close(generator_hinge(fake), torch.tensor(2.5 / 3, dtype=torch.float64))
    assert generator_hinge(fake.half()).dtype == torch.float32


@pytest.mark.parametrize(
    ("call", "error", "told"),
    [
        (lambda: foveal.models.resnet_gan(48), OptionError,
         "resnet_gan: size must be one of 8, 16, 32, 64 pixels or a Layout, got 48."),
        (lambda: foveal.models.resnet_gan(8, attention="local"), OptionError,
         "resnet_gan: attention must be one of none, self, external, got 'local'."),
        (lambda: foveal.models.resnet_gan(8, width=0), OptionError,
         "Generator: width must be an integer of at least 1, got 0."),
        (lambda: small().generator(torch.zeros(2, 7), torch.zeros(2, dtype=torch.long)), ShapeError,
         "Generator: codes must be (batch, 6), got (2, 7)."),
        (lambda: small().generator(torch.zeros(2, 6)), ShapeError,
         "Generator: labels must be integers of shape (2,), one a sample, got NoneType."),
        (lambda: small().generator(torch.zeros(2, 6), torch.tensor([0, 3])), OptionError,
         "Generator: labels must be 0 to 2, got 0 to 3. Check num_classes."),
        (lambda: small(num_classes=0).generator(torch.zeros(2, 6), torch.tensor([0, 1])), OptionError,
         "Generator: it was built without classes, got labels. Leave them out, or set num_classes."),
        (lambda: small().discriminator(torch.zeros(2, 1, 32, 32), torch.tensor([0, 1])), ShapeError,
         "Discriminator: images must be (batch, 1, 16, 16), got (2, 1, 32, 32)."),
        (lambda: Layout((4, 4), (2,), (False,), 1, 1), OptionError, "Layout: it needs a first width and one a block"),
        (lambda: Layout((4, 4), (2,), (True,), 2, 1), OptionError,
         "Layout: generator_at must be 0 to 1, the number of blocks, got 2."),
        (lambda: Layout((4, 4), (2,) * 4, (True,) * 4, 1, 1), OptionError,
         "Layout: maps of 8 pixels cannot be halved 4 times."),
        (lambda: generator_hinge(torch.zeros(0)), ShapeError,
         "hinge loss: fake must have a score at least, got (0,)."),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_in_a_sentence(call, error, told):
    with pytest.raises(error, match=f"^{re.escape(told)}"):
        call()


@pytest.mark.parametrize("attention", ["self", "external"])
def test_networks_without_values_have_the_tensors_of_those_with_them(attention):
    made = foveal.models.resnet_gan(8, width=2, attention=attention)
    with torch.device("meta"):
        empty = foveal.models.resnet_gan(8, width=2, attention=attention)
    assert all(each.is_meta for each in empty.state_dict().values())
    shapes = [{name: (each.shape, each.dtype) for name, each in gan.state_dict().items()} for gan in (made, empty)]
    assert shapes[0] == shapes[1]
    scores = empty.discriminator(
        torch.empty(2, 3, 8, 8, device="meta"), torch.zeros(2, dtype=torch.long, device="meta")
    )
    assert scores.shape == (2,)
