"""Rows as JSON writes them, read as MySQL does: nothing in a text is taken for the end of it or of its row."""

from __future__ import annotations

import pytest

from chat_system.stack.values import MARK, ROWS_AT_ONCE, Row, statements, written

MEANT = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "0": "\0", "Z": "\x1a"}
"""What a backslash and a letter mean in a literal of MySQL; any other character means itself."""


def read(text: str) -> list[Row]:
    """VALUES as MySQL's grammar has them, of integers, NULL and texts in double quotes."""
    rows: list[Row] = []
    at = 0
    while True:
        assert text[at] == "("
        row: list[object] = []
        while text[at] != ")":
            value, at = literal(text, at + 1)
            row.append(value)
            assert text[at] in ",)"
        rows.append(tuple(row))
        at += 1
        if at == len(text):
            return rows
        assert text[at] == ","
        at += 1


def literal(text: str, at: int) -> tuple[object, int]:
    """The literal that begins here, and where it ends."""
    if text[at] != '"':
        end = min(found for found in (text.find(",", at), text.find(")", at)) if found >= 0)
        word = text[at:end]
        return (None if word.upper() == "NULL" else int(word)), end
    characters: list[str] = []
    at += 1
    while text[at] != '"':
        if text[at] == "\\":
            at += 1
            characters.append(MEANT.get(text[at], text[at]))
        else:
            characters.append(text[at])
        at += 1
    return "".join(characters), at + 1


TEXTS = [
    *('"', "'", "\\", '\\"', "\\\\", "\\n", "\\u0041", "\\f", "\\\\u0007", "\f", "\\\f", "x" * 100),
    *("],[", '],["",', '"],["",', ")", "),(", '),("', "NULL", "null", "", "--", "/*", "%s", "字😀\u2028\x7f"),
    *map(chr, range(1, 32)),
]


@pytest.mark.parametrize("second", ["plain", "],[", '],["",', "\\", "\\u0001", "\x01", "\f"])
def test_every_text_comes_back_as_it_was(second: str) -> None:
    """Between other texts and at the end of a row, alone and beside what has to be written anew."""
    rows = [(MARK, number, text, None, second + text) for number, text in enumerate(TEXTS)]
    assert read(written(rows).decode()) == [row[1:] for row in rows]


def test_rows_of_one_column_stay_apart() -> None:
    """Also where texts are all that stands between the brackets."""
    rows = [(MARK, text) for text in TEXTS]
    assert read(written(rows).decode()) == [row[1:] for row in rows]


def test_statements_are_as_short_as_they_must_be() -> None:
    """In rows and in bytes; a row that is too long for any comes alone, and no row is lost or moved."""
    rows = [(MARK, number, "x" * (number % 50)) for number in range(2 * ROWS_AT_ONCE + 1)]
    rows[5] = (MARK, 5, "long" * 1000)
    made = list(statements(b"HEAD ", rows, b" TAIL", 2_000))
    found: list[Row] = []
    for statement in made:
        assert statement.startswith(b"HEAD (")
        assert statement.endswith(b") TAIL")
        part = read(statement[5:-5].decode())
        assert len(statement) <= 2_000 or len(part) == 1
        found += part
    assert found == [row[1:] for row in rows]
    assert len(list(statements(b"", rows, b"", 10**9))) == 3
    assert list(statements(b"HEAD ", [], b" TAIL", 2_000)) == []
