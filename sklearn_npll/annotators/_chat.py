"""A chat model as an annotator: the classes it names are the candidate labels of an image."""

import hashlib
import os
import threading
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from numbers import Integral, Real
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils import check_random_state

from .._compat import Interval, StrOptions
from .._images import (
    ImageReadError,
    as_samples,
    decode_sample,
    fetch_samples,
    is_image_data,
    n_images,
)
from .._partial_labels import encode_labels
from .._rows import length
from .._rules import trust_labels
from .._typing import PathLike, Samples, Seed
from ._answers import EmbeddingMatcher, index_names, parse_answer, vote_and_score
from ._base import BasePartialAnnotator
from ._cache import AnswerCache
from ._chat_backends import ChatBackend, ChatError, Settings, as_backend
from ._questions import option_order, resolve_questions, write_prompt
from ._templates import resolve_classes


class ChatPartialAnnotator(BasePartialAnnotator):
    """Annotate images with candidate labels by asking a chat model questions in words.

    A chat model that sees images, such as LLaVA [1]_ or GPT-4o, is shown the names of the classes
    with every question, and names one of them, or several if it is in doubt. All classes named in
    the answers to an image are its candidates, so they are few where the answers agree and many
    where they do not. The first class of each answer is its vote. An answer that names none
    abstains; where all abstain, all classes are candidates.

    ``transform`` costs nothing: it returns a :class:`~sklearn_npll.PartialLabels` that asks the
    first time its candidates are used, so predicting with a pipeline does not. And
    ``fit_transform`` annotates at once. Both give the same candidates, except for labels given to
    ``fit_transform``.

    Parameters
    ----------
    classes : sequence of str or mapping
        Names of the classes, or a mapping from class labels (strings or integers) to one or several
        names each. The questions show the first, and all are recognised in the answers.
    backend : OpenAIChat, TransformersChat or callable
        What answers: a hosted model, one that runs here, or a function of your own, which receives
        a list of RGB PIL images and a question and returns a list of answers: strings, or None
        where it has none. With `cache_dir` a function also needs an attribute ``cache_key``, a
        string that names its model and settings. Clones share the function.
    questions : str or sequence of str, default="general-4"
        "general-4" (four general ones), "simple" (one), or your own, with ``{classes}`` for the
        names in a row or ``{options}`` for a list of them with letters, or with numbers if
        there are many or letters are names. Each is one request an image.
    allow_several : bool or None, default=True
        The instruction after each question: True asks for all names that may be right, the
        likeliest first; False for one; None adds nothing. Several named classes count in any case.
    shuffle_options : bool, default=True
        Whether each question shows the classes in a random order of its own, as models favour
        some places in a list [2]_, and not sorted. The order is the same for all images.
    max_tokens : int, default=64
        Greatest length of an answer. Reasoning models need more. Not used by a function.
    temperature : float or None, default=0.0
        How random the answers are. None leaves it to the model, and must be for those that take
        no temperature. Not used by a function.
    embed : callable, default=None
        ``embed(texts)`` returns an embedding for each of a list of texts, (n, n_dimensions).
        Answers in which no name is found then count for the class with the most similar name.
    embed_threshold : float, default=0.8
        Smallest cosine between the embeddings of such an answer and of the name.
    batch_size : int, default=32
        Images to hold in memory at once; the questions about them are asked together.
    cache_dir : str or path-like, default=None
        Folder for answers, kept between runs. Each is written as it arrives, so that after an
        interruption calling again goes on where it stopped. Without it nothing is kept.
    on_error : {"raise", "skip"}, default="raise"
        What to do with an image that cannot be read and with a question that is not answered after
        all retries. "raise" raises an ImageReadError or a :class:`ChatError`. "skip" counts them as
        abstentions, and warns. A wrong key, address or model is always an error.
    use_y : bool, default=False
        Whether ``fit_transform`` believes ``y``, where it is not -1: those rows get it as their
        only candidate. Off by default, since a cross-validation passes the full y along for its
        scorer. To trust some labels and score on all of them pass `known_labels` instead.
    random_state : int, RandomState instance or None, default=0
        Draws the orders of the classes, and the answers of a local model with a temperature. A
        number by default, so that the same questions are asked, and found in the cache, each time.
    verbose : int or bool, default=False
        Whether to show a progress bar.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Class labels, sorted.
    questions_ : list of str
        The questions.
    prompts_ : list of str
        The questions as they are sent.
    usage_ : dict
        What was done since the last fit, by this object and the containers it made: "requests"
        (questions asked), "retries" (further attempts), "failed" (questions not answered),
        "cached" (answers that were known), "prompt_tokens", "completion_tokens", and "cost", which
        is None if the backend has no prices.
    n_features_in_ : int
        Number of columns, if fitted on a 2-D X.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the columns, if fitted on a data frame.

    See Also
    --------
    VLMPartialAnnotator : Annotates by similarity of embeddings; faster, and free of charge.
    OpenAIChat : Backend for hosted models.
    TransformersChat : Backend for models that run here.
    PartialLabels : The container returned.

    Notes
    -----
    An answer gives the classes it names weights proportional to 1, 1/2, 1/3, ... that sum to one;
    the scores of an image are the mean over its answers that do not abstain.

    X may be any images that :class:`VLMPartialAnnotator` takes. A function also takes a 2-D X of
    features, whose rows it receives as arrays, such as to describe them in words.

    Images are told apart by their content, so that a cache knows a copied file. Rows with a known
    label are asked about too, for their votes and scores.

    References
    ----------
    .. [1] Liu, Li, Wu, Lee, "Visual Instruction Tuning", NeurIPS 2023.
    .. [2] Zheng, Zhou, Meng, Zhou, Huang, "Large Language Models Are Not Robust Multiple Choice
       Selectors", ICLR 2024.

    Examples
    --------
    Any function will do as the backend; this one knows brightness only.

    >>> import numpy as np
    >>> from sklearn_npll.annotators import ChatPartialAnnotator
    >>> def ask(images, prompt):
    ...     answers = ["It's night.", "dusk, or perhaps night", "day"]
    ...     return [answers[int(np.mean(image)) // 86] for image in images]
    >>> annotator = ChatPartialAnnotator(["day", "dusk", "night"], backend=ask)
    >>> X = np.array([[[250]], [[3]], [[120]]], dtype=np.uint8)
    >>> labels = annotator.fit_transform(X)
    >>> labels.candidates
    array([[ True, False, False],
           [False, False,  True],
           [False,  True,  True]])
    >>> annotator.predict(X)
    array(['day', 'night', 'dusk'], dtype='<U5')
    >>> annotator.answers(X)[2, 0]
    'dusk, or perhaps night'
    """

    # Tells scikit-learn before 1.6 that its checks cannot make one without arguments.
    _required_parameters = ["classes", "backend"]

    _parameter_constraints = {
        "classes": "no_validation",
        "backend": "no_validation",
        "questions": "no_validation",
        "allow_several": ["boolean", None],
        "shuffle_options": ["boolean"],
        "max_tokens": [Interval(Integral, 1, None, closed="left")],
        "temperature": [Interval(Real, 0, None, closed="left"), None],
        "embed": [callable, None],
        "embed_threshold": [Interval(Real, -1, 1, closed="both")],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "cache_dir": [str, os.PathLike, None],
        "on_error": [StrOptions({"raise", "skip"})],
        "use_y": ["boolean"],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }

    def __init__(
        self,
        classes: Mapping[Any, Any] | ArrayLike,
        *,
        backend: Any,
        questions: str | Sequence[str] = "general-4",
        allow_several: bool = True,
        shuffle_options: bool = True,
        max_tokens: int = 64,
        temperature: float = 0.0,
        embed: Callable[[list[str]], ArrayLike] | None = None,
        embed_threshold: float = 0.8,
        batch_size: int = 32,
        cache_dir: PathLike | None = None,
        on_error: str = "raise",
        use_y: bool = False,
        random_state: Seed = 0,
        verbose: bool = False,
    ) -> None:
        self.classes = classes
        self.backend = backend
        self.questions = questions
        self.allow_several = allow_several
        self.shuffle_options = shuffle_options
        self.max_tokens = max_tokens
        self.temperature = temperature
        self.embed = embed
        self.embed_threshold = embed_threshold
        self.batch_size = batch_size
        self.cache_dir = cache_dir
        self.on_error = on_error
        self.use_y = use_y
        self.random_state = random_state
        self.verbose = verbose

    def answers(self, X: Samples) -> Any:
        """Return the answers in the model's own words.

        They are asked for again, unless they are in the cache.

        Parameters
        ----------
        X : images or array-like of shape (n_samples, n_features)
            The samples.

        Returns
        -------
        answers : ndarray of object of shape (n_samples, n_questions)
            Strings; None for those that failed and were skipped.
        """
        X = self._check_X(X)
        return self._plan().answers(X)

    def _fit(self, X, y, known_labels, annotate):
        labels, names = resolve_classes(self.classes)
        taken, _ = index_names(tuple(map(tuple, names)))
        classes, questions = np.asarray(labels), resolve_questions(self.questions)
        backend = as_backend(self.backend)
        X = self._check_X(X, reset=True)
        trusted, name = self._trusted_labels(y, known_labels)
        codes = None if trusted is None else encode_labels(trusted, classes, length(X, "X"), name)
        seed = check_random_state(self.random_state).randint(2**31 - 1)
        # Equal numbers of any type are equal settings, so that a cache knows them.
        temperature = None if self.temperature is None else float(self.temperature)
        settings = Settings(int(self.max_tokens), temperature, seed)
        backend._check()
        if self.cache_dir is not None:
            cache_key = backend._cache_key(settings)
            if not annotate:  # or else the folder is tried in a moment, and complained of once
                AnswerCache(self.cache_dir, cache_key)
        shown, prompts = [own[0] for own in names], []
        for question in questions:
            order = range(len(shown))
            if self.shuffle_options:
                order = option_order(question, len(shown), seed)
            prompts.append(write_prompt(question, shown, order, self.allow_several, taken))
        self.classes_, self.questions_ = classes, questions
        self.prompts_ = [prompt.text for prompt in prompts]
        self.usage_ = dict.fromkeys(_COUNTS, 0) | {"cost": backend._cost(0, 0)}
        self._asked = {"backend": backend, "settings": settings, "prompts": prompts, "names": names}
        return self._annotate(X, codes) if annotate else None

    def _plan(self):
        match = None
        if self.embed is not None:
            match = EmbeddingMatcher(self._asked["names"], self.embed, self.embed_threshold)
        return _ChatPlan(
            **self._asked,
            match=match,
            cache_dir=self.cache_dir,
            batch_size=self.batch_size,
            skip=self.on_error == "skip",
            verbose=bool(self.verbose),
            usage=self.usage_,
        )

    def _check_X(self, X, reset=False):
        X = super()._check_X(X, reset=reset)
        backend = as_backend(self.backend) if reset else self._asked["backend"]
        if not is_image_data(X) and not backend._takes_features:
            raise ValueError(
                f"X has {X.ndim} dimensions, but {type(backend).__name__} sees images only: arrays"
                " of shape (n, H, W) or (n, H, W, channels), paths, PIL images, ..."
            )
        return X

    @property
    def _shared_by_clones(self):
        return ("embed",) if isinstance(self.backend, ChatBackend) else ("embed", "backend")


# Threads of a backend, and of callers that share an annotator, count in one dict.
_COUNTING = threading.Lock()
_COUNTS = ("requests", "retries", "failed", "cached", "prompt_tokens", "completion_tokens")


@dataclass(frozen=True)
class _ChatPlan:
    """What a fitted annotator does with samples: calling it annotates them."""

    backend: object
    settings: Settings
    prompts: list
    names: list
    match: object
    cache_dir: object
    batch_size: int
    skip: bool
    verbose: bool
    usage: dict

    def __call__(self, data, codes=None):
        """Annotate; a row with a code of at least 0 gets this class as its only candidate."""
        rankings = self._rankings(self.answers(data))
        votes, scores = vote_and_score(rankings, len(self.prompts), len(self.names))
        candidates = scores > 0
        if codes is not None:
            candidates = trust_labels(candidates, codes)
        return {
            "candidates": candidates,
            "scores": scores,
            "votes": votes,
            "known": None if codes is None else codes >= 0,
        }

    def answers(self, data):
        """Ask all questions about all samples; object (n, n_questions)."""
        from tqdm.auto import tqdm

        samples = as_samples(data) if is_image_data(data) else data
        n = n_images(data)
        answers = np.empty((n, len(self.prompts)), dtype=object)
        cache = None
        if self.cache_dir is not None:
            cache = AnswerCache(self.cache_dir, self.backend._cache_key(self.settings))
        unread, failed = [], []
        with tqdm(total=answers.size, desc="Asking", disable=not self.verbose) as progress:
            for start in range(0, n, self.batch_size):
                rows = range(start, min(start + self.batch_size, n))
                batch = dict(zip(rows, self._read(samples, rows)))
                errors = [item for item in batch.values() if isinstance(item, ImageReadError)]
                if errors and not self.skip:
                    raise errors[0]
                unread += errors
                for error in errors:
                    del batch[error.index]
                for (row, question), text in self._ask(batch, cache, failed, progress).items():
                    answers[row, question] = text
        if unread:
            warnings.warn(
                f"{len(unread)} of {n} images cannot be read and keep all classes as candidates;"
                f" the first: {unread[0]}",
                stacklevel=2,
            )
        if failed:
            about = len({error.index for error in failed})
            warnings.warn(
                f"{len(failed)} of {answers.size} questions, about {about} of {n} images, were not"
                f" answered and count as abstentions; the first: {failed[0]}",
                stacklevel=2,
            )
        return answers

    @staticmethod
    def _read(samples, rows):
        """The samples as the backend takes them, errors among them."""
        if isinstance(samples, np.ndarray) and samples.ndim == 2:
            return list(samples[rows.start : rows.stop])
        batch = fetch_samples(samples, rows)
        return [decode_sample(item, row, "RGB") for row, item in zip(rows, batch)]

    def _ask(self, batch, cache, failed, progress):
        """Ask what is not known about samples by row; the answers by row and question."""
        keys = {
            (row, question): key
            for row, item in batch.items()
            for question, key in enumerate(_keys(item, self.prompts))
        }
        found = {} if cache is None else cache.get(keys.values())
        # Each question once an image, however often this occurs; in the order of the questions,
        # so that one function call, or batch of a local model, has the same for many images.
        todo = {}
        for at in sorted(keys, key=lambda at: at[::-1]):
            if keys[at] not in found:
                todo.setdefault(keys[at], at)
        todo = list(todo.items())
        with _COUNTING:
            self.usage["cached"] += len(keys) - len(todo)
            progress.update(len(keys) - len(todo))

        def keep(replies):
            with _COUNTING:
                for reply in replies.values():
                    _count(self.usage, reply, self.backend)
                progress.update(len(replies))
            new = {todo[i][0]: reply.text for i, reply in replies.items() if reply.text is not None}
            if cache is not None:
                cache.put(new)
            found.update(new)
            for i, reply in replies.items():
                row = todo[i][1][0]
                if reply.text is None and (reply.fatal or not self.skip):
                    raise ChatError(f"{reply.reason}. {_remedy(reply, cache)}", row)
                if reply.text is None:
                    failed.append(ChatError(reply.reason, row))

        self.backend._ask(
            [batch[row] for _, (row, _) in todo],
            [self.prompts[question].text for _, (_, question) in todo],
            self.settings,
            keep,
        )
        return {at: found.get(key) for at, key in keys.items()}

    def _rankings(self, answers):
        """The classes each answer names."""

        @lru_cache(maxsize=10_000)  # most answers are one of a few
        def read(text, question):
            options = self.prompts[question].options
            return parse_answer(text, self.names, options=options, match=self.match)

        rankings = [[read(text or "", j) for j, text in enumerate(row)] for row in answers]
        nameless = Counter(
            text
            for row, own in zip(answers, rankings)
            for text, ranking in zip(row, own)
            if text and not ranking
        )
        if nameless.total() > answers.size / 2:
            warnings.warn(
                f"{nameless.total()} of {answers.size} answers name no class and count as"
                f" abstentions; the most frequent: {nameless.most_common(1)[0][0][:200]!r}. See"
                " answers(X), and give the classes the names the model uses.",
                stacklevel=2,
            )
        return rankings


def _keys(item, prompts):
    """Keys of the questions about a sample, by its content."""
    if isinstance(item, np.ndarray):
        header, content = item.dtype.str, np.ascontiguousarray(item)
    else:
        header, content = f"{item.mode}{item.size}", item.tobytes()
    digest = hashlib.blake2b(header.encode(), digest_size=16)
    digest.update(content)
    for prompt in prompts:
        key = digest.copy()
        key.update(prompt.text.encode())
        yield key.hexdigest()


def _remedy(reply, cache):
    if reply.fatal:
        return "No other question would fare better: check the model, its address and the key."
    if cache is None or not cache.is_writable:
        return (
            "Set cache_dir, so that calling again goes on where this stopped, or on_error='skip'."
        )
    return "What was answered is in the cache: call again to go on, or set on_error='skip'."


def _count(usage, reply, backend):
    usage["requests"] += 1
    usage["retries"] += reply.retries
    usage["failed"] += reply.text is None
    usage["prompt_tokens"] += reply.prompt_tokens
    usage["completion_tokens"] += reply.completion_tokens
    usage["cost"] = backend._cost(usage["prompt_tokens"], usage["completion_tokens"])
