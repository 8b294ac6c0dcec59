"""How DeFT learns: the model of two prompts, the samples it reads, and the loop over epochs."""

import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from .._images import (
    ImageReadError,
    as_samples,
    decode_sample,
    fetch_samples,
    n_images,
    to_uint8,
)
from ._deft_losses import (
    complement_weights,
    dual_prompt_loss,
    prompt_margin,
    select_clean,
    similarity_loss,
    target_weights,
)


class ResidualPrompts(nn.Module):
    """Class features that are learnt directly, in place of prompts.

    Parameters
    ----------
    shape : tuple of int (n_classes, n_dimensions)
    text : Tensor of that shape, default=None
        Features of the class names, to which residuals are added before the sum is scaled to
        length one. Without it the learnt rows are the weights of two linear classifiers.
    """

    def __init__(self, shape, text=None):
        super().__init__()
        self.register_buffer("text", text)
        self.positive = nn.Parameter(torch.zeros(shape))
        self.negative = nn.Parameter(torch.zeros(shape))

    def forward(self):
        """Two Tensors of shape (n_classes, n_dimensions)."""
        if self.text is None:
            return self.positive, self.negative
        return tuple(F.normalize(self.text + d, dim=1) for d in (self.positive, self.negative))


class DualPromptModel(nn.Module):
    """Scaled products of image features with the positive and the negative class features.

    Parameters
    ----------
    prompts : torch.nn.Module
        ``prompts()`` returns the two sets of class features (n_classes, n_dimensions).
    images : torch.nn.Module
        From a batch of samples to image features (n, n_dimensions).
    scale : float
        Factor of the products.
    """

    def __init__(self, prompts, images, scale):
        super().__init__()
        self.prompts = prompts
        self.images = images
        self.scale = scale

    def forward(self, batch):
        """Positive and negative logits (n, n_classes); the negative ones leave images alone."""
        positive, negative = self.prompts()
        return dual_logits(self.images(batch), positive, negative, self.scale)


def dual_logits(features, positive, negative, scale):
    """Scaled products of features (n, d) with two sets of class features (C, d)."""
    return scale * features @ positive.T, scale * features.detach() @ negative.T


class Features:
    """Rows of a feature matrix as batches of samples.

    Parameters
    ----------
    array : ndarray of float32 of shape (n_samples, n_dimensions)
    device : str
    """

    def __init__(self, array, device):
        self.array = array
        self.device = device

    def __len__(self):
        return len(self.array)

    def batches(self, parts):
        """Yield a Tensor for each array of rows."""
        for rows in parts:
            yield torch.from_numpy(self.array[rows]).to(self.device)


class Images:
    """Images of any kind as batches, the next of which is read while the model works.

    Parameters
    ----------
    X : images
    encoder : OpenClipEncoder
        Prepares them.
    """

    def __init__(self, X, encoder):
        self.samples = as_samples(X)
        self.encoder = encoder
        self.n_samples = n_images(X)

    def __len__(self):
        return self.n_samples

    def batches(self, parts):
        """Yield what the encoder prepared for each array of rows."""
        with ThreadPoolExecutor(1) as pool:
            waiting = None
            for rows in parts:
                following = pool.submit(self._read, rows)
                if waiting is not None:
                    yield waiting.result()
                waiting = following
            if waiting is not None:
                yield waiting.result()

    def _read(self, rows):
        batch = fetch_samples(self.samples, rows)
        if isinstance(batch, np.ndarray):
            images = to_uint8(batch, rows)
        else:
            images = [decode_sample(item, int(row), "RGB") for item, row in zip(batch, rows)]
            for image in images:
                if isinstance(image, ImageReadError):
                    raise image
        return self.encoder.prepare(images)


@torch.enable_grad()
def train(
    model,
    samples,
    candidates,
    *,
    known,
    optimizer,
    max_epochs,
    warm_up,
    batch_size,
    rule,
    threshold,
    complement,
    relabel,
    generator,
    verbose,
):
    """Train the prompts, and the image tower where it has parameters.

    Parameters
    ----------
    model : DualPromptModel
        Is changed.
    samples : Features or Images
    candidates : bool ndarray of shape (n_samples, n_classes)
        Rows of ones carry no label and are not trained on.
    known : bool ndarray of shape (n_samples,)
        Rows that are clean, whatever the model says.
    optimizer : torch.optim.Optimizer
        Its learning rate falls to zero along a cosine, epoch by epoch.
    max_epochs, warm_up, batch_size : int
        In the first `warm_up` epochs every row counts as clean.
    rule, threshold : str, float
        Arguments of `select_clean`.
    complement : {"random", "all"}
    relabel : bool
    generator : torch.Generator
        Of the CPU: draws the order of the rows and the complements.
    verbose : bool

    Returns
    -------
    list of dict
        A row for each epoch.

    Raises
    ------
    ValueError
        If the loss is not finite.
    ImageReadError
        If an image cannot be read.
    """
    from tqdm.auto import tqdm

    rows = np.flatnonzero(~candidates.all(axis=1))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max_epochs)
    history = []
    n_batches = -(-len(rows) // batch_size)
    with tqdm(total=max_epochs * n_batches, desc="DeFT", unit="batch", disable=not verbose) as bar:
        for epoch in range(max_epochs):
            start = time.perf_counter()
            warming_up = epoch < warm_up
            order = rows[torch.randperm(len(rows), generator=generator).numpy()]
            parts = [order[i : i + batch_size] for i in range(0, len(order), batch_size)]
            sums = np.zeros(3)
            for part, batch in zip(parts, samples.batches(parts)):
                sets = torch.from_numpy(candidates[part])
                others = complement_weights(sets, complement, generator)
                believed = torch.from_numpy(known[part] | warming_up)
                loss_dp, loss_sim, selected = _losses(
                    *model(batch), sets, others, believed, rule, threshold, relabel
                )
                optimizer.zero_grad()
                (loss_dp + loss_sim).backward()
                optimizer.step()
                figures = torch.stack([loss_dp, loss_sim, selected.float().mean()]).detach()
                sums += len(part) * figures.cpu().numpy()
                bar.update()
            if not np.isfinite(sums).all():
                raise ValueError(
                    f"the loss is not finite in epoch {epoch + 1} of {max_epochs}; take an lr below"
                    f" {optimizer.defaults['lr']:g}"
                )
            loss_dp, loss_sim, share = (sums / len(rows)).tolist()
            history.append(
                {
                    "epoch": epoch + 1,
                    "phase": "warm_up" if warming_up else "detection",
                    "loss_dp": loss_dp,
                    "loss_sim": loss_sim,
                    "selected_share": share,
                    "lr": optimizer.param_groups[0]["lr"],
                    "seconds": time.perf_counter() - start,
                }
            )
            bar.set_postfix(selected=f"{share:.1%}")
            schedule.step()
    return history


def _losses(positive, negative, sets, others, believed, rule, threshold, relabel):
    """The two losses of a batch, and its rows that count as clean."""
    sets, others, believed = (part.to(positive.device) for part in (sets, others, believed))
    margin = prompt_margin(positive, negative)
    selected = believed | select_clean(margin.detach(), sets, rule, threshold)
    target = target_weights(positive, sets, selected, relabel)
    return (
        dual_prompt_loss(margin, target, others),
        similarity_loss(positive, sets, selected),
        selected,
    )


@torch.no_grad()
def predict_logits(samples, images, positive, negative, scale, batch_size):
    """Positive and negative logits of samples, batch by batch.

    Parameters
    ----------
    samples : Features or Images
    images : torch.nn.Module
        From a batch of samples to image features (n, n_dimensions).
    positive, negative : Tensor of shape (n_classes, n_dimensions)
    scale : float
    batch_size : int

    Returns
    -------
    positive, negative : Tensor of shape (n_samples, n_classes)
        On the CPU.
    """
    rows = np.arange(len(samples))
    parts = [rows[i : i + batch_size] for i in range(0, len(rows), batch_size)]
    logits = (
        dual_logits(images(batch), positive, negative, scale) for batch in samples.batches(parts)
    )
    return tuple(torch.cat(side).cpu() for side in zip(*logits))
