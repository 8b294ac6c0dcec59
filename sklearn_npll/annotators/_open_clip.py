"""Vision-language models from open_clip, loaded once a process."""

import copy
import hashlib
import importlib
import json
import os
import pickle
import re
from functools import cached_property, lru_cache
from importlib import resources
from pathlib import Path

import numpy as np

from .._device import GENERATOR_LOCK, resolve_device
from .._messages import did_you_mean

SHIPPED_MODEL = "fashion-clip-tiny"
# Words, without a plural's s, of which a class that the shipped model may know has one.
CLOTHES = frozenset(
    "bag backpack blouse boot bootie cardigan cloth coat dress footwear gown handbag heel hoodie "
    "jacket jean jersey jumper loafer pant parka pullover pump purse sandal shirt shoe skirt "
    "slipper sneaker suit sweater sweatshirt tee top trainer trouser tshirt tunic vest".split()
)
_LOCAL, _HUB = "local-dir:", "hf-hub:"


def load_open_clip(model, pretrained=None, *, device="auto", precision="fp32"):
    """Load a pretrained open_clip model, or return the one already loaded by this process.

    Parameters
    ----------
    model : str
        "fashion-clip-tiny", a name open_clip lists, ``"local-dir:<folder>"`` or
        ``"hf-hub:<owner>/<name>"``.
    pretrained : str, default=None
        Tag of the weights, or their file; only for names open_clip lists.
    device : str, default="auto"
        "auto" is CUDA where there is one, else the CPU.
    precision : {"fp32", "fp16", "bf16"}, default="fp32"
        Number type of the model.

    Returns
    -------
    OpenClipEncoder
        The model. The few loaded last are kept.

    Raises
    ------
    ValueError
        If the model, its weights or the device are unknown.
    FileNotFoundError
        If a local folder or its files are missing.
    RuntimeError
        If the weights cannot be downloaded or do not fit the model.
    """
    try:
        importlib.import_module("open_clip")
    except ImportError as error:
        raise ImportError(
            "VLMPartialAnnotator needs open_clip; run: pip install 'open_clip_torch>=3.0'."
        ) from error
    name, pretrained, stamp = _resolve(model, pretrained)
    return _load(name, pretrained, resolve_device(device), precision, stamp)


class OpenClipEncoder:
    """A pretrained open_clip model with its preprocessing and tokenizer.

    Parameters
    ----------
    model : torch.nn.Module
        The model.
    preprocess : callable
        open_clip's transform from a PIL image to a tensor (3, H, W).
    tokenizer : callable
        open_clip's tokenizer from a list of strings to a tensor (n, context_length).
    device : str
        Where the model is.
    precision : {"fp32", "fp16", "bf16"}
        Number type of the model.

    Attributes
    ----------
    logit_scale : float
        What cosines are multiplied by before the softmax. SigLIP's bias is left out: it adds the
        same to every class, which softmax does not see.
    """

    def __init__(self, model, preprocess, tokenizer, device, precision):
        from open_clip import get_input_dtype

        self.model = model.eval()
        self.preprocess = preprocess
        self.tokenizer = tokenizer
        self.device = device
        self.precision = precision
        self.logit_scale = model.logit_scale.detach().float().exp().item()
        self._dtype = get_input_dtype(precision)
        # The same prompts are asked for by every clone in a search.
        self.encode_text = lru_cache(maxsize=4)(self._encode_text)

    @cached_property
    def cache_key(self):
        """Hash of weights, architecture, preprocessing and precision."""
        described = f"{self.model!r}{self.model.visual.preprocess_cfg}{self.precision}"
        digest = hashlib.blake2b(described.encode(), digest_size=16)
        for name, tensor in self.model.state_dict().items():
            digest.update(name.encode())
            digest.update(tensor.detach().float().cpu().numpy().tobytes())
        return digest.hexdigest()

    def prepare(self, images):
        """Preprocess images; safe to call from several threads.

        Parameters
        ----------
        images : ndarray of uint8 of shape (n, H, W, 1|3) or list of PIL.Image.Image
            The images. An array is resized as a whole, to within two grey levels of open_clip's
            own transform, which is applied to each PIL image.

        Returns
        -------
        torch.Tensor of shape (n, 1|3, height, width)
            uint8 if the images were an array, else normalised floats.
        """
        import torch

        config = self.model.visual.preprocess_cfg
        if isinstance(images, np.ndarray):
            if _is_batchable(config):
                return _resize(images, config)
            images = [_to_pil(image) for image in images]
        return torch.stack([self.preprocess(_trim(image, config)) for image in images])

    def join(self, parts):
        """Join parts of a batch that were prepared apart."""
        import torch

        return torch.cat(parts)

    def encode_image(self, prepared):
        """Encode preprocessed images.

        Parameters
        ----------
        prepared : torch.Tensor
            What `prepare` returned.

        Returns
        -------
        ndarray of float32 of shape (n, n_dimensions)
            Their embeddings, not normalised.
        """
        import torch

        with torch.inference_mode():
            x = prepared.to(self.device)
            if x.dtype == torch.uint8:  # broadcasts grey to three channels
                scale, shift = self._normalisation
                x = torch.addcmul(shift, x.float(), scale)
            # Convolutional towers are a quarter faster in this layout, others no slower.
            x = x.to(self._dtype or x.dtype, memory_format=torch.channels_last)
            return self.model.encode_image(x).float().cpu().numpy()

    def encode_features(self, rows):
        """Take rows of a 2-D array for embeddings."""
        return rows

    def _encode_text(self, texts, batch_size=256):
        """Encode a tuple of prompts; ndarray of float32 of shape (n, n_dimensions)."""
        import torch

        tokens = self.tokenizer(list(texts))
        encode = self.model.encode_text
        tower = causal_tower(self.model)
        if tower is not None:
            # No token sees a later one, so what follows the end of the longest prompt is idle.
            length = int(tokens.bool().any(dim=0).nonzero().max()) + 1
            tokens = tokens[:, :length]
            tower = _shorten(tower, length)
            encode = getattr(tower, "encode_text", tower)
        with torch.inference_mode():
            parts = [encode(part.to(self.device)).float() for part in tokens.split(batch_size)]
        return torch.cat(parts).cpu().numpy()

    @cached_property
    def _normalisation(self):
        """Scale and shift (3, 1, 1) that take [0, 255] to what the model expects."""
        import torch

        config = self.model.visual.preprocess_cfg
        mean, std = (
            torch.tensor(config[name], dtype=torch.float32, device=self.device).view(-1, 1, 1)
            for name in ("mean", "std")
        )
        return 1 / (255 * std), -mean / std


def names_clothes(names):
    """Tell whether any name of any class has a word for something to wear or to carry.

    Parameters
    ----------
    names : list of list of str
        The names of each class.

    Returns
    -------
    bool
    """
    words = re.findall("[a-z]+", " ".join(name for of_class in names for name in of_class).lower())
    return any(CLOTHES & {word, word.removesuffix("s"), word.removesuffix("es")} for word in words)


def is_tag(model, pretrained):
    """Tell whether weights are a tag of a model, however it is spelt.

    Examples
    --------
    >>> is_tag("ViT-B-32", "LAION400M-e32"), is_tag("ViT-B-32", "mine.pt")
    (True, False)
    """
    import open_clip

    # As open_clip does, take "laion400m-e32" for "laion400m_e32".
    tags = open_clip.list_pretrained_tags_by_model(model)
    return _spelt_alike(pretrained) in map(_spelt_alike, tags)


def _spelt_alike(tag):
    return str(tag).lower().replace("-", "_")


def absolute_paths(model, pretrained):
    """Return a model and its weights with paths that hold in any folder.

    Parameters
    ----------
    model, pretrained : str or None
        As `load_open_clip` takes them.

    Returns
    -------
    model, pretrained : str or None

    Examples
    --------
    >>> absolute_paths("ViT-B-32", "openai")
    ('ViT-B-32', 'openai')
    >>> model, _ = absolute_paths("local-dir:models/mine", None)
    >>> model == "local-dir:" + os.path.abspath("models/mine")
    True
    """
    if model.startswith(_LOCAL):
        model = _LOCAL + os.path.abspath(model[len(_LOCAL) :])
    if pretrained is not None and os.path.isfile(pretrained):
        pretrained = os.path.abspath(pretrained)
    return model, pretrained


def without_folder(name):
    """Return a model, or its weights, without the folders that an absolute path of it begins with.

    Examples
    --------
    >>> without_folder("local-dir:/srv/me/mine"), without_folder("hf-hub:owner/name")
    ('local-dir:mine', 'hf-hub:owner/name')
    """
    if name is None:
        return None
    kind = _LOCAL if name.startswith(_LOCAL) else ""
    path = name[len(kind) :]
    return kind + os.path.basename(path) if os.path.isabs(path) else name


def _resolve(model, pretrained):
    """Name and weights for open_clip, and a stamp that changes when local files do."""
    if model == SHIPPED_MODEL:
        folder = Path(str(resources.files("sklearn_npll"))) / "models" / "fashion-clip"
        if not (folder / "open_clip_config.json").is_file():
            raise FileNotFoundError(
                f"The model {SHIPPED_MODEL!r} that comes with sklearn_npll is missing from"
                f" {folder}. Reinstall sklearn_npll, or choose another model."
            )
        model = f"{_LOCAL}{folder}"
    if model.startswith((_LOCAL, _HUB)):
        if pretrained is not None:
            raise ValueError(
                f"pretrained={pretrained!r} has no effect: the weights of {model!r} come with it."
                " Leave pretrained at None."
            )
        stamp = _check_folder(Path(model[len(_LOCAL) :])) if model.startswith(_LOCAL) else None
        return model, None, stamp
    import open_clip

    known = open_clip.list_models()
    if model not in known:
        hint = did_you_mean(model, [*known, SHIPPED_MODEL])
        if Path(model).is_dir():
            hint = f" For a folder write '{_LOCAL}{model}'."
        raise ValueError(
            f"Unknown model {model!r}.{hint} Models are {SHIPPED_MODEL!r}, the names in"
            f" open_clip.list_models(), '{_LOCAL}<folder>' and '{_HUB}<owner>/<name>'."
        )
    tags = open_clip.list_pretrained_tags_by_model(model)
    if pretrained is None:
        raise ValueError(
            f"model={model!r} needs weights: pass pretrained=<tag or file>. The tags are"
            f" {', '.join(map(repr, tags)) or 'none'}."
        )
    if Path(pretrained).is_file():
        return model, pretrained, _stamp(Path(pretrained))
    if not is_tag(model, pretrained):
        raise ValueError(
            f"pretrained={pretrained!r} is neither a file nor a tag of {model!r}."
            f"{did_you_mean(pretrained, tags)} The tags are {', '.join(map(repr, tags)) or 'none'}."
        )
    return model, pretrained, None


def _check_folder(folder):
    """Make sure that a folder holds a model, and return its stamp."""
    if not folder.is_dir():
        raise FileNotFoundError(f"There is no folder {str(folder)!r} to load a model from.")
    config = folder / "open_clip_config.json"
    if not config.is_file():
        raise FileNotFoundError(f"{folder} has no open_clip_config.json.")
    if "model_cfg" not in json.loads(config.read_text(encoding="utf-8")):
        raise ValueError(f"{config} has no 'model_cfg'; see open_clip's own files for its form.")
    weights = sorted(p for p in folder.iterdir() if p.suffix in (".safetensors", ".bin", ".pth"))
    if not weights:
        raise FileNotFoundError(
            f"{folder} has a configuration but no weights, such as open_clip_model.safetensors."
        )
    return tuple(_stamp(path) for path in [config, *weights])


def _stamp(path):
    stat = os.stat(path)
    return stat.st_size, stat.st_mtime_ns


@lru_cache(maxsize=4)
def _load(name, pretrained, device, precision, stamp):
    import open_clip
    import torch

    try:
        for path in _torch_files(name, pretrained):
            # open_clip tries again without this if torch before 2.6 raises a TypeError.
            torch.load(path, map_location="cpu", weights_only=True)
        # The model is first filled with random weights.
        with GENERATOR_LOCK, torch.random.fork_rng(devices=[]):
            model, preprocess = open_clip.create_model_from_pretrained(
                name, pretrained, device=device, precision=precision
            )
        tokenizer = open_clip.get_tokenizer(name)
    except pickle.UnpicklingError as error:  # whose message tells how to run it nevertheless
        raise RuntimeError(
            f"The weights of model={name!r}, pretrained={pretrained!r} are damaged, or hold what"
            " may be code and is not run. Ask for a file of safetensors."
        ) from error
    except Exception as error:  # a failed download, a broken file, weights of another model
        raise RuntimeError(
            f"The weights of model={name!r}, pretrained={pretrained!r} cannot be loaded"
            f" ({type(error).__name__}: {error}). Weights that are not on this machine are"
            f" downloaded; to work offline use '{_LOCAL}<folder>' or {SHIPPED_MODEL!r}."
        ) from error
    return OpenClipEncoder(model, preprocess, tokenizer, device, precision)


def _torch_files(name, pretrained):
    """Local files of weights that open_clip may read with torch.load."""
    files = [Path(pretrained)] if pretrained is not None else []
    if name.startswith(_LOCAL):
        folder = Path(name[len(_LOCAL) :])
        files = [] if any(folder.glob("*.safetensors")) else folder.iterdir()
    return [path for path in files if path.is_file() and path.suffix in (".bin", ".pth", ".pt")]


def causal_tower(model):
    """Find the module that encodes text, if its prompts may be cut short."""
    tower = getattr(model, "text", model)
    pooling = getattr(tower, "text_pool_type", getattr(tower, "pool_type", None))
    causal = getattr(tower, "attn_mask", None) is not None
    # "argmax" takes the output at the end token; "last" and a class token take the very last.
    if causal and pooling == "argmax" and getattr(tower, "cls_emb", None) is None:
        return tower
    return None


def _shorten(tower, length):
    """View a causal text tower with a shorter context; the weights are shared."""
    view = copy.copy(tower)
    view._parameters = {
        **tower._parameters,
        "positional_embedding": tower.positional_embedding[:length],
    }
    view._buffers = {**tower._buffers, "attn_mask": tower.attn_mask[:length, :length]}
    return view


def _is_batchable(config):
    """Whether `_resize` does what open_clip's transform does."""
    height, width = size_pair(config["size"])
    mode = config["resize_mode"]
    return config["interpolation"] in ("bicubic", "bilinear") and (
        mode == "squash" or (mode == "shortest" and height == width)
    )


def _resize(images, config):
    """Resize and crop a batch (n, H, W, C) of uint8; returns a tensor (n, C, height, width)."""
    import torch
    from torch.nn.functional import interpolate

    left, top, right, bottom = _middle(images.shape[2], images.shape[1], config["resize_mode"])
    batch = torch.from_numpy(images[:, top:bottom, left:right]).permute(0, 3, 1, 2)
    given = tuple(batch.shape[2:])
    wanted = resized = size_pair(config["size"])
    if config["resize_mode"] == "shortest":
        resized = tuple(int(wanted[0] * side / min(given)) for side in given)
    if resized != given:
        batch = interpolate(batch, resized, mode=config["interpolation"], antialias=True)
    if resized != wanted:
        top, left = (round((r - w) / 2) for r, w in zip(resized, wanted))
        batch = batch[:, :, top : top + wanted[0], left : left + wanted[1]]
    return batch


def _trim(image, config):
    """Cut off of a PIL image what makes its resizing costly or impossible."""
    box = _middle(*image.size, config["resize_mode"])
    return image if box == (0, 0, *image.size) else image.crop(box)


def _middle(width, height, resize_mode):
    """Box of an image's middle, at most 32 times as long as it is wide.

    Resized until the shorter side fits, an image of 30,000 x 1 pixels would take gigabytes, of
    which all but the square in the middle is cut off. With "longest" no pixel would be left.
    """
    if resize_mode == "squash":
        return 0, 0, width, height
    longest = 32 * min(width, height)
    left, top = max(0, (width - longest) // 2), max(0, (height - longest) // 2)
    return left, top, left + min(width, longest), top + min(height, longest)


def size_pair(size):
    """Return (height, width) of a side or a pair of them."""
    return (size, size) if isinstance(size, int) else tuple(size)


def _to_pil(image):
    from .._images import array_to_pil

    return array_to_pil(image, "RGB")
