"""Weak and strong views of images and of features, made on whole batches of tensors.

What is random comes from torch's global generator, which the estimator seeds; for noise on features
it draws the place in a table of numbers.
"""

import math
from functools import cached_property

import torch
import torch.nn.functional as F

from .._images import release_pages

GREY_WEIGHTS = (0.299, 0.587, 0.114)
STRONG_OPERATIONS = (
    "autocontrast",
    "brightness",
    "color",
    "contrast",
    "equalize",
    "identity",
    "posterize",
    "rotate",
    "sharpness",
    "shear_x",
    "shear_y",
    "solarize",
    "translate_x",
    "translate_y",
)


def uniform(low, high, n, like):
    """Draw n uniform numbers, shaped (n, 1, 1, 1)."""
    return torch.empty(n, 1, 1, 1, device=like.device).uniform_(low, high)


def random_crop_flip(images, padding, flip):
    """Shift each image by up to `padding` pixels over zeros, and mirror half of them.

    Parameters
    ----------
    images : Tensor of shape (n, channels, H, W)
    padding : int
        In pixels.
    flip : bool

    Returns
    -------
    Tensor of shape (n, channels, H, W)
        Of the type of `images`.
    """
    n, channels, height, width = images.shape
    device = images.device
    padded = F.pad(images, [padding] * 4)
    top, left = torch.randint(0, 2 * padding + 1, (2, n, 1), device=device)
    columns = torch.arange(width, device=device).expand(n, -1)
    if flip:
        mirrored = torch.rand(n, 1, device=device) < 0.5
        columns = torch.where(mirrored, width - 1 - columns, columns)
    rows = top + torch.arange(height, device=device)
    index = (rows[:, :, None] * padded.shape[3] + (left + columns)[:, None]).view(n, 1, -1)
    flat = padded.flatten(2).gather(2, index.expand(-1, channels, -1))
    return flat.view(n, channels, height, width)


def cutout(images, size):
    """Set a square of `size` pixels around a random pixel of each image to zero."""
    n, _, height, width = images.shape

    def outside(length):
        centre = torch.randint(0, length, (n, 1), device=images.device)
        position = torch.arange(length, device=images.device)
        return (position < centre - size // 2) | (position >= centre + size - size // 2)

    keep = outside(height)[:, None, :, None] | outside(width)[:, None, None, :]
    return images * keep


def _grey(images):
    if images.shape[1] == 1:
        return images
    weights = torch.tensor(GREY_WEIGHTS, device=images.device).view(1, 3, 1, 1)
    return (images * weights).sum(1, keepdim=True)


def _blend(images, other, low=0.05, high=1.95):
    factor = uniform(low, high, len(images), images)
    return (other + factor * (images - other)).clamp(0, 1)


def _warp(images, matrix):
    """Sample with (n, 2, 3) affine matrices in [-1, 1] coordinates, zeros outside."""
    grid = F.affine_grid(matrix, images.shape, align_corners=False)
    return F.grid_sample(images, grid, mode="nearest", align_corners=False)


def _affine(images, a=1.0, b=0.0, tx=0.0, c=0.0, d=1.0, ty=0.0):
    n = len(images)
    columns = [torch.as_tensor(v, device=images.device).expand(n) for v in (a, b, tx, c, d, ty)]
    return _warp(images, torch.stack(columns, 1).view(n, 2, 3))


def _equalize(images):
    """Replace each value by its rank among the 256 grey levels, unless its channel is constant."""
    n, channels, height, width = images.shape
    level = (images * 255).round().long().view(n * channels, -1)
    histogram = torch.zeros(n * channels, 256, device=images.device)
    histogram.scatter_add_(1, level, torch.ones_like(level, dtype=histogram.dtype))
    cumulative = histogram.cumsum(1)
    first = cumulative.gather(1, level.amin(1, keepdim=True))
    others = height * width - first
    table = (cumulative - first) / others.clamp(min=1)
    equalized = table.gather(1, level).view_as(images)
    return torch.where((others > 0).view(n, channels, 1, 1), equalized, images)


def strong_operation(images, name):
    """Apply one photometric or geometric operation with a random strength for each image.

    Parameters
    ----------
    images : Tensor of shape (n, channels, H, W)
        In [0, 1].
    name : str
        One of `STRONG_OPERATIONS`.

    Returns
    -------
    Tensor of shape (n, channels, H, W)
    """
    n = len(images)
    if name == "identity":
        return images
    if name == "autocontrast":
        low, high = images.amin((2, 3), keepdim=True), images.amax((2, 3), keepdim=True)
        return torch.where(high > low, (images - low) / (high - low).clamp(min=1e-6), images)
    if name == "brightness":
        return _blend(images, torch.zeros_like(images))
    if name == "color":
        return _blend(images, _grey(images).expand_as(images))
    if name == "contrast":
        return _blend(images, _grey(images).mean((1, 2, 3), keepdim=True).expand_as(images))
    if name == "sharpness":
        blurred = F.avg_pool2d(images, 3, 1, 1, count_include_pad=False)
        return _blend(images, blurred)
    if name == "equalize":
        return _equalize(images)
    if name == "posterize":
        levels = 2 ** torch.randint(4, 9, (n, 1, 1, 1), device=images.device)
        return ((images * 255) // (256 / levels)) * (256 / levels) / 255
    if name == "solarize":
        return torch.where(images > uniform(0, 1, n, images), 1 - images, images)
    strength = uniform(-0.3, 0.3, n, images).view(n)
    if name == "rotate":
        angle = strength / 0.3 * math.radians(30)
        return _affine(images, angle.cos(), -angle.sin(), 0.0, angle.sin(), angle.cos())
    if name == "shear_x":
        return _affine(images, b=strength)
    if name == "shear_y":
        return _affine(images, c=strength)
    if name == "translate_x":
        return _affine(images, tx=2 * strength)
    if name == "translate_y":
        return _affine(images, ty=2 * strength)
    raise ValueError(f"unknown operation {name!r}; choose from {STRONG_OPERATIONS}")


def random_strong_operation(images):
    """Apply one operation, drawn for each image, to a batch (n, channels, H, W) in [0, 1]."""
    choice = torch.randint(0, len(STRONG_OPERATIONS), (len(images),), device=images.device)
    # one sort is cheaper than looking for the images of each operation
    sizes = choice.bincount(minlength=len(STRONG_OPERATIONS)).tolist()
    result = torch.empty_like(images)
    for rows, name in zip(choice.argsort(stable=True).split(sizes), STRONG_OPERATIONS):
        if len(rows):
            result.index_copy_(0, rows, strong_operation(images.index_select(0, rows), name))
    return result


class ImageViews:
    """Views of a store of uint8 images.

    Parameters
    ----------
    images : uint8 ndarray or StreamedImages of shape (n, H, W, channels)
        Only the rows of a batch are read, of a memory map too.
    flip : bool
        Whether views may be mirrored.
    cutout : int
        Side of the square that strong views lose, in pixels.
    operations : bool
        Whether strong views get a random operation besides the cutout.
    weak_transform, strong_transform : callable or None
        Replace the views made here: a function of float images (n, channels, H, W) in [0, 1].
    device : torch.device
    """

    def __init__(
        self, images, *, flip, cutout, operations, weak_transform, strong_transform, device
    ):
        self.images = images
        self.flip = flip
        self.cutout = cutout
        self.operations = operations
        self.weak_transform = weak_transform
        self.strong_transform = strong_transform
        self.device = device
        self.padding = -(-min(images.shape[1:3]) // 8)  # 4 pixels at 28 and 32, 8 at 64

    def __len__(self):
        return len(self.images)

    def _read(self, rows):
        if isinstance(rows, torch.Tensor):
            rows = rows.cpu().numpy()
        batch = torch.from_numpy(self.images[rows]).to(self.device)
        release_pages(self.images)
        return batch.permute(0, 3, 1, 2).contiguous()

    def plain(self, rows):
        """Return the images as they are, float (n, channels, H, W) in [0, 1]."""
        return self._read(rows).float().div_(255)

    def weak(self, rows):
        """Return one weak view of each row, like `plain`."""
        if self.weak_transform is not None:
            return self.weak_transform(self.plain(rows))
        return random_crop_flip(self._read(rows), self.padding, self.flip).float().div_(255)

    def strong(self, rows):
        """Return one strong view of each row, like `plain`."""
        if self.strong_transform is not None:
            return self.strong_transform(self.plain(rows))
        images = self.weak(rows)
        if self.operations:
            images = random_strong_operation(images)
        return cutout(images, self.cutout)


class RandomTable:
    """Random numbers that are drawn once and read from random places.

    Drawing as many anew for each batch takes as long as a small network's forward pass.

    Parameters
    ----------
    draw : callable
        Draws numbers as ``torch.randn`` and ``torch.rand`` do.
    features : Tensor of shape (n, n_features)
        All samples, for which the table is made large enough. Its numbers are the same in every
        training; the places are drawn by torch's global generator.
    """

    def __init__(self, draw, features):
        self.draw = draw
        length = min(max(8 * features.numel(), 2**16), 2**22)
        self.values = draw(length, generator=torch.Generator().manual_seed(0)).to(features.device)

    def like(self, features):
        """Return numbers for a batch (m, n_features), not to be written to."""
        size = features.numel()
        if 4 * size > len(self.values):
            return self.draw(features.shape, device=features.device)
        start = int(torch.randint(len(self.values) - size, ()))
        return self.values[start : start + size].view(features.shape)


class FeatureViews:
    """Views of feature vectors: noise in units of each feature's deviation, and dropout.

    Parameters
    ----------
    features : ndarray of shape (n, n_features)
    weak_noise, strong_noise : float
        Standard deviation of the noise, as a share of the feature's own.
    dropout : float
        Share of features of a strong view that are replaced by their mean.
    weak_transform, strong_transform : callable or None
        Replace the views made here: a function of float features (n, n_features).
    device : torch.device
    """

    def __init__(
        self,
        features,
        *,
        weak_noise,
        strong_noise,
        dropout,
        weak_transform,
        strong_transform,
        device,
    ):
        self.features = torch.as_tensor(features, dtype=torch.float32, device=device)
        self.mean = self.features.mean(0)
        self.scale = self.features.std(0, correction=0)
        self.weak_noise = weak_noise
        self.strong_noise = strong_noise
        self.dropout = dropout
        self.weak_transform = weak_transform
        self.strong_transform = strong_transform

    def __len__(self):
        return len(self.features)

    @cached_property
    def _normal(self):
        return RandomTable(torch.randn, self.features)

    @cached_property
    def _dropped(self):
        return RandomTable(
            lambda *args, **kwargs: torch.rand(*args, **kwargs).lt_(self.dropout), self.features
        )

    def plain(self, rows):
        """Return the features as they are, float (n, n_features)."""
        return self.features.index_select(0, rows)  # several times faster than indexing

    def _noisy(self, features, noise):
        return features.addcmul_(self._normal.like(features), noise * self.scale)

    def weak(self, rows):
        """Return one weak view of each row."""
        features = self.plain(rows)
        if self.weak_transform is not None:
            return self.weak_transform(features)
        return self._noisy(features, self.weak_noise)

    def strong(self, rows):
        """Return one strong view of each row."""
        features = self.plain(rows)
        if self.strong_transform is not None:
            return self.strong_transform(features)
        features = self._noisy(features, self.strong_noise)
        # exact for weights of 0 and 1
        return features.lerp_(self.mean, self._dropped.like(features))
