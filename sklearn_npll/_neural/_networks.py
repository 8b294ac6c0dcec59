"""Networks: a backbone, a linear classifier and a projection head in one module."""

import copy
import inspect
import pickle
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from .._messages import did_you_mean
from ._processes import ALONE


class MLP(nn.Sequential):
    """Multi-layer perceptron with batch normalisation.

    Parameters
    ----------
    n_features, n_classes : int
    hidden : tuple of int
        Widths of the hidden layers.
    """

    def __init__(self, n_features, n_classes, hidden=(256, 256)):
        layers, width = [], n_features
        for size in hidden:
            layers += [nn.Linear(width, size, bias=False), nn.BatchNorm1d(size), nn.ReLU()]
            width = size
        super().__init__(*layers, nn.Linear(width, n_classes))


class PreActBlock(nn.Module):
    """Pre-activation residual block of two 3x3 convolutions."""

    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.norm1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.shortcut = None
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x):
        """Map (n, inputs, H, W) to (n, outputs, H / stride, W / stride)."""
        active = F.relu(self.norm1(x))
        shortcut = x if self.shortcut is None else self.shortcut(active)
        x = self.conv2(F.relu(self.norm2(self.conv1(active))))
        return x + shortcut


class PreActResNet(nn.Module):
    """Pre-activation residual network for small images.

    Parameters
    ----------
    in_channels, n_classes : int
    widths : tuple of int
        Channels of each stage; every stage but the first halves the resolution.
    depth : int
        Blocks a stage.
    stem_width : int
    stem_stride : int
        2 works at half resolution from the start and costs about a quarter.
    """

    def __init__(self, in_channels, n_classes, *, widths, depth, stem_width, stem_stride=1):
        super().__init__()
        self.stem = nn.Conv2d(in_channels, stem_width, 3, stem_stride, 1, bias=False)
        blocks, width = [], stem_width
        for stage, outputs in enumerate(widths):
            for i in range(depth):
                blocks.append(PreActBlock(width, outputs, 2 if stage and not i else 1))
                width = outputs
        self.blocks = nn.Sequential(*blocks)
        self.norm = nn.BatchNorm2d(width)
        self.classifier = nn.Linear(width, n_classes)

    def forward(self, x):
        """Map images (n, in_channels, H, W) to logits (n, n_classes)."""
        x = F.relu(self.norm(self.blocks(self.stem(x))))
        return self.classifier(x.mean((2, 3)))


def resnet8(in_channels, n_classes):
    """Three blocks of 32, 64 and 128 channels."""
    return PreActResNet(in_channels, n_classes, widths=(32, 64, 128), depth=1, stem_width=32)


def resnet8_strided(in_channels, n_classes):
    """Half the channels of `resnet8` at half its resolution: "auto" for small images."""
    return PreActResNet(
        in_channels, n_classes, widths=(16, 32, 64), depth=1, stem_width=16, stem_stride=2
    )


def preact_resnet18(in_channels, n_classes):
    """Pre-activation ResNet-18 for 32x32 images, the network of the paper."""
    return PreActResNet(in_channels, n_classes, widths=(64, 128, 256, 512), depth=2, stem_width=64)


def wrn_28_2(in_channels, n_classes):
    """Wide ResNet of depth 28 and widening factor 2."""
    return PreActResNet(in_channels, n_classes, widths=(32, 64, 128), depth=4, stem_width=16)


IMAGE_NETWORKS = {f.__name__: f for f in (resnet8, resnet8_strided, preact_resnet18, wrn_28_2)}


def resolve_name(module, shape):
    """Return the name of a network for inputs of a shape: what "auto" stands for, or as given.

    Examples
    --------
    >>> resolve_name("auto", (3, 32, 32))
    'resnet8_strided'
    """
    if module != "auto":
        return module
    if len(shape) == 1:
        return "mlp"
    return "resnet8_strided" if min(shape[1:]) <= 64 else "resnet18"


def build_network(module, shape, n_classes):
    """Make a fresh network that maps a batch to logits.

    Parameters
    ----------
    module : str, nn.Module or callable
        A name ("auto", "mlp", one of `IMAGE_NETWORKS` or a timm model), a module that is copied, or
        a class or function called with those of ``n_features``, ``in_channels``, ``image_size`` and
        ``n_classes`` that it accepts.
    shape : tuple
        (n_features,) or (channels, H, W).
    n_classes : int

    Returns
    -------
    nn.Module

    Raises
    ------
    ValueError
        If the name is unknown or does not suit the data.
    TypeError
        If the class or function returns no network.
    """
    if isinstance(module, nn.Module):
        return copy.deepcopy(module)
    is_image = len(shape) == 3
    known = {"n_classes": n_classes}
    if is_image:
        known.update(in_channels=shape[0], image_size=tuple(shape[1:]))
    else:
        known["n_features"] = shape[0]
    if not isinstance(module, str):
        parameters = inspect.signature(module).parameters
        if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
            known = {k: v for k, v in known.items() if k in parameters}
        network = module(**known)
        if not isinstance(network, nn.Module):
            name = getattr(module, "__name__", repr(module))
            hint = f"; pass module={name}() instead" if inspect.isclass(module) else ""
            raise TypeError(
                f"module={name} returned an object of type {type(network).__name__}, not an "
                f"nn.Module{hint}"
            )
        return network
    module = resolve_name(module, shape)
    if module == "mlp":
        network = MLP(shape[0] if not is_image else shape[0] * shape[1] * shape[2], n_classes)
        return nn.Sequential(nn.Flatten(), *network) if is_image else network
    if module not in IMAGE_NETWORKS:
        import timm

        if not timm.is_model(module):
            names = ["auto", "mlp", *IMAGE_NETWORKS, *timm.list_models()]
            raise ValueError(
                f"unknown module {module!r}.{did_you_mean(module, names)} It may be 'auto', "
                f"'mlp', {', '.join(map(repr, IMAGE_NETWORKS))}, a timm model's name, or an "
                "nn.Module class"
            )
    if not is_image:
        raise ValueError(
            f"module={module!r} is a network for images, but X has {shape[0]} features a row; use "
            "module='mlp' or a module of your own"
        )
    if module in IMAGE_NETWORKS:
        return IMAGE_NETWORKS[module](shape[0], n_classes)
    return timm.create_model(module, num_classes=n_classes, in_chans=shape[0])


def last_linear(network, n_classes):
    """Return the name of the last linear layer with `n_classes` outputs.

    Raises
    ------
    ValueError
        If there is none.
    """
    names = [
        name
        for name, layer in network.named_modules()
        if isinstance(layer, nn.Linear) and layer.out_features == n_classes
    ]
    if not names or names[-1] == "":
        raise ValueError(
            f"the module must contain an nn.Linear layer with {n_classes} outputs (the number of "
            "classes) as its last layer, whose input is taken as the embedding"
        )
    return names[-1]


class ProjectionHead(nn.Sequential):
    """Two-layer perceptron; its output is L2-normalised by `EmbeddingNetwork.project`."""

    def __init__(self, n_features, projection_dim):
        super().__init__(
            nn.Linear(n_features, n_features), nn.ReLU(), nn.Linear(n_features, projection_dim)
        )


class EmbeddingNetwork(nn.Module):
    """A network: input scaling, backbone, classifier and projection head.

    Parameters
    ----------
    network : nn.Module
        Maps a batch to logits (n, n_classes); its last linear layer becomes the classifier and the
        rest the backbone.
    n_classes : int
    mean, scale : Tensor of shape (n_features,) or (channels, 1, 1)
        Inputs are standardised with these, unless the network has an attribute `raw_inputs` that
        is true.
    projection_dim : int or None
        None for no projection head.
    """

    #: Who computes the embeddings of a batch.
    processes = ALONE

    def __init__(self, network, n_classes, mean, scale, projection_dim):
        super().__init__()
        if getattr(network, "raw_inputs", False):
            mean, scale = torch.zeros_like(mean), torch.ones_like(scale)
        name = last_linear(network, n_classes)
        self.classifier = network.get_submodule(name)
        parent, _, child = name.rpartition(".")
        setattr(network.get_submodule(parent), child, nn.Identity())
        self.backbone = network
        self.projector = None
        if projection_dim is not None:
            self.projector = ProjectionHead(self.classifier.in_features, projection_dim)
        self.register_buffer("mean", mean)
        self.register_buffer("scale", scale)

    def embed(self, x):
        """Return embeddings (n, n_embedding) of raw inputs."""
        x = (x - self.mean) / self.scale
        if x.ndim == 4:  # two to three times faster on a CPU
            x = x.contiguous(memory_format=torch.channels_last)
        return self.processes.map_rows(self.backbone, x)

    def project(self, embedding):
        """Return L2-normalised projections (n, projection_dim) of embeddings."""
        # float32 in mixed precision too: rounded vectors would not be of unit length
        return F.normalize(self.projector(embedding).float(), dim=1)

    def forward(self, x):
        """Return logits (n, n_classes)."""
        return self.classifier(self.embed(x))


class NetworkEnsemble(nn.Module):
    """One network, or several whose logits are summed.

    Parameters
    ----------
    module : str, nn.Module or callable
        See `build_network`.
    shape : tuple
        Shape of one input.
    n_classes : int
    mean, scale : Tensor
        See `EmbeddingNetwork`.
    projection_dim : int or None
    n_networks : int
    init : str, path, dict or None
        Weights that all networks start from: a state dict of the module, or a file with one.
    """

    def __init__(
        self, module, shape, n_classes, mean, scale, projection_dim, n_networks=2, init=None
    ):
        super().__init__()
        self.networks = nn.ModuleList()
        for _ in range(n_networks):
            network = build_network(module, shape, n_classes)
            if init is not None:
                network.load_state_dict(load_weights(init))
            self.networks.append(
                EmbeddingNetwork(network, n_classes, mean.clone(), scale.clone(), projection_dim)
            )
        if len(shape) == 3:
            self.to(memory_format=torch.channels_last)

    def forward(self, x):
        """Return the summed logits (n, n_classes) of the networks."""
        return sum(network(x) for network in self.networks)


def load_weights(init):
    """Read a state dict from a `.safetensors` or torch file, or return the one given.

    Raises
    ------
    ValueError
        If the file holds no weights, or is damaged. Code in it is not run.
    """
    if isinstance(init, dict):
        return init
    path = Path(init)
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except pickle.UnpicklingError:  # whose message tells how to run it nevertheless
        reason = "it is damaged, or holds what may be code; save a state dict"
    # readers raise anything on a damaged file
    except Exception as error:
        reason = str(error).partition("\n")[0]
    raise ValueError(f"init={str(init)!r} cannot be read as weights: {reason}")


class DeployedNetwork(nn.Module):
    """A plain module for deployment: raw inputs to class probabilities.

    Parameters
    ----------
    networks : sequence of EmbeddingNetwork
        One or more; the probabilities are the softmax of their summed logits.
    """

    def __init__(self, networks):
        super().__init__()
        # the projection heads serve training only
        self.backbones = nn.ModuleList(copy.deepcopy(n.backbone) for n in networks)
        self.classifiers = nn.ModuleList(copy.deepcopy(n.classifier) for n in networks)
        self.register_buffer("mean", networks[0].mean.clone())
        self.register_buffer("scale", networks[0].scale.clone())

    def forward(self, x):
        """Map features (n, n_features) or images (n, channels, H, W) to (n, n_classes)."""
        x = (x - self.mean) / self.scale
        logits = [c(b(x)) for b, c in zip(self.backbones, self.classifiers, strict=True)]
        return torch.stack(logits).sum(0).softmax(1)
