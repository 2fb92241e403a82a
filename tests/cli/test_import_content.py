"""What is in a file is in the application afterwards: order, every character, metadata and times."""

from __future__ import annotations

import gzip
import random

import pytest

from chat_system.model import Window
from chat_system.transfer.importing import default_name
from tests.cli.lines import SENT_AT, by_chat, line, written
from tests.cli.target import Target


async def test_messages_of_interleaved_chats_keep_their_order(target: Target) -> None:
    """Lines of 300 chats in random turns: chats are numbered by first appearance, messages as in the file."""
    dice = random.Random(5)
    lines = [line(f"chat {dice.randrange(300)}", f"message {number}") for number in range(4_000)]
    await target.take(lines)
    assert await target.holds() == by_chat(lines)
    first = await target.system.chats(target.application, Window(limit=200))
    assert [chat.title for chat in first] == list(dict.fromkeys(one["chat"] for one in lines))[:200]


async def test_everything_in_unicode_survives(target: Target) -> None:
    """Bodies, senders and chat names in many scripts, with joiners, marks, controls and line breaks."""
    texts = [
        "日本語のメッセージ",
        "😀👩‍👩‍👧‍👦 🏳️‍🌈",
        "\u202eright to left\u202c שלום مرحبا",
        "e\u0301 is not é",
        "\ufeffstarts with a zero-width no-break space",
        "tabs\tand\nline\r\nbreaks \u2028 too",
        "\x01\x08\x1b[31m controls \x7f\x85",
        " leading and trailing ",
        "ﬀ ß İ ı K",
        "\U0010ffff\ufdd0 noncharacters",
        'quotes " and \\ backslashes \\u0000 that only look like one',
    ]
    lines = [line(chat, body, sender=chat) for chat in texts for body in texts]
    await target.take(lines)
    assert await target.holds() == lines


async def test_metadata_and_missing_senders_survive(target: Target) -> None:
    """Metadata come back as they are, order of keys included; null ones are left out; a sender may be null."""
    metadata = {"z": 1, "a": [1.5, None, True, {"ü": "x" * 100}], "big": 2**63, "": ""}
    await target.take([line(metadata=metadata), line(sender=None), line(metadata=None), line(metadata={})])
    held = await target.holds()
    assert held == [line(metadata=metadata), line(sender=None), line(), line(metadata={})]
    assert list(held[0]["metadata"]) == ["z", "a", "big", ""]


async def test_times_become_utc_with_milliseconds(target: Target) -> None:
    """Any ISO 8601 time with an offset is taken, from the first day to the last that can be written."""
    times = {
        "2026-01-31T12:00:00Z": SENT_AT,
        "2026-01-31T13:30:00.5+01:30": "2026-01-31T12:00:00.500Z",
        "2026-01-31 12:00:00.123999-00:00": "2026-01-31T12:00:00.123Z",
        "20260131T120000Z": SENT_AT,
        "1969-12-31T23:59:59.999Z": "1969-12-31T23:59:59.999Z",
        "0001-01-01T00:00:00Z": "0001-01-01T00:00:00.000Z",
        "9999-12-31T23:59:59.999999Z": "9999-12-31T23:59:59.999Z",
    }
    await target.take([line(sent_at=time) for time in times])
    assert [one["sent_at"] for one in await target.holds()] == list(times.values())


async def test_blank_lines_and_a_missing_end_are_no_matter(target: Target) -> None:
    """Empty lines are passed over, Windows' line ends are white space, and the last line may lack its end."""
    first, second = written([line(body="a")]), written([line(body="b")])
    tally = await target.take(b"\n\r\n" + first.replace(b"\n", b"\r\n") + b"  \n" + second.rstrip())
    assert (tally.recorded, tally.bad) == (2, 0)
    assert [one["body"] for one in await target.holds()] == ["a", "b"]


async def test_an_empty_file_is_imported(target: Target) -> None:
    """There is nothing in it, and that is no failure."""
    tally = await target.take(b"")
    assert (tally.lines, tally.complete) == (0, True)


async def test_gzip_is_known_by_its_first_bytes(target: Target) -> None:
    """A gzipped file needs no .gz in its name, and may have several members."""
    first, second = written([line(body="a")]), written([line(body="b")])
    assert (await target.take(gzip.compress(first) + gzip.compress(second))).recorded == 2
    assert [one["body"] for one in await target.holds()] == ["a", "b"]


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("chat.ndjson.gz", "chat"),
        ("/var/backups/chat.2026.jsonl", "chat.2026"),
        ("chat.json", "chat"),
        ("chat.gz", "chat"),
        ("chat.zip", "chat.zip"),
        ("chat", "chat"),
        (".ndjson", ".ndjson"),
    ],
)
def test_an_application_is_named_after_its_file(file: str, name: str) -> None:
    """The endings that tell the form are no part of the name."""
    assert default_name(file) == name
