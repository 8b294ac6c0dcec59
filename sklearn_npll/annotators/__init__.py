"""Annotators: transformers that turn unlabelled samples into candidate labels."""

from ._chat import ChatPartialAnnotator
from ._chat_backends import ChatError
from ._conformal import ConformalPartialAnnotator
from ._ensemble import EnsemblePartialAnnotator
from ._openai_chat import OpenAIChat
from ._shards import annotate_shard, annotate_shards, merge_shards
from ._student import ImageEncoderStudent
from ._transformers_chat import TransformersChat
from ._vlm_annotator import VLMPartialAnnotator

__all__ = [
    "ChatError",
    "ChatPartialAnnotator",
    "ConformalPartialAnnotator",
    "EnsemblePartialAnnotator",
    "ImageEncoderStudent",
    "OpenAIChat",
    "TransformersChat",
    "VLMPartialAnnotator",
    "annotate_shard",
    "annotate_shards",
    "merge_shards",
]
