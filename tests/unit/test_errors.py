"""Errors: a stable code for each, one table to statuses, and problem documents that tell what they should."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import pytest

from chat_system import errors
from chat_system.errors import (
    ChatSystemError,
    Conflict,
    Fault,
    IdempotencyMismatch,
    Invalid,
    MethodNotAllowed,
    NotFound,
    Stale,
    TooMany,
    Unauthorized,
    Unavailable,
)
from chat_system.web.app import Crowded
from chat_system.web.problems import STATUSES, internal, problem

# As the API's contract lists them.
CONTRACT = {
    "invalid": 400,
    "unauthorized": 401,
    "forbidden": 403,
    "not_found": 404,
    "method_not_allowed": 405,
    "conflict": 409,
    "too_large": 413,
    "unsupported_media_type": 415,
    "idempotency_mismatch": 422,
    "too_many": 429,
    "internal": 500,
    "unavailable": 503,
}


def kinds(base: type[ChatSystemError] = ChatSystemError) -> Iterator[type[ChatSystemError]]:
    """Every kind of error that a caller may see."""
    for kind in base.__subclasses__():
        yield kind
        yield from kinds(kind)


def examples() -> Iterator[ChatSystemError]:
    """One error of every kind."""
    special: dict[type[ChatSystemError], ChatSystemError] = {
        MethodNotAllowed: MethodNotAllowed(("GET", "POST")),
        NotFound: NotFound(),
        Stale: Stale(),
        Crowded: Crowded(),
        TooMany: TooMany("application", 40, 2, 3),
        Invalid: Invalid.at("/body", "is missing"),
    }
    for kind in kinds():
        yield special[kind] if kind in special else kind("What happened.")


def test_codes_and_statuses_are_the_contracts() -> None:
    """Every code stands in the one table, with the status that clients rely on, and a title."""
    assert {code: status for code, (status, _) in STATUSES.items()} == CONTRACT
    assert all(title for _, title in STATUSES.values())
    assert len({title for _, title in STATUSES.values()}) == len(STATUSES)


def test_every_error_has_a_code_of_its_own() -> None:
    """All codes but a defect's belong to one kind; a stale edit is a conflict, and a house may tell kinds apart."""
    codes = [kind.code for kind in kinds() if kind.__module__ == errors.__name__ and kind is not Stale]
    assert sorted(codes) == sorted(set(STATUSES) - {"internal"})
    assert issubclass(Stale, Conflict)
    assert Stale().code == Conflict.code


def test_configuration_errors_are_no_answers_to_clients() -> None:
    """They are the operator's, and have no code."""
    assert not issubclass(errors.ConfigurationError, ChatSystemError)


@pytest.mark.parametrize("error", list(examples()), ids=lambda error: type(error).__name__)
def test_every_error_becomes_a_problem_document(error: ChatSystemError) -> None:
    """With its status, code and detail, and the request's id; `errors` exactly when it is `invalid`."""
    answer = problem(error, "request-7")
    body = msgspec.json.decode(answer.body)
    status, title = STATUSES[error.code]
    assert answer.status == status
    assert answer.content_type == b"application/problem+json"
    assert body.pop("errors", None) == (
        [{"pointer": "/body", "detail": "is missing"}] if error.code == "invalid" else None
    )
    assert body == {
        "type": f"urn:chat-system:problem:{error.code}",
        "title": title,
        "status": status,
        "detail": error.detail,
        "code": error.code,
        "request_id": "request-7",
    }
    assert str(error) == error.detail


def test_an_invalid_input_without_a_place_has_an_empty_list_of_errors() -> None:
    """Malformed JSON blames no field; several faults are all told."""
    assert msgspec.json.decode(problem(Invalid("Not JSON."), "r").body)["errors"] == []
    two = Invalid("Two faults.", (Fault("/a", "x"), Fault("?b", "y")))
    assert [fault["pointer"] for fault in msgspec.json.decode(problem(two, "r").body)["errors"]] == ["/a", "?b"]


HEADERS: list[tuple[ChatSystemError, dict[bytes, bytes]]] = [
    (MethodNotAllowed(("GET", "POST")), {b"allow": b"GET, POST"}),
    (Unauthorized("No key."), {b"www-authenticate": b"Bearer"}),
    (Unavailable("Away."), {b"retry-after": b"1"}),
    (Unavailable("Away.", retry_after_s=30), {b"retry-after": b"30"}),
    (
        TooMany("application", 40, 2, 3),
        {
            b"retry-after": b"3",
            b"ratelimit-policy": b'"application";q=40;w=2',
            b"ratelimit": b'"application";r=0;t=3',
        },
    ),
    (NotFound(), {}),
    (IdempotencyMismatch("Other."), {}),
]


def test_headers_tell_what_to_do() -> None:
    """Which methods, which credentials, how long to wait."""
    for error, headers in HEADERS:
        assert dict(problem(error, "r").headers) == headers


def test_a_defect_tells_nothing_but_the_request_id() -> None:
    """What it was stands in the log."""
    answer = internal("request-9")
    body = msgspec.json.decode(answer.body)
    assert (answer.status, body["code"], body["request_id"]) == (500, "internal", "request-9")
    assert "errors" not in body
