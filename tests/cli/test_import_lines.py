"""What a line of a file may be, and what is said about one that may not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from chat_system.errors import Invalid
from chat_system.model import NewApplication
from chat_system.transfer.importing import Importer
from chat_system.transfer.lines import LINE_MAX_BYTES, parse
from chat_system.transfer.source import open_source
from chat_system.wiring import House
from tests.cli.lines import SENT_AT, line

NO_TIME = "/sent_at: is not an ISO 8601 time"


def encoded(**fields: Any) -> bytes:
    """A line that is good but for the fields named."""
    return json.dumps(line() | fields).encode()


def raw(body: bytes, more: bytes = b"") -> bytes:
    """A line with a body and further fields as bytes."""
    return b'{"chat":"c","sender":"s","sent_at":"%s","body":"%s"%s}' % (SENT_AT.encode(), body, more)


def without(key: str) -> bytes:
    """A line that lacks a key."""
    return json.dumps({name: value for name, value in line().items() if name != key}).encode()


BAD = {
    "cut short": (b'{"chat": "c"', "is not valid JSON: Input data was truncated"),
    "not JSON": (b"{'chat': 1}", "is not valid JSON: object keys must be strings (byte 1)"),
    "byte-order mark": (b"\xef\xbb\xbf" + encoded(), "is not valid JSON: invalid character (byte 0)"),
    "two in one": (encoded() + encoded(), "is not valid JSON: trailing characters (byte 96)"),
    "array": (b"[]", "Expected object, got array"),
    "null": (b"null", "Expected object, got null"),
    "no chat": (without("chat"), "Object missing required field chat"),
    "no sender": (without("sender"), "Object missing required field sender"),
    "no time": (without("sent_at"), "Object missing required field sent_at"),
    "no body": (without("body"), "Object missing required field body"),
    "unknown key": (encoded(extra=1), "Object contains unknown field extra"),
    "key twice": (raw(b"a", b',"body":"b"'), "has the key 'body' twice"),
    "key twice inside": (raw(b"a", b',"metadata":{"k":1,"k":2}'), "has the key 'k' twice"),
    "null chat": (encoded(chat=None), "/chat: Expected str, got null"),
    "empty chat": (encoded(chat=""), "/chat: Expected str of length >= 1"),
    "long chat": (encoded(chat="c" * 256), "/chat: Expected str of length <= 255"),
    "empty sender": (encoded(sender=""), "/sender: Expected str of length >= 1"),
    "long sender": (encoded(sender="s" * 256), "/sender: Expected str of length <= 255"),
    "blank sender": (encoded(sender=" \t"), "/sender: is only white space"),
    "null body": (encoded(body=None), "/body: Expected str, got null"),
    "empty body": (encoded(body=""), "/body: Expected str of length >= 1"),
    "long body": (encoded(body="b" * 65_537), "/body: is longer than 65536 bytes of UTF-8"),
    "long body in two bytes each": (encoded(body="é" * 32_769), "/body: is longer than 65536 bytes of UTF-8"),
    "array of metadata": (encoded(metadata=[]), "/metadata: Expected object | null, got array"),
    "long metadata": (encoded(metadata={"k": "v" * 4_089}), "/metadata: is longer than 4096 bytes of compact JSON"),
    "huge integer": (encoded(metadata={"k": 2**64}), "/metadata: has an integer that is out of range"),
    "huge number": (raw(b"a", b',"metadata":{"k":1e999}'), "/metadata: Number out of range"),
    "no number": (raw(b"a", b',"metadata":{"k":NaN}'), "is not valid JSON: invalid character (byte 89)"),
    "deep": (raw(b"a", b',"metadata":' + b'{"k":' * 2_000 + b"1" + b"}" * 2_000), "is nested too deeply"),
    "time as number": (encoded(sent_at=1), "/sent_at: Expected str, got int"),
    "no time at all": (encoded(sent_at="now"), f"{NO_TIME}: Invalid isoformat string: 'now'"),
    "date": (encoded(sent_at="2026-01-31"), f"{NO_TIME}: it names no offset from UTC"),
    "no offset": (encoded(sent_at="2026-01-31T12:00:00"), f"{NO_TIME}: it names no offset from UTC"),
    "no such day": (encoded(sent_at="2026-02-30T12:00:00Z"), f"{NO_TIME}: day is out of range for month"),
    "year 0": (encoded(sent_at="0001-01-01T00:00:00+00:01"), f"{NO_TIME}: it is outside the years 1 to 9999"),
    "year 10000": (encoded(sent_at="9999-12-31T23:59:59-00:01"), f"{NO_TIME}: it is outside the years 1 to 9999"),
    "U+0000": (raw(b"a\\u0000b"), "contains U+0000"),
    "U+0000 in metadata": (raw(b"a", b',"metadata":{"k":"\\u0000"}'), "contains U+0000"),
    "U+0000 in a key": (raw(b"a", b',"metadata":{"\\u0000":1}'), "contains U+0000"),
    "lone surrogate": (raw(b"\\ud800"), "contains half of a surrogate pair"),
    "lone surrogate and a pair": (raw(b"\\uDC00 \\uD83D\\uDE00"), "contains half of a surrogate pair"),
    "surrogate in UTF-8": (raw(b"\xed\xa0\x80"), "is not valid UTF-8: invalid continuation byte at byte 1 of a text"),
    "Latin-1": (raw(b"ok \xff"), "is not valid UTF-8: invalid start byte at byte 4 of a text"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_line_is_told_apart_by_its_reason(kind: str) -> None:
    """Each kind of fault has its sentence, which names the field where there is one to blame."""
    text, reason = BAD[kind]
    with pytest.raises(Invalid) as refused:
        parse(text)
    assert refused.value.detail == reason


GOOD: dict[str, dict[str, Any]] = {
    "chat of 255": {"chat": "c" * 255},
    "sender of 255": {"sender": "s" * 255},
    "no sender": {"sender": None},
    "body of 1": {"body": "b"},
    "blank body": {"body": " "},
    "body of 64 KiB": {"body": "b" * 65_536},
    "body of 64 KiB in two bytes each": {"body": "é" * 32_768},
    "body of 64 KiB in four bytes each": {"body": "😀" * 16_384},
    "an escape that only looks like U+0000": {"body": "\\u0000"},
    "null metadata": {"metadata": None},
    "metadata of 4 KiB": {"metadata": {"k": "v" * 4_088}},
    "the largest integer": {"metadata": {"k": 2**64 - 1}},
}


@pytest.mark.parametrize("kind", GOOD)
def test_a_line_at_the_limit_is_taken(kind: str) -> None:
    """The longest and shortest that the contract allows pass, and come back as they are."""
    chat, message, at = parse(encoded(**GOOD[kind]))
    wanted = line() | {"metadata": None} | GOOD[kind]
    assert (chat, message.sender, message.body, message.metadata) == tuple(
        wanted[name] for name in ("chat", "sender", "body", "metadata")
    )
    assert at == 1_769_860_800_000


async def test_lines_are_counted_as_an_editor_counts_them(house: House, tmp_path: Path) -> None:
    """Blank lines and lines that are too long have a number too, and so has a chat of white space."""
    long = b'{"body": "' + b"x" * (2 * LINE_MAX_BYTES) + b'"}'
    file = tmp_path / "some.ndjson"
    file.write_bytes(b"\n".join([b"", encoded(), long, b"  ", encoded(chat=" "), b"x" * LINE_MAX_BYTES, encoded()]))
    token = (await house.system.create_application(NewApplication("lines")))[0].token
    complaints: list[str] = []
    importer = Importer(house.system, await house.system.open(token), complaints.append)
    with open_source(str(file)) as source:
        await importer.run(source)
    assert complaints == [
        "line 3: is longer than 1048576 bytes",
        "line 5: /chat: is only white space",
        "line 6: is not valid JSON: invalid character (byte 0)",
    ]
    assert (importer.tally.recorded, importer.tally.bad) == (2, 3)
