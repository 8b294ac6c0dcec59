"""From samples and prompts to embeddings, and from these to probabilities."""

import contextlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from .._images import (
    ImageReadError,
    array_to_pil,
    as_samples,
    decode_sample,
    fetch_samples,
    n_images,
    n_reading_threads,
    sample_key,
    to_uint8,
)

_MAX_ELEMENTS = 2**22  # of a block of probabilities (rows, templates, classes): 16 MB


class UserEncoder:
    """A user's own vision-language model, with the interface of `OpenClipEncoder`.

    Parameters
    ----------
    vlm : object
        Has ``encode_image(images)``, ``encode_text(texts)`` and ``logit_scale``.
    batch_size : int
        Number of prompts to encode at once.

    Raises
    ------
    TypeError
        If a method is missing.
    ValueError
        If ``logit_scale`` is not a positive number.
    """

    def __init__(self, vlm, batch_size):
        for method in ("encode_image", "encode_text"):
            if not callable(getattr(vlm, method, None)):
                raise TypeError(
                    f"vlm of type {type(vlm).__name__} has no method {method}; it needs"
                    " encode_image(images), encode_text(texts) and logit_scale."
                )
        self.vlm = vlm
        self.batch_size = batch_size
        self.logit_scale = float(_to_numpy(getattr(vlm, "logit_scale", np.nan)).squeeze())
        if not 0 < self.logit_scale < np.inf:
            raise ValueError(
                f"vlm.logit_scale is {self.logit_scale}; it must be the positive factor of the"
                " cosines in the softmax, such as 100, not its logarithm."
            )

    @property
    def cache_key(self):
        """The string that names the weights, or None."""
        return getattr(self.vlm, "cache_key", None)

    def prepare(self, images):
        """Turn images into a list of RGB PIL images."""
        if isinstance(images, np.ndarray):
            images = [array_to_pil(image, "RGB") for image in images]
        return images

    def join(self, parts):
        """Join parts of a batch."""
        return [image for part in parts for image in part]

    def encode_image(self, images):
        """Encode a list of images; ndarray (n, n_dimensions)."""
        return _to_numpy(self.vlm.encode_image(images))

    def encode_features(self, rows):
        """Embed rows of features, if the user's model can; they are embeddings otherwise."""
        encode = getattr(self.vlm, "encode_features", None)
        return rows if encode is None else _to_numpy(encode(rows))

    def encode_text(self, texts):
        """Encode a tuple of prompts; ndarray (n, n_dimensions)."""
        starts = range(0, len(texts), self.batch_size)
        return np.concatenate(
            [_to_numpy(self.vlm.encode_text(list(texts[i : i + self.batch_size]))) for i in starts]
        )


def encode_images(encoder, X, *, batch_size, n_dimensions, cache=None, verbose=False):
    """Encode images batch by batch, reading the next ones while the model works.

    Parameters
    ----------
    encoder : OpenClipEncoder or UserEncoder
        The model.
    X : images
        Samples of any kind.
    batch_size : int
        Number of images to encode at once; memory is proportional to it.
    n_dimensions : int
        Length of an embedding.
    cache : EmbeddingCache, default=None
        Where to look for embeddings first, and to leave new ones.
    verbose : bool, default=False
        Whether to show a progress bar.

    Yields
    ------
    embeddings : ndarray of float32 of shape (n_batch, n_dimensions)
        Normalised embeddings; zeros for an image that cannot be read.
    errors : list of ImageReadError
        Why those cannot be read.
    """
    from tqdm.auto import tqdm

    samples, n = as_samples(X), n_images(X)
    workers = n_reading_threads(samples)
    share = -(-batch_size // workers)  # of a batch, for one thread

    def submit(start):
        stop = min(start + batch_size, n)
        parts = (range(i, min(i + share, stop)) for i in range(start, stop, share))
        return [pool.submit(_load, encoder, samples, rows, cache) for rows in parts]

    progress = tqdm(total=n, desc="Encoding images", unit="image", disable=not verbose)
    with progress, ThreadPoolExecutor(workers) as pool:
        loading = submit(0)
        for start in range(0, n, batch_size):
            parts = [future.result() for future in loading]
            loading = submit(start + batch_size)
            embeddings = _encode(encoder, parts, n_dimensions, cache)
            progress.update(len(embeddings))
            yield embeddings, [error for part in parts for error in part.errors]


def encode_prompts(encoder, texts, cache=None):
    """Encode prompts, each different one once.

    Parameters
    ----------
    encoder : OpenClipEncoder or UserEncoder
        The model.
    texts : list of str
        The prompts.
    cache : EmbeddingCache, default=None
        Where to look for embeddings first, and to leave new ones.

    Returns
    -------
    ndarray of float32 of shape (len(texts), n_dimensions)
        Their normalised embeddings.
    """
    unique = list(dict.fromkeys(texts))
    found = {}
    if cache is not None:
        stored = cache.get(f"text:{text}" for text in unique)
        found = {key[len("text:") :]: vector for key, vector in stored.items()}
    missing = tuple(text for text in unique if text not in found)
    if missing:
        vectors = _normalise(_check_encoded(encoder.encode_text(missing), len(missing), "text"))
        found.update(zip(missing, vectors))
        if cache is not None:
            cache.put([f"text:{text}" for text in missing], vectors)
    return np.stack([found[text] for text in texts])


def embed_features(encoder, rows, n_dimensions):
    """Embed rows of a 2-D array, which are embeddings unless the encoder says otherwise.

    Parameters
    ----------
    encoder : OpenClipEncoder or UserEncoder
        The model.
    rows : ndarray of float of shape (n, n_columns)
        The rows.
    n_dimensions : int
        Length of the prompts' embeddings.

    Returns
    -------
    ndarray of float32 of shape (n, n_dimensions)
        Normalised embeddings.

    Raises
    ------
    ValueError
        If the rows have another length than the prompts' embeddings.
    """
    vectors = encoder.encode_features(rows)
    if vectors.shape != (len(rows), n_dimensions):
        raise ValueError(
            f"X holds embeddings of shape {vectors.shape}, but the model embeds prompts in"
            f" {n_dimensions} dimensions. A 2-D X must come from the same model, as embed(images)"
            " does; images have shape (n, H, W) or (n, H, W, channels)."
        )
    return _normalise(vectors)


def class_embeddings(prompt_embeddings, n_templates, names_per_class):
    """Average the embeddings of the names of each class, for each template.

    A class with several names is their normalised mean, so it has one embedding a template like
    any other class and no advantage in the softmax.

    Parameters
    ----------
    prompt_embeddings : ndarray of shape (n_templates * n_names, n_dimensions)
        Normalised embeddings of the prompts, all names of the first template first.
    n_templates : int
        Number of templates.
    names_per_class : list of int
        Number of names of each class; they sum to n_names.

    Returns
    -------
    ndarray of float32 of shape (n_templates, n_classes, n_dimensions)
        Normalised embeddings.

    Examples
    --------
    >>> import numpy as np
    >>> prompts = np.array([[1, 0], [0, 1], [0, -1]], dtype=np.float32)
    >>> class_embeddings(prompts, 1, [2, 1]).round(3).tolist()
    [[[0.7070000171661377, 0.7070000171661377], [0.0, -1.0]]]
    """
    by_template = prompt_embeddings.reshape(n_templates, sum(names_per_class), -1)
    starts = np.cumsum([0, *names_per_class[:-1]])
    return _normalise(np.add.reduceat(by_template, starts, axis=1))


def template_probabilities(embeddings, text, logit_scale):
    """Zero-shot probabilities of each template: softmax over classes of the scaled cosines.

    Parameters
    ----------
    embeddings : ndarray of float32 of shape (n, n_dimensions)
        Normalised image embeddings.
    text : ndarray of float32 of shape (n_templates, n_classes, n_dimensions)
        Normalised class embeddings.
    logit_scale : float
        Factor of the cosines.

    Returns
    -------
    ndarray of float32 of shape (n, n_templates, n_classes)
        The probabilities.

    Examples
    --------
    >>> import numpy as np
    >>> image, text = np.array([[1.0, 0.0]]), np.array([[[1.0, 0.0], [0.0, 1.0]]])
    >>> template_probabilities(image, text, np.log(3)).round(2)
    array([[[0.75, 0.25]]])
    """
    import torch

    n_templates, n_classes, n_dimensions = text.shape
    # The images are scaled, not the prompts, of which there may be a hundred thousand.
    scaled = torch.from_numpy(embeddings * embeddings.dtype.type(logit_scale))
    # By torch, as idle threads of NumPy's OpenBLAS keep cores busy that the model is to run on.
    prompts = torch.from_numpy(np.require(text, requirements="W").reshape(-1, n_dimensions))
    logits = (scaled @ prompts.T).numpy()
    logits = logits.reshape(len(embeddings), n_templates, n_classes)
    logits -= logits.max(axis=2, keepdims=True)
    np.exp(logits, out=logits)
    logits /= logits.sum(axis=2, keepdims=True)
    return logits


def vote_and_average(embeddings, text, logit_scale, weights=None):
    """Reduce the probabilities of the templates, never holding those of many images at once.

    Parameters
    ----------
    embeddings : ndarray of float32 of shape (n, n_dimensions)
        Normalised image embeddings; a row of zeros stands for an image that could not be read.
    text : ndarray of float32 of shape (n_templates, n_classes, n_dimensions)
        Normalised class embeddings.
    logit_scale : float
        Factor of the cosines.
    weights : ndarray of float of shape (n_templates,), default=None
        Shares of the templates in the mean; equal by default.

    Returns
    -------
    votes : ndarray of int of shape (n, n_templates)
        The most probable class by each template; -1 for an image that could not be read.
    scores : ndarray of float32 of shape (n, n_classes)
        The mean probabilities over templates.
    """
    n_templates, n_classes, _ = text.shape
    votes = np.empty((len(embeddings), n_templates), dtype=np.min_scalar_type(-n_classes))
    scores = np.empty((len(embeddings), n_classes), dtype=np.float32)
    step = max(1, _MAX_ELEMENTS // (n_templates * n_classes))
    for start in range(0, len(embeddings), step):
        rows = slice(start, start + step)
        proba = template_probabilities(embeddings[rows], text, logit_scale)
        votes[rows] = proba.argmax(axis=2)
        scores[rows] = proba.mean(axis=1) if weights is None else weights @ proba
    votes[~embeddings.any(axis=1)] = -1
    return votes, scores


@dataclass
class _Part:
    """Loaded rows of a batch."""

    keys: list  # of all rows; None without a cache and for what cannot be read
    stored: dict  # key -> embedding from the cache
    new: list  # positions of the rows to encode
    prepared: object  # what the encoder made of their images
    errors: list


def _load(encoder, samples, rows, cache):
    """Read and preprocess the rows that are not in the cache, in a worker thread."""
    batch = fetch_samples(samples, rows)
    keys, stored = [None] * len(rows), {}
    if cache is not None:
        keys = [sample_key(item) for item in batch]
        stored = cache.get(key for key in keys if key is not None)
    new = [i for i, key in enumerate(keys) if key not in stored]
    images = None
    if isinstance(batch, np.ndarray):
        # one that cannot be read is found by reading them one by one
        with contextlib.suppress(ImageReadError):
            images = to_uint8(batch[new] if stored else batch, [rows[i] for i in new])
    if images is None:
        return _load_each(encoder, rows, keys, stored, new, batch)
    # Arrays are resized by torch, whose threads would here compete with the model's for the cores.
    if new and getattr(encoder, "device", None) != "cpu":
        images = encoder.prepare(images)
    return _Part(keys, stored, new, images, [])


def _load_each(encoder, rows, keys, stored, new, batch):
    """Prepare images one by one: a photo takes far more memory than what is made of it."""
    read, prepared, errors = [], [], []
    for i in new:
        image = decode_sample(batch[i], rows[i], "RGB")
        if isinstance(image, ImageReadError):
            errors.append(image)
        else:
            read.append(i)
            prepared.append(encoder.prepare([image]))
    return _Part(keys, stored, read, encoder.join(prepared) if read else None, errors)


def _encode(encoder, parts, n_dimensions, cache):
    """Encode a batch loaded in parts; rows that cannot be read are left at zero."""
    keys = [key for part in parts for key in part.keys]
    stored = {key: vector for part in parts for key, vector in part.stored.items()}
    embeddings = np.zeros((len(keys), n_dimensions), dtype=np.float32)
    for i, key in enumerate(keys):
        if key in stored:
            embeddings[i] = stored[key]
    offsets = np.cumsum([0, *(len(part.keys) for part in parts)])
    new = [offset + i for offset, part in zip(offsets, parts) for i in part.new]
    if new:
        prepared = [part.prepared for part in parts if part.new]
        prepared = [encoder.prepare(p) if isinstance(p, np.ndarray) else p for p in prepared]
        prepared = encoder.join(prepared)
        encoded = _check_encoded(encoder.encode_image(prepared), len(new), "image", n_dimensions)
        embeddings[new] = _normalise(encoded)
        if cache is not None:
            cache.put([keys[i] for i in new], embeddings[new])
    return embeddings


def _check_encoded(vectors, n, kind, n_dimensions=None):
    n_dimensions = n_dimensions or vectors.shape[-1]
    if vectors.shape != (n, n_dimensions):
        raise ValueError(
            f"encode_{kind} returned shape {vectors.shape} for {n} {kind}s; expected"
            f" {(n, n_dimensions)}, with as many columns as encode_text and encode_image share."
        )
    if not np.isfinite(vectors).all():
        raise ValueError(f"encode_{kind} returned NaN or infinity.")
    return vectors


def _normalise(vectors):
    """Scale to length one; zero vectors stay."""
    norms = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return (vectors / np.where(norms > 0, norms, 1)).astype(np.float32)


def _to_numpy(values):
    if hasattr(values, "detach"):
        values = values.detach().float().cpu()
    return np.asarray(values, dtype=np.float32)
