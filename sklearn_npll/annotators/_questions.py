"""Questions to chat models: named sets, and the prompts made from them."""

import hashlib
import string
from collections.abc import Iterable, Set
from dataclasses import dataclass

import numpy as np

from .._messages import did_you_mean

# Each is put, and lists the options, in its own way, so that the answers can disagree.
_GENERAL_4 = (
    "What does this image show? Choose from: {classes}.",
    "Which of these names fits the main object of the image best?\n{options}",
    "Look at the shape, the parts and the details of what is in the image. Then decide which of"
    " the following it is: {classes}.",
    "Classify the image into one of these categories:\n{options}",
)

_SETS = {"general-4": _GENERAL_4, "simple": _GENERAL_4[:1]}

_INSTRUCTIONS = {
    None: "",
    False: " Answer with one name only, as it is written in the list.",
    True: " Answer with the name only, as it is written in the list. If several may be right, list"
    " them all, the most likely one first.",
}


def resolve_questions(questions):
    """Look up a named set of questions, or check a list of them.

    Parameters
    ----------
    questions : str or sequence of str
        "general-4", "simple", one question or several. ``{classes}`` stands for the names of the
        classes in a row, ``{options}`` for a list of them, one a line, with letters
        or numbers.

    Returns
    -------
    list of str
        The questions.

    Raises
    ------
    ValueError
        If there is none, the set is unknown, or a question is repeated or shows no classes.

    Examples
    --------
    >>> resolve_questions("simple")
    ['What does this image show? Choose from: {classes}.']
    >>> len(resolve_questions("general-4"))
    4
    """
    if isinstance(questions, str):
        if questions in _SETS:
            return list(_SETS[questions])
        if not _shows_classes(questions):
            raise ValueError(
                f"Unknown questions {questions!r}.{did_you_mean(questions, _SETS)} The sets are"
                f" {', '.join(map(repr, _SETS))}; a question of your own contains {{classes}} or"
                " {options}."
            )
        return [questions]
    if isinstance(questions, Set) or not isinstance(questions, Iterable):
        raise ValueError(f"questions is {questions!r}; give one string or a list of them.")
    questions = list(questions)
    if not questions:
        raise ValueError("questions is empty; give at least one, such as 'Which of {classes}?'.")
    for i, question in enumerate(questions):
        if not isinstance(question, str) or not _shows_classes(question):
            raise ValueError(
                f"questions[{i}] is {question!r}; a question is a string with {{classes}} or"
                " {options} where the names of the classes go, such as 'Which of {classes}?'."
            )
        if question in questions[:i]:
            raise ValueError(
                f"questions[{i}] repeats questions[{questions.index(question)}]; the same question"
                " has the same answer, so put it in other words."
            )
    return questions


@dataclass(frozen=True)
class Prompt:
    """A question as it is sent.

    Parameters
    ----------
    text : str
        The text.
    options : dict of str to int or None
        Class of each letter or number of an option, if the question has them.
    """

    text: str
    options: dict | None


def option_labels(n_options, taken=()):
    """Letters or numbers for options, none of which an answer could mean as a name.

    Parameters
    ----------
    n_options : int
    taken : collection of str, default=()
        What names a class, in lower case.

    Returns
    -------
    list of str
        The first letters, or else numbers, or else the first letters that are not taken.

    Raises
    ------
    ValueError
        If there are not enough of any.

    Examples
    --------
    >>> option_labels(3), option_labels(3, {"b"}), option_labels(3, {"b", "1"})
    (['A', 'B', 'C'], ['1', '2', '3'], ['A', 'C', 'D'])
    """
    letters = string.ascii_uppercase
    numbers = list(map(str, range(1, n_options + 1)))
    free = [letter for letter in letters if letter.lower() not in taken]
    for labels in (letters[:n_options], numbers, free[:n_options]):
        if len(labels) == n_options and not any(label.lower() in taken for label in labels):
            return list(labels)
    raise ValueError(
        "Some classes are named by letters or numbers, so that those of the {options} could be"
        " taken for names. Ask with {classes} instead, or give the classes longer names, such as"
        " {'A': 'letter A'}."
    )


def write_prompt(question, names, order, allow_several, taken=()):
    r"""Write the names of the classes into a question.

    Parameters
    ----------
    question : str
        The question, with ``{classes}`` or ``{options}``.
    names : list of str
        One name a class.
    order : sequence of int
        The classes in the order in which they are shown.
    allow_several : bool or None
        Whether to ask for all that may be right, or for one only; None to add nothing.
    taken : collection of str, default=()
        Labels that options must not have, in lower case.

    Returns
    -------
    Prompt
        The prompt.

    Examples
    --------
    >>> write_prompt("One of {classes}?", ["cat", "dog"], [1, 0], None)
    Prompt(text='One of dog, cat?', options=None)
    >>> write_prompt("Which?{options}", ["cat", "dog"], [1, 0], None)
    Prompt(text='Which?(A) dog\n(B) cat', options={'A': 1, 'B': 0})
    """
    options, listed = None, ""
    if "{options}" in question:
        labels = option_labels(len(order), taken)
        options = {label: int(k) for label, k in zip(labels, order)}
        listed = "\n".join(f"({label}) {names[k]}" for label, k in options.items())
    shown = ", ".join(names[k] for k in order)
    instruction = _INSTRUCTIONS[allow_several]
    if question.rstrip().endswith("{options}"):
        instruction = instruction.replace(" ", "\n", 1)
    # A class may be called "{options}", so both are replaced at once.
    parts = [
        part.replace("{classes}", shown) for part in (question + instruction).split("{options}")
    ]
    return Prompt(listed.join(parts), options)


def option_order(question, n_classes, seed):
    """Draw the order in which a question shows the classes.

    It depends on the question itself, not on its place among others, so that a question of another
    set is the same question, which a cache has the answers to.

    Parameters
    ----------
    question : str
        The question.
    n_classes : int
        Number of classes.
    seed : int
        The seed.

    Returns
    -------
    ndarray of shape (n_classes,)
        A permutation.

    Examples
    --------
    >>> first, again = (option_order("Which of {classes}?", 10, seed=0) for _ in range(2))
    >>> first.tolist() == again.tolist()
    True
    """
    digest = hashlib.blake2b(question.encode(), digest_size=8).digest()
    rng = np.random.default_rng([seed, int.from_bytes(digest, "little")])
    return rng.permutation(n_classes)


def _shows_classes(question):
    return "{classes}" in question or "{options}" in question
