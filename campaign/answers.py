"""Judges answers by the OpenAPI document: documented status, media type, headers, and a body that fits its schema.

    judge = Judge(document)
    fault = judge.fault(made, answer)       # None when it is as described

A 5xx is never right here, 503 included: nothing was taken away from the server.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jsonschema_rs
import msgspec

from campaign.requests import Document, Made, Operation

PROBLEM_TYPE = "application/problem+json"
SHOWN_BYTES = 300


@dataclass(frozen=True)
class Answer:
    """One response: header names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def is_last(self) -> bool:
        """The server says that the connection ends here."""
        return self.headers.get("connection", "").lower() == "close"


class Judge:
    """The document, ready to be compared with."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._validators: dict[str, Any] = {}
        self._codes = {
            content["example"]["code"]: content["example"]["status"]
            for one in document["components"]["responses"].values()
            for content in one["content"].values()
        }
        self._problem = {"$ref": "#/components/schemas/Problem"}

    def fault(self, made: Made, answer: Answer) -> str | None:
        """What is wrong with an answer to a request."""
        if answer.status not in made.allowed and not (answer.status == 400 and _is_malformed(made)):
            return "undocumented status"
        if answer.status >= 500 and answer.status != 501:
            return "failed"
        if "x-request-id" not in answer.headers:
            return "no request id"
        if made.method == "HEAD" or answer.status == 204:
            return "a body where none may be" if answer.body else None
        if answer.status >= 400:
            return self._fault_of_problem(answer)
        return self._fault_of_success(made.operation, answer) if made.operation else None

    def fault_of_broken(self, answer: Answer) -> str | None:
        """What is wrong with an answer to bytes that are no request."""
        if not 400 <= answer.status < 500 and answer.status not in (501, 505):
            return "undocumented status"
        return None

    def _fault_of_problem(self, answer: Answer) -> str | None:
        if answer.headers.get("content-type", "").split(";")[0] != PROBLEM_TYPE:
            return "a refusal that is no problem document"
        problem = _decoded(answer.body)
        if not isinstance(problem, dict) or (fault := self._mismatch(self._problem, problem)):
            return f"not a problem: {fault if isinstance(problem, dict) else 'no object'}"
        if problem["status"] != answer.status or self._codes.get(problem["code"]) != answer.status:
            return "the problem's status or code is another's"
        if problem["request_id"] != answer.headers["x-request-id"]:
            return "the problem's request id is another's"
        return "errors missing or too many" if ("errors" in problem) != (problem["code"] == "invalid") else None

    def _fault_of_success(self, operation: Operation, answer: Answer) -> str | None:
        described = operation.about["responses"][str(answer.status)].get("content", {})
        kind = answer.headers.get("content-type", "").split(";")[0]
        if kind not in described:
            return f"media type {kind}"
        if kind != "application/json":
            return None
        body = _decoded(answer.body)
        return self._mismatch(described[kind]["schema"], body)

    def _mismatch(self, schema: Mapping[str, Any], value: Any) -> str | None:
        key = json.dumps(schema, sort_keys=True)
        if key not in self._validators:
            whole = {**schema, "components": self._document["components"]}
            self._validators[key] = jsonschema_rs.Draft202012Validator(whole)
        validator = self._validators[key]
        if validator.is_valid(value):
            return None
        return "; ".join(error.message[:SHOWN_BYTES] for error in validator.iter_errors(value))


def _decoded(body: bytes) -> Any:
    try:
        return msgspec.json.decode(body)
    except msgspec.DecodeError:
        return ...


def _is_malformed(made: Made) -> bool:
    """Whether its head has bytes that no head may have."""
    head = made.raw[: made.raw.index(b"\r\n\r\n")].replace(b"\r\n", b"")
    return any(byte < 0x20 or byte > 0x7E for byte in head)
