"""What a fitted annotator does with samples, from embeddings to candidates."""

import warnings
from dataclasses import dataclass, fields
from functools import cached_property

import numpy as np
from scipy import sparse as sp

from .._device import usable_device
from .._images import is_image_data, n_images
from .._partial_labels import SPARSE_FROM_CLASSES
from .._rules import (
    BATCH_RULES,
    candidates_from_scores,
    largest_scores,
    trust_labels,
    union_candidates,
)
from ._agreement import agreement_weights
from ._base import sets_where
from ._cache import EmbeddingCache
from ._encoding import (
    UserEncoder,
    class_embeddings,
    embed_features,
    encode_images,
    encode_prompts,
    template_probabilities,
    vote_and_average,
)
from ._open_clip import load_open_clip
from ._refinement import refine_and_average, refined_probabilities
from ._templates import make_prompts
from ._votes import VOTE_MODELS, aggregate


@dataclass(frozen=True)
class PromptedModel:
    """The model and the prompts it is asked with, both loaded on first use and not pickled."""

    vlm: object
    model: str
    pretrained: object
    device: str
    precision: str
    batch_size: int
    cache_dir: object
    templates: list
    names: list

    def __getstate__(self):
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def __setstate__(self, state):
        vars(self).update(state)
        vars(self)["device"] = usable_device(self.device)  # another machine may not have it

    def load(self):
        """Load everything now, so that what is wrong is found before any image is encoded."""
        return self.encoder, self.cache, self.text

    @cached_property
    def encoder(self):
        """OpenClipEncoder or UserEncoder: The model."""
        if self.vlm is not None:
            return UserEncoder(self.vlm, self.batch_size)
        return load_open_clip(
            self.model, self.pretrained, device=self.device, precision=self.precision
        )

    @cached_property
    def cache(self):
        """EmbeddingCache or None: Where embeddings are kept."""
        if self.cache_dir is None:
            return None
        if not isinstance(self.encoder.cache_key, str):
            raise ValueError(
                "cache_dir with a vlm of your own needs vlm.cache_key, a string that changes"
                " with its weights and preprocessing."
            )
        return EmbeddingCache(self.cache_dir, self.encoder.cache_key)

    @cached_property
    def text(self):
        """ndarray of shape (n_templates, n_classes, n_dimensions): Embeddings of the prompts."""
        names = [name for own in self.names for name in own]
        prompts = encode_prompts(self.encoder, make_prompts(self.templates, names), self.cache)
        return class_embeddings(prompts, len(self.templates), list(map(len, self.names)))


@dataclass(frozen=True)
class AnnotationPlan:
    """What a fitted annotator does with samples: calling it annotates them."""

    prompted: PromptedModel
    template_weights: object  # shares (n_templates,), "agreement" or None
    refine: object  # name of a method or None
    refine_params: dict
    aggregation: str
    rule: str
    rule_value: object
    batch_size: int
    skip: bool
    verbose: bool
    max_scores: object = None  # number of scores that are kept of a row; None for all
    embedded: bool = False  # whether the samples are what `embed` returned

    def __call__(self, data, codes=None):
        """Annotate; a row with a code of at least 0 gets this class as its only candidate."""
        # Agreement and refinement compare images, so they need the embeddings of all.
        together = self.refine is not None or self._weighs_by_agreement
        batches = [self.embed(data)] if together else self._batches(data)
        weights = self.weigh(*batches) if self._weighs_by_agreement else self.template_weights
        n = n_images(data)
        compares = self.rule in BATCH_RULES or self.aggregation in VOTE_MODELS
        if self.max_scores is None or compares or n == 0:
            blocks = [self._answers(batches, n, weights)]
        else:  # as few scores as possible are dense at a time
            blocks = (self._answers([batch], len(batch), weights) for batch in batches)
        parts, stop = [], 0
        for votes, means in blocks:
            start, stop = stop, stop + len(votes)
            scores = aggregate(votes, means, self.aggregation, weights)
            own = None if codes is None else codes[start:stop]
            candidates = self._candidates(votes, scores, own)
            if self.max_scores is not None:
                scores = largest_scores(scores, self.max_scores)
            parts.append((candidates, scores, votes))
        candidates, scores, votes = map(_stack, zip(*parts))
        return {
            "candidates": candidates,
            "scores": scores,
            "votes": votes,
            "known": None if codes is None else codes >= 0,
        }

    def template_probabilities(self, data):
        """Probabilities by each template, float32 (n, n_templates, n_classes)."""
        embeddings, text, scale = self.embed(data), self.prompted.text, self._scale
        if self.refine is None:
            return template_probabilities(embeddings, text, scale)
        refined = refined_probabilities(embeddings, text, scale, self.refine, self.refine_params)
        return np.stack(list(refined), axis=1)

    def weigh(self, embeddings):
        """Shares of the templates by their agreement about images, float64 (n_templates,)."""
        votes, _ = vote_and_average(embeddings, self.prompted.text, self._scale)
        return agreement_weights(votes, self.prompted.text.shape[1])

    def embed(self, data):
        """Normalised embeddings, float32 (n, n_dimensions)."""
        embeddings = np.empty((n_images(data), self.prompted.text.shape[2]), dtype=np.float32)
        stop = 0
        for batch in self._batches(data):
            start, stop = stop, stop + len(batch)
            embeddings[start:stop] = batch
        return embeddings

    def _batches(self, data):
        """Embeddings of the samples, batch by batch."""
        n_dimensions = self.prompted.text.shape[2]
        if not is_image_data(data):
            for start in range(0, len(data), self.batch_size):
                rows = data[start : start + self.batch_size]
                if not self.embedded:
                    rows = embed_features(self.prompted.encoder, rows, n_dimensions)
                yield rows
            return
        errors = []
        for embeddings, failed in encode_images(
            self.prompted.encoder,
            data,
            batch_size=self.batch_size,
            n_dimensions=n_dimensions,
            cache=self.prompted.cache,
            verbose=self.verbose,
        ):
            if failed and not self.skip:
                raise failed[0]
            errors += failed
            yield embeddings
        if errors:
            warnings.warn(
                f"{len(errors)} of {n_images(data)} images cannot be read and keep all classes as"
                f" candidates; the first: {errors[0]}",
                stacklevel=2,
            )

    @property
    def _scale(self):
        return self.prompted.encoder.logit_scale

    @property
    def _weighs_by_agreement(self):
        return isinstance(self.template_weights, str)

    def _answers(self, batches, n, weights):
        """Votes (n, n_templates) and mean probabilities (n, n_classes) of the templates."""
        n_templates, n_classes, _ = self.prompted.text.shape
        votes = np.empty((n, n_templates), dtype=np.min_scalar_type(-n_classes))
        means = np.empty((n, n_classes), dtype=np.float32)
        answer, options = vote_and_average, {}
        if self.refine is not None:
            answer = refine_and_average
            options = {"method": self.refine, "params": self.refine_params}
        stop = 0
        for embeddings in batches:
            start, stop = stop, stop + len(embeddings)
            votes[start:stop], means[start:stop] = answer(
                embeddings, self.prompted.text, self._scale, weights, **options
            )
        return votes, means

    def _candidates(self, votes, scores, codes):
        """Candidates (n, n_classes), made in blocks and sparse if there are many classes."""
        n, n_classes = scores.shape
        step = max(n, 1) if self.rule in BATCH_RULES else self.batch_size
        blocks = []
        for start in range(0, max(n, 1), step):  # a slice may be empty
            rows = slice(start, start + step)
            block = self._apply_rule(votes[rows], scores[rows])
            if codes is not None:
                block = trust_labels(block, codes[rows])
            blocks.append(block if n_classes < SPARSE_FROM_CLASSES else sp.csr_array(block))
        return _stack(blocks)

    def _apply_rule(self, votes, scores):
        if self.rule == "union":
            return union_candidates(votes, scores.shape[1])
        return sets_where(
            (votes >= 0).any(axis=1),  # the image could be read
            scores,
            lambda seen: candidates_from_scores(seen, self.rule, self.rule_value),
        )


def _stack(parts):
    """Join dense or sparse blocks of rows; one alone is not copied."""
    if len(parts) == 1:
        return parts[0]
    return sp.vstack(parts, format="csr") if sp.issparse(parts[0]) else np.concatenate(parts)
