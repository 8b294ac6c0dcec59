"""Fashion-MNIST: a subset that ships with the package, and the whole set where it is installed."""

import gzip
import io
import lzma
import zlib
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.utils import Bunch

from .._typing import PathLike

# The folder of Debian's package dataset-fashion-mnist.
SYSTEM_FOLDER = Path("/usr/share/datasets/fashion-mnist")

TARGET_NAMES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
# What a shop would call these articles; never compared with the labels of the data set.
CLASS_PROMPTS = {
    "T-shirt/top": ["t-shirt"],
    "Trouser": ["trousers"],
    "Pullover": ["pullover sweater"],
    "Dress": ["dress"],
    "Coat": ["coat"],
    "Sandal": ["sandal"],
    "Shirt": ["shirt"],
    "Sneaker": ["sneaker"],
    "Bag": ["bag"],
    "Ankle boot": ["ankle boot"],
}
IDX_PREFIX = {"train": "train", "test": "t10k"}
IDX_SUFFIX = {"images": "images-idx3-ubyte", "labels": "labels-idx1-ubyte"}
DESCR = """\
Fashion-MNIST: 28x28 grey images of ten kinds of articles sold by Zalando (MIT licence).

The whole set has 60,000 training and 10,000 test images. The subset shipped with sklearn_npll has
10,000 and 5,000 of them, the same number from each class, drawn once with a fixed seed by
tools/make_fashion_mnist_subset.py.

Source: H. Xiao, K. Rasul, R. Vollgraf, "Fashion-MNIST: a Novel Image Dataset for Benchmarking
Machine Learning Algorithms", arXiv:1708.07747, 2017.
"""


def load_fashion_mnist(
    subset: str = "train",
    *,
    full: bool = False,
    data_home: PathLike | None = None,
    return_X_y: bool = False,
) -> Any:
    """Load Fashion-MNIST: the shipped subset, or the whole set from a folder.

    Parameters
    ----------
    subset : {"train", "test", "all"}, default="train"
        The split to load. "all" is the training images followed by the test images.
    full : bool, default=False
        If False, load the subset that ships with the package: 10,000 training and 5,000 test
        images, with the same number of each class. If True, load all 60,000 and 10,000 from
        the four idx files in `data_home`.
    data_home : path-like, default=None
        With ``full=True``, the folder that holds the idx files (``train-images-idx3-ubyte``,
        ``train-labels-idx1-ubyte``, ``t10k-...``), plain or with ``.gz``. None means the folder
        of Debian's package ``dataset-fashion-mnist``, ``/usr/share/datasets/fashion-mnist``.
    return_X_y : bool, default=False
        If True, return ``(images, target)`` instead of a Bunch.

    Returns
    -------
    data : :class:`~sklearn.utils.Bunch`
        With the attributes

        images : ndarray of shape (n_samples, 28, 28), dtype uint8
            Grey values, 0 is the background.
        target : ndarray of shape (n_samples,), dtype int64
            Class codes 0 to 9.
        target_names : ndarray of shape (10,)
            The class of each code, spelt as in torchvision.
        class_prompts : dict
            Plain descriptive names of each class, ready for the `classes` parameter of
            :class:`~sklearn_npll.VLMPartialAnnotator`.
        DESCR : str
            Origin and licence.
    (images, target) : tuple
        Only with ``return_X_y=True``.

    Raises
    ------
    FileNotFoundError
        If ``full=True`` and an idx file is not there.

    See Also
    --------
    load_image_folder : Read one's own images.

    References
    ----------
    H. Xiao, K. Rasul and R. Vollgraf, "Fashion-MNIST: a Novel Image Dataset for Benchmarking
    Machine Learning Algorithms", arXiv:1708.07747, 2017. MIT licence.

    Examples
    --------
    >>> from sklearn_npll.datasets import load_fashion_mnist
    >>> data = load_fashion_mnist("test")
    >>> data.images.shape
    (5000, 28, 28)
    >>> str(data.target_names[data.target[0]])
    'Ankle boot'
    """
    if subset not in ("train", "test", "all"):
        raise ValueError(f"subset must be 'train', 'test' or 'all', got {subset!r}.")
    if data_home is not None and not full:
        raise ValueError("data_home is only read with full=True: pass full=True or leave it out.")
    splits = ("train", "test") if subset == "all" else (subset,)
    if full:
        folder = SYSTEM_FOLDER if data_home is None else Path(data_home)
        parts = [_read_idx_split(folder, split) for split in splits]
    else:
        parts = _read_shipped(splits)
    images = np.concatenate([part[0] for part in parts])
    target = np.concatenate([part[1] for part in parts]).astype(np.int64)
    if return_X_y:
        return images, target
    return Bunch(
        images=images,
        target=target,
        target_names=np.array(TARGET_NAMES),
        class_prompts={name: list(prompts) for name, prompts in CLASS_PROMPTS.items()},
        DESCR=DESCR,
    )


def _read_shipped(splits):
    packed = resources.files(__package__).joinpath("data/fashion-mnist/subset.npz.xz").read_bytes()
    with np.load(io.BytesIO(lzma.decompress(packed))) as arrays:
        return [(arrays[f"{split}_images"], arrays[f"{split}_labels"]) for split in splits]


def _read_idx_split(folder, split):
    """Images (n, 28, 28) and labels (n,) of one split of the whole data set."""
    images, labels = (
        _read_idx(_find_idx(folder, f"{IDX_PREFIX[split]}-{suffix}"))
        for suffix in IDX_SUFFIX.values()
    )
    if len(images) != len(labels):
        raise ValueError(
            f"{folder} holds {len(images)} {split} images but {len(labels)} labels: "
            "the two files are not of one data set."
        )
    return images, labels


def _find_idx(folder, name):
    for path in (folder / f"{name}.gz", folder / name):
        if path.is_file():
            return path
    raise FileNotFoundError(
        f"No {name}.gz or {name} in {folder}. Install Debian's package dataset-fashion-mnist, "
        "or download the four idx files and pass their folder as data_home. full=False needs "
        "no download."
    )


def _read_idx(path):
    """Read an idx file of unsigned bytes: magic 00 00 08 ndim, big-endian sizes, then the data."""
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rb") as file:
            raw = file.read()
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{path} is truncated or damaged: {error}. Download it again.") from error
    if len(raw) < 4 or raw[:3] != b"\0\0\x08" or len(raw) < 4 + 4 * raw[3]:
        raise ValueError(f"{path} is not an idx file of unsigned bytes.")
    ndim = raw[3]
    header = 4 + 4 * ndim
    shape = tuple(np.frombuffer(raw[4:header], dtype=">i4").tolist())
    if len(raw) - header != np.prod(shape):
        raise ValueError(
            f"{path} announces an array of shape {shape} but holds {len(raw) - header} bytes: "
            "it is truncated or damaged. Download it again."
        )
    return np.frombuffer(raw, dtype=np.uint8, offset=header).reshape(shape)
