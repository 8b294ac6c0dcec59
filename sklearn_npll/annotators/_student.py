"""A student that starts from the image encoder of a vision-language model."""

import copy
import os
from dataclasses import dataclass

from .._typing import PathLike
from ._open_clip import SHIPPED_MODEL, load_open_clip


@dataclass(frozen=True)
class ImageEncoderStudent:
    """Network for images that starts from the image encoder of a vision-language model.

    For the parameter ``module`` of the classifiers that train networks, which takes an instance,
    not the class. All weights are trained further. Such a network is as large as the encoder, and
    slow to train without a GPU; where that does not matter, it starts with what the model knows. To
    train nothing but what follows the encoder, learn from embeddings instead:
    ``VLMPartialAnnotator(output="embeddings")``.

    Parameters
    ----------
    model : str, default="fashion-clip-tiny"
        As in :class:`VLMPartialAnnotator`.
    pretrained : str or path, default=None
        As in :class:`VLMPartialAnnotator`.

    Raises
    ------
    TypeError
        If one is something else.

    Notes
    -----
    Images keep the size that the classifier gives them and are resized to what the encoder
    expects by the network, as a whole, without a crop in the middle. Embeddings are scaled to
    length one, and multiplied by the square root of their dimension, so that their entries have
    the size that the linear classifier after them is made for. Their export to ONNX needs PyTorch
    2.5, which is the first to write the resizing.

    Examples
    --------
    >>> from sklearn_npll import CoRegClassifier
    >>> from sklearn_npll.annotators import ImageEncoderStudent
    >>> clf = CoRegClassifier(module=ImageEncoderStudent(), lr=0.01)
    >>> network = ImageEncoderStudent()(n_classes=3)
    >>> network.classifier
    Linear(in_features=64, out_features=3, bias=True)
    """

    model: str = SHIPPED_MODEL
    pretrained: PathLike | None = None

    def __post_init__(self):
        if not isinstance(self.model, str):
            raise TypeError(
                f"model is {self.model!r}, but must be the name of an open_clip model, such as"
                f" {SHIPPED_MODEL!r}. The number of classes is given by the classifier."
            )
        if not isinstance(self.pretrained, (str, os.PathLike, type(None))):
            raise TypeError(
                f"pretrained is {self.pretrained!r}, but must be the name of weights, such as"
                " 'openai', or a file of them."
            )

    def __call__(self, n_classes, n_features=None):
        """Return a network that maps images (n, 1|3, height, width) in [0, 1] to logits.

        Parameters
        ----------
        n_classes : int
        n_features : int, default=None
            Features of a row of X, if it does not hold images.

        Returns
        -------
        nn.Module

        Raises
        ------
        ValueError
            If X does not hold images.
        ImportError, ValueError, FileNotFoundError, RuntimeError
            If the model cannot be loaded.
        """
        if n_features is not None:
            raise ValueError(
                f"module={self!r} is a network for images, but X has {n_features} features a row"
            )
        from ._student_network import FineTunedEncoder

        encoder = load_open_clip(self.model, self.pretrained, device="cpu")
        visual = copy.deepcopy(encoder.model.visual)
        n_dimensions = encoder.encode_text(("a",)).shape[1]
        return FineTunedEncoder(visual, n_dimensions, n_classes)
