"""The parts of an open_clip model that DeFT tunes, beside the model that the process shares.

A tower here is a copy of the modules of an open_clip tower that shares their weights. Parameters
are added to the copy, so the model itself keeps its weights, flags, hooks and mode.
"""

import copy
import math

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrize
from torch.utils.checkpoint import checkpoint

from ..annotators._open_clip import OpenClipEncoder, causal_tower

# Prompts whose activations are kept for one backward pass; of more, they are computed again.
_PROMPTS_AT_ONCE = 256


def check_encoder(encoder, backend):
    """Raise a ValueError unless an annotator's encoder is a model that `backend` can tune."""
    if not isinstance(encoder, OpenClipEncoder):
        raise ValueError(
            f'backend="{backend}" learns prompts through the text tower of an open_clip model, but'
            ' the annotator has a vlm of its own; use backend="feature"'
        )
    if causal_tower(encoder.model) is None:
        raise ValueError(
            f'backend="{backend}" learns prompts through a causal text tower that is read at the'
            f" end token, as CLIP's is; {type(encoder.model).__name__} with this text tower, such"
            ' as that of SigLIP or CoCa, has none; use backend="feature"'
        )


def frozen_copy(module):
    """Copy a module without its weights, which are shared and take no gradient.

    Parameters
    ----------
    module : torch.nn.Module

    Returns
    -------
    torch.nn.Module
        Parameters may be replaced and hooks added without an effect on `module`.
    """
    memo = {id(buffer): buffer for buffer in module.buffers()}
    for parameter in module.parameters():
        memo[id(parameter)] = nn.Parameter(parameter.detach(), requires_grad=False)
    return copy.deepcopy(module, memo).eval()


def trainable(module):
    """Return the parameters of a module that take a gradient, by name."""
    return {name: p for name, p in module.named_parameters() if p.requires_grad}


def prompt_tokens(encoder, names, n_ctx):
    """Tokens of ``[SOS] V1 .. Vn [name] . [EOS]``, where learnt vectors have negative ids.

    Parameters
    ----------
    encoder : OpenClipEncoder
    names : list of str
    n_ctx : int
        Number of learnt vectors: -1, -2, ... for the positive prompts, and on from there for the
        negative ones.

    Returns
    -------
    int Tensor of shape (2 * len(names), length)
        Positive and then negative prompts, no longer than the longest of them.

    Raises
    ------
    ValueError
        If a name leaves too little room for the context.
    """
    words = encoder.tokenizer([f"{name}." for name in names])
    ends = words.argmax(1)  # the end token has the largest id, by which the tower finds it too
    length, room = n_ctx + int(ends.max()) + 1, words.shape[1]
    if length > room:
        name, own = names[int(ends.argmax())], int(ends.max()) + 1
        fewer = f"n_ctx <= {room - own} or " if own < room else ""
        raise ValueError(
            f"n_ctx={n_ctx} vectors and the {own} tokens of the class name {name!r} are more than"
            f" the {room} tokens the text tower reads; take {fewer}a shorter name"
        )
    context = -1 - torch.arange(2 * n_ctx).reshape(2, 1, n_ctx)
    words = words.expand(2, -1, -1)
    parts = [words[..., :1], context.expand(-1, len(names), -1), words[..., 1:]]
    return torch.cat(parts, 2)[..., :length].flatten(0, 1)


class ContextEmbedding(nn.Module):
    """Token embedding with two learnt contexts, whose vectors have negative ids.

    Parameters
    ----------
    embedding : torch.nn.Embedding
        Of the words.
    n_ctx : int
        Number of vectors in each context; they start at N(0, 0.02^2).
    generator : torch.Generator
    """

    def __init__(self, embedding, n_ctx, generator):
        super().__init__()
        self.embedding = embedding
        shape = (2, n_ctx, embedding.embedding_dim)
        drawn = 0.02 * torch.randn(shape, generator=generator)
        self.positive, self.negative = map(nn.Parameter, drawn.unbind())

    def forward(self, tokens):
        """Embed tokens (n, length)."""
        words = self.embedding(tokens.clamp(min=0))
        context = torch.cat([self.positive, self.negative])[(-1 - tokens).clamp(min=0)]
        return torch.where(tokens[..., None] < 0, context.to(words.dtype), words)


class PromptTower(nn.Module):
    """Class features of the positive and the negative prompt, through the frozen text tower.

    Parameters
    ----------
    encoder : OpenClipEncoder
    names : list of list of str
        One or several names of each class, whose features are averaged.
    n_ctx : int
        Number of learnt vectors in each prompt.
    generator : torch.Generator
    """

    def __init__(self, encoder, names, n_ctx, generator):
        super().__init__()
        flat = [name for own in names for name in own]
        tokens = prompt_tokens(encoder, flat, n_ctx)
        owner = torch.repeat_interleave(torch.tensor([len(own) for own in names]))
        self.register_buffer("tokens", tokens)
        self.register_buffer("membership", F.one_hot(owner, len(names)).T.float())
        tower = frozen_copy(causal_tower(encoder.model))
        tower._modules.pop("visual", None)  # a plain CLIP is its own text tower
        tower.token_embedding = ContextEmbedding(tower.token_embedding, n_ctx, generator)
        # No token sees a later one, so what follows the end of the longest prompt is idle.
        length = tokens.shape[1]
        tower.positional_embedding = nn.Parameter(
            tower.positional_embedding[:length], requires_grad=False
        )
        tower.attn_mask = tower.attn_mask[:length, :length]
        self.tower = tower

    def forward(self):
        """Two Tensors of shape (n_classes, n_dimensions) with rows of length one."""
        encode = getattr(self.tower, "encode_text", self.tower)
        parts = self.tokens.split(_PROMPTS_AT_ONCE)
        if len(parts) == 1:
            prompts = encode(self.tokens)
        else:
            options = {"use_reentrant": False, "preserve_rng_state": False}
            prompts = torch.cat([checkpoint(encode, part, **options) for part in parts])
        prompts = F.normalize(prompts.float(), dim=1).reshape(2, self.membership.shape[1], -1)
        return F.normalize(self.membership @ prompts, dim=2).unbind()


class ImageTower(nn.Module):
    """An image tower with a few tuned parameters, from prepared images to unit features.

    Parameters
    ----------
    encoder : OpenClipEncoder
    tuner : {"vpt_deep", "lora", "bias", "none"}
    n_prompt_tokens : int
        Learnt tokens in each block, for "vpt_deep".
    lora_rank : int
        Rank of the updates, for "lora".
    generator : torch.Generator

    Raises
    ------
    ValueError
        If the tuner needs attention blocks and the tower has none.
    """

    def __init__(self, encoder, tuner, n_prompt_tokens, lora_rank, generator):
        super().__init__()
        self.visual = frozen_copy(encoder.model.visual)
        self.dtype = encoder._dtype or torch.float32
        config = encoder.model.visual.preprocess_cfg
        for name in ("mean", "std"):
            values = torch.tensor(config[name], dtype=torch.float32).reshape(3, 1, 1)
            self.register_buffer(name, 255 * values)
        if tuner == "vpt_deep":
            add_prompt_tokens(self.visual, n_prompt_tokens, generator)
        elif tuner == "lora":
            add_low_rank_updates(self.visual, lora_rank, generator)
        elif tuner == "bias":
            free_biases(self.visual)

    def forward(self, prepared):
        """Encode what `OpenClipEncoder.prepare` returned; Tensor of shape (n, n_dimensions)."""
        pixels = prepared.to(self.mean.device)
        if pixels.dtype == torch.uint8:
            pixels = (pixels - self.mean) / self.std  # broadcasts grey to three channels
        # Convolutional towers are faster in this layout, others no slower.
        pixels = pixels.to(self.dtype, memory_format=torch.channels_last)
        return F.normalize(self.visual(pixels).float(), dim=1)


def add_prompt_tokens(visual, n_tokens, generator):
    """Add learnt tokens to the input of every block of a transformer: deep visual prompt tuning.

    They stand behind the class token, are replaced at each block, and are not pooled. They start
    uniform, as those of Jia et al. (ECCV 2022), whose bound depends on the patches and the width.

    Parameters
    ----------
    visual : open_clip.transformer.VisionTransformer
        Is changed: gets a parameter ``prompt_tokens`` of shape (n_blocks, n_tokens, width).
    n_tokens : int
    generator : torch.Generator
    """
    blocks = _attention_blocks(visual, "vpt_deep")
    width = visual.class_embedding.shape[0]
    bound = math.sqrt(6 / (3 * math.prod(visual.conv1.kernel_size) + width))
    drawn = 2 * torch.rand((len(blocks), n_tokens, width), generator=generator) - 1
    visual.prompt_tokens = nn.Parameter(bound * drawn)

    def replace_in(i):
        def hook(block, args):
            x, *others = args
            tokens = visual.prompt_tokens[i].to(x.dtype).expand(len(x), -1, -1)
            patches = x[:, 1 + (n_tokens if i else 0) :]
            return torch.cat([x[:, :1], tokens, patches], 1), *others

        return hook

    def remove(block, args, x):
        return torch.cat([x[:, :1], x[:, 1 + n_tokens :]], 1)

    for i, block in enumerate(blocks):
        block.register_forward_pre_hook(replace_in(i))
    blocks[-1].register_forward_hook(remove)


class LowRankUpdate(nn.Module):
    """Adds a learnt product of two thin matrices to the query and the value rows of a projection.

    Parameters
    ----------
    width : int
        The projection has the shape (3 * width, width).
    rank : int
    generator : torch.Generator
    """

    def __init__(self, width, rank, generator):
        super().__init__()
        drawn = 2 * torch.rand((2, rank, width), generator=generator) - 1
        self.down = nn.Parameter(drawn / math.sqrt(width))
        self.up = nn.Parameter(torch.zeros(2, width, rank))  # so nothing changes at first

    def forward(self, weight):
        """Return the updated projection."""
        query, value = self.up @ self.down
        return weight + torch.cat([query, torch.zeros_like(query), value]).to(weight.dtype)


def add_low_rank_updates(visual, rank, generator):
    """Add a `LowRankUpdate` to the attention of every block of a transformer (LoRA).

    PEFT's LoRA has one update for the whole fused projection of `torch.nn.MultiheadAttention`,
    keys included, and another for its output; this one has the query and the value, as DeFT.

    Parameters
    ----------
    visual : open_clip.transformer.VisionTransformer
        Is changed.
    rank : int
    generator : torch.Generator
    """
    for block in _attention_blocks(visual, "lora"):
        update = LowRankUpdate(block.attn.in_proj_weight.shape[1], rank, generator)
        parametrize.register_parametrization(
            block.attn, "in_proj_weight", update.to(block.attn.in_proj_weight.device)
        )


def free_biases(visual):
    """Replace the biases of an image tower by copies that take a gradient."""
    for module in visual.modules():
        for name, parameter in list(module._parameters.items()):
            if name.endswith("bias") and parameter is not None:
                setattr(module, name, nn.Parameter(parameter.detach().clone()))


def _attention_blocks(visual, tuner):
    blocks = getattr(getattr(visual, "transformer", None), "resblocks", None)
    if blocks is None:
        raise ValueError(
            f'image_tuner="{tuner}" needs the attention blocks of an open_clip vision transformer,'
            f' but the image tower is a {type(visual).__name__}; use image_tuner="bias" or "none"'
        )
    return blocks
