"""Labels of a text by hand, and what holds of them for every text."""

import re

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from charlstm.data import labels

PLAY = "ROMEO:\n\"Is it (so) 'new'?\" I'm {a{b}c} 12.\n\n\"Left open\n\tJULIET now.\n"
MARKED = {
    "inside brackets": "              ###",
    "depth of braces": "                               112211",
    "speaker's name": "######",
    "digit": "                                       ##",
}


def test_a_small_play_is_labelled_as_by_hand():
    found = labels.features(PLAY)
    for name, marks in MARKED.items():
        wanted = [int(each) if each.isdigit() else int(each == "#") for each in marks.ljust(len(PLAY))]
        np.testing.assert_array_equal(found[name], wanted, name)
    quoted = "".join(each for each, inside in zip(PLAY, found["inside quotes"], strict=True) if inside)
    assert quoted == "\"Is it (so) 'new'?\"Left open\n\tJULIET now.\n"
    starts = [each for each, start in zip(PLAY, found["start of a sentence"], strict=True) if start]
    assert starts == ["R", "I", "L"]
    indented = PLAY.index("\t")
    assert found["indentation"][indented - 1 : indented + 3].tolist() == [0, 1, 1, 1]


def test_quotes_of_a_program():
    text = "a = 'x y' + b'z'  # don't\nf(\"it's\", r'\\'')\n\n'''doc\n\n\"more\"\n'''\nb"
    inside = labels.features(text)["inside quotes"]
    found = [
        "".join(text[at] for at in run) for run in np.split(np.arange(len(text)), np.flatnonzero(np.diff(inside)) + 1)
    ]
    assert found[1::2] == ["'x y", "'z", "\"it's", "'\\'", "'''doc\n\n\"more\"\n''"]


TEXTS = st.text(st.sampled_from("ab AB1_'\"’“”().[]{}!?:\n\t-"), max_size=80)


@given(TEXTS)
def test_laws_of_labels(text: str):
    found, words = labels.features(text), labels.words(text)
    assert all(len(values) == len(text) for values in found.values())
    for name, values in found.items():
        assert (np.asarray(values) >= 0).all(), name
    lines = text.split("\n")
    at = 0
    for number, line in enumerate(lines):
        here = found["position in the line"][at : at + len(line)]
        assert here.tolist() == [*range(1, len(line) + 1)], number
        at += len(line) + 1
    joined = ["".join(text[i] for i in np.flatnonzero(words.number == n)) for n in range(len(words.texts))]
    assert joined == words.texts
    assert (words.place > 0).tolist() == (words.number >= 0).tolist()
    assert int(found["start of a word"].sum()) == len(words.texts)


@given(TEXTS, st.integers(0, 80))
def test_features_follow_from_the_text_so_far_but_for_names_and_apostrophes(text: str, end: int):
    """An apostrophe is a quote only if its line closes it, and a name one only with its colon."""
    plain = text.replace("'", "").replace(":", "")
    whole, part = labels.features(plain), labels.features(plain[:end])
    for name, values in part.items():
        # The character that may open a blank line, or escape a quote, is decided by the next.
        np.testing.assert_array_equal(values[:-1], np.asarray(whole[name])[: max(len(values) - 1, 0)], name)


@given(st.text(max_size=40))
def test_every_character_has_one_kind(text: str):
    found = labels.kinds(text)
    for character, kind in zip(text, found, strict=True):
        name = labels.KINDS[kind]
        assert (name == "newline") == (character == "\n")
        assert (name == "capital") == (character.isupper() and not character.isdigit())
        if re.fullmatch("[a-z]", character):
            assert name == "letter"
