"""Everything that can go wrong for a caller, and its stable code.

Each error has a `code` that clients may rely on and a `detail` that people read. This module knows
no HTTP: `web/problems.py` holds the one table from code to status.
"""

from __future__ import annotations

from typing import ClassVar, NamedTuple


class Fault(NamedTuple):
    """One thing that is wrong with an input: a JSON pointer (`/body`, `?limit`) and a sentence."""

    pointer: str
    detail: str


class ChatSystemError(Exception):
    """The base of all that a caller may see. Never raised itself."""

    code: ClassVar[str]

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class Invalid(ChatSystemError):
    """The input breaks a rule of its format or passes a limit. Nothing was recorded."""

    code = "invalid"

    def __init__(self, detail: str, faults: tuple[Fault, ...] = ()) -> None:
        super().__init__(detail)
        self.faults = faults

    @classmethod
    def at(cls, pointer: str, detail: str) -> Invalid:
        """The usual case: one fault at one place."""
        return cls(f"{pointer}: {detail}", (Fault(pointer, detail),))


class Unauthorized(ChatSystemError):
    """The operation needs the admin key and the request carries none that is right."""

    code = "unauthorized"


class Forbidden(ChatSystemError):
    """The caller is known, but may not do this."""

    code = "forbidden"


class NotFound(ChatSystemError):
    """It does not exist for this caller: absent, erased, or another application's."""

    code = "not_found"

    def __init__(self, detail: str = "There is nothing here.") -> None:
        super().__init__(detail)


class MethodNotAllowed(ChatSystemError):
    """The path exists, the method does not."""

    code = "method_not_allowed"

    def __init__(self, allowed: tuple[str, ...]) -> None:
        super().__init__(f"This path answers {', '.join(allowed)}.")
        self.allowed = allowed


class Conflict(ChatSystemError):
    """The state does not allow it: a deleted message can't be edited."""

    code = "conflict"


class Stale(Conflict):
    """An edit was based on a revision that is no longer the latest. The use case reads again and retries."""

    def __init__(self) -> None:
        super().__init__("The message has changed since it was read.")


class TooLarge(ChatSystemError):
    """The body is longer than the cap in bytes. It was not read to its end."""

    code = "too_large"


class UnsupportedMediaType(ChatSystemError):
    """The body is not JSON."""

    code = "unsupported_media_type"


class IdempotencyMismatch(ChatSystemError):
    """The idempotency key was used with another payload. Nothing was recorded."""

    code = "idempotency_mismatch"


class TooMany(ChatSystemError):
    """The caller passed its rate limit: `quota` requests per `window_s`; wait `retry_after_s`."""

    code = "too_many"

    def __init__(self, policy: str, quota: int, window_s: int, retry_after_s: int) -> None:
        super().__init__(f"Over {quota} requests per {window_s} s. Retry in {retry_after_s} s.")
        self.policy = policy
        self.quota = quota
        self.window_s = window_s
        self.retry_after_s = retry_after_s


class Unavailable(ChatSystemError):
    """A backend is away or the server is full.

    Nothing was recorded, or we cannot tell: retry with the same idempotency key after `retry_after_s`.
    """

    code = "unavailable"

    def __init__(self, detail: str, retry_after_s: int = 1) -> None:
        super().__init__(detail)
        self.retry_after_s = retry_after_s


class ConfigurationError(Exception):
    """The operator must mend something before the system can run: one clear line, no traceback."""
