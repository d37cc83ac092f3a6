"""A country decides a language at an exact distance, and nothing else tells of either."""

import re
import subprocess
import sys
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from charlstm.data import corpora, recall_text
from charlstm.data.dataset import Fingerprint
from charlstm.support.errors import InputError

REPOSITORY = Path(__file__).resolve().parents[2]
PATTERN = re.compile(r"I grew up in ([A-Z][a-z]+)\.((?: [HW]e [a-z]{3}\.)*) I still speak ([A-Z][a-z]+)\.\n")
# Written down anew, since who speaks what is no matter of the code.
SPOKEN = {
    "Brazil": "Portuguese",
    "Denmark": "Danish",
    "Egypt": "Arabic",
    "France": "French",
    "Italy": "Italian",
    "Japan": "Japanese",
    "Mexico": "Spanish",
    "Russia": "Russian",
}
DISTANCES = st.integers(0, 30).map(lambda fillers: 16 + 8 * fillers)
SEEDS = st.integers(0, 2**32 - 1)


@given(SEEDS, st.lists(DISTANCES, min_size=1, max_size=5))
def test_every_distance_is_exact_and_every_country_has_its_language(seed: int, distances: list[int]):
    for each in islice(recall_text.sentences(seed, distances), 40):
        parsed = PATTERN.fullmatch(each.text)
        assert parsed is not None
        country, _, language = parsed.groups()
        assert SPOKEN[country] == language and country == each.country
        assert each.decisive == parsed.start(3)
        assert parsed.start(3) - parsed.end(1) in distances


@given(st.lists(st.sampled_from(recall_text.FILLERS), max_size=20))
def test_what_stands_between_the_names_does_not_depend_on_the_country(fillers: list[str]):
    between = set()
    for country in recall_text.COUNTRIES:
        each = recall_text.sentence(country, fillers)
        between.add(each.text.partition(country)[2][: 16 + 8 * len(fillers)])
        assert each.text[each.decisive :] == f"{SPOKEN[country]}.\n"
    assert len(between) == 1


def test_one_letter_tells_a_language_and_one_a_country():
    initials = {language[0] for language in SPOKEN.values()}
    last_letters = {country[-1] for country in SPOKEN}
    assert len(initials) == len(last_letters) == len(SPOKEN) == 8


@given(SEEDS, st.lists(DISTANCES, min_size=1, max_size=3))
def test_sentences_are_a_function_of_their_arguments(seed: int, distances: list[int]):
    once, again, other = (
        list(islice(recall_text.sentences(at, distances), 30)) for at in (seed, seed, (seed + 1) % 2**32)
    )
    assert once == again != other


@pytest.mark.parametrize("distance", [-8, 0, 8, 15, 17, 20])
def test_distance_that_no_sentence_has_is_refused(distance: int):
    with pytest.raises(InputError, match=f"distance {distance} is not 16 or a multiple of 8 above it"):
        next(recall_text.sentences(0, [64, distance]))


# The corpora.


@pytest.mark.parametrize(
    ("name", "sha256"),
    [
        ("recall_32", "b0e035ae5a3bad2f656b0484556c60255b763099de777e99caa0c05f415d2a36"),
        ("recall_128", "0e5b3721f29c54ef0c643187d8520dd2f8621df36d5ad489320f57365f4f9851"),
        ("recall_4096", "6750411bd861cc024f71caca744585f0889a6c852fa7ce0aff2d2fd2c3662c46"),
    ],
)
def test_a_corpus_is_the_same_on_every_machine(name: str, sha256: str):
    for symbols in ("characters", "bytes"):
        text = corpora.load(name, symbols)
        assert text.isascii() and len(text) == 1_000_000
        assert Fingerprint.of(name, text).sha256 == sha256


def test_no_sentence_tells_of_another_nor_a_filler_of_its_country():
    parsed = list(PATTERN.finditer(corpora.load("recall_64", "characters")))
    countries = np.array([sorted(SPOKEN).index(each[1]) for each in parsed])
    distances = np.array([each.start(3) - each.end(1) for each in parsed])
    assert sum(len(each[0]) for each in parsed) > 999_900
    assert set(distances) == {16, 32, 64}
    longest = distances == 64
    fillers = np.array([re.findall("[HW]e [a-z]{3}", parsed[at][2]) for at in np.flatnonzero(longest)])
    assert stats.chisquare(np.bincount(countries)).pvalue > 1e-3
    assert stats.chisquare(np.unique(distances, return_counts=True)[1]).pvalue > 1e-3
    assert _dependence(countries[:-1], countries[1:]) > 1e-3
    assert _dependence(countries, distances) > 1e-3
    for place in range(6):
        assert _dependence(countries[longest], fillers[:, place]) > 1e-3
        assert _dependence(fillers[:, 0], fillers[:, place]) > 1e-3 or place == 0


def _dependence(left: np.ndarray, right: np.ndarray) -> float:
    """How likely independent values would look as dependent as these, by a chi-square test."""
    result: Any = stats.chi2_contingency(stats.contingency.crosstab(left, right).count)
    return result.pvalue


def test_names_double_from_32_to_4096():
    assert recall_text.distances("recall_32") == (16, 32)
    assert recall_text.distances("recall_128") == (16, 32, 64, 128)
    assert recall_text.distances("recall_4096") == (16, 32, 64, 128, 256, 512, 1024, 2048, 4096)
    with pytest.raises(InputError, match="none of the recall_N corpora"):
        recall_text.distances("king_james")


@pytest.mark.parametrize(
    "name",
    [
        "recall_",
        "recall_x",
        "recall_7",
        "recall_16",
        "recall_48",
        "recall_8192",
        "recall_032",
        "recall_-32",
        "recall_3\n2",
    ],
)
@pytest.mark.parametrize("door", [corpora.resolve, lambda name: corpora.load(name, "characters")])
def test_other_distance_is_refused_in_one_line(name: str, door):
    with pytest.raises(InputError) as refused:
        door(name)
    message = str(refused.value)
    assert repr(name) in message and "one of 32, 64, " in message and message.isprintable()


def test_names_stay_and_files_of_like_names_are_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    for name in ("recall_7", "recall_notes.txt"):
        Path(name).write_text("a text")
    assert corpora.resolve("recall_32") == "recall_32"
    assert corpora.resolve("./recall_7") == str(tmp_path / "recall_7")
    assert corpora.load("./recall_7", "characters") == corpora.load("recall_notes.txt", "characters") == "a text"


def test_catalogue_has_one_entry_for_all():
    entry = corpora.catalogue()[-1]
    assert (entry.name, entry.characters, entry.place) == ("recall_N", 1_000_000, "generated")
    assert "32, 64, ... 4096" in entry.title


def test_text_needs_no_jax():
    program = (
        "import sys; from charlstm.data import recall_text; next(recall_text.sentences(0, [16])); print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert not {"jax", "flax"} & set(done.stdout.split())
