"""One request and its answer: headers, query and body, read as strictly as the contract says.

JSON is decoded once, straight into the struct that the use case takes. What the decoder would let pass (a repeated
key, U+0000) is looked for first, at the price of one count of quotation marks for the usual message.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import parse_qsl

import msgspec

from chat_system.errors import Fault, Invalid, TooLarge, UnsupportedMediaType
from chat_system.model import (
    IDEMPOTENCY_KEY_MAX_CHARACTERS,
    ApplicationId,
    NewApplication,
    NewChat,
    NewMessage,
    NewMessages,
    Once,
    canonical,
)

if TYPE_CHECKING:
    from chat_system.web.connection import Connection

Header = tuple[bytes, bytes]

Checked = TypeVar("Checked", bound=msgspec.Struct)

JSON = b"application/json"

QUERY_MAX_FIELDS = 100

_KEY = re.compile(rb"[!-~]{1,%d}" % IDEMPOTENCY_KEY_MAX_CHARACTERS)
_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")
_HIDING = re.compile(rb"\\u00(?:00|22)")
"""What is escaped as U+0000, or as a quotation mark that is not to be seen. Some texts look the same."""
_PATH = re.compile(r"^(?P<reason>.*?)(?: - at `\$(?P<path>[^`]*)`)?$", re.DOTALL)
_NAMED = re.compile(r"(?:missing required|unknown) field `(?P<name>.*)`", re.DOTALL)
_JSON_TYPES = re.compile(rb"application/(?:[\w.-]+\+)?json\s*(?:;\s*charset\s*=\s*\"?utf-?8\"?\s*)?", re.IGNORECASE)


class ClientGone(Exception):
    """The client left before its request was complete: there is no one to answer."""


class Response:
    """A complete answer."""

    __slots__ = ("body", "content_type", "headers", "status")

    def __init__(
        self, status: int, body: bytes = b"", content_type: bytes = JSON, headers: list[Header] | None = None
    ) -> None:
        self.status = status
        self.body = body
        self.content_type = content_type
        self.headers = headers or []


class Body:
    """What a request brings, as it comes in. `want` is called by who waits for more of it."""

    __slots__ = ("_first", "_is_gone", "_is_unwanted", "_more", "_news", "_size", "_want", "is_complete")

    def __init__(self, want: Callable[[], None]) -> None:
        self._want = want
        self._first = b""
        self._more = bytearray()
        self._size = 0
        self.is_complete = self._is_gone = self._is_unwanted = False
        self._news: asyncio.Future[None] | None = None

    def feed(self, piece: bytes) -> int:
        """A piece came; how many bytes are kept for someone who does not ask for them yet."""
        if self._is_unwanted:
            return 0
        # Nearly all bodies come in one piece. Of others no piece is kept as an object: they may be of one byte each.
        if self._size:
            self._more += piece
        else:
            self._first = piece
        self._size += len(piece)
        if self._news is None:
            return self._size
        self._tell()
        return 0

    def finish(self) -> None:
        """It is complete."""
        self.is_complete = True
        if self._news is not None:
            self._tell()

    def leave(self) -> None:
        """It will never be complete."""
        self._is_gone = True
        self._tell()

    def discard(self) -> None:
        """Nobody reads it any more."""
        self._is_unwanted = True
        self._first, self._more = b"", bytearray()

    async def until_complete(self, cap_bytes: int) -> None:
        """Wait for the rest of it, or for more than there may be. Raises ClientGone."""
        while not self.is_complete and self._size <= cap_bytes:
            if self._is_gone:
                raise ClientGone
            self._news = asyncio.get_running_loop().create_future()
            self._want()
            await self._news
            self._news = None

    def take(self, cap_bytes: int) -> bytes:
        """All that came. Raises TooLarge."""
        if self._size > cap_bytes:
            raise TooLarge(f"The body may have {cap_bytes} bytes.")
        return self._first + self._more if self._more else self._first

    def _tell(self) -> None:
        if self._news is not None and not self._news.done():
            self._news.set_result(None)


class Request:
    """What an operation is given. `application` is set before the operation is called, if it has one."""

    __slots__ = (
        "_query",
        "_raw",
        "application",
        "body",
        "body_max_bytes",
        "connection",
        "headers",
        "is_http_1_1",
        "is_last",
        "method",
        "parameters",
        "path",
        "query_string",
        "raw_path",
    )

    def __init__(
        self,
        connection: Connection,
        method: str,
        path: str,
        raw_path: bytes,
        query_string: bytes,
        headers: dict[bytes, bytes],
        body: Body,
    ) -> None:
        self.connection = connection
        self.method = method
        self.path = path
        self.raw_path = raw_path
        self.query_string = query_string
        self.headers = headers
        self.body = body
        self.is_http_1_1 = True
        self.is_last = False
        self.parameters: dict[str, Any] = {}
        self.application = ApplicationId(0)
        self.body_max_bytes = 0
        self._query: dict[str, str] | None = None
        self._raw = b""

    @property
    def token(self) -> str:
        """The application's token, wherever it came from."""
        token: str = self.parameters["token"]
        return token

    @property
    def chat(self) -> int:
        """The chat's number in the path."""
        number: int = self.parameters["number"]
        return number

    def bearer(self) -> str | None:
        """The credentials of `Authorization: Bearer`, if there are any."""
        scheme, _, credentials = self.headers.get(b"authorization", b"").partition(b" ")
        return credentials.strip().decode("latin-1") if scheme.lower() == b"bearer" else None

    @property
    def query(self) -> dict[str, str]:
        """The query parameters. Raises Invalid when one is repeated or is not UTF-8."""
        if self._query is None:
            self._query = _parse_query(self.query_string)
        return self._query

    async def receive(self) -> None:
        """Wait until the body is complete, if it can be what is wanted.

        Raises:
            UnsupportedMediaType, TooLarge: what comes would be refused, so it is not waited for.
            ClientGone: the rest will not come.
        """
        self._require_json()
        length = self.headers.get(b"content-length")
        if length is not None and int(length) > self.body_max_bytes:
            raise TooLarge(f"The body may have {self.body_max_bytes} bytes.")
        await self.body.until_complete(self.body_max_bytes)

    def _require_json(self) -> None:
        content_type = self.headers.get(b"content-type")
        if content_type is not None and content_type != JSON and not _JSON_TYPES.fullmatch(content_type):
            raise UnsupportedMediaType("Send Content-Type: application/json, in UTF-8.")

    def read(self, kind: type[Checked], decoder: msgspec.json.Decoder[Checked]) -> Checked:
        """The body, which is complete, as a struct whose `check()` was passed.

        Raises:
            UnsupportedMediaType, TooLarge, Invalid: as the contract says, before anything is done.
        """
        self._require_json()
        self._raw = raw = self.body.take(self.body_max_bytes)
        if not raw and kind is NewChat:
            self._raw = raw = b"{}"
        try:
            value = decoder.decode(raw)
        except msgspec.ValidationError as error:
            refuse_ambiguous(raw)
            raise _invalid(str(error)) from None
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise Invalid(f"The body is not valid JSON: {error}.") from None
        if not _is_plain(raw, value):
            refuse_ambiguous(raw)
        value.check()  # type: ignore[attr-defined]
        return value

    def once(self, path: str) -> Once | None:
        """The idempotency key with the body that was read, if the request carries one.

        Raises:
            Invalid: the key is not 1 to 255 characters from `!` to `~`.
        """
        key = self.headers.get(b"idempotency-key")
        if key is None:
            return None
        if len(key) >= 2 and key.startswith(b'"') and key.endswith(b'"'):
            key = key[1:-1]
        if not _KEY.fullmatch(key):
            raise Invalid(f"Idempotency-Key must be 1 to {IDEMPOTENCY_KEY_MAX_CHARACTERS} characters from '!' to '~'.")
        return Once.of(path, key.decode(), canonical(msgspec.json.decode(self._raw)))


def refuse_ambiguous(body: bytes) -> None:
    """Raise Invalid for JSON that says a key twice or contains U+0000."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            seen: set[str] = set()
            # One walk: an object may have a hundred thousand keys.
            twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
            raise Invalid(f"The key {twice!r} stands twice in one object.")
        return found

    try:
        value = json.loads(body, object_pairs_hook=unique)
    except (ValueError, RecursionError):
        raise Invalid("The body is not valid JSON.") from None
    if b"\\u0000" in body and _NUL.search(body):
        raise Invalid.at(_find_nul(value) or "", "must not contain U+0000")


def _find_nul(value: Any) -> str | None:
    """The pointer of a text with U+0000; a key's is that of its object."""
    if isinstance(value, str):
        return "" if "\0" in value else None
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, item in items:
        if isinstance(name, str) and "\0" in name:
            return ""
        inner = _find_nul(item)
        if inner is not None:
            # A half of a surrogate pair, which json lets pass, could not be answered.
            shown = str(name).encode(errors="replace").decode()
            return f"/{shown.replace('~', '~0').replace('/', '~1')}{inner}"
    return None


def _is_plain(body: bytes, value: msgspec.Struct) -> bool:
    """Whether the body has no U+0000 and no more strings than its fields, so that no key can stand twice.

    A string, be it a key or a text, has two quotation marks, and those within it, which are escaped. So a string too
    many is quotation marks too many. Metadata look like that, too, and a null, whose key has no text.
    """
    if type(value) is NewMessage:
        quotes = 4 if value.sender is None else 8
    elif type(value) is NewMessages:
        quotes = 2 + sum([4 if message.sender is None else 8 for message in value.messages])
    elif type(value) is NewApplication:
        quotes = 4
    else:
        return False
    if b"\\" not in body:
        return body.count(b'"') == quotes
    return body.count(b'"') == quotes + _texts(value).count('"') and _HIDING.search(body) is None


def _texts(value: NewMessage | NewMessages | NewApplication) -> str:
    """What its fields say, in one text."""
    if isinstance(value, NewApplication):
        return value.name
    messages = value.messages if isinstance(value, NewMessages) else [value]
    return "".join([message.body for message in messages] + [message.sender for message in messages if message.sender])


def _invalid(reason: str) -> Invalid:
    """The decoder's complaint, with its path as a JSON pointer."""
    found = _PATH.match(reason)
    if found is None:
        return Invalid(reason)
    path = re.sub(r"\[(\d+)\]", r".\1", found["path"] or "").replace("[...]", "").lstrip(".")
    pointer = "/" + path.replace(".", "/") if path else ""
    named = _NAMED.search(found["reason"])
    if named is not None:
        pointer += "/" + named["name"].replace("~", "~0").replace("/", "~1")
    detail = found["reason"].replace("`", "")
    return Invalid(f"{pointer or 'The body'}: {detail}.", (Fault(pointer, detail),))


def _parse_query(text: bytes) -> dict[str, str]:
    if text.count(b"&") >= QUERY_MAX_FIELDS:
        raise Invalid(f"The query has more than {QUERY_MAX_FIELDS} parameters.")
    try:
        pairs: list[Any]
        if b"%" in text or b"+" in text:
            pairs = parse_qsl(text.decode("ascii"), keep_blank_values=True, errors="strict")
        else:
            # What that makes of it, too, if nothing is to be decoded; a page's query is words and numbers.
            pairs = [piece.partition("=")[::2] for piece in text.decode("ascii").split("&") if piece]
    except ValueError:
        raise Invalid("The query is not percent-encoded UTF-8.") from None
    query = dict(pairs)
    if len(query) < len(pairs):
        raise Invalid("A query parameter stands there twice.")
    return query


NEW_MESSAGE = msgspec.json.Decoder(NewMessage)
NEW_MESSAGES = msgspec.json.Decoder(NewMessages)
NEW_CHAT = msgspec.json.Decoder(NewChat)
NEW_APPLICATION = msgspec.json.Decoder(NewApplication)
