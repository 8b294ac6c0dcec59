"""Where models run, and whose turn it is with the generator they share."""

import threading
import warnings

from ._messages import did_you_mean

# Held by whoever seeds torch's global generator or puts it back, as all threads draw from it.
GENERATOR_LOCK = threading.RLock()


def resolve_device(device):
    """Return the device to use, after a try.

    Parameters
    ----------
    device : str
        "auto" or a name that torch knows.

    Returns
    -------
    str
        "cuda" or "cpu" for "auto", else the name as given.

    Raises
    ------
    ValueError
        If there is no such device, or none that works.

    Examples
    --------
    >>> resolve_device("cpu")
    'cpu'
    """
    import torch

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        kind = torch.device(device).type
    except RuntimeError as error:
        raise ValueError(
            f"Unknown device {device!r}.{did_you_mean(device, ['auto', 'cpu', 'cuda', 'mps'])}"
        ) from error
    try:
        torch.zeros(1, device=device).item()
    # what torch raises depends on the device and on its own build
    except (RuntimeError, AssertionError, ImportError) as error:
        reason = str(error).partition("\n")[0].split(". ")[0]
        raise ValueError(
            f"device={device!r} cannot be used, as torch finds no working {kind!r} here ({reason})."
            " Use 'auto' or 'cpu'."
        ) from error
    return str(device)


def usable_device(device):
    """Return the device that a saved model ran on, or else the CPU, with a warning.

    Parameters
    ----------
    device : str
        "auto" or a name that torch knows.

    Returns
    -------
    str

    Examples
    --------
    >>> usable_device("auto")
    'auto'
    """
    if device in ("auto", "cpu"):
        return device
    try:
        return resolve_device(device)
    except ValueError as error:
        warnings.warn(f"{error} The CPU is used instead.", stacklevel=2)
        return "cpu"
