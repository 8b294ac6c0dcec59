"""Data sets to try the package on, readers for a user's own, and synthetic candidate noise."""

from .._images import ImageReadError
from ._fashion_mnist import load_fashion_mnist
from ._image_folder import load_image_folder
from ._make_candidates import make_candidates
from ._tar_images import TarImages

__all__ = [
    "ImageReadError",
    "TarImages",
    "load_fashion_mnist",
    "load_image_folder",
    "make_candidates",
]
