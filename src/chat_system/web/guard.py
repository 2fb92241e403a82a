"""Who may come in, and how often.

Access: the admin key, where one is set, opens the operations on applications; a token opens its own application.
Rates: each application has a bucket, and so has each client address that tries unknown tokens. A house of several
processes counts them over all of them.
"""

from __future__ import annotations

import asyncio
import hmac
import math
import time
from collections.abc import Awaitable, Hashable

from chat_system.errors import Forbidden, Invalid, NotFound, TooMany, Unauthorized, Unavailable
from chat_system.ports import Rates
from chat_system.settings import Settings
from chat_system.system import ChatSystem
from chat_system.web.request import Header, Request

BUCKETS_MAX = 100_000
"""Buckets kept; beyond it all are forgotten."""

SECOND_NS = 1_000_000_000

LEASE_NS = SECOND_NS
"""How long a process may use what it took from a shared bucket."""

EXPOSED_HEADERS = b"Link, Location, X-Request-ID, Idempotency-Replayed, Retry-After, RateLimit, RateLimit-Policy, Allow"
PREFLIGHT_MAX_AGE_S = 600


class RateLimiter:
    """Token buckets by key: `rate_per_s` on average, `burst` at once after a pause."""

    def __init__(self, policy: str, rate_per_s: int, burst: int) -> None:
        self._policy = policy
        self._burst = burst
        # Whole nanoseconds: in floating point the last request of a burst would come through now and then only.
        self._cost_ns = SECOND_NS // rate_per_s
        self._depth_ns = self._cost_ns * burst
        self._full_at_ns: dict[Hashable, int] = {}

    def admit(self, key: Hashable) -> Awaitable[None] | None:
        """Count one request; there is nothing to await. Raises TooMany."""
        now_ns = time.monotonic_ns()
        full_at_ns = max(self._full_at_ns.get(key, 0), now_ns) + self._cost_ns
        excess_ns = full_at_ns - now_ns - self._depth_ns
        if excess_ns > 0:
            window_s = max(1, round(self._depth_ns / SECOND_NS))
            raise TooMany(self._policy, self._burst, window_s, max(1, -(-excess_ns // SECOND_NS)))
        if len(self._full_at_ns) >= BUCKETS_MAX:
            # To forget them all is generous for a moment, and cheaper than looking for those that are full again.
            self._full_at_ns.clear()
        self._full_at_ns[key] = full_at_ns
        return None


class _Lease:
    __slots__ = ("left", "until_ns")

    def __init__(self, until_ns: int, left: int) -> None:
        self.until_ns = until_ns
        self.left = left


class SharedRateLimiter:
    """The same over all processes: requests are taken from the shared bucket a few at a time, and used up here.

    What was taken and is not used within LEASE_NS is lost, so a rate is never passed, and now and then not reached
    by a hundredth.
    """

    def __init__(self, policy: str, rate_per_s: int, burst: int, rates: Rates) -> None:
        self._policy = policy
        self._burst = burst
        self._rates = rates
        self._cost_us = 1_000_000 / rate_per_s
        self._depth_us = self._cost_us * burst
        self._wanted = max(1, min(burst // 100, rate_per_s // 20))
        self._leases: dict[Hashable, _Lease] = {}
        self._renewing: dict[Hashable, asyncio.Task[None]] = {}

    def admit(self, key: Hashable) -> Awaitable[None] | None:
        """Count one request: done when it returns None, else what it returns has to be awaited."""
        return None if self._use(key) else self._renew(key)

    def _use(self, key: Hashable) -> bool:
        lease = self._leases.get(key)
        if lease is None or lease.left <= 0 or lease.until_ns < time.monotonic_ns():
            return False
        lease.left -= 1
        return True

    async def _renew(self, key: Hashable) -> None:
        while not self._use(key):
            renewing = self._renewing.get(key)
            if renewing is None:
                renewing = self._renewing[key] = asyncio.create_task(self._take(key))
            try:
                await asyncio.shield(renewing)
            except Unavailable:
                # Whether this request can be served, it will be told soon enough.
                return

    async def _take(self, key: Hashable) -> None:
        try:
            granted, after_s = await self._rates.take(
                f"{self._policy}:{key}", self._cost_us, self._depth_us, self._wanted
            )
        finally:
            # Not in a callback, which comes later: who waited for what has ended would go round without a pause.
            del self._renewing[key]
        if not granted:
            window_s = max(1, round(self._depth_us / 1_000_000))
            raise TooMany(self._policy, self._burst, window_s, max(1, math.ceil(after_s)))
        if len(self._leases) >= BUCKETS_MAX:
            self._leases.clear()
        self._leases[key] = _Lease(time.monotonic_ns() + LEASE_NS, granted)


class Guard:
    """Decides for each request whether it may go on, and as whom."""

    def __init__(self, system: ChatSystem, settings: Settings, rates: Rates | None) -> None:
        self._system = system
        self._admin_key = settings.admin_key
        self._origins = {origin.encode() for origin in settings.cors_origins}
        applications = ("application", settings.rate_per_s, settings.rate_burst)
        strangers = ("unknown-token", settings.unknown_rate_per_s, 2 * settings.unknown_rate_per_s)
        self._applications: RateLimiter | SharedRateLimiter
        self._strangers: RateLimiter | SharedRateLimiter
        if rates is None:
            self._applications, self._strangers = RateLimiter(*applications), RateLimiter(*strangers)
        else:
            self._applications = SharedRateLimiter(*applications, rates)
            self._strangers = SharedRateLimiter(*strangers, rates)

    async def require_admin(self, request: Request) -> None:
        """Raises Unauthorized without the right key, Forbidden for an application's token, TooMany for many guesses."""
        if self._admin_key is None:
            return
        key = request.bearer()
        if key is not None and hmac.compare_digest(key.encode(), self._admin_key.encode()):
            return
        if key is not None:
            if await self._is_token(key):
                raise Forbidden("An application's token does not open this: it needs the admin key.")
            # A guess, as good as one in a path.
            taking = self._strangers.admit(request.connection.client)
            if taking is not None:
                await taking
        raise Unauthorized("Send the admin key: Authorization: Bearer <key>.")

    def enter(self, request: Request, token: str) -> Awaitable[None] | None:
        """Set the request's application: done when it returns None, else what it returns has to be awaited.

        Raises:
            NotFound, TooMany: here or there.
        """
        application = self._system.recall(token)
        if application is None:
            return self._open(request, token)
        request.application = application
        return self._applications.admit(application)

    async def _open(self, request: Request, token: str) -> None:
        try:
            request.application = await self._system.open(token)
        except NotFound:
            taking = self._strangers.admit(request.connection.client)
            if taking is not None:
                await taking
            raise
        taking = self._applications.admit(request.application)
        if taking is not None:
            await taking

    def token_of(self, request: Request) -> str:
        """The token of a request whose path names none. Raises Invalid when there is none at all."""
        header = request.headers.get(b"x-application-token")
        token = (
            request.bearer() or (header.decode("latin-1") if header is not None else None) or request.query.get("token")
        )
        if not token:
            raise Invalid(
                "This path names no application: send its token as 'Authorization: Bearer <token>',"
                " as 'X-Application-Token', or as '?token='."
            )
        return token

    def grant(self, request: Request) -> list[Header]:
        """The CORS headers of an answer; none for origins that are not named, and for all that are not browsers."""
        origin = request.headers.get(b"origin")
        if not self._origins:
            return []
        if origin not in self._origins:
            return [(b"vary", b"Origin")]
        return [
            (b"access-control-allow-origin", origin),
            (b"access-control-expose-headers", EXPOSED_HEADERS),
            (b"vary", b"Origin"),
        ]

    def preflight(self, request: Request, allowed: tuple[str, ...]) -> list[Header] | None:
        """The answer to a browser that asks first, or None when this is no such question or the answer is no."""
        if (
            request.headers.get(b"origin") not in self._origins
            or b"access-control-request-method" not in request.headers
        ):
            return None
        return [
            (b"access-control-allow-methods", ", ".join(allowed).encode()),
            (
                b"access-control-allow-headers",
                b"Authorization, Content-Type, Idempotency-Key, Last-Event-ID, X-Application-Token, X-Request-ID",
            ),
            (b"access-control-max-age", b"%d" % PREFLIGHT_MAX_AGE_S),
        ]

    async def _is_token(self, text: str) -> bool:
        try:
            # A process may remember a token that was erased through another: the application itself is asked for.
            await self._system.application(await self._system.open(text))
        except NotFound:
            return False
        return True
