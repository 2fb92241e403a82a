"""Errors as clients see them: `application/problem+json` (RFC 9457), and the one table from code to status."""

from __future__ import annotations

import msgspec

from chat_system.errors import (
    ChatSystemError,
    Invalid,
    MethodNotAllowed,
    TooMany,
    Unauthorized,
    Unavailable,
)
from chat_system.web.request import Response

CONTENT_TYPE = b"application/problem+json"

STATUSES = {
    "invalid": (400, "The request is not valid"),
    "unauthorized": (401, "The admin key is missing or wrong"),
    "forbidden": (403, "Not with this key"),
    "not_found": (404, "Not found"),
    "method_not_allowed": (405, "This path does not know the method"),
    "conflict": (409, "The state does not allow it"),
    "too_large": (413, "The body is too large"),
    "unsupported_media_type": (415, "The body must be JSON"),
    "idempotency_mismatch": (422, "The idempotency key was used with another payload"),
    "too_many": (429, "Too many requests"),
    "internal": (500, "A defect in the server"),
    "unavailable": (503, "Not available at the moment"),
}
"""Every code with its status and title. `docs/api.md` lists the same; a test compares them."""


class FieldError(msgspec.Struct):
    """What is wrong where: a JSON pointer into the body, or `?name` for a query parameter."""

    pointer: str
    detail: str


class Problem(msgspec.Struct, omit_defaults=True):
    """The body of every error. `errors` is there exactly when `code` is `invalid`."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    request_id: str
    errors: list[FieldError] | None = None


def problem(error: ChatSystemError, request_id: str) -> Response:
    """The answer that tells a caller of an error."""
    errors = [FieldError(*fault) for fault in error.faults] if isinstance(error, Invalid) else None
    headers: list[tuple[bytes, bytes]] = []
    if isinstance(error, MethodNotAllowed):
        headers.append((b"allow", ", ".join(error.allowed).encode()))
    elif isinstance(error, Unavailable):
        headers.append((b"retry-after", b"%d" % error.retry_after_s))
    elif isinstance(error, Unauthorized):
        headers.append((b"www-authenticate", b"Bearer"))
    elif isinstance(error, TooMany):
        headers += [
            (b"retry-after", b"%d" % error.retry_after_s),
            (b"ratelimit-policy", f'"{error.policy}";q={error.quota};w={error.window_s}'.encode()),
            (b"ratelimit", f'"{error.policy}";r=0;t={error.retry_after_s}'.encode()),
        ]
    return _response(error.code, error.detail, request_id, errors, headers)


def internal(request_id: str) -> Response:
    """The answer to a defect of ours. What it was stands in the log, under the request id."""
    return _response("internal", "The log of the server tells more under this request_id.", request_id, None, [])


def _response(
    code: str, detail: str, request_id: str, errors: list[FieldError] | None, headers: list[tuple[bytes, bytes]]
) -> Response:
    status, title = STATUSES[code]
    body = Problem(f"urn:chat-system:problem:{code}", title, status, detail, code, request_id, errors)
    return Response(status, msgspec.json.encode(body), CONTENT_TYPE, headers)
