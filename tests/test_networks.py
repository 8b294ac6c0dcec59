"""Every way to name a network, the split into backbone and classifier, and the projections."""

import functools

import pytest
import torch
from torch import nn

from sklearn_npll._neural._networks import (
    IMAGE_NETWORKS,
    MLP,
    DeployedNetwork,
    EmbeddingNetwork,
    NetworkEnsemble,
    PreActResNet,
    build_network,
    last_linear,
)

close = torch.testing.assert_close


def tiny(n_features, n_classes):
    """A factory that takes what features offer."""
    return nn.Sequential(nn.Linear(n_features, 5), nn.ReLU(), nn.Linear(5, n_classes))


class TinyConv(nn.Module):
    """A class that takes what images offer."""

    def __init__(self, in_channels, image_size, n_classes, width=4):
        super().__init__()
        self.image_size = image_size
        self.head = nn.Linear(width, n_classes)  # registered before the rest
        self.conv = nn.Conv2d(in_channels, width, 3)

    def forward(self, x):
        return self.head(self.conv(x).mean((2, 3)))


def n_parameters(network):
    return sum(p.numel() for p in network.parameters())


def check(network, shape, n_classes):
    logits = network(torch.rand(2, *shape))
    assert logits.shape == (2, n_classes)
    assert logits.isfinite().all()
    logits.sum().backward()
    assert all(p.grad is not None for p in network.parameters())


# -- build_network -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", IMAGE_NETWORKS)
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 8, 10)])
def test_named_image_networks(name, shape):
    check(build_network(name, shape, 4), shape, 4)


@pytest.mark.parametrize("name", ["auto", "mlp"])
def test_networks_for_features(name):
    network = build_network(name, (6,), 4)
    assert isinstance(network, MLP)
    # 6*256 + 256*256 weights, scale and shift of two norms, and the classifier
    assert n_parameters(network) == 6 * 256 + 256 * 256 + 4 * 256 + 256 * 4 + 4
    check(network, (6,), 4)


def test_mlp_for_images():
    check(build_network("mlp", (3, 4, 5), 4), (3, 4, 5), 4)


def test_auto_depends_on_the_size():
    small = build_network("auto", (1, 64, 64), 3)
    assert isinstance(small, PreActResNet)
    assert small.stem.stride == (2, 2)
    large = build_network("auto", (1, 65, 65), 3)
    assert large.fc.out_features == 3
    check(large, (1, 65, 65), 3)


def test_preact_resnet18_has_the_size_of_the_papers():
    # Convolutions: stem, then four stages of two blocks with two convolutions of 3 x 3 each, the
    # first from the width before, and a shortcut of 1 x 1 from the second stage on.
    w = (64, 128, 256, 512)
    convolutions = 27 * 64 + 9 * 4 * 64**2
    for before, width in zip(w, w[1:]):
        convolutions += 9 * (before * width + 3 * width**2) + before * width
    # norms: of each block's input and of its inner width, and the last one
    norms = 2 * (4 * 64 + sum(before + 3 * width for before, width in zip(w, w[1:])) + 512)
    expected = convolutions + norms + 512 * 10 + 10
    assert n_parameters(build_network("preact_resnet18", (3, 32, 32), 10)) == expected
    assert 11.1e6 < expected < 11.2e6


def test_wide_resnet_has_28_layers():
    network = build_network("wrn_28_2", (3, 32, 32), 10)
    layers = [m for m in network.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]
    # stem, 3 stages of 4 blocks with 2 convolutions; the classifier and two wide shortcuts are
    # counted by convention to make 28
    assert len(layers) == 25
    assert network.classifier.in_features == 128
    assert 1.4e6 < n_parameters(network) < 1.6e6


@pytest.mark.parametrize("name", ["resnet8", "preact_resnet18"])
def test_stages_halve_the_resolution(name):
    network = build_network(name, (1, 32, 32), 2)
    side = 32 // 2 ** (len({b.conv2.out_channels for b in network.blocks}) - 1)
    features = network.blocks(network.stem(torch.rand(1, 1, 32, 32)))
    assert features.shape[2:] == (side, side)
    strided = build_network("resnet8_strided", (1, 32, 32), 2)
    assert strided.stem(torch.rand(1, 1, 32, 32)).shape[2:] == (16, 16)


def test_timm_network():
    network = build_network("mobilenetv3_small_050", (1, 32, 32), 3)
    assert last_linear(network, 3) == "classifier"
    assert network.eval()(torch.rand(2, 1, 32, 32)).shape == (2, 3)


def test_instance_is_copied():
    module = tiny(6, 4)
    network = build_network(module, (6,), 4)
    assert network is not module
    close(network.state_dict(), module.state_dict())
    EmbeddingNetwork(network, 4, torch.zeros(6), torch.ones(6), 8)
    assert isinstance(module[2], nn.Linear)  # ours was cut open, the user's was not


def test_factories_get_what_they_accept():
    check(build_network(tiny, (6,), 4), (6,), 4)
    network = build_network(TinyConv, (3, 8, 9), 4)
    assert network.image_size == (8, 9)
    check(network, (3, 8, 9), 4)
    wide = build_network(functools.partial(TinyConv, width=7), (3, 8, 9), 4)
    assert wide.head.in_features == 7
    check(build_network(lambda **shape: tiny(**shape), (6,), 4), (6,), 4)


def test_unknown_name():
    with pytest.raises(ValueError, match="unknown module 'resnet_8'. Did you mean 'resnet8'"):
        build_network("resnet_8", (1, 28, 28), 3)
    with pytest.raises(ValueError, match="Did you mean 'mobilenetv3_small_050'"):
        build_network("mobilenetv3_smal_050", (1, 28, 28), 3)
    with pytest.raises(ValueError, match="Did you mean 'mlp'"):
        build_network("mpl", (6,), 3)


@pytest.mark.parametrize("name", ["resnet8", "resnet18"])
def test_image_network_on_features(name):
    with pytest.raises(ValueError, match=f"{name}.*X has 6 features a row; use module='mlp'"):
        build_network(name, (6,), 3)


# -- backbone, classifier, projection ----------------------------------------------------------


def test_last_linear():
    assert last_linear(tiny(6, 4), 4) == "2"
    assert last_linear(tiny(6, 5), 5) == "2"  # the hidden layer is as wide
    assert last_linear(nn.Sequential(tiny(6, 4), nn.Identity()), 4) == "0.2"


@pytest.mark.parametrize(
    "module", [nn.Sequential(nn.Linear(6, 5)), nn.Conv2d(3, 4, 1), nn.Linear(6, 4)]
)
def test_no_suitable_linear_layer(module):
    with pytest.raises(ValueError, match=r"must contain an nn\.Linear layer with 4 outputs"):
        last_linear(module, 4)


@pytest.mark.parametrize(
    "module, shape",
    [(tiny, (6,)), (TinyConv, (3, 8, 9)), ("resnet8", (1, 8, 8)), ("mlp", (2, 3, 3))],
)
def test_network_maps_standardised_inputs_as_the_module_does(module, shape):
    network = build_network(module, shape, 4).eval()
    x = torch.rand(5, *shape)
    mean = torch.rand(shape[0], *[1] * (len(shape) - 1))
    expected = network((x - mean) / 2)
    ours = EmbeddingNetwork(network, 4, mean, torch.full_like(mean, 2.0), 8).eval()
    close(ours(x), expected)
    embedding = ours.embed(x)
    assert embedding.shape == (5, ours.classifier.in_features)
    close(ours.classifier(embedding), expected)
    # the classifier is no longer part of the backbone: it would be trained twice
    assert len(list(ours.parameters())) == len(set(ours.parameters()))


def test_projections_are_of_unit_length():
    network = EmbeddingNetwork(tiny(6, 4), 4, torch.zeros(6), torch.ones(6), 16)
    embedding = network.embed(torch.rand(7, 6))
    layers = [m for m in network.projector.modules() if isinstance(m, nn.Linear)]
    assert [(m.in_features, m.out_features) for m in layers] == [(5, 5), (5, 16)]
    projection = network.project(embedding)
    raw = network.projector(embedding)
    close(projection, raw / raw.square().sum(1, keepdim=True).sqrt())


def test_projections_are_of_unit_length_in_mixed_precision():
    network = EmbeddingNetwork(tiny(6, 4), 4, torch.zeros(6), torch.ones(6), 128)
    with torch.autocast("cpu", torch.bfloat16):
        projection = network.project(network.embed(torch.rand(20, 6)))
    assert projection.dtype == torch.float32
    close(projection.norm(dim=1), torch.ones(20), atol=1e-5, rtol=0)


def make_module(module, shape=(6,), n_classes=4, **kwargs):
    mean = torch.zeros(shape[0], *[1] * (len(shape) - 1))
    return NetworkEnsemble(module, shape, n_classes, mean, mean + 1, 8, **kwargs)


def test_two_networks_start_differently_and_sum_their_logits():
    module = make_module(tiny).eval()
    first, second = module.networks
    assert not torch.equal(first.classifier.weight, second.classifier.weight)
    assert not set(first.parameters()) & set(second.parameters())
    x = torch.rand(3, 6)
    close(module(x), first(x) + second(x))


def test_images_are_kept_channels_last():
    module = make_module("resnet8", (3, 8, 8))
    weight = module.networks[0].backbone.stem.weight
    assert weight.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("kind", ["dict", "safetensors", "torch"])
def test_init(kind, tmp_path):
    state = tiny(6, 4).state_dict()
    init = state
    if kind == "torch":
        init = tmp_path / "weights.pt"
        torch.save(state, init)
    elif kind == "safetensors":
        from safetensors.torch import save_file

        init = str(tmp_path / "weights.safetensors")
        save_file(state, init)
    module = make_module(tiny, init=init)
    for network in module.networks:
        close(network.backbone[0].weight, state["0.weight"])
        close(network.classifier.weight, state["2.weight"])
    # the heads are not part of it
    first, second = (n.projector[0].weight for n in module.networks)
    assert not torch.equal(first, second)


@pytest.mark.parametrize("module, shape", [(tiny, (6,)), ("resnet8", (1, 8, 8))])
def test_deployed_network(module, shape):
    module = make_module(module, shape).eval()
    x = torch.rand(3, *shape)
    close(DeployedNetwork(module.networks).eval()(x), module(x).softmax(1))
    single = DeployedNetwork(module.networks[:1]).eval()
    close(single(x), module.networks[0](x).softmax(1))
    assert not any("projector" in name for name in single.state_dict())
