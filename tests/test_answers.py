"""Reading answers: a table of what models say, and the arithmetic of votes and scores."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from sklearn_npll.annotators._answers import (
    EmbeddingMatcher,
    index_names,
    parse_answer,
    rank_weights,
    vote_and_score,
)

CLOTHES = [
    ["T-shirt", "tee"],
    ["shirt"],
    ["pullover", "sweater"],
    ["ankle boot"],
    ["boot"],
    ["dress"],
    ["Trouser"],
]
TEE, SHIRT, PULLOVER, ANKLE_BOOT, BOOT, DRESS, TROUSER = range(7)
LETTERS = {"A": DRESS, "B": SHIRT, "C": TEE, "D": BOOT}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # one name
        ("shirt", [SHIRT]),
        ("Shirt.", [SHIRT]),
        ("  SHIRT\n", [SHIRT]),
        ("**Shirt**", [SHIRT]),
        ("`shirt`", [SHIRT]),
        ('"T-shirt"', [TEE]),
        ("t shirt", [TEE]),
        ("tshirt", [TEE]),
        ("t_shirt", [TEE]),
        ("T‐shirt", [TEE]),
        ("Shírt", [SHIRT]),
        ("ankle-boot", [ANKLE_BOOT]),
        ("Ankleboots", [ANKLE_BOOT]),
        # synonyms and plurals
        ("a sweater", [PULLOVER]),
        ("Tees", [TEE]),
        ("two dresses", [DRESS]),
        ("a pair of trousers", [TROUSER]),
        # sentences
        ("The image shows a shirt.", [SHIRT]),
        ("This is a photo of an ankle boot, seen from the side.", [ANKLE_BOOT]),
        ("It's most likely a pullover (or possibly a shirt).", [PULLOVER, SHIRT]),
        ("Either a dress or a shirt", [DRESS, SHIRT]),
        ("The object is a shirt. The shirt has buttons.", [SHIRT]),
        ("There is no doubt that this is a dress.", [DRESS]),
        ("I'm not sure, but it looks like a shirt.", [SHIRT]),
        ("I am not entirely sure whether it's a shirt or a dress", [SHIRT, DRESS]),
        ("It is a shirt-like garment", []),
        ("a sweatshirt", []),
        ("It could be a dress; the cut is unclear. Answer: shirt", [SHIRT]),
        ("Dress and boot are unlikely, so the final answer is **shirt**.", [SHIRT]),
        ("<think>A boot? No, a dress.</think>\n\nshirt", [SHIRT]),
        ("a boot, I suppose</think> shirt", [SHIRT]),
        ("<think>It may be a boot, as", []),
        # lists
        ("1. shirt 2. dress", [SHIRT, DRESS]),
        ("1) Dress\n2) T-shirt\n3) Shirt", [DRESS, TEE, SHIRT]),
        ("- shirt\n- pullover", [SHIRT, PULLOVER]),
        ("shirt, dress, shirt", [SHIRT, DRESS]),
        ("shirt > dress", [SHIRT, DRESS]),
        ("dress/shirt", [DRESS, SHIRT]),
        # JSON
        ('["shirt", "dress"]', [SHIRT, DRESS]),
        ('```json\n{"labels": ["dress", "T-shirt"]}\n```', [DRESS, TEE]),
        ('{"reasoning": "a boot at first sight", "answer": "ankle boot"}', [ANKLE_BOOT]),
        ('{"shirt": 0.2, "dress": 0.7, "boot": 0.0}', [DRESS, SHIRT]),
        ('{"shirt": false, "dress": true}', [DRESS]),
        ("Here you go: ['shirt', 'dress']", [SHIRT, DRESS]),
        ('["shirt", "dre', [SHIRT]),
        # refusals
        ("None of these", []),
        ("None of the above: it is neither a shirt nor a dress.", []),
        ("I cannot identify the shirt.", []),
        ("I'm sorry, but I can't tell if this is a shirt.", []),
        ("I am unable to say whether it is a dress or a shirt", []),
        ("It is not any of: shirt, dress", []),
        ("I can’t see a dress, but there is a shirt.", [SHIRT]),
        ("", []),
        ("...", []),
        ("a banana", []),
        # negation
        ("not a shirt", []),
        ("It isn't a shirt, it's a dress.", [DRESS]),
        ("Not a shirt but a dress", [DRESS]),
        ("It is a dress, not a shirt or a T-shirt", [DRESS]),
        ("a dress rather than a shirt", [DRESS]),
        ("No, this is a shirt", [SHIRT]),
        ("No - this is a shirt", [SHIRT]),
        ("This does not look like a long-sleeved shirt. A dress!", [DRESS]),
        # letters count only where no name does
        ("dress (B)", [DRESS]),
    ],
)
def test_answers(text, expected):
    assert parse_answer(text, CLOTHES, options=LETTERS) == expected
    assert parse_answer(text, CLOTHES) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("(B)", [SHIRT]),
        ("b", [SHIRT]),
        ("B.", [SHIRT]),
        ("A", [DRESS]),
        ("Option C", [TEE]),
        ("The answer is (D).", [BOOT]),
        ("**Answer:** C", [TEE]),
        ("Answer: B. It has buttons and a collar.", [SHIRT]),
        ("B) because it has buttons", [SHIRT]),
        ("C, A", [TEE, DRESS]),
        ("A or B", [DRESS, SHIRT]),
        ("1. D\n2. A", [BOOT, DRESS]),
        ('["C", "B"]', [TEE, SHIRT]),
        ('{"C": 0.2, "B": 0.7}', [SHIRT, TEE]),
        ("not (A) but (B)", [SHIRT]),
        ("I think a garment", []),
        ("E", []),
        ("I cannot choose between (A) and (B)", []),
    ],
)
def test_options(text, expected):
    assert parse_answer(text, CLOTHES, options=LETTERS) == expected
    assert parse_answer(text, CLOTHES) == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("7", [7]),
        ("The digit is 1. It has one stroke.", [1]),
        ("1. 7\n2. 1", [7, 1]),
        ("[3, 5]", [3, 5]),
        ('{"label": 4}', [4]),
        ("70", []),
        ("seven", [7]),
        ("7 (confidence 0.95)", [7]),
        ("7 (confidence .9)", [7]),
        ("7 (confidence 9/10)", [7]),
        ("7, with 9 % doubt", [7]),
        ("The answer is 7.", [7]),
        ("0.7", []),
        ("7 or 9", [7, 9]),
        ('{"class": 7, "confidence": 0.95}', [7]),
        ('{"label": 3, "score": 1.0}', [3]),
        ('{"label": 3, "score": 1}', [3]),
        ('{"digit": 7, "confidence": 9}', [7]),
        ('{"digit": 7, "runner-up": 1}', [7, 1]),
        ('{"3": 0.2, "7": 0.8, "1": 0}', [7, 3]),
        ('{"answer": {"3": 0.2, "7": 0.8}}', [7, 3]),
    ],
)
def test_digits_as_classes(text, expected):
    names = [[str(i)] for i in range(10)]
    names[7].append("seven")
    assert parse_answer(text, names) == expected


def test_names_with_decimals_fractions_and_percentages():
    names = [["v1.5"], ["2.0"], ["1/2"], ["737-200"]]
    for k, (name,) in enumerate(names):
        assert parse_answer(f"It is {name}.", names) == [k]
    assert parse_answer("I am 50% sure: 20%", [["20%"], ["50"]]) == [1, 0]
    assert parse_answer("I am 50% sure: 20", [["20"], ["50"]]) == [0]


def test_numbers_as_options():
    options = {str(i + 1): i for i in range(30)}
    names = [[f"kind {i + 100}"] for i in range(30)]
    assert parse_answer("28", names, options=options) == [27]
    assert parse_answer("1. 5\n2. 12", names, options=options) == [4, 11]


def test_names_with_punctuation_and_negative_names():
    names = [["St. Bernard"], ["Bernard"], ["elephant, African"], ["hot dog"], ["not hot dog"]]
    assert parse_answer("It's a St. Bernard", names) == [0]
    assert parse_answer("an elephant, african", names) == [2]
    assert parse_answer("Not hot dog!", names) == [4]
    assert parse_answer("hot dog", names) == [3]
    # without a comma in any name, names do not run across one
    assert parse_answer("a top, coat", [["topcoat"], ["coat"]]) == [1]
    assert parse_answer("a top coat", [["topcoat"], ["coat"]]) == [0]


def test_shared_plurals_are_left_out():
    classes, _ = index_names((("glass",), ("glasses",)))
    assert classes["glasses"] == 1
    classes, _ = index_names((("bath",), ("baths",), ("buses",), ("buse",)))
    assert (classes["baths"], classes["buse"]) == (1, 3)
    # "cases" may come from either
    classes, _ = index_names((("cas",), ("case",)))
    assert "cases" not in classes


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([["+"], ["minus"]], r"name '\+' has no letter or digit"),
        ([["C"], ["C++"]], r"name 'C\+\+' has the same letters as a name of the class 'C'"),
        ([["tshirt"], ["top", "T-Shirt"]], "name 'T-Shirt' has the same letters"),
    ],
)
def test_names_that_cannot_be_told_apart(names, message):
    with pytest.raises(ValueError, match=message):
        parse_answer("any", names)


def embed(texts):
    """Counts of two letters."""
    return [[text.count("o"), text.count("a")] for text in texts]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("footwear for snow", [1]),  # cosine of (3, 1) and (1, 0): 0.949
        ("dog", [1]),
        ("banana", [0]),
        ("boat", []),  # cosine of (1, 1) and either: 0.707
        ("", []),
        ("shoe", [1]),  # parsed
        ("not a shoe", []),  # denied, not unrecognised
        ("no idea", []),
        ("I cannot say", []),
        ("xyz", []),
    ],
)
def test_embeddings_match_what_is_not_recognised(text, expected):
    names = [["bag"], ["shoe"]]
    match = EmbeddingMatcher(names, embed, threshold=0.8)
    assert parse_answer(text, names, match=match) == expected


def test_embedding_takes_the_best_of_several_names():
    match = EmbeddingMatcher([["bag"], ["hat", "shoe"]], embed, threshold=0.8)
    assert match("ooo") == [1]
    calls = []
    match = EmbeddingMatcher([["a"], ["o"]], lambda t: calls.append(len(t)) or embed(t), 0.8)
    assert [match("oo"), match("aa")] == [[1], [0]]
    assert calls == [2, 1, 1]  # the names once


@pytest.mark.parametrize("result", [[[1.0]], [1.0, 2.0], [[np.nan], [1.0]]])
def test_bad_embeddings(result):
    match = EmbeddingMatcher([["bag"], ["shoe"]], lambda texts: result, 0.8)
    with pytest.raises(ValueError, match="embed returned shape .* for 2 texts"):
        match("boat")


def test_votes_and_scores_by_hand():
    assert_allclose(rank_weights(1), [1])
    assert_allclose(rank_weights(3), np.array([6, 3, 2]) / 11)
    votes, scores = vote_and_score(
        [
            [[2], [2, 0], []],  # class 2: (1 + 2/3) / 2
            [[], [], []],
            [[1], [0], [1, 2, 0]],  # (1 + 6/11, 3/11, 1 + 2/11) / 3
        ],
        3,
        3,
    )
    assert_array_equal(votes, [[2, 2, -1], [-1, -1, -1], [1, 0, 1]])
    expected = [[1 / 6, 0, 5 / 6], [1 / 3] * 3, [13 / 33, 17 / 33, 3 / 33]]
    assert_allclose(scores, expected, rtol=1e-6)
    assert scores.dtype == np.float32
    assert vote_and_score([[[299]]], 1, 300)[0].dtype == np.int16
