"""Versions of this package and of what it stands on."""

import platform
import sys
from importlib import metadata

REQUIRED = (
    "sklearn-npll",
    "scikit-learn",
    "torch",
    "skorch",
    "open_clip_torch",
    "numpy",
    "scipy",
    "joblib",
    "pillow",
    "tqdm",
)
_OPTIONAL = (
    "accelerate",
    "cleanlab",
    "dask",
    "datasets",
    "matplotlib",
    "onnx",
    "pandas",
    "polars",
    "pyarrow",
    "skops",
    "tensorboard",
    "timm",
    "torchvision",
    "transformers",
)


def package_version(name):
    """Return the version of an installed package, without importing it; None if there is none."""
    if name == "sklearn-npll":  # may be imported from its folder, not installed
        from . import __version__

        return __version__
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def show_versions() -> None:
    """Print the versions of Python, of this package and of others, for reports of errors.

    See Also
    --------
    sklearn.show_versions : Also tells the libraries for linear algebra and their threads.

    Examples
    --------
    >>> from sklearn_npll import show_versions
    >>> show_versions()
    python           3...
    platform         ...
    sklearn-npll     0...
    """
    import torch

    rows = {"python": sys.version.split()[0], "platform": platform.platform()}
    rows.update((name, package_version(name) or "missing") for name in REQUIRED)
    rows.update((name, package_version(name) or "not installed") for name in _OPTIONAL)
    rows["threads of torch"] = str(torch.get_num_threads())
    rows["CUDA"] = str(torch.version.cuda) if torch.cuda.is_available() else "none"
    for name, value in rows.items():
        print(f"{name:<16} {value}")
