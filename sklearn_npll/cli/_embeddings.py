"""The annotator of a folder, made again to embed images for a classifier."""

import warnings
from dataclasses import fields


def make_embedder(annotation, images, **options):
    """Return the annotator of a folder, fitted, with embeddings as its output.

    Parameters
    ----------
    annotation : dict
        How the labels were made, as `annotate` has written it.
    images : list of str
        Paths; none is opened.
    **options
        Parameters of `VLMPartialAnnotator` that are matters of this machine.

    Returns
    -------
    VLMPartialAnnotator
    """
    from ..annotators import VLMPartialAnnotator

    asked = {name: annotation[name] for name in ("classes", "templates", "model", "pretrained")}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The shipped model")  # annotate has told
        return VLMPartialAnnotator(**asked, output="embeddings", **options).fit(images)


def is_public(model, pretrained):
    """Whether a model ships with the package, or open_clip knows where its weights are.

    Only the name of such a one needs to be in a file, and loading it runs nobody's code.

    Examples
    --------
    >>> is_public("fashion-clip-tiny", None), is_public("ViT-B-32-quickgelu", "openai")
    (True, True)
    >>> is_public("local-dir:models/mine", None), is_public("ViT-B-32-quickgelu", "mine.pt")
    (False, False)
    """
    import open_clip

    from ..annotators._open_clip import SHIPPED_MODEL

    own = (SHIPPED_MODEL, None)
    return (model, pretrained) in [own, *open_clip.list_pretrained()]


def check_embedder(annotator):
    """Check that an annotator from a stranger's file may be used.

    Parameters
    ----------
    annotator : object
        What the file holds in its place.

    Raises
    ------
    ValueError
        If it is another estimator, its model is not public, or it would write to a folder.
    """
    from ..annotators import VLMPartialAnnotator
    from ..annotators._plan import PromptedModel

    prompted = getattr(annotator, "_prompted", None)
    if type(annotator) is not VLMPartialAnnotator or type(prompted) is not PromptedModel:
        raise ValueError("its first step is no fitted VLMPartialAnnotator")
    if vars(prompted).keys() != {field.name for field in fields(prompted)}:
        raise ValueError("its annotator holds more than settings")
    if prompted.vlm is not None or prompted.cache_dir is not None:
        raise ValueError("its annotator has a model or a cache_dir of its own")
    if not is_public(prompted.model, prompted.pretrained):
        raise ValueError(
            f"its annotator would load the model {prompted.model!r} with the weights"
            f" {prompted.pretrained!r}, which open_clip does not list"
        )
