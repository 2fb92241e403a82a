"""The file form of messages: NDJSON, one message a line, gzipped or not.

    {"chat": "general", "sender": "amira", "sent_at": "2026-01-31T12:00:00Z", "body": "Hello!"}

`sender` may be null, `sent_at` names its offset from UTC, and `metadata` (an object) may follow. A line is taken
as strictly as a request of the API: what is unknown, said twice or past a limit makes the line bad, and nothing
is guessed. Chats may be interleaved; within a chat the order of the lines is the order of its messages.
"""

from __future__ import annotations

import json
import re
from contextlib import suppress
from typing import Any

import msgspec
from msgspec import Raw, Struct

from chat_system.errors import Invalid
from chat_system.model import Body, Metadata, Name, NewChat, NewMessage, milliseconds

LINE_MAX_BYTES = 1024 * 1024
"""A message of 64 KiB with every character escaped fits in."""

_PLAIN_QUOTES = 16
"""The quotation marks of a line with the four usual keys and four texts."""
_NUL_ESCAPE = rb"\u0000"
_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_PATH = re.compile(r" - at `(?:key in )?\$\.?(?P<path>[^`]*)`$")


class TransferError(Exception):
    """A file that can't be read or written to its end: one clear line for the operator."""


class Line(Struct, forbid_unknown_fields=True):
    """A line as it is read."""

    chat: Name
    sender: Name | None
    sent_at: str
    body: Body
    metadata: Metadata | None = None


class WrittenLine(Struct, omit_defaults=True):
    """A line as it is written: the metadata are encoded already."""

    chat: str
    sender: str | None
    sent_at: str
    body: str
    metadata: Raw | None = None


_decode = msgspec.json.Decoder(Line).decode
_encode = msgspec.json.Encoder().encode


def parse(text: bytes | None) -> tuple[str, NewMessage, int]:
    """The chat's name, the message and its time in milliseconds.

    Raises:
        Invalid: what is wrong with the line.
    """
    if text is None:
        raise Invalid(f"is longer than {LINE_MAX_BYTES} bytes")
    try:
        line = _decode(text)
    except msgspec.ValidationError as error:
        raise Invalid(_readable(str(error))) from None
    except msgspec.DecodeError as error:
        raise Invalid(_malformed(text, str(error))) from None
    except UnicodeDecodeError as error:
        raise Invalid(f"is not valid UTF-8: {error.reason} at byte {error.start + 1} of a text") from None
    except RecursionError:
        raise Invalid("is nested too deeply") from None
    if b"\\" in text or text.count(b'"') != _PLAIN_QUOTES:
        _refuse_ambiguous(text)
    message = NewMessage(line.body, line.sender, line.metadata)
    message.check()
    try:
        return line.chat, message, milliseconds(line.sent_at)
    except ValueError as error:
        raise Invalid(f"/sent_at: is not an ISO 8601 time: {error}") from None


def check_chat_name(name: str) -> None:
    """Raise Invalid unless it can be the title of a chat."""
    try:
        NewChat(name).check()
    except Invalid:
        raise Invalid("/chat: is only white space") from None


def write(line: WrittenLine) -> bytes:
    """The line with its end."""
    return _encode(line) + b"\n"


def _malformed(text: bytes, reason: str) -> str:
    if _SURROGATE.search(text):
        with suppress(ValueError, RecursionError):
            # Python's decoder lets half a pair pass.
            json.loads(text)
            return "contains half of a surrogate pair"
    return f"is not valid JSON: {reason.removeprefix('JSON is malformed: ')}"


def _readable(reason: str) -> str:
    """The decoder's complaint with its place in front, as in the API's errors."""
    found = _PATH.search(reason)
    path = re.sub(r"\[(\d*\.*)\]", "", found["path"]).rstrip(".").replace(".", "/") if found else ""
    detail = (reason[: found.start()] if found else reason).replace("`", "")
    return f"/{path}: {detail}" if path else detail


def _refuse_ambiguous(text: bytes) -> None:
    """Raise Invalid for JSON that says a key twice or contains U+0000."""
    try:
        _read_strictly(text.decode())
    except (ValueError, RecursionError):
        raise Invalid("is not valid JSON") from None
    if _NUL_ESCAPE in text and _NUL.search(text):
        raise Invalid("contains U+0000")


def _unique(pairs: list[tuple[str, Any]]) -> None:
    names = [name for name, _ in pairs]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise Invalid(f"has the key {twice!r} twice")


_read_strictly = json.JSONDecoder(object_pairs_hook=_unique).decode
