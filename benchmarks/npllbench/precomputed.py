"""Annotators of which only answers are known: embeddings or probabilities of stored images."""

import numpy as np

from sklearn_npll import VLMPartialAnnotator


class PrecomputedText:
    """A model that knows the embeddings of its class names, and of no image.

    Parameters
    ----------
    names : sequence of str
    embeddings : ndarray of shape (n_classes, n_dimensions)
    logit_scale : float, default=100.0
    """

    def __init__(self, names, embeddings, logit_scale=100.0):
        self.embeddings = dict(zip(names, embeddings))
        self.logit_scale = logit_scale

    def encode_image(self, images):
        raise NotImplementedError("images come as embeddings")

    def encode_text(self, texts):
        return np.stack([self.embeddings[text] for text in texts])

    def annotator(self, **params):
        """Return an annotator of embeddings with the bare class names as prompts."""
        return VLMPartialAnnotator(list(self.embeddings), templates=["{}"], vlm=self, **params)


def embeddings_from(proba):
    """Return embeddings that have given probabilities, for methods that compare images.

    A model's logits are inner products with the text embeddings, so that the logits, less their
    mean in each row, are the image embeddings projected to the span of the text embeddings. One
    more dimension makes their lengths equal.

    Parameters
    ----------
    proba : ndarray of shape (n_samples, n_classes)
        Of a model with a softmax over cosines.

    Returns
    -------
    images : ndarray of float32 of shape (n_samples, n_classes + 1)
    texts : ndarray of float32 of shape (n_classes, n_classes + 1)
        Of length one, as the images are.
    logit_scale : float
        The softmax of `logit_scale` times the cosines is `proba`.

    Examples
    --------
    >>> import numpy as np
    >>> images, texts, scale = embeddings_from(np.array([[0.9, 0.1], [0.4, 0.6]]))
    >>> odds = np.exp(scale * images @ texts.T)
    >>> (odds / odds.sum(axis=1, keepdims=True)).round(3)
    array([[0.9, 0.1],
           [0.4, 0.6]], dtype=float32)
    """
    n_classes = proba.shape[1]
    logits = np.log(np.maximum(proba, 1e-12, dtype=np.float64))
    logits -= logits.mean(axis=1, keepdims=True)
    squares = (logits**2).sum(axis=1)
    length = np.sqrt(squares.max())
    rest = np.sqrt(np.maximum(squares.max() - squares, 0))
    images = np.column_stack([logits, rest]) / length
    texts = np.eye(n_classes, n_classes + 1)
    texts[:, :n_classes] -= 1 / n_classes
    size = np.sqrt(1 - 1 / n_classes)
    return images.astype(np.float32), (texts / size).astype(np.float32), float(length * size)
