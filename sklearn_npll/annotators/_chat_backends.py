"""What the chat annotator asks: the interface of its backends, and the one around a function."""

from dataclasses import dataclass
from itertools import groupby

from sklearn.base import BaseEstimator, clone


class ChatError(RuntimeError):
    """A question that a chat model did not answer.

    Parameters
    ----------
    reason : str
        What went wrong.
    index : int, default=None
        Row of the image in the samples.

    Attributes
    ----------
    reason, index
        The parameters.
    """

    def __init__(self, reason: str, index: int | None = None) -> None:
        super().__init__(reason, index)
        self.reason = reason
        self.index = index

    def __str__(self):
        where = "" if self.index is None else f" about image {self.index}"
        return f"A question{where} was not answered: {self.reason}"


@dataclass(frozen=True)
class Reply:
    """What became of one question.

    Parameters
    ----------
    text : str or None
        The answer; None if there is none.
    prompt_tokens, completion_tokens : int, default=0
        What the model counted.
    retries : int, default=0
        Attempts beyond the first.
    reason : str, default=""
        Why there is no answer, if there is none.
    fatal : bool, default=False
        Whether no other question would be answered either.
    """

    text: str | None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    retries: int = 0
    reason: str = ""
    fatal: bool = False


@dataclass(frozen=True)
class Settings:
    """How an answer is to be generated.

    Parameters
    ----------
    max_tokens : int
        Its greatest length.
    temperature : float or None
        0 for the likeliest answer; None for what the model comes with.
    seed : int
        For a local model that draws its answers.
    """

    max_tokens: int
    temperature: float | None
    seed: int


class ChatBackend(BaseEstimator):
    """What :class:`ChatPartialAnnotator` needs of a source of answers.

    A subclass defines ``_ask(images, prompts, settings, keep)``, which asks ``prompts[i]`` about
    ``images[i]`` and calls ``keep({i: reply, ...})`` on each `Reply` at once, from any thread; and
    ``_cache_key(settings)``, which names all that answers depend on besides image and prompt.
    """

    _takes_features = False  # whether it can be asked about rows of a 2-D X

    def _check(self):
        """Raise if the parameters are wrong or what is needed is missing."""
        self._validate_params()

    def _cost(self, prompt_tokens, completion_tokens):
        """Price of so many tokens, or None if it is not known."""
        return None


class FunctionChat(ChatBackend):
    """A function of the user as the backend.

    Parameters
    ----------
    function : callable
        ``function(images, prompt)`` returns one answer an image: a string, or None for none.
    """

    _takes_features = True

    def __init__(self, function):
        self.function = function

    def _check(self):
        """Nothing to check before it is called."""

    def _cache_key(self, settings):
        """The string by which the user names the model."""
        key = getattr(self.function, "cache_key", None)
        if not isinstance(key, str):
            raise ValueError(
                "cache_dir with a backend of your own needs backend.cache_key, a string that"
                " changes with its model and settings."
            )
        return f"function {key}"

    def _ask(self, images, prompts, settings, keep):
        """Call the function once for each run of equal prompts."""
        for prompt, run in groupby(range(len(images)), key=lambda i: prompts[i]):
            rows = list(run)
            answers = self.function([images[i] for i in rows], prompt)
            if isinstance(answers, str) or not hasattr(answers, "__len__"):
                raise TypeError(
                    f"backend returned {type(answers).__name__}; it must return a list with one"
                    " answer for each image."
                )
            if len(answers) != len(rows):
                raise ValueError(f"backend returned {len(answers)} answers for {len(rows)} images.")
            for answer in answers:
                if answer is not None and not isinstance(answer, str):
                    raise TypeError(
                        f"backend returned {answer!r} for one image; an answer is a string, or"
                        " None if there is none."
                    )
            why = "the backend returned None"
            keep({i: Reply(answer, reason=why) for i, answer in zip(rows, answers)})


def as_backend(backend):
    """Return a backend that later changes of the given one do not affect.

    Parameters
    ----------
    backend : ChatBackend or callable
        As the user gave it. A callable is kept, not copied.

    Returns
    -------
    ChatBackend
        The backend.

    Raises
    ------
    TypeError
        If it is neither.

    Examples
    --------
    >>> as_backend("gpt")
    Traceback (most recent call last):
    ...
    TypeError: backend is 'gpt'; give an OpenAIChat, a TransformersChat, or a function (images, \
prompt) -> answers.
    """
    if isinstance(backend, type) or not (isinstance(backend, ChatBackend) or callable(backend)):
        raise TypeError(
            f"backend is {backend!r}; give an OpenAIChat, a TransformersChat, or a function"
            " (images, prompt) -> answers."
        )
    return clone(backend) if isinstance(backend, ChatBackend) else FunctionChat(backend)
