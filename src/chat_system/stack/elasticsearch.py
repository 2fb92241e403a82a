"""Elasticsearch: the connection, and what its failures mean.

It is asked in its own words, a method and a path as its manual has them: a handful of endpoints is all that the house
needs. Answers are read by msgspec, for a bulk request's is one item for each document.

Nothing is repeated here: who calls knows whether to wait. Only what HTTP lets any client repeat goes out once more when
a kept connection turns out to be closed, and no POST is among it.

Not promised: more than one address. Several nodes need something in front of them.
"""

from __future__ import annotations

import base64
import warnings
from typing import Any, NoReturn
from urllib.parse import unquote, urlsplit

import aiohttp
import msgspec

from chat_system import __version__
from chat_system.errors import ConfigurationError, Unavailable

REQUEST_TIMEOUT_S = 10.0
CONNECTIONS = 32

MISSING, UNAVAILABLE = 404, 503
NO_SHARD = "search_phase_execution_exception"
"""What Elasticsearch says with 503 when a shard that it has to ask is not there. When one is overloaded it is 429."""

_JSON = "application/vnd.elasticsearch+json; compatible-with=8"
_LINES = "application/vnd.elasticsearch+x-ndjson; compatible-with=8"
"""Later versions answer as version 8 does."""

_PRODUCT = "x-elastic-product"

_NO_TARGET = "no write index is defined"
"""How a reason begins that is about what stands behind an alias, though the document is said to be at fault."""

_UNREADABLE = (ValueError, msgspec.DecodeError)


class Failure(Exception):
    """An answer that is no success: its status, its kind in Elasticsearch's own words, and its reason."""

    def __init__(self, status: int, kind: str, reason: str = "") -> None:
        super().__init__(f"{status} {kind}: {reason}" if reason else f"{status} {kind}")
        self.status = status
        self.kind = kind


class Missing(Failure):
    """There is no such index, alias or document."""


class Refused(Failure):
    """What was sent is to blame, and would be refused again."""


class Starting(Unavailable):
    """A shard that is just being made, or moved, answers no one; in a moment it may."""

    def __init__(self, detail: str = "Elasticsearch is starting.") -> None:
        super().__init__(detail)


class Elasticsearch:
    """One address of Elasticsearch. It is connected to by the first request.

    Raises:
        ConfigurationError: the address has no port.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        try:
            port = parts.port or (443 if parts.scheme == "https" else None)
        except ValueError:
            port = None
        if not parts.hostname or port is None:
            raise ConfigurationError("CHAT_ELASTICSEARCH_URL must be an address like http://host:9200.")
        host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
        self._base = f"{parts.scheme}://{host}:{port}{parts.path.rstrip('/')}"
        self._headers = {"accept": _JSON, "user-agent": f"chat-system/{__version__}"}
        if parts.username is not None:
            account = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            self._headers["authorization"] = f"Basic {base64.b64encode(account.encode()).decode()}"
        self._session: aiohttp.ClientSession | None = None
        self._is_known = False

    async def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        timeout_s: float = REQUEST_TIMEOUT_S,
        **parameters: str | int | bool,
    ) -> Any:
        """Send one request and return its answer, decoded. A body of bytes is lines of JSON, any other is encoded.

        Raises:
            Missing: what the path names is not there.
            Refused: the request is to blame.
            Unavailable: whatever else is no answer. A request that was not answered in time may be carried out.
        """
        headers = {}
        if body is not None:
            headers["content-type"] = _LINES if isinstance(body, bytes) else _JSON
            body = body if isinstance(body, bytes) else msgspec.json.encode(body)
        try:
            async with self._connected().request(
                method,
                self._base + path,
                data=body,
                headers=headers,
                params={name: _spelled(value) for name, value in parameters.items()},
                timeout=aiohttp.ClientTimeout(total=timeout_s),
            ) as answer:
                said = await answer.read()
        except TimeoutError:
            raise Unavailable(f"Elasticsearch is away: it has not answered for {timeout_s:g} s.") from None
        except (aiohttp.ClientError, OSError) as error:
            raise Unavailable("Elasticsearch is away.") from error
        if not 200 <= answer.status < 300:
            told = _told(said, answer.reason or "")
            if _PRODUCT not in answer.headers:
                # A proxy that knows no way to it: neither is anything missing, nor what was sent to blame.
                raise Unavailable(f"Elasticsearch is away ({answer.status} {told[0]}).")
            _fail(answer.status, *told)
        self._look_at(answer)
        try:
            return msgspec.json.decode(said)
        except _UNREADABLE as error:
            raise Unavailable("Elasticsearch is away: what it says can't be read.") from error

    async def close(self) -> None:
        """Close the connections. Idempotent."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    def _connected(self) -> aiohttp.ClientSession:
        # Not when it is made: a session belongs to the loop that it is made in.
        if self._session is None:
            self._session = aiohttp.ClientSession(
                headers=self._headers,
                # Answers shall come as they are: to pack and unpack them costs more than the way saves.
                skip_auto_headers=("accept-encoding",),
                cookie_jar=aiohttp.DummyCookieJar(),
                connector=aiohttp.TCPConnector(limit_per_host=CONNECTIONS),
            )
        return self._session

    def _look_at(self, answer: aiohttp.ClientResponse) -> None:
        """Whether it is Elasticsearch that answers, and whether it warns us of what it will drop."""
        if not self._is_known and answer.headers.get(_PRODUCT) != "Elasticsearch":
            raise Unavailable("Elasticsearch is away: something else answers in its place.")
        self._is_known = True
        for warning in answer.headers.getall("warning", ()):
            warnings.warn(f"Elasticsearch warns: {warning}", stacklevel=3)


def blames_the_document(status: int, kind: str, reason: str = "") -> bool:
    """Whether an answer is about what was sent. After any other failure the same may succeed."""
    return status in (400, 413) and kind != "index_closed_exception" and not reason.startswith(_NO_TARGET)


class _Cause(msgspec.Struct):
    reason: str | None = None


class _Error(msgspec.Struct):
    type: str
    reason: str | None = None
    root_cause: list[_Cause] = []


class _Told(msgspec.Struct):
    error: _Error | str


def _told(said: bytes, otherwise: str) -> tuple[str, str]:
    """Kind and reason of a failure. What stands between us and Elasticsearch says neither in its form."""
    try:
        error = msgspec.json.decode(said, type=_Told).error
    except _UNREADABLE:
        return otherwise, ""
    if isinstance(error, str):
        return error, ""
    cause = error.root_cause[0] if error.root_cause else error
    return error.type, cause.reason or ""


def _fail(status: int, kind: str, reason: str) -> NoReturn:
    if status == MISSING:
        raise Missing(status, kind, reason)
    if blames_the_document(status, kind):
        raise Refused(status, kind, reason)
    away = Starting if kind == NO_SHARD and status == UNAVAILABLE else Unavailable
    raise away(f"Elasticsearch is away ({status} {kind}).") from Failure(status, kind, reason)


def _spelled(value: str | int | bool) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
