"""Who may come in, and how often.

Access: the admin key, where one is set, opens the operations on applications; a token opens its own application.
Rates: each application has a bucket, and so has each client address that tries unknown tokens.
"""

from __future__ import annotations

import hmac
import time
from collections.abc import Hashable

from chat_system.errors import Forbidden, Invalid, NotFound, TooMany, Unauthorized
from chat_system.settings import Settings
from chat_system.system import ChatSystem
from chat_system.web.request import Header, Request

BUCKETS_MAX = 100_000
"""Buckets kept; beyond it all are forgotten."""

SECOND_NS = 1_000_000_000

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

    def admit(self, key: Hashable) -> None:
        """Count one request. Raises TooMany."""
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


class Guard:
    """Decides for each request whether it may go on, and as whom."""

    def __init__(self, system: ChatSystem, settings: Settings) -> None:
        self._system = system
        self._admin_key = settings.admin_key
        self._origins = {origin.encode() for origin in settings.cors_origins}
        self._applications = RateLimiter("application", settings.rate_per_s, settings.rate_burst)
        self._strangers = RateLimiter("unknown-token", settings.unknown_rate_per_s, 2 * settings.unknown_rate_per_s)

    async def require_admin(self, request: Request) -> None:
        """Raises Unauthorized without the right key, Forbidden when an application's token stands in its place."""
        if self._admin_key is None:
            return
        key = request.bearer()
        if key is not None and hmac.compare_digest(key.encode(), self._admin_key.encode()):
            return
        if key is not None and await self._is_token(key):
            raise Forbidden("An application's token does not open this: it needs the admin key.")
        raise Unauthorized("Send the admin key: Authorization: Bearer <key>.")

    async def enter(self, request: Request, token: str) -> None:
        """Set the request's application. Raises NotFound, TooMany."""
        try:
            request.application = await self._system.open(token)
        except NotFound:
            client = request.scope.get("client")
            self._strangers.admit(client[0] if client else "")
            raise
        self._applications.admit(request.application)

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
            await self._system.open(text)
        except NotFound:
            return False
        return True
