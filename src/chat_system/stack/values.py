"""Rows as a multi-row INSERT takes them, written by the JSON encoder.

JSON and SQL write integers, null and texts in double quotes alike, and agree on what a backslash means but for
control characters. So the encoder, which is compiled, writes all rows of a statement at once; quoting value by value in
Python costs several times as much. It holds for sessions as `mysql` makes them: UTF-8, neither ANSI_QUOTES nor
NO_BACKSLASH_ESCAPES.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

MARK = ""
"""What each row begins with, and the server never gets to see. See `written`."""

Row = tuple[Any, ...]
"""MARK, then integers, texts and None. No bytes, no floats: JSON has others."""

ROWS_AT_ONCE = 1_000
"""Rows of a statement: many enough that a statement costs little, few enough that the server soon has the first."""

_encode = msgspec.json.Encoder().encode
_ESCAPE = re.compile(rb"\\(?:u00([0-9a-f]{2})|.)")


def statements(head: bytes, rows: Sequence[Row], tail: bytes, max_bytes: int) -> Iterator[bytes]:
    """The rows between head and tail, in statements that are short enough; a row that is not comes alone."""
    for start in range(0, len(rows), ROWS_AT_ONCE):
        yield from _statements(head, rows[start : start + ROWS_AT_ONCE], tail, max_bytes)


def _statements(head: bytes, rows: Sequence[Row], tail: bytes, max_bytes: int) -> Iterator[bytes]:
    statement = b"%b%b%b" % (head, written(rows), tail)
    if len(statement) <= max_bytes or len(rows) == 1:
        yield statement
        return
    middle = len(rows) // 2
    for part in (rows[:middle], rows[middle:]):
        yield from _statements(head, part, tail, max_bytes)


def written(rows: Sequence[Row]) -> bytes:
    """At least one row, as VALUES takes them.

    Between two rows the encoder writes `],["",`. No text holds these bytes: inside one a quote has a backslash before
    it, and the quote that ends one is followed by a comma or a bracket.
    """
    text: bytes = b"(%b)" % _encode(rows)[5:-2].replace(b'],["",', b"),(")
    if b"\\u" in text or b"\\f" in text:
        text = _ESCAPE.sub(_escaped, text)
    return text


def _escaped(found: re.Match[bytes]) -> bytes:
    """An escape of JSON, or two backslashes, as MySQL writes it."""
    if found[1] is not None:
        # A character that means nothing inside a literal, as it is.
        return bytes.fromhex(found[1].decode())
    return b"\f" if found[0] == rb"\f" else found[0]
