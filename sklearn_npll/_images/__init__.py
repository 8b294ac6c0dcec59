"""Samples of any accepted kind, read as images.

A sample is an array, a PIL image, a path, encoded bytes, a tensor, or an item of a dataset that
holds one of these. Whatever it was, it becomes 8-bit: upright, without transparency, grey or RGB.
"""

from ._decoding import array_to_pil, decode_sample, to_uint8
from ._error import ImageReadError
from ._keys import image_keys, sample_key
from ._reading import as_image_array, has_layout, image_layout, read_image_array, read_images
from ._samples import (
    as_samples,
    check_collection,
    check_not_empty,
    fetch_samples,
    is_image_data,
    n_images,
    n_reading_threads,
    release_pages,
)

__all__ = [
    "ImageReadError",
    "array_to_pil",
    "as_image_array",
    "as_samples",
    "check_collection",
    "check_not_empty",
    "decode_sample",
    "fetch_samples",
    "has_layout",
    "image_keys",
    "image_layout",
    "is_image_data",
    "n_images",
    "n_reading_threads",
    "read_image_array",
    "read_images",
    "release_pages",
    "sample_key",
    "to_uint8",
]
