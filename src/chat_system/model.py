"""The domain: what applications, chats and messages are, and which inputs are acceptable.

Pure: no I/O, no clock, no framework. The structs are also the wire form: what a client sends decodes
straight into `NewMessage`, what it gets is an encoded `Message`, so a message is built once on its way in
and once on its way out.

Times are held as integer milliseconds since 1970 (UTC) in facts and tables, and as RFC 3339 text
(`2026-01-31T12:00:00.000Z`) in what clients see.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Annotated, Any, NewType

import msgspec
from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from chat_system.errors import Invalid

ApplicationId = NewType("ApplicationId", int)
"""The database's number of an application. It never leaves the system; clients know the token."""

# Limits. Each is tested at n and n + 1.
NAME_MAX_CHARACTERS = 255
BODY_MAX_BYTES = 64 * 1024
METADATA_MAX_BYTES = 4 * 1024
METADATA_MAX_DEPTH = 100
QUERY_MAX_CHARACTERS = 256
PAGE_DEFAULT_ITEMS = 50
PAGE_MAX_ITEMS = 200
BATCH_MAX_MESSAGES = 500
IDEMPOTENCY_KEY_MAX_CHARACTERS = 255
IDEMPOTENCY_KEPT_S = 24 * 3600
REQUEST_MAX_BYTES = 1024 * 1024
BATCH_REQUEST_MAX_BYTES = 8 * 1024 * 1024
TOKEN_BYTES = 32
TOKEN_CHARACTERS = 43
NUMBER_MAX = 2**31 - 1
"""Chats per application and messages per chat. Larger path numbers are simply unknown."""
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
TIME_MIN_MS = -62_135_596_800_000
TIME_MAX_MS = 253_402_300_799_999
"""The years 1 to 9999, which is what RFC 3339 can write."""

BOUND_MAX = 2**53 - 1
"""The largest bound that a list may be asked for: beyond it, JSON's numbers stop being exact in many languages."""

PAGE_MAX = 2**31 - 1

Name = Annotated[str, Meta(min_length=1, max_length=NAME_MAX_CHARACTERS)]
Body = Annotated[
    str,
    Meta(min_length=1, extra_json_schema={"maxLength": BODY_MAX_BYTES, "description": "Up to 64 KiB of UTF-8."}),
]
Metadata = Annotated[dict[str, Any], Meta(description="A JSON object of up to 4 KiB, encoded compactly.")]
Number = Annotated[int, Meta(ge=1)]
Revision = Annotated[int, Meta(ge=0)]
Time = Annotated[
    str,
    Meta(
        pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$",
        extra_json_schema={"format": "date-time"},
        examples=["2026-01-31T12:00:00.000Z"],
    ),
]
StoredMetadata = Annotated[Raw, Meta(extra_json_schema={"type": "object"})]
"""Metadata on its way out: compact JSON, kept encoded so that a page of messages decodes none of it."""


class Application(Struct):
    """A client of the service; its token opens its chats and messages."""

    token: Annotated[str, Meta(min_length=TOKEN_CHARACTERS, max_length=TOKEN_CHARACTERS)]
    name: Name
    chats_count: Annotated[int, Meta(ge=0)]
    created_at: Time
    updated_at: Time


class Chat(Struct):
    """A numbered series of messages. `revision` is that of its latest change to a message."""

    number: Number
    title: Name | None
    metadata: StoredMetadata | None
    messages_count: Annotated[int, Meta(ge=0)]
    revision: Revision
    created_at: Time
    updated_at: Time


class Message(Struct, gc=False):
    """A message in its latest state. Deleted, it is a tombstone: number and sender stay, body and metadata go."""

    number: Number
    sender: Name | None
    body: Body | None
    metadata: StoredMetadata | None
    revision: Number
    created_at: Time
    updated_at: Time
    deleted_at: Time | None = None


class FoundMessage(Message, kw_only=True):
    """A message found by a search over a whole application: it says which chat it stands in."""

    chat_number: Number


class NewApplication(Struct, forbid_unknown_fields=True):
    """What creates or renames an application."""

    name: Name

    def check(self) -> None:
        """Raise `Invalid` for what the types cannot say."""
        _refuse_blank("/name", self.name)


class ApplicationEdit(Struct, forbid_unknown_fields=True):
    """What changes an application."""

    name: Name | UnsetType = UNSET

    def check(self) -> None:
        """Raise `Invalid` for what the types cannot say."""
        if isinstance(self.name, str):
            _refuse_blank("/name", self.name)


class NewChat(Struct, forbid_unknown_fields=True):
    """What opens a chat. Both fields may be absent or null."""

    title: Name | None = None
    metadata: Metadata | None = None

    def check(self) -> None:
        """Raise `Invalid` for what the types cannot say."""
        if self.title is not None:
            _refuse_blank("/title", self.title)
        if self.metadata is not None:
            encode_metadata(self.metadata)


class ChatEdit(Struct, forbid_unknown_fields=True):
    """What changes a chat: the fields that are named are replaced, null clears them."""

    title: Name | None | UnsetType = UNSET
    metadata: Metadata | None | UnsetType = UNSET

    def check(self) -> None:
        """Raise `Invalid` for what the types cannot say."""
        if isinstance(self.title, str):
            _refuse_blank("/title", self.title)
        if isinstance(self.metadata, dict):
            encode_metadata(self.metadata)


class NewMessage(Struct, forbid_unknown_fields=True, gc=False):
    """What posts a message."""

    body: Body
    sender: Name | None = None
    metadata: Metadata | None = None

    def check(self, pointer: str = "") -> None:
        """Raise `Invalid` for what the types cannot say; `pointer` is where the message stands in the request."""
        check_body(f"{pointer}/body", self.body)
        if self.sender is not None:
            _refuse_blank(f"{pointer}/sender", self.sender)
        if self.metadata is not None:
            encode_metadata(self.metadata, f"{pointer}/metadata")


class NewMessages(Struct, forbid_unknown_fields=True):
    """What posts a batch: all of it or nothing, with consecutive numbers."""

    messages: Annotated[list[NewMessage], Meta(min_length=1, max_length=BATCH_MAX_MESSAGES)]

    def check(self) -> None:
        """Raise `Invalid` for what the types cannot say."""
        for index, message in enumerate(self.messages):
            sender = message.sender
            # Most are seen to be acceptable here, without a pointer and a call for each.
            if (
                len(message.body) * 4 > BODY_MAX_BYTES
                or message.metadata is not None
                or (sender is not None and sender.isspace())
            ):
                message.check(f"/messages/{index}")


class MessageEdit(Struct, forbid_unknown_fields=True):
    """What edits a message: the fields that are named are replaced, null clears the metadata."""

    body: Body | UnsetType = UNSET
    metadata: Metadata | None | UnsetType = UNSET

    def check(self) -> None:
        """Raise `Invalid` for what the types cannot say."""
        if isinstance(self.body, str):
            check_body("/body", self.body)
        if isinstance(self.metadata, dict):
            encode_metadata(self.metadata)


# What a journal is asked to record. Each is of one chat and atomic.


class OpenChat(Struct, frozen=True):
    """Open the application's next chat."""

    chat: NewChat


class ChangeChat(Struct, frozen=True):
    """Replace fields of a chat. It takes no revision."""

    chat: int
    edit: ChatEdit


class PostMessages(Struct, frozen=True):
    """Post messages with consecutive numbers. `sent_at` (milliseconds, one per message) keeps imported times."""

    chat: int
    messages: list[NewMessage]
    sent_at: list[int] | None = None


class EditMessage(Struct, frozen=True):
    """Replace a message's content, if `based_on` is still its revision (else `Stale`)."""

    chat: int
    number: int
    based_on: int
    body: str
    metadata: bytes | None


class DeleteMessage(Struct, frozen=True):
    """Leave a tombstone. Of a tombstone, change nothing."""

    chat: int
    number: int


Change = OpenChat | ChangeChat | PostMessages | EditMessage | DeleteMessage


class Once(Struct, frozen=True, gc=False):
    """An idempotency key, within an application: `key` names the request, `fingerprint` its payload.

    `kept_s` is how long a repeat must be recognised; None is for ever.
    """

    key: bytes
    fingerprint: bytes
    kept_s: int | None = IDEMPOTENCY_KEPT_S

    @classmethod
    def of(cls, path: str, key: str, payload: bytes, kept_s: int | None = IDEMPOTENCY_KEPT_S) -> Once:
        """The identity of a request: keys are hashed, so none is ever stored in the clear."""
        return cls(
            hashlib.sha256(f"{path}\0{key}".encode()).digest()[:16],
            hashlib.sha256(payload).digest()[:16],
            kept_s,
        )


class Receipt(Struct, frozen=True, gc=False):
    """What a journal allotted: the first number and revision, how many, and when (milliseconds)."""

    number: int
    revision: int
    at: int
    count: int = 1
    replayed: bool = False


# The facts that a journal hands to its projections: the state that a change left behind. Times in milliseconds.
# gc=False: none can be part of a cycle, and a projection holds thousands that the collector need not look at.


class MessageChanged(Struct, frozen=True, gc=False):
    """A message in the state that its latest change left it in. `updated_at` is None until an edit or a deletion."""

    number: int
    revision: int
    sender: str | None
    body: str | None
    metadata: bytes | None
    created_at: int
    updated_at: int | None = None
    deleted_at: int | None = None

    def shown(self) -> Message:
        """The same as clients see it."""
        return messages_of([msgspec.structs.astuple(self)])[0]


def messages_of(states: Iterable[tuple[Any, ...]]) -> list[Message]:
    """Messages as clients see them, of the fields of a MessageChanged each: a page has no need of more objects."""
    return [
        Message(
            number,
            sender,
            body,
            None if metadata is None else Raw(metadata),
            revision,
            created := rfc3339(created_at),
            created if updated_at is None else rfc3339(updated_at),
            None if deleted_at is None else rfc3339(deleted_at),
        )
        for number, revision, sender, body, metadata, created_at, updated_at, deleted_at in states
    ]


class MessageNamed(Struct, frozen=True, gc=False):
    """A message that has changed, for a projection that reads its latest state itself."""

    number: int


class ChatChanged(Struct, frozen=True, gc=False):
    """A chat's own fields. `version` counts its changes, from 1: the highest is the latest."""

    version: int
    title: str | None
    metadata: bytes | None
    created_at: int
    updated_at: int


class ChatCounted(Struct, frozen=True, gc=False):
    """How many messages, tombstones apart, a chat had when it reached a revision."""

    revision: int
    messages_count: int


class KeyUsed(Struct, frozen=True, gc=False):
    """What the first request with an idempotency key was allotted; `expires_at` None is never."""

    once: Once
    receipt: Receipt
    expires_at: int | None


Fact = MessageChanged | MessageNamed | ChatChanged | ChatCounted | KeyUsed


class Window(Struct, frozen=True):
    """A page by number: the exclusive bounds, how many, and from which end.

    `from_end` takes the items next below `before`; `descending` turns the answer round.
    """

    limit: int = PAGE_DEFAULT_ITEMS
    after: int = 0
    before: int | None = None
    from_end: bool = False
    descending: bool = False
    skip: int = 0


def check_body(pointer: str, body: str) -> None:
    """Raise `Invalid` when a message body is over 64 KiB of UTF-8."""
    # A character takes at most 4 bytes: most bodies need no encoding to be measured.
    if len(body) * 4 > BODY_MAX_BYTES and len(body.encode()) > BODY_MAX_BYTES:
        raise Invalid.at(pointer, f"is longer than {BODY_MAX_BYTES} bytes of UTF-8")


def encode_metadata(metadata: dict[str, Any] | None, pointer: str = "/metadata") -> bytes | None:
    """Metadata as compact UTF-8 JSON, the form that is measured and stored."""
    if metadata is None:
        return None
    _check_values(metadata, pointer)
    encoded = msgspec.json.encode(metadata)
    if len(encoded) > METADATA_MAX_BYTES:
        raise Invalid.at(pointer, f"is longer than {METADATA_MAX_BYTES} bytes of compact JSON")
    return encoded


def canonical(value: Any) -> bytes:
    """The same bytes for all JSON values that are equal, whatever the order of keys; 1.0 is 1, and true is not."""
    return msgspec.json.encode(_integral(value), order="deterministic")


def same_metadata(one: bytes | None, other: bytes | None) -> bool:
    """Whether stored metadata say the same."""
    if one is None or other is None:
        return one is other
    return one == other or canonical(msgspec.json.decode(one)) == canonical(msgspec.json.decode(other))


def _integral(value: Any) -> Any:
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    if isinstance(value, list):
        return [_integral(item) for item in value]
    if isinstance(value, dict):
        return {key: _integral(item) for key, item in value.items()}
    return value


def raw(metadata: bytes | None) -> Raw | None:
    """Stored metadata as a field of an answer."""
    return None if metadata is None else Raw(metadata)


fold = str.casefold
"""The form in which search compares text: Python's full case folding."""


_MINUTE_MS = 60_000
# A page of messages has as many times, and formatting numbers would be half of its cost: these are looked up.
_SECONDS = [f"{second:02d}." for second in range(60)]
_MILLISECONDS = [f"{millisecond:03d}Z" for millisecond in range(1000)]


def rfc3339(milliseconds: int) -> str:
    """The time as clients see it. Accepts the years 1 to 9999."""
    rest = milliseconds % _MINUTE_MS
    return _minute(milliseconds - rest) + _SECONDS[rest // 1000] + _MILLISECONDS[rest % 1000]


@lru_cache(maxsize=4096)
def _minute(milliseconds: int) -> str:
    return f"{(EPOCH + timedelta(milliseconds=milliseconds)).isoformat()[:16]}:"


def milliseconds(text: str) -> int:
    """The opposite of `rfc3339`, for any ISO 8601 time that names its offset.

    Raises:
        ValueError: it is no such time, or outside the years 1 to 9999 of UTC.
    """
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError("it names no offset from UTC")
    since = moment - EPOCH
    found = (since.days * 86_400 + since.seconds) * 1000 + since.microseconds // 1000
    # An offset can reach beyond the first and the last day, and no text could say so.
    if not TIME_MIN_MS <= found <= TIME_MAX_MS:
        raise ValueError("it is outside the years 1 to 9999")
    return found


def _check_values(value: Any, pointer: str, depth: int = 0) -> None:
    """Refuse what would come back as something else, or would depend on how deep we are ourselves.

    Integers that neither a 64-bit word nor JSON columns hold are the first.
    """
    if isinstance(value, int) and not -(2**63) <= value < 2**64:
        raise Invalid.at(pointer, "has an integer that is out of range")
    if isinstance(value, dict | list):
        if depth == METADATA_MAX_DEPTH:
            raise Invalid.at(pointer, f"is nested more than {METADATA_MAX_DEPTH} deep")
        for item in value.values() if isinstance(value, dict) else value:
            _check_values(item, pointer, depth + 1)


def _refuse_blank(pointer: str, text: str) -> None:
    if text.isspace():
        raise Invalid.at(pointer, "is only white space")
