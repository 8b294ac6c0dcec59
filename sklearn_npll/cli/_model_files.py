"""Files of fitted classifiers: skops, safe to load from anybody, or joblib."""

from importlib.util import find_spec
from pathlib import Path

from .._files import atomic_write
from ._embeddings import check_embedder

# All that a model of `fit` is made of. None of these runs code from the file.
_TYPES = (
    "sklearn_npll.annotators._plan.PromptedModel",
    "sklearn_npll.annotators._vlm_annotator.VLMPartialAnnotator",
    "sklearn_npll.coreg._classifier.CoRegClassifier",
    "sklearn_npll.coreg._net.CoRegNet",
)


def default_model_file(folder, shareable=True):
    """Return the file for a model in a folder: of skops, if that can be, else of joblib."""
    return Path(folder, "model.skops" if shareable and find_spec("skops") else "model.joblib")


def check_model_file(path, shareable=True):
    """Check that a model can be written, before it is trained.

    Parameters
    ----------
    path : str or path-like
        The file.
    shareable : bool, default=True
        Whether the model can be loaded by anybody, as it needs no files of this machine.

    Raises
    ------
    ValueError
        If its ending is neither .skops nor .joblib, or it is .skops and the model not shareable.
    ImportError
        If skops is needed and missing.

    Examples
    --------
    >>> check_model_file("model.pkl")
    Traceback (most recent call last):
    ...
    ValueError: 'model.pkl' must end in .skops (safe to share) or .joblib (only for yourself).
    """
    if Path(path).suffix not in (".skops", ".joblib"):
        raise ValueError(
            f"{str(path)!r} must end in .skops (safe to share) or .joblib (only for yourself)."
        )
    if _is_skops(path):
        _skops()
        if not shareable:
            raise ValueError(
                f"{str(path)!r} cannot hold a model on embeddings of a vision-language model that"
                " open_clip does not list by name and tag. Give --model-file a name in .joblib."
            )


def save_model(model, path):
    """Write a fitted classifier, whole or not at all."""
    import joblib

    dump = _skops().dump if _is_skops(path) else joblib.dump
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as file:
        dump(model, file)


def load_model(path):
    """Read a fitted classifier of images.

    Parameters
    ----------
    path : str or path-like
        A file of `save_model`, or of a pipeline that ends with a classifier. One of joblib may run
        code.

    Returns
    -------
    model : classifier

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it holds anything else, or is damaged.
    """
    import joblib

    from .._inputs import last_step
    from .._neural._base import NeuralClassifier

    if Path(path).is_dir():
        models = [file for file in Path(path).glob("model.*") if file.is_file()]
        hint = f", such as {str(models[0])!r}" if len(models) == 1 else ""
        raise ValueError(f"{str(path)!r} is a folder; name the model that fit has written{hint}.")
    check_model_file(path)
    if not Path(path).is_file():
        raise FileNotFoundError(f"There is no model {str(path)!r}; first run: sklearn-npll fit.")
    try:
        model = _load_skops(path) if _is_skops(path) else joblib.load(path)
    # what a damaged file raises depends on where the damage is
    except Exception as error:
        raise ValueError(f"{path} cannot be loaded: {type(error).__name__}: {error}") from error
    last = last_step(model)
    if not isinstance(last, NeuralClassifier) or not hasattr(last, "net_"):
        raise ValueError(
            f"{path} holds {type(last).__name__}, which is no fitted classifier of sklearn_npll."
        )
    if last.image_shape_ is None and not _embeds_images(model):
        raise ValueError(f"{path} holds a classifier of features, which cannot read images.")
    return model


def _is_skops(path):
    return Path(path).suffix == ".skops"


def _embeds_images(model):
    from sklearn.pipeline import Pipeline

    return isinstance(model, Pipeline) and getattr(model[0], "output", None) == "embeddings"


def _load_skops(path):
    from sklearn.pipeline import Pipeline

    skops = _skops()
    others = sorted(set(skops.get_untrusted_types(file=path)) - set(_TYPES))
    if others:
        raise ValueError(f"it is no model of fit, since it wants to make {', '.join(others)}")
    model = skops.load(path, trusted=list(_TYPES))
    if isinstance(model, Pipeline):
        if len(model) != 2:
            raise ValueError(f"it is a pipeline of {len(model)} steps, and those of fit have two")
        check_embedder(model[0])
    return model


def _skops():
    try:
        import skops.io
    except ImportError as error:
        raise ImportError("Models in .skops files need skops: pip install skops.") from error
    return skops.io
