"""Training states on disk: what they are called, how they are written and read."""

import hashlib
import io
import pickle
import warnings

import joblib
import numpy as np
import torch
from torch import nn

from .._files import atomic_write

_DIGEST_SIZE = 16


def fingerprint(*parts):
    """Return a hash of data and parameters that is the same in every process.

    Parameters
    ----------
    *parts : object
        Arrays (a memory map counts as its content), tensors, modules, skorch callbacks, what has a
        method ``content_to_hash`` that returns such parts, containers of these, and anything that
        can be pickled.

    Returns
    -------
    str

    Raises
    ------
    ValueError
        If a part cannot be pickled.
    """
    try:
        return joblib.hash([_stable(part) for part in parts], coerce_mmap=True)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        reason = str(error.args[0])
    raise ValueError(
        "a training with checkpoints or warm_start needs parameters and callbacks that can be "
        f"pickled, which lambdas and functions inside functions cannot: {reason}"
    )


def _stable(value):
    """A form of a value whose pickle depends on nothing but the value."""
    if isinstance(value, nn.Module):
        return repr(value), _stable(dict(value.state_dict()))
    if isinstance(value, torch.Tensor):  # a pickled tensor holds its address
        content = value.detach().cpu().reshape(-1).view(torch.uint8)
        return str(value.dtype), tuple(value.shape), content.numpy()
    if hasattr(value, "content_to_hash"):
        return type(value).__qualname__, _stable(value.content_to_hash())
    if isinstance(value, dict):
        return {key: _stable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_stable(item) for item in value]
    if hasattr(value, "get_params") and not isinstance(value, type):
        return type(value).__qualname__, _stable(value.get_params(deep=False))
    return value


def save_checkpoint(state, path):
    """Write a training state and its hash; a crash on the way leaves the file as it was.

    Returns
    -------
    OSError or None
        Why it cannot be written, if it cannot.
    """
    buffer = io.BytesIO()
    torch.save(state, buffer)
    # Released at once: left in a frame that the error holds, it is collected as part of a cycle, in
    # which Python 3.12.0 and 3.12.1 crash (python/cpython#111049).
    with buffer.getbuffer() as content:
        try:
            with atomic_write(path) as file:
                file.write(content)
                file.write(_digest(content))  # torch checks nothing
        except OSError as error:
            return error
    return None


def load_checkpoint(path):
    """Read a training state to the CPU; None if there is none, or it cannot be used: a warning."""
    try:
        content = memoryview(path.read_bytes())
        content, digest = content[:-_DIGEST_SIZE], content[-_DIGEST_SIZE:]
        if _digest(content) != digest:
            raise ValueError("the file is damaged")
        return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except FileNotFoundError:
        return None
    except pickle.UnpicklingError:  # whose message tells how to run it nevertheless
        reason = "it holds what may be code, and nothing that this package has written"
    except (OSError, RuntimeError, ValueError) as error:
        reason = str(error).partition("\n")[0]
    warnings.warn(
        f"the checkpoint {path} cannot be read, so the training starts from the beginning: "
        f"{reason}",
        UserWarning,
        stacklevel=5,  # the caller of fit
    )
    return None


def _digest(content):
    return hashlib.blake2b(content, digest_size=_DIGEST_SIZE).digest()


def map_tensors(function, state):
    """Apply a function to each tensor or array in nested dicts and lists."""
    if isinstance(state, (torch.Tensor, np.ndarray)):
        return function(state)
    if isinstance(state, dict):
        return {key: map_tensors(function, value) for key, value in state.items()}
    if isinstance(state, (list, tuple)):
        return [map_tensors(function, value) for value in state]
    return state


def plain_row(row):
    """A row of the history in Python's own types, which a checkpoint can hold."""
    return {
        key: value.tolist() if isinstance(value, (np.generic, np.ndarray)) else value
        for key, value in row.items()
    }
