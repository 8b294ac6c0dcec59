"""The network of `ImageEncoderStudent`, apart as importing it loads torch."""

import torch
import torch.nn.functional as F
from torch import nn

from ._open_clip import size_pair


class FineTunedEncoder(nn.Module):
    """An image encoder and a linear classifier on its embeddings.

    Parameters
    ----------
    visual : nn.Module
        Image tower of an open_clip model.
    n_dimensions : int
        Those of its embeddings.
    n_classes : int
    """

    #: Images come in [0, 1], not standardised: the encoder has been trained with its own figures.
    raw_inputs = True

    def __init__(self, visual, n_dimensions, n_classes):
        super().__init__()
        config = visual.preprocess_cfg
        self.size = size_pair(config["size"])
        self.visual = visual.requires_grad_(True)
        for name in ("mean", "std"):
            self.register_buffer(name, torch.tensor(config[name]).view(-1, 1, 1))
        self.classifier = nn.Linear(n_dimensions, n_classes)

    def forward(self, x):
        """Map images (n, 1|3, H, W) in [0, 1] to logits (n, n_classes)."""
        if x.shape[2:] != self.size:
            x = F.interpolate(x, self.size, mode="bilinear", antialias=True)
        x = F.normalize(self.visual((x - self.mean) / self.std).float(), dim=1)
        return self.classifier(x * x.shape[1] ** 0.5)
