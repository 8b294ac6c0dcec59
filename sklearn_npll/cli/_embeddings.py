"""Classifiers that learn from the annotator's embeddings, and embed images to predict them."""

import warnings
from dataclasses import fields, replace


def embed_images(labels, annotation, **options):
    """Return labels of images with the annotator's embeddings in place of paths.

    Parameters
    ----------
    labels : PartialLabels
    annotation : dict
        How they were made, as `annotate` has written it.
    **options
        Parameters of `VLMPartialAnnotator` that are matters of this machine.

    Returns
    -------
    PartialLabels
    """
    return labels.replace(data=_embedder(annotation, labels.data, **options).embed(labels.data))


def with_embedder(clf, annotation, images, device):
    """Put the annotator before a classifier that has learned from its embeddings.

    Parameters
    ----------
    clf : classifier
    annotation : dict
        How the labels were made, as `annotate` has written it.
    images : list of str
        Paths; none is opened.
    device : str
        Where the annotator's model is loaded, here and now.

    Returns
    -------
    Pipeline
        It takes images. No folder or device of this machine is in it.
    """
    from sklearn.pipeline import Pipeline

    embedder = _embedder(annotation, images, device=device).set_params(device="auto")
    embedder._prompted = replace(embedder._prompted, device="auto")
    return Pipeline([("annotator", embedder), ("classifier", clf)])


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
    from ..annotators._open_clip import SHIPPED_MODEL, is_tag

    return is_tag(model, pretrained) or (model, pretrained) == (SHIPPED_MODEL, None)


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


def _embedder(annotation, images, **options):
    """The annotator that made the labels, fitted, with embeddings as its output."""
    from ..annotators import VLMPartialAnnotator

    asked = {name: annotation[name] for name in ("classes", "templates", "model", "pretrained")}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The shipped model")  # annotate has told
        return VLMPartialAnnotator(**asked, output="embeddings", **options).fit(images)
