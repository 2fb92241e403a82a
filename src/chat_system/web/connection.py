"""HTTP/1.1 connections: httptools parses what comes in, and what goes out is written here (ADR 17).

Requests of one connection are answered one after another, in their order. An answer is one write; an event stream is
written as it comes, until either side ends it. What is hardly HTTP is answered by a problem document like every other
error. A connection that is slow to say what it wants is cut, so that holding many of them open is not worth while.

Not promised: TLS, HTTP/2, upgrades. A proxy in front of us has them.
"""

from __future__ import annotations

import asyncio
import http
import re
from collections import deque
from email.utils import formatdate
from typing import TYPE_CHECKING, cast
from urllib.parse import unquote

import httptools

from chat_system.telemetry import log
from chat_system.web.request import Body, Request

if TYPE_CHECKING:
    from chat_system.web.app import App

HEAD_MAX_BYTES = 64 * 1024
"""Request line and headers. Who goes on sending beyond that is refused and cut off."""

HEAD_S = 20.0
"""From a request's first byte to the end of its headers."""

REQUEST_S = 120.0
"""From a request's first byte to the end of its body: enough for 8 MiB at 70 kB/s."""

KEEP_ALIVE_S = 75.0
"""How long a connection may be silent between requests. More than a proxy's usual minute, so it closes first."""

UNREAD_MAX_BYTES = 64 * 1024
"""Of a body that no one reads yet. Beyond, the client has to wait."""

REQUEST_LINE = re.compile(rb"\s*([!#-'*+.^_`|~0-9A-Za-z-]{1,64}) (/\S{0,8192}) HTTP/1\.[01]\r?\n")

METHODS = {method.encode(): method for method in ("GET", "POST", "PATCH", "DELETE", "HEAD", "PUT", "OPTIONS")}
"""Those that there is no need to decode."""

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
CLOSE = b"connection: close\r\n"
CHUNKED = b"transfer-encoding: chunked\r\n"


class Connections:
    """All connections of a process."""

    def __init__(self, app: App) -> None:
        self.app = app
        self.loop = asyncio.get_running_loop()
        self.open: set[Connection] = set()
        self.none_left = asyncio.Event()
        self._is_ending = False
        self._status_lines = {
            status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n" for status in http.HTTPStatus
        }
        self.heads: dict[int, bytes] = {}
        self.set_date()

    def accept(self) -> Connection:
        """Take a new one in."""
        return Connection(self)

    def forget(self, connection: Connection) -> None:
        """It is closed."""
        self.open.discard(connection)
        if self._is_ending and not self.open:
            self.none_left.set()

    def set_date(self) -> None:
        """Once a second: how answers begin, by status."""
        date = formatdate(usegmt=True)
        self.heads = {status: f"{line}date: {date}\r\n".encode() for status, line in self._status_lines.items()}

    def cut_slow(self) -> None:
        """Close what has said nothing for too long, or has not come to an end with saying it."""
        for connection in tuple(self.open):
            connection.check_pace(self.loop.time())

    def end(self) -> None:
        """Answer what was asked, and then no more; `none_left` tells when that is done."""
        self._is_ending = True
        if not self.open:
            self.none_left.set()
        for connection in tuple(self.open):
            connection.end()

    def abort(self) -> None:
        """Cut them all."""
        for connection in tuple(self.open):
            connection.cut()


class Connection(asyncio.Protocol):
    """One connection, as asyncio and httptools know it, and as those who answer its requests do."""

    __slots__ = (
        "_bare_bytes",
        "_begun",
        "_closed",
        "_connections",
        "_has_body",
        "_headers",
        "_in_head",
        "_incoming",
        "_is_deaf",
        "_is_ending",
        "_is_held",
        "_is_paused",
        "_is_stream",
        "_news",
        "_parser",
        "_received",
        "_refused",
        "_requests",
        "_since",
        "_task",
        "_transport",
        "_unsent_bytes",
        "_url",
        "_writable",
        "client",
        "is_congested",
    )

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._parser: httptools.HttpRequestParser | None = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport
        self.client = ""
        # What is being parsed, and the request whose body is still coming.
        self._received, self._begun = b"", 0
        self._url = b""
        self._headers: dict[bytes, bytes] = {}
        self._in_head, self._bare_bytes, self._has_body = False, 0, False
        self._incoming: Request | None = None
        # What was asked and not answered yet. The task answers the first; when there is none, it waits for news.
        self._requests: deque[Request] = deque()
        self._task: asyncio.Task[None] | None = None
        self._news: asyncio.Future[None] | None = None
        # Deaf: whatever comes is ignored. Refused: what came last is no HTTP, and is yet to be told.
        # Held: it was told to wait, and nothing is read from it meanwhile.
        self._is_deaf = self._is_paused = self._is_held = self._is_ending = self._is_stream = False
        self._refused = False
        # When the last request began, or the last answer ended; and what was unsent when that was looked at last.
        self._since = 0.0
        self._unsent_bytes = 0
        self.is_congested = False
        self._writable: asyncio.Future[None] | None = None
        self._closed: asyncio.Future[None] | None = None

    # What asyncio tells

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember who it is."""
        self._transport = cast(asyncio.Transport, transport)
        peer = transport.get_extra_info("peername")
        self.client = str(peer[0]) if peer else ""
        self._since = self._connections.loop.time()
        self._connections.open.add(self)

    def data_received(self, data: bytes) -> None:
        """Let the parser call the methods below."""
        if self._is_deaf or self._parser is None:
            return
        self._received, self._begun, self._has_body = data, 0, False
        is_within = self._in_head or self._incoming is not None
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._ignore_upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserError:
            self._refuse()
        else:
            self._count(len(data), is_within=is_within)
            if self._bare_bytes > HEAD_MAX_BYTES:
                self._refuse()

    def _count(self, received: int, *, is_within: bool) -> None:
        """Count what is no body: heads, trailers, and what else may stand around chunks."""
        if self._has_body or self._begun > 1 or (self._begun and is_within):
            # Of what was read with something else, a head that has begun is known as far as it was parsed.
            self._bare_bytes = self._head_size() if self._in_head else 0
        else:
            self._bare_bytes = received if self._begun else self._bare_bytes + received

    def _ignore_upgrade(self, rest: bytes) -> None:
        """We don't speak it: another parser is told the same head without the question, for it may have a body."""
        if not self._requests or self._requests[-1].method == "CONNECT":
            self._is_deaf = self._is_ending = True
            return
        request = self._requests.pop()
        self._is_deaf = False
        asked = request.headers | {b"connection": _without_upgrade(request.headers.get(b"connection", b""))}
        lines = [b"%s: %s\r\n" % (name, value) for name, value in asked.items() if name != b"upgrade"]
        version = b"1.1" if request.is_http_1_1 else b"1.0"
        self._parser = httptools.HttpRequestParser(self)
        head = b"%s %s HTTP/%s\r\n%s\r\n" % (request.method.encode(), self._url, version, b"".join(lines))
        self.data_received(head + rest)

    def eof_received(self) -> bool:
        """The client says no more. Who asked before is answered all the same."""
        self._is_deaf = self._is_ending = True
        self._lose_incoming()
        return bool(self._requests) and not self._is_stream

    def connection_lost(self, exc: Exception | None) -> None:
        """Nobody is there to be answered."""
        self._connections.forget(self)
        self._is_deaf = True
        # It knows us, too: a circle of them would be left to the collector.
        self._parser = None
        for request in self._requests:
            request.body.leave()
        self._requests.clear()
        self._incoming = None
        for waiting in (self._news, self._writable, self._closed):
            if waiting is not None and not waiting.done():
                waiting.set_result(None)

    def pause_writing(self) -> None:
        """The client takes its answers more slowly than they come."""
        self.is_congested = True

    def resume_writing(self) -> None:
        """It has caught up."""
        self.is_congested = False
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)

    # What httptools tells

    def on_message_begin(self) -> None:
        """A request's first byte."""
        self._in_head = True
        self._begun += 1
        self._url, self._headers = b"", {}
        self._since = self._connections.loop.time()

    def on_url(self, url: bytes) -> None:
        """A piece of the request's target."""
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header, or a trailer, which nobody reads."""
        if self._in_head:
            self._headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        """Its turn has come, if it is the only one; its body may still be on its way."""
        self._in_head = False
        parser, target = self._parser, self._url
        if parser is None:
            return
        if len(self._received) > HEAD_MAX_BYTES and self._head_size() > HEAD_MAX_BYTES:
            # It came in one read, in which a request with a long body may stand just as well.
            raise httptools.HttpParserError("The head is too long.")
        if target.startswith(b"/") and b"#" not in target:
            raw_path, _, query = target.partition(b"?")
        else:
            url = httptools.parse_url(target)
            raw_path, query = url.path or b"", url.query or b""
        path = raw_path.decode("ascii")
        method = parser.get_method()
        request = self._incoming = Request(
            self,
            METHODS.get(method) or method.decode("ascii"),
            unquote(path) if "%" in path else path,
            raw_path,
            query,
            self._headers,
            Body(self.want_more),
        )
        request.is_http_1_1 = parser.get_http_version() == "1.1"
        request.is_last = not (request.is_http_1_1 and parser.should_keep_alive())
        if self._requests:
            self._pause()
        self._requests.append(request)
        if self._news is not None:
            if not self._news.done():
                self._news.set_result(None)
        elif self._task is None:
            self._task = self._connections.loop.create_task(self._serve())

    def on_body(self, piece: bytes) -> None:
        """A piece of the body."""
        self._has_body = True
        request = self._incoming
        if request is not None and request.body.feed(piece) > UNREAD_MAX_BYTES:
            self._pause()

    def on_message_complete(self) -> None:
        """The end of the body."""
        request, self._incoming = self._incoming, None
        if request is not None:
            request.body.finish()
            if request.is_last:
                self._is_deaf = True

    # What those who answer ask for

    def want_more(self) -> None:
        """Someone waits for more of the body."""
        request = self._requests[0] if self._requests else None
        # Taken out: it is told once.
        if request is not None and request.headers.pop(b"expect", b"").lower() == b"100-continue":
            self._transport.write(CONTINUE)
        self._resume()

    def answer(self, request: Request, status: int, headers: bytes, body: bytes) -> None:
        """Send a complete answer, unless the client has left, and go on to the next request.

        `headers` are the lines that follow the date's.
        """
        requests = self._requests
        if not requests or requests[0] is not request or self._transport.is_closing():
            return
        is_last = request.is_last or (self._is_ending and len(requests) == 1 and not self._refused)
        if is_last:
            headers += CLOSE
        # In one piece: a system call costs more than a copy.
        self._transport.write(b"%s%s\r\n%s" % (self._connections.heads[status], headers, body))
        requests.popleft()
        if not request.body.is_complete:
            request.body.discard()
        if is_last:
            self.close()
        elif self._refused and not requests:
            self._tell_refusal()
        else:
            self._since = self._connections.loop.time()
        if self._is_paused and len(requests) <= 1:
            self._resume()

    def hold(self, seconds: float) -> None:
        """Read nothing from it for so long: whoever comes back earlier than told costs nothing, and waits."""
        if not self._is_held:
            self._is_held = True
            self._pause()
            self._connections.loop.call_later(seconds, self._let_go)

    async def drain(self) -> None:
        """Wait until the client has taken enough for more."""
        if self.is_congested and not self._transport.is_closing():
            if self._writable is None or self._writable.done():
                self._writable = self._connections.loop.create_future()
            await asyncio.shield(self._writable)

    def begin_stream(self, request: Request, headers: bytes) -> None:
        """Send the head of a stream of unknown length. No other request is answered on this connection."""
        self._is_deaf = self._is_stream = True
        # Nobody will answer what was asked behind it.
        while len(self._requests) > 1:
            self._requests.pop()
        # Said at once, or a client might ask on it again at the moment in which it is closed.
        framing = CHUNKED + CLOSE if request.is_http_1_1 else CLOSE
        self.write_stream(b"%s%s%s\r\n" % (self._connections.heads[200], headers, framing))

    def write_stream(self, data: bytes) -> None:
        """Send a piece of it."""
        if not self._transport.is_closing():
            self._transport.write(data)

    def close(self) -> None:
        """Close it, when what was written is sent."""
        self._is_deaf = True
        self._since = self._connections.loop.time()
        self._transport.close()

    def cut(self) -> None:
        """Drop it, and what waits to be sent."""
        self._is_deaf = True
        self._transport.abort()

    def unsent_bytes(self) -> int:
        """How much the client has not taken yet, beside what the kernel holds."""
        return self._transport.get_write_buffer_size()

    def is_gone(self) -> bool:
        """Whether it is closed or closing."""
        return self._transport.is_closing()

    async def until_closed(self) -> None:
        """Wait until it is gone."""
        if self in self._connections.open:
            if self._closed is None:
                self._closed = self._connections.loop.create_future()
            await asyncio.shield(self._closed)

    # What the server asks for

    def check_pace(self, now: float) -> None:
        """Cut it when it has taken too long."""
        if self._is_stream and not self._transport.is_closing():
            return
        unsent_bytes = self.unsent_bytes()
        if unsent_bytes < self._unsent_bytes:
            # It is still taking its answer.
            self._since = now
        self._unsent_bytes = unsent_bytes
        silent_s = now - self._since
        is_late = (
            (self._in_head and silent_s > HEAD_S)
            or (self._incoming is not None and silent_s > REQUEST_S)
            or (unsent_bytes > 0 and silent_s > REQUEST_S)
        )
        if is_late:
            self.cut()
        elif not self._requests and not self._in_head and not unsent_bytes and silent_s > KEEP_ALIVE_S:
            self.close()

    def end(self) -> None:
        """Answer what was asked, and then no more."""
        if self._requests:
            self._is_ending = True
        else:
            self.close()

    # Within

    async def _serve(self) -> None:
        """Have one request answered after another, as long as the connection is open."""
        connections, requests = self._connections, self._requests
        # A task for each connection, not for each request: making one costs as much as parsing a head.
        while self in connections.open:
            if requests:
                request = requests[0]
                try:
                    await connections.app.answer(request)
                except Exception:  # noqa: BLE001 - whatever it was, nobody shall wait for an answer
                    log.exception("connection failed")
                    self.cut()
                    return
                if requests and requests[0] is request:
                    # A stream that has come to its end without having been closed.
                    self.cut()
                    return
            else:
                self._news = connections.loop.create_future()
                await self._news
                self._news = None

    def _refuse(self) -> None:
        """What came is no HTTP. Earlier requests are answered first."""
        if self._is_deaf:
            return
        self._is_deaf = self._is_ending = self._refused = True
        self._lose_incoming()
        if not self._requests:
            self._tell_refusal()

    def _tell_refusal(self) -> None:
        # Behind another request the place where it begins is not known.
        line = REQUEST_LINE.match(self._received) if self._begun <= 1 else None
        method, path = (line[1].decode(), line[2].decode("latin-1")) if line else ("", "")
        status, headers, body = self._connections.app.refuse_malformed(method, path)
        if not self._transport.is_closing():
            self._transport.write(b"%s%s%s\r\n%s" % (self._connections.heads[status], headers, CLOSE, body))
            self.close()

    def _head_size(self) -> int:
        """About how long the head is that was just parsed, in bytes. Lines of the same name count once."""
        return len(self._url) + sum(len(name) + len(value) for name, value in self._headers.items())

    def _lose_incoming(self) -> None:
        """The rest of the body will not come."""
        request, self._incoming = self._incoming, None
        if request is not None:
            request.body.leave()
            if request in self._requests:
                self._requests.remove(request)

    def _pause(self) -> None:
        if not self._is_paused and not self._transport.is_closing():
            self._is_paused = True
            self._transport.pause_reading()

    def _let_go(self) -> None:
        self._is_held = False
        if len(self._requests) <= 1:
            self._resume()

    def _resume(self) -> None:
        if self._is_paused and not self._is_held and not self._transport.is_closing():
            self._is_paused = False
            self._transport.resume_reading()


def _without_upgrade(connection: bytes) -> bytes:
    options = map(bytes.strip, connection.split(b","))
    return b", ".join([option for option in options if option.lower() not in (b"upgrade", b"http2-settings")])
