"""trigrams: what FTS5 is asked for never misses a message that contains the query."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from chat_system.embedded.search import TRIGRAM, TRIGRAMS_ASKED, trigrams
from tests.properties.nasty_text import ANYTHING, BODIES

TEXTS = st.one_of(BODIES, ANYTHING, st.text(st.sampled_from("aAbßé😀\"'* "), min_size=3, max_size=300))


@pytest.fixture(scope="module")
def fts() -> Iterator[sqlite3.Connection]:
    """An index as the schema makes it, in memory."""
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.execute(
        "CREATE VIRTUAL TABLE search USING fts5"
        " (folded, content = '', columnsize = 0, detail = none, tokenize = 'trigram case_sensitive 1')"
    )
    yield connection
    connection.close()


@given(TEXTS, st.integers(0, 300), st.integers(3, 300), st.text())
@example("Straße", 0, 6, "")
@example("a\ufeffbc", 0, 4, "")
@example("x" * 300, 0, 256, "")
def test_every_message_that_contains_the_query_is_a_candidate(
    fts: sqlite3.Connection, text: str, start: int, length: int, sample: str
) -> None:
    """For every piece of three characters and more of every folded text, whatever the sample says."""
    folded = text.casefold()
    piece = folded[start % len(folded) :][:length]
    if len(piece) < TRIGRAM:
        return
    fts.execute("INSERT INTO search (rowid, folded) VALUES (1, ?)", (folded,))
    try:
        found = fts.execute("SELECT rowid FROM search WHERE search MATCH ?", (trigrams(piece, sample),)).fetchall()
        assert found == [(1,)]
    finally:
        fts.execute("INSERT INTO search (search) VALUES ('delete-all')")


@given(st.text(min_size=3, max_size=300), st.text())
def test_each_trigram_is_a_quoted_piece_of_the_query(text: str, sample: str) -> None:
    """At least one, at most TRIGRAMS_ASKED, none twice; quotes are doubled and nothing is syntax."""
    query = trigrams(text, sample)
    assert query[0] == query[-1] == '"'
    plain = [piece.replace('""', '"') for piece in query[1:-1].split('" AND "')]
    assert all(len(piece) == TRIGRAM and piece in text for piece in plain)
    assert 1 <= len(plain) <= TRIGRAMS_ASKED
    assert len(set(plain)) == len(plain)


@pytest.mark.parametrize("text", ["qzx the common words", "the common qzx words", "the common words qzx"])
def test_the_rarest_trigrams_are_asked_for(text: str) -> None:
    """Of a query with too many, those that the sample has least, wherever in the query they stand."""
    assert '"qzx"' in trigrams(text, "the common words " * 9)


def test_a_short_query_is_asked_for_whole() -> None:
    """With as many trigrams as may be asked for, none is left out, however common."""
    assert trigrams("abcdef", "abcdef" * 9) == '"abc" AND "bcd" AND "cde" AND "def"'


def test_a_query_of_one_repeated_character_is_one_trigram() -> None:
    """It asks for nothing twice."""
    assert trigrams("aaaaaa", "") == '"aaa"'
