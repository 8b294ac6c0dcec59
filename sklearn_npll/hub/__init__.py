"""Folders of fitted classifiers with a model card, as model hubs have them."""

from ._folder import load_pretrained, save_pretrained

__all__ = ["load_pretrained", "save_pretrained"]
