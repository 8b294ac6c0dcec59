"""From the words a chat model answers with to classes, ranked, and to scores."""

import json
import re
import unicodedata
from functools import cached_property, lru_cache
from itertools import islice

import numpy as np

_WORD = re.compile(r"[^\W_]+")
_NUMBERING = re.compile(r"(?<!\S)(\d{1,3})[.)](?:\s+|(?=[^\W\d]))")
# Before, and after, a number that is part of a decimal, a percentage or a fraction.
_NUMBER_BEFORE = re.compile(r"(?:(?<!\w)\.|\d\.|\d\s*/\s*)\Z")
_NUMBER_AFTER = re.compile(r"\.\d|\s*/\s*\d|\s*%")
_CONFIDENCE_KEYS = re.compile(r"(?i)(?:.*_)?(?:confidence|certainty|score|prob\w*|likelihood)s?")
_ANSWER_KEYS = re.compile(r"(?i)(?:.*_)?(?:answer|label|class|category|choice|prediction)(?:es|s)?")
# What follows is the answer, and what precedes it the way there.
_ANSWER_IS = re.compile(r"\banswers?\W*(?::|\bis\b|\bare\b)")
# Doubt is no denial: "not sure whether a shirt or a coat" names two candidates.
_HEDGE = re.compile(
    r"(?:\bnot|n't|\bno|\bcannot be|\bcan't be)\s+(?:[\w%]+\s+){0,2}?"
    r"(?:sure|certain|clear|easy|doubt|question|only|just)\b|\bwithout (?:a )?doubt\b"
)
_CLAUSE_END = re.compile(r"[.;!?\n]+|\b(?:but|however|although|though)\b")
_REFUSAL = re.compile(
    r"\b(?:none|neither)\b|\b(?:i|we) (?:cannot|can't|can not)\b|\b(?:unable|not able) to\b"
    r"|(?:\bnot|n't) (?:\w+ ){0,2}(?:any|one) of\b"
    r"|\b(?:cannot|can't) (?:be )?(?:determin|identif|classif|tell|recogni|say)"
)
_NO_ANSWER = re.compile(
    r"\b(?:unknown|unsure|unclear|nothing|other|sorry|no idea|not sure|n/a|cannot|can't"
    r"|(?:don't|do not) know)\b"
)
# A negative and the classes it governs: the next one, and those joined to it by "or" or "and".
_NEGATED = re.compile(
    r"(?:\b(?:not|no|never|nor|without|cannot|unlike|except|rather than|instead of|other than)\b"
    r"|n't\b)[^<,:()]{0,60}<\d+>(?:\s*(?:,?\s*\b(?:or|nor|and)\b|/)\s*(?:an?\s+|the\s+)?<\d+>)*"
)
_MENTION = re.compile(r"<(\d+)>")
_FILLERS = frozenset("the an option options answer answers choice letter is are and or".split())


def parse_answer(text, names, *, options=None, match=None):
    r"""Find the classes an answer names.

    Parameters
    ----------
    text : str
        The answer.
    names : sequence of sequences of str
        The names of each class. Capitals, accents, spaces, punctuation and the plural do not
        matter.
    options : mapping of str to int, default=None
        Classes by the letter or number that the question gave them. Looked for if no name occurs.
    match : callable, default=None
        ``match(text)`` returns the classes of an answer in which neither occurs, and which does
        not decline to answer.

    Returns
    -------
    list of int
        Indices of the classes in the order they are named, each once. Empty for an abstention: a
        refusal, "none of these", only denied classes ("not a shirt"), or nothing recognised.

    Raises
    ------
    ValueError
        If names of two classes differ only in what does not matter, or a name has no letter.

    Notes
    -----
    Of overlapping names the longest counts: "ankle boot" does not name the class "boot" where both
    are classes. A name inside a word, hyphenated ones among it, does not count. Neither does the
    number of a class inside a decimal, a percentage or a fraction.

    Of a JSON object count the values under keys such as "answer" or "label"; else, if the keys name
    classes and the values are numbers, the keys by falling value; else all values that are not the
    confidence.

    Examples
    --------
    >>> names = [["shirt"], ["T-shirt"], ["pullover", "sweater"]]
    >>> parse_answer("1. T-Shirts\n2. sweater", names)
    [1, 2]
    >>> parse_answer("It is not a shirt, but a pullover.", names)
    [2]
    >>> parse_answer("(B)", names, options={"A": 2, "B": 0})
    [0]
    >>> parse_answer("I cannot identify the shirt.", names)
    []
    """
    index = index_names(tuple(map(tuple, names)))
    text = text.rpartition("</think>")[2].partition("<think>")[0]
    text = _strip_accents(text).strip()
    text = re.sub(r"\s[-–—]+\s|[–—]", ", ", text.replace("’", "'"))
    text = re.sub(r"[<>]", " ", text)  # kept for the marks

    def is_class(key):
        key = _strip_accents(key)
        return key.strip().upper() in (options or ()) or _MENTION.search(_mark_names(key, index))

    readings = [*_read_json(text, is_class), _strip_numbering(text)]
    marked = next(filter(_MENTION.search, (_mark_names(r, index) for r in readings)), None)
    if marked is None and options:
        marked = next(filter(_MENTION.search, (_mark_options(r, options) for r in readings)), None)
    if marked is not None:
        return _asserted(marked.lower())
    lowered = text.lower()
    silent = not text or _REFUSAL.search(lowered) or _NO_ANSWER.search(lowered)
    return [] if match is None or silent else list(match(text))


@lru_cache(maxsize=64)
def index_names(names):
    """Index names by their letters and digits, in the singular and the plural.

    Parameters
    ----------
    names : tuple of tuples of str
        The names of each class.

    Returns
    -------
    classes : dict of str to int
        Class of each form of a name. A form that two classes share is left out, unless it is
        exactly a name of one.
    breaks : re.Pattern
        What does not occur between two words of one name.

    Raises
    ------
    ValueError
        If names of two classes have the same letters, or a name has none.

    Examples
    --------
    >>> index_names((("ankle boot",), ("dress",)))[0]
    {'ankleboots': 0, 'dresses': 1, 'ankleboot': 0, 'dress': 1}
    """
    exact = {}
    for k, own in enumerate(names):
        for name in own:
            letters = "".join(_WORD.findall(_strip_accents(name))).casefold()
            if not letters:
                raise ValueError(
                    f"The name {name!r} has no letter or digit, so no answer can be recognised by"
                    " it; give another, such as {'+': 'plus sign'}."
                )
            if exact.setdefault(letters, k) != k:
                other = names[exact[letters]][0]
                raise ValueError(
                    f"The name {name!r} has the same letters as a name of the class {other!r}; an"
                    " answer could not tell them apart."
                )
    shared = {}
    for letters, k in exact.items():
        for form in _other_number(letters):
            shared.setdefault(form, set()).add(k)
    forms = {form: min(owners) for form, owners in shared.items() if len(owners) == 1}
    breaks = set(",;:%\n") - set("".join(name for own in names for name in own))
    return forms | exact, re.compile("[" + "".join(map(re.escape, breaks | {"\n"})) + "]")


def rank_weights(n):
    """Weights of the classes one answer names: 1, 1/2, 1/3, ... of the first, which sum to one.

    Parameters
    ----------
    n : int
        Number of classes named.

    Returns
    -------
    ndarray of shape (n,)
        The weights.

    Examples
    --------
    >>> rank_weights(2).round(3)
    array([0.667, 0.333])
    """
    weights = 1 / np.arange(1, n + 1)
    return weights / weights.sum()


def vote_and_score(rankings, n_questions, n_classes):
    """Reduce the classes named in the answers about each sample.

    Parameters
    ----------
    rankings : sequence of length n_samples of sequences of length n_questions of lists of int
        The classes each answer names, the likeliest first; empty where it abstains.
    n_questions, n_classes : int
        Their numbers, for there may be no sample.

    Returns
    -------
    votes : ndarray of int of shape (n_samples, n_questions)
        The class each answer names first; -1 where it abstains.
    scores : ndarray of float32 of shape (n_samples, n_classes)
        The mean of `rank_weights` over the answers that do not abstain; uniform if all do. So a
        class has a positive score exactly if it is a candidate.

    Examples
    --------
    >>> vote_and_score([[[0], [0, 1]], [[], []]], 2, 2)
    (array([[ 0,  0],
           [-1, -1]], dtype=int8), array([[0.8333333 , 0.16666667],
           [0.5       , 0.5       ]], dtype=float32))
    """
    votes = np.array(
        [[ranking[0] if ranking else -1 for ranking in row] for row in rankings],
        dtype=np.min_scalar_type(-n_classes),
    ).reshape(len(rankings), n_questions)
    scores = np.zeros((len(votes), n_classes), dtype=np.float32)
    for row, own in enumerate(rankings):
        for ranking in filter(None, own):
            scores[row, ranking] += rank_weights(len(ranking))
    n_answers = (votes >= 0).sum(axis=1, keepdims=True)
    scores[n_answers[:, 0] == 0] = 1 / n_classes
    return votes, scores / np.maximum(n_answers, 1, dtype=np.float32)


class EmbeddingMatcher:
    """Matches a text to the class whose name has the most similar embedding.

    Parameters
    ----------
    names : sequence of sequences of str
        The names of each class.
    embed : callable
        ``embed(texts)`` returns an embedding for each of a list of texts, (n, n_dimensions).
    threshold : float
        Smallest cosine of a match.

    Examples
    --------
    >>> import numpy as np
    >>> def embed(texts):
    ...     return np.array([[text.count("a"), text.count("o")] for text in texts])
    >>> match = EmbeddingMatcher([["cat"], ["dog"]], embed, 0.9)
    >>> match("fox"), match("oak")
    ([1], [])
    """

    def __init__(self, names, embed, threshold):
        self.names = names
        self.embed = embed
        self.threshold = threshold

    def __call__(self, text):
        """Return the class in a list, or an empty list if none is similar enough."""
        codes, embeddings = self._classes
        cosines = embeddings @ self._embed([text])[0]
        best = int(cosines.argmax())
        return [int(codes[best])] if cosines[best] >= self.threshold else []

    @cached_property
    def _classes(self):
        codes = [k for k, own in enumerate(self.names) for _ in own]
        return codes, self._embed([name for own in self.names for name in own])

    def _embed(self, texts):
        vectors = np.asarray(self.embed(texts), dtype=float)
        if vectors.ndim != 2 or len(vectors) != len(texts) or not np.isfinite(vectors).all():
            raise ValueError(
                f"embed returned shape {vectors.shape} for {len(texts)} texts; expected finite"
                f" numbers of shape ({len(texts)}, n_dimensions)."
            )
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors / np.where(norms > 0, norms, 1)


def _strip_accents(text):
    return "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))


def _other_number(word):
    """Plurals a word may have, and the singular it may come from."""
    if word[-1].isdigit() or len(word) < 3:
        return []
    forms = [word + ("es" if re.search(r"(?:s|x|z|ch|sh)$", word) else "s")]
    if re.search(r"[^aeiou]y$", word):
        forms.append(word[:-1] + "ies")
    if re.search(r"[^s]s$", word) and len(word) > 3:
        forms.append(word[:-1])
    return forms


def _read_json(text, is_class):
    """The strings of the first JSON list or object of a text, one a line; nothing without one."""
    for start in islice(re.finditer(r"[\[{]", text), 10):
        try:
            value, _ = json.JSONDecoder().raw_decode(text, start.start())
        except (ValueError, RecursionError):
            continue
        return ["\n".join(_flatten(value, is_class))]
    return []


def _flatten(value, is_class):
    """The strings in a JSON value; the keys of a table of scores, where they are classes."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, list):
        return [text for item in value for text in _flatten(item, is_class)]
    if isinstance(value, dict):
        chosen = [item for key, item in value.items() if _ANSWER_KEYS.fullmatch(key)]
        if chosen:
            return _flatten(chosen, is_class)
        scores = {name: score for name, score in value.items() if is_class(name)}
        if scores and all(isinstance(score, (int, float)) for score in value.values()):
            return [name for name in sorted(scores, key=lambda k: -scores[k]) if scores[name] > 0]
        rest = [item for key, item in value.items() if not _CONFIDENCE_KEYS.fullmatch(key)]
        return _flatten(rest, is_class)
    return [str(value)] if type(value) is int else []


def _strip_numbering(text):
    """Put items numbered 1., 2., ... on lines of their own, without the numbers."""
    spans = []
    for number in _NUMBERING.finditer(text):
        if int(number[1]) == len(spans) + 1:
            spans.append(number.span())
    if len(spans) < 2:
        return text
    for start, end in reversed(spans):
        text = text[:start] + "\n" + text[end:]
    return text


def _mark_names(text, index):
    """Replace each name in a text by the index of its class in angle brackets."""
    classes, breaks = index
    longest = max(map(len, classes))
    words = list(_WORD.finditer(text))
    parts, end, i = [], 0, 0
    while i < len(words):
        letters, found = "", None
        for j in range(i, len(words)):
            if j > i and breaks.search(text, words[j - 1].end(), words[j].start()):
                break
            letters += words[j].group().casefold()
            if len(letters) > longest:
                break
            start, stop = words[i].start(), words[j].end()
            if letters in classes and not (
                _in_compound(text, start, stop) or _in_number(text, start, stop, breaks)
            ):
                found = j
                mark = f"<{classes[letters]}>"
        if found is None:
            i += 1
            continue
        parts += [text[end : words[i].start()], mark]
        end, i = words[found].end(), found + 1
    return "".join(parts) + text[end:]


def _in_compound(text, start, end):
    """Whether a hyphen joins the span to another word."""
    return bool(re.search(r"[^\W_]-$", text[max(0, start - 2) : start])) or bool(
        re.match(r"-[^\W_]", text[end : end + 2])
    )


def _in_number(text, start, end, breaks):
    """Whether the span begins or ends with a part of a decimal, a percentage or a fraction."""
    before = text[start].isdigit() and _NUMBER_BEFORE.search(text[max(0, start - 5) : start])
    after = text[end - 1].isdigit() and _NUMBER_AFTER.match(text, end)
    if after and "%" in after[0]:
        after = breaks.search("%")  # else names have it, too
    return bool(before or after)


def _mark_options(text, options):
    """Replace each letter or number of an option by the index of its class in angle brackets."""
    labels = "|".join(map(re.escape, options))
    words = _WORD.findall(text)
    if all(word.upper() in options or word.lower() in _FILLERS for word in words):
        pattern = rf"(?i)\b({labels})\b"
    else:  # a letter alone may be a word, "a" or "I"
        pattern = (
            rf"\(\s*({labels})\s*\)|^\W*({labels})\s*[.):](?!\S)"
            rf"|\b(?i:options?|answer|choice|letter)\b(?:\s+(?i:is))?\W{{0,4}}({labels})\b"
        )
    return re.sub(pattern, lambda m: f" <{options[m[m.lastindex].upper()]}> ", text)


def _asserted(marked):
    """The classes marked in a text, without those of refusals and negations."""
    *_, tail = _ANSWER_IS.split(marked)
    if _MENTION.search(tail):
        marked = tail
    found = []
    for clause in _CLAUSE_END.split(_HEDGE.sub(" ", marked)):
        if not _REFUSAL.search(clause):
            found += map(int, _MENTION.findall(_NEGATED.sub(" ", clause)))
    return list(dict.fromkeys(found))
