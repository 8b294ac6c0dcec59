"""Chat models that run in this process, through Hugging Face transformers."""

import importlib
import json
import os
from functools import lru_cache
from numbers import Integral

from .._compat import Interval, StrOptions
from .._device import GENERATOR_LOCK, resolve_device
from ._chat_backends import ChatBackend, Reply


class TransformersChat(ChatBackend):
    """A chat model that sees images and runs in this process, such as LLaVA.

    Any model of transformers' "image-text-to-text" kind with a chat template will do. It needs
    ``pip install 'transformers>=4.50'``.

    Parameters
    ----------
    model : str
        Folder of the model, or its name on the Hugging Face hub, such as
        "llava-hf/llava-interleave-qwen-0.5b-hf".
    revision : str, default=None
        Branch, tag or commit on the hub. Pin it where results are to be repeated.
    device : str, default="auto"
        Where the model runs: "cpu", "cuda", "cuda:1", "mps"...; "auto" is CUDA if there is one.
    dtype : {"auto", "float32", "float16", "bfloat16"}, default="auto"
        Number type of the model; "auto" is that of its weights.
    batch_size : int, default=8
        Questions to answer at once. Memory is proportional to it.

    See Also
    --------
    ChatPartialAnnotator : Uses it.
    OpenAIChat : A model on a server.

    Notes
    -----
    Loaded models are kept by the process, so refitting and cloning do not load them again. A
    pickle holds no model and loads it on first use. Code that comes with a model is not run.

    Examples
    --------
    >>> from sklearn_npll.annotators import TransformersChat
    >>> TransformersChat("llava-hf/llava-interleave-qwen-0.5b-hf", dtype="bfloat16")
    TransformersChat(dtype='bfloat16',
                     model='llava-hf/llava-interleave-qwen-0.5b-hf')
    """

    _parameter_constraints = {
        "model": [str, os.PathLike],
        "revision": [str, None],
        "device": [str],
        "dtype": [StrOptions({"auto", "float32", "float16", "bfloat16"})],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
    }

    def __init__(
        self,
        model: str,
        *,
        revision: str | None = None,
        device: str = "auto",
        dtype: str = "auto",
        batch_size: int = 8,
    ) -> None:
        self.model = model
        self.revision = revision
        self.device = device
        self.dtype = dtype
        self.batch_size = batch_size

    def _check(self):
        """Load the model, so that what is wrong is found before any image is read."""
        self._validate_params()
        path = os.fspath(self.model)
        is_path = path != self.model or path.startswith((".", "~", os.sep))
        if is_path and not os.path.isdir(path):
            raise FileNotFoundError(f"There is no folder {path!r} to load a model from.")
        self._load()

    def _cache_key(self, settings):
        """Name what the answers depend on besides image and prompt."""
        model = _file_stamps(self.model) or os.fspath(self.model)
        how = [settings.max_tokens, settings.temperature]
        if settings.temperature != 0:
            how.append(settings.seed)
        return json.dumps(["TransformersChat", model, self.revision, self.dtype, *how])

    def _ask(self, images, prompts, settings, keep):
        """Ask ``prompts[i]`` about ``images[i]``, and call ``keep`` after each batch."""
        for start in range(0, len(images), self.batch_size):
            rows = range(start, min(start + self.batch_size, len(images)))
            replies = self._generate(
                [images[i] for i in rows], [prompts[i] for i in rows], settings
            )
            keep(dict(zip(rows, replies)))

    def _generate(self, images, prompts, settings):
        import torch

        model, processor = self._load()
        texts = [write_conversation(processor, prompt) for prompt in prompts]
        # Some templates write the token that begins a text, which the tokenizer would repeat.
        bos = processor.tokenizer.bos_token
        inputs = processor(
            images=[[image] for image in images],
            text=texts,
            padding=True,
            return_tensors="pt",
            add_special_tokens=not (bos and texts[0].startswith(bos)),
        ).to(model.device, dtype=model.dtype)
        forked = torch.random.fork_rng(range(torch.cuda.device_count()))
        with GENERATOR_LOCK, forked, torch.inference_mode():  # sampling draws from the global one
            torch.manual_seed(settings.seed)
            tokens = model.generate(
                **inputs,
                max_new_tokens=settings.max_tokens,
                pad_token_id=processor.tokenizer.pad_token_id,
                **_sampling(settings.temperature),
            )
        tokens = tokens[:, inputs["input_ids"].shape[1] :].cpu()
        answers = processor.batch_decode(tokens, skip_special_tokens=True)
        n_in = inputs["attention_mask"].sum(dim=1).tolist()
        n_out = (tokens != processor.tokenizer.pad_token_id).sum(dim=1).tolist()
        return [Reply(*reply) for reply in zip(answers, n_in, n_out)]

    def _load(self):
        try:
            importlib.import_module("transformers")
        except ImportError as error:
            raise ImportError(
                "TransformersChat needs transformers; run: pip install 'transformers>=4.50'."
            ) from error
        return _load(
            os.fspath(self.model),
            self.revision,
            resolve_device(self.device),
            self.dtype,
            _file_stamps(self.model),
        )


def write_conversation(processor, prompt):
    """Write a question about one image the way the model was trained on.

    Parameters
    ----------
    processor : transformers.ProcessorMixin
        Has the model's chat template.
    prompt : str
        The question.

    Returns
    -------
    str
        The text, with a placeholder for the image, up to where the answer begins.
    """
    content = [{"type": "image"}, {"type": "text", "text": prompt}]
    return processor.apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True
    )


def _sampling(temperature):
    """Options of ``generate`` for a temperature."""
    if temperature is None:
        return {}
    if temperature == 0:
        return {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
    return {"do_sample": True, "temperature": temperature}


@lru_cache(maxsize=2)
def _load(model, revision, device, dtype, stamps):
    import torch
    import transformers

    release = tuple(int(part) for part in transformers.__version__.split(".")[:2])
    if release < (4, 50):
        raise ImportError(
            f"TransformersChat needs transformers 4.50, and {transformers.__version__} is"
            " installed; run: pip install 'transformers>=4.50'."
        )
    options = {"revision": revision, "trust_remote_code": False}  # by default it asks, and waits
    processor = transformers.AutoProcessor.from_pretrained(model, **options)
    if getattr(processor, "chat_template", None) is None:
        raise ValueError(
            f"{model!r} has no chat template, so it is not known how to put a question to it; use"
            " a model made for chat."
        )
    tokenizer = processor.tokenizer
    tokenizer.padding_side = "left"  # answers begin where the prompts end
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    name = "dtype" if release >= (4, 56) else "torch_dtype"
    dtype = dtype if dtype == "auto" else getattr(torch, dtype)
    options[name] = dtype
    network = transformers.AutoModelForImageTextToText.from_pretrained(model, **options)
    return network.to(device).eval(), processor


def _file_stamps(model):
    """Names, sizes and times of the files of a local model; empty for a name on the hub."""
    if not os.path.isdir(model):
        return ()
    with os.scandir(model) as entries:
        stats = [(entry.name, entry.stat()) for entry in entries if entry.is_file()]
    return tuple(sorted((name, stat.st_size, stat.st_mtime_ns) for name, stat in stats))
