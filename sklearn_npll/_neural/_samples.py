"""What the networks are given: checked features and images, their statistics and views."""

from numbers import Integral

import numpy as np
import torch

from .._images import check_not_empty, is_image_data, read_images, release_pages
from .._inputs import check_magnitude, forget_features, samples_of, validate_features
from .._streamed_images import open_images
from ._views import FeatureViews, ImageViews

MAX_IMAGE_SIZE = 64
LARGEST_FEATURE = 1e30  # sums of more would leave single precision


class SamplesMixin:
    """Checks the samples of a classifier of networks, and makes views of them."""

    def _check_samples(self, X, reset):
        """Return float32 features (n, n_features) or images, uint8 (n, H, W, channels)."""
        X = samples_of(X)
        check_not_empty(X)
        is_image = is_image_data(X)
        if not reset and is_image != (self.image_shape_ is not None):
            kind = {True: "images", False: "features"}
            raise ValueError(
                f"this classifier was fitted on {kind[not is_image]} but X holds {kind[is_image]}"
                " (images have shape (n, H, W) or (n, H, W, channels), or are a list)"
            )
        if not is_image:
            if reset:
                self.image_shape_ = None
            features = validate_features(self, X, reset, np.float32)
            check_magnitude(features, LARGEST_FEATURE)
            # Torch wants what it could write to, and no rows in reverse.
            return np.require(features, requirements="CW")
        if reset:
            forget_features(self)
            images = self._read_images(X)
            self.image_shape_ = images.shape[1:]
            return images
        height, width, channels = self.image_shape_
        return open_images(X, image_size=(height, width), channels=channels)

    def _read_images(self, X):
        """Read images to fit on, in their own size if it is small and common to all."""
        if self.image_size is not None:
            size = tuple(self.image_size)
            if len(size) != 2 or not all(isinstance(n, Integral) and n > 0 for n in size):
                raise ValueError(f"image_size must be (height, width) in pixels; got {size}")
            return open_images(X, image_size=size)
        if max(read_images(X, [0], mode=None)[0].size) <= MAX_IMAGE_SIZE:
            try:
                return open_images(X)
            except ValueError:  # sizes differ, or else the next line raises again
                pass
        return open_images(X, image_size=(MAX_IMAGE_SIZE, MAX_IMAGE_SIZE))

    def _make_views(self, data, device):
        transforms = {
            "weak_transform": self.weak_transform,
            "strong_transform": self.strong_transform,
            "device": device,
        }
        if data.ndim == 2:
            return FeatureViews(
                data,
                weak_noise=self.weak_noise,
                strong_noise=self.strong_noise,
                dropout=self.feature_dropout,
                **transforms,
            )
        operations = self.strong_operations
        if operations == "auto":
            operations = data.shape[3] == 3
        cutout = min(data.shape[1:3]) // 2 if self.cutout == "auto" else self.cutout
        return ImageViews(data, flip=self.flip, cutout=cutout, operations=operations, **transforms)


def _some_images(data):
    """Return a thousand images or a few less, without the pages of a memory map between them."""
    step = -(-len(data) // 1000)
    parts = []
    for start in range(0, len(data), 64 * step):
        parts.append(np.array(data[start : start + 64 * step : step]))
        release_pages(data)
    return np.concatenate(parts)


def input_statistics(data):
    """Return mean and scale of features or channels, and the shape of one input."""
    if data.ndim == 2:
        axes, shape, unit = 0, data.shape[1:], 1.0
    else:
        data = _some_images(data)
        height, width, channels = data.shape[1:]
        axes, shape, unit = (0, 1, 2), (channels, height, width), 255.0
    # in float64, as a float32 sum over many pixels stops growing
    mean, scale = (f(data, axis=axes, dtype=np.float64) / unit for f in (np.mean, np.std))
    scale = np.where(scale > 1e-12 * np.abs(mean), scale, 1.0)  # less is rounding
    form = (-1, *[1] * (len(shape) - 1))
    return *(torch.from_numpy(v.reshape(form)).float() for v in (mean, scale)), tuple(shape)
