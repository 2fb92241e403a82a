"""Files of messages, written and compared."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

Fields = dict[str, Any]

SAMPLE = Path(__file__).resolve().parents[2] / "examples" / "chat-sample.ndjson.gz"
SENT_AT = "2026-01-31T12:00:00.000Z"


def line(chat: str = "general", body: str = "Hello!", **fields: Any) -> Fields:
    """A good line; what is named replaces or adds."""
    return {"chat": chat, "sender": "amira", "sent_at": SENT_AT, "body": body} | fields


def written(lines: Iterable[Fields]) -> bytes:
    """The lines as a file."""
    return b"".join(json.dumps(one, ensure_ascii=False).encode() + b"\n" for one in lines)


def read(content: bytes) -> list[Fields]:
    """The lines of a file, gzipped or not."""
    plain = gzip.decompress(content) if content.startswith(b"\x1f\x8b") else content
    return [json.loads(one) for one in plain.splitlines()]


def to_the_millisecond(lines: Iterable[Fields]) -> list[Fields]:
    """The lines with their times as they are kept: in UTC, cut to the millisecond."""
    return [one | {"sent_at": _cut(one["sent_at"])} for one in lines]


def by_chat(lines: Iterable[Fields]) -> list[Fields]:
    """The lines in the order of an export: chats by first appearance, each with its messages in order."""
    chats: dict[str, list[Fields]] = {}
    for one in lines:
        chats.setdefault(one["chat"], []).append(one)
    return [one for chat in chats.values() for one in chat]


def _cut(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    return moment - timedelta(microseconds=moment.microsecond % 1000)
