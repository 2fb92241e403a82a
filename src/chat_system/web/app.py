"""The application: lets a request in, calls its operation, sends the answer.

The path of a posted message is short enough to be read in one go, and no framework's price is paid on it (ADR 1).
Whatever goes wrong ends in `application/problem+json`; a defect becomes a 500 that tells the
client nothing but a request id.
"""

from __future__ import annotations

import itertools
import re
import secrets
import time
from collections.abc import Awaitable
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from chat_system import telemetry
from chat_system.errors import (
    ChatSystemError,
    Invalid,
    MethodNotAllowed,
    NotFound,
    TooLarge,
    Unavailable,
    UnsupportedMediaType,
)
from chat_system.settings import Settings
from chat_system.telemetry import log
from chat_system.web.documentation import PAGES
from chat_system.web.guard import Guard
from chat_system.web.live import Live, starting_point
from chat_system.web.operations import NO_CONTENT
from chat_system.web.problems import internal, problem
from chat_system.web.request import ClientGone, Header, Request, Response
from chat_system.web.routes import OPERATIONS, Operation, Router
from chat_system.wiring import House

_REQUEST_ID = re.compile(rb"[ -~]{1,128}")

HTTP_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"})

BODILESS = frozenset({NO_CONTENT, 304})
"""Statuses whose answers have no body, and so no headers that tell of one (RFC 9110, sections 8.6 and 15.4.5)."""

STREAM_TYPE = b"text/event-stream"
STREAM_HEADERS: list[Header] = [(b"cache-control", b"no-store"), (b"x-accel-buffering", b"no")]


class Crowded(Unavailable):
    """More is asked at once than is answered at once. Nothing was done."""

    def __init__(self) -> None:
        super().__init__("The server is answering as many requests as it may.")


class Route:
    """An operation with what counts its answers, looked up once."""

    __slots__ = ("answered", "operation")

    def __init__(self, operation: Operation) -> None:
        self.operation = operation
        self.answered = telemetry.answered(operation.name)


class App:
    """One process's HTTP face of a house."""

    def __init__(self, house: House, settings: Settings) -> None:
        self._house = house
        self._system = house.system
        self._guard = Guard(house.system, settings, house.rates)
        self._max_in_flight = settings.max_in_flight
        self._in_flight = 0
        self._ids = itertools.count(1)
        self._id_prefix = secrets.token_hex(6)
        self.live = Live(house.system, house.feed)
        self._router = Router()
        for operation in (*OPERATIONS, *PAGES):
            route = Route(operation)
            self._router.add(operation.method, operation.path, route)
            if operation.method == "GET":
                self._router.add("HEAD", operation.path, route)
        self._unrouted = Route(Operation("unrouted", "", "", "public", "", "", ""))
        telemetry.IN_FLIGHT.set_function(lambda: self._in_flight)

    async def answer(self, request: Request) -> None:
        """Answer one request."""
        started = time.perf_counter()
        request_id = self._request_id(request)
        route = self._unrouted
        self._in_flight += 1
        try:
            route, request.parameters = self._find(request)
            operation = route.operation
            # A full server is not a dead one: whoever asks after its health is answered.
            if self._in_flight > self._max_in_flight and operation.access != "public":
                raise Crowded
            response = await self._answer(operation, request, request_id)
        except ChatSystemError as error:
            response = self._refuse(error, request, request_id)
            if isinstance(error, Crowded):
                # Whoever asks again before it is time would take what it costs to refuse from those who are answered.
                request.connection.hold(error.retry_after_s)
        except ClientGone:
            return
        except Exception:  # noqa: BLE001 - a defect is answered, too
            log.exception("request failed", request_id=request_id, operation=route.operation.name)
            response = internal(request_id)
        finally:
            self._in_flight -= 1
        if response is None:
            return
        # A client that takes no answers gets no more of them made.
        if request.connection.is_congested:
            await request.connection.drain()
        lines = _lines(response, request_id, self._guard.grant(request))
        body = b"" if request.method == "HEAD" else response.body
        request.connection.answer(request, response.status, lines, body)
        route.answered.observe(response.status, time.perf_counter() - started)

    def refuse_malformed(self, method: str, path: str) -> tuple[int, bytes, bytes]:
        """The answer to what the HTTP parser refuses; method and path are empty if there was no request line."""
        request_id = f"{self._id_prefix}-{next(self._ids):x}"
        error: ChatSystemError = Invalid("This is no HTTP request.")
        if method and method not in HTTP_METHODS:
            found = self._router.find(path.partition("?")[0])
            error = NotFound("There is no such path.") if found is None else MethodNotAllowed(tuple(sorted(found[0])))
        response = problem(error, request_id)
        self._unrouted.answered.count(response.status)
        return response.status, _lines(response, request_id, []), response.body

    async def keep_going(self) -> None:
        """What the web side does on its own, until cancelled."""
        await self.live.keep_alive()

    def _request_id(self, request: Request) -> str:
        given = request.headers.get(b"x-request-id")
        if given is not None and _REQUEST_ID.fullmatch(given):
            return given.decode("ascii")
        return f"{self._id_prefix}-{next(self._ids):x}"

    def _find(self, request: Request) -> tuple[Route, dict[str, Any]]:
        """The route of a request. Raises NotFound, MethodNotAllowed."""
        found = self._router.find(request.path)
        if found is None:
            raise NotFound("There is no such path.")
        methods, parameters = found
        route = methods.get(request.method)
        if route is None:
            raise MethodNotAllowed(tuple(sorted(methods)))
        return route, parameters

    async def _answer(self, operation: Operation, request: Request, request_id: str) -> Response | None:
        """Call the operation; None when it has answered by itself."""
        entering = self._enter(operation, request)
        if entering is not None:
            await entering
        try:
            if operation.handler is None:
                return await self._special(operation, request, request_id)
            if operation.body is not None:
                request.body_max_bytes = operation.body_max_bytes
                if not request.body.is_complete:
                    await request.receive()
            return await operation.handler(self._system, request)
        except (Invalid, TooLarge, UnsupportedMediaType):
            # What does not exist for the caller is 404 before its input is judged.
            await self._require_parent(operation, request)
            raise

    def _enter(self, operation: Operation, request: Request) -> Awaitable[None] | None:
        """Let the request in: done when it returns None, else what it returns has to be awaited."""
        access = operation.access
        if access == "token":
            return self._guard.enter(request, request.parameters["token"])
        if access == "alias":
            token = self._guard.token_of(request)
            # A copy: the router keeps what it has found.
            request.parameters = request.parameters | {"token": token}
            return self._guard.enter(request, token)
        return self._enter_as_admin(request) if access == "admin" else None

    async def _enter_as_admin(self, request: Request) -> None:
        await self._guard.require_admin(request)
        if "token" in request.parameters:
            entering = self._guard.enter(request, request.parameters["token"])
            if entering is not None:
                await entering

    async def _require_parent(self, operation: Operation, request: Request) -> None:
        if operation.parent == "chat":
            await self._system.chat(request.application, request.chat)
        elif operation.parent == "message":
            await self._system.message(request.application, request.chat, request.parameters["message_number"])

    async def _special(self, operation: Operation, request: Request, request_id: str) -> Response | None:
        if operation.name == "metrics":
            await self._house.measure()
            return Response(200, generate_latest(telemetry.REGISTRY), CONTENT_TYPE_LATEST.encode())
        return await self._stream(request, request_id)

    async def _stream(self, request: Request, request_id: str) -> Response | None:
        if request.method == "HEAD":
            starting_point(request)
            await self._system.chat(request.application, request.chat)
            return Response(200, b"", STREAM_TYPE, STREAM_HEADERS)
        headers = [(b"content-type", STREAM_TYPE), *STREAM_HEADERS, (b"x-request-id", request_id.encode())]
        lines = _joined(headers + self._guard.grant(request))
        # A stream may stay for days: it is not a request in flight.
        self._in_flight -= 1
        try:
            await self.live.stream(request, lines)
        finally:
            self._in_flight += 1
        return None

    def _refuse(self, error: ChatSystemError, request: Request, request_id: str) -> Response:
        if isinstance(error, MethodNotAllowed) and request.method == "OPTIONS":
            granted = self._guard.preflight(request, error.allowed)
            if granted is not None:
                return Response(204, headers=granted)
        return problem(error, request_id)


def _lines(response: Response, request_id: str, granted: list[Header]) -> bytes:
    """The headers of an answer, as they are sent."""
    headers = response.headers + granted if granted else response.headers
    more = b"%s: %s\r\n" % headers[0] if len(headers) == 1 else _joined(headers)
    if response.status in BODILESS:
        return b"x-request-id: %s\r\n%s" % (request_id.encode(), more)
    return b"x-request-id: %s\r\n%scontent-type: %s\r\ncontent-length: %d\r\n" % (
        request_id.encode(),
        more,
        response.content_type,
        len(response.body),
    )


def _joined(headers: list[Header]) -> bytes:
    return b"".join([b"%s: %s\r\n" % header for header in headers])
