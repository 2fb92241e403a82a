"""The OpenAPI 3.1 document, made from the table of operations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args, get_origin

import msgspec

from chat_system import __version__
from chat_system.model import (
    Application,
    ApplicationEdit,
    Chat,
    ChatEdit,
    FoundMessage,
    Message,
    MessageEdit,
    NewApplication,
    NewChat,
    NewMessage,
    NewMessages,
)
from chat_system.web.problems import STATUSES, Problem
from chat_system.web.routes import Operation, Parameter

_TYPES = [
    Application, Chat, Message, FoundMessage, NewApplication, ApplicationEdit, NewChat, ChatEdit, NewMessage,
    NewMessages, MessageEdit, Problem,
]  # fmt: skip

_DESCRIPTION = """\
A chat backend: **applications** (a token each) have **chats** (numbered 1, 2, 3 … per application), and chats have
**messages** (numbered per chat).

Numbers have no gaps and no duplicates. A 201 is on disk. `Idempotency-Key` makes retries safe. Every change in a chat
takes its next `revision`, the one cursor for reading and for living. Search finds every substring in every script.
Errors are `application/problem+json` with a stable `code`.

Start here: POST `/applications`, put the token that it answers into the other operations, and try them out."""

_HEADERS = {
    "X-Request-ID": {"schema": {"type": "string"}, "description": "The request's own id, or one made for it."},
    "Location": {"schema": {"type": "string"}, "description": "Where the new resource is found."},
    "Idempotency-Replayed": {
        "schema": {"type": "string", "const": "true"},
        "description": "There when this repeats the answer to an earlier request with the same key.",
    },
    "Link": {"schema": {"type": "string"}, "description": 'Neighbouring pages: rel="next" and rel="prev" (RFC 8288).'},
    "Retry-After": {"schema": {"type": "integer"}, "description": "Seconds to wait."},
    "RateLimit": {"schema": {"type": "string"}, "description": "What is left of the quota."},
    "RateLimit-Policy": {"schema": {"type": "string"}, "description": "The quota."},
    "Allow": {"schema": {"type": "string"}, "description": "The methods of this path."},
    "WWW-Authenticate": {"schema": {"type": "string"}, "description": "Bearer."},
}

_TOKEN_SCHEMES = {
    "applicationToken": {
        "type": "http",
        "scheme": "bearer",
        "description": "The application's token, for the short paths that name none.",
    },
    "applicationTokenHeader": {
        "type": "apiKey",
        "in": "header",
        "name": "X-Application-Token",
        "description": "The same, if `Authorization` carries none.",
    },
    "applicationTokenQuery": {
        "type": "apiKey",
        "in": "query",
        "name": "token",
        "description": "The same, if no header carries one.",
    },
}

_PATH_PARAMETERS: dict[str, dict[str, Any]] = {
    "token": {"description": "The application's token.", "schema": {"type": "string"}},
    "number": {"description": "The chat's number.", "schema": {"type": "integer", "minimum": 1}},
    "message_number": {"description": "The message's number.", "schema": {"type": "integer", "minimum": 1}},
}


def document(operations: Sequence[Operation]) -> dict[str, Any]:
    """The whole document."""
    _, components = msgspec.json.schema_components(_TYPES, ref_template="#/components/schemas/{name}")
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(operation)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Chat System",
            "version": __version__,
            "description": _DESCRIPTION,
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": tag} for tag in dict.fromkeys(operation.tag for operation in operations)],
        "paths": paths,
        "components": {
            "schemas": components,
            "responses": {code: _problem(code) for code in STATUSES},
            "headers": _HEADERS,
            "securitySchemes": {
                "adminKey": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "Needed for operations on applications when the server has an admin key.",
                },
                **_TOKEN_SCHEMES,
            },
        },
    }


def problems_of(operation: Operation) -> list[str]:
    """The codes of all errors that an operation may answer with."""
    codes = list(operation.problems)
    if operation.access == "alias" and "invalid" not in codes:
        codes.append("invalid")
    if operation.access == "admin":
        codes += ["unauthorized", "forbidden", "too_many"]
    if "{" in operation.path or operation.access == "alias":
        codes += ["not_found", "too_many"]
    codes.append("unavailable")
    return sorted(set(codes), key=lambda code: (STATUSES[code][0], code))


def _operation(operation: Operation) -> dict[str, Any]:
    request_example, answer_example = operation.example
    described: dict[str, Any] = {
        "operationId": operation.name,
        "summary": operation.summary,
        "description": operation.doc,
        "tags": [operation.tag],
        "parameters": [*_path_parameters(operation.path), *map(_parameter, operation.parameters)],
        "responses": {str(operation.status): _answer(operation, answer_example)},
    }
    for code in problems_of(operation):
        described["responses"].setdefault(str(STATUSES[code][0]), {"$ref": f"#/components/responses/{code}"})
    if operation.body is not None:
        described["requestBody"] = {
            "required": operation.body_required,
            "content": {"application/json": {"schema": _reference(operation.body), "example": request_example}},
        }
    if operation.access == "admin":
        described["security"] = [{"adminKey": []}, {}]
    elif operation.access == "alias":
        described["security"] = [{name: []} for name in _TOKEN_SCHEMES]
    return described


def _answer(operation: Operation, example: Any) -> dict[str, Any]:
    headers = ["X-Request-ID"]
    if operation.status == 201:
        headers.append("Idempotency-Replayed")
        if get_origin(operation.answer) is not list:
            headers.append("Location")
    elif get_origin(operation.answer) is list:
        headers.append("Link")
    answer: dict[str, Any] = {
        "description": operation.summary,
        "headers": {name: {"$ref": f"#/components/headers/{name}"} for name in headers},
    }
    if operation.answer is not None:
        answer["content"] = {operation.content_type: {"schema": _reference(operation.answer), "example": example}}
    return answer


def _problem(code: str) -> dict[str, Any]:
    status, title = STATUSES[code]
    names = ["X-Request-ID"]
    names += {401: ["WWW-Authenticate"], 405: ["Allow"], 503: ["Retry-After"]}.get(status, [])
    names += ["Retry-After", "RateLimit", "RateLimit-Policy"] if status == 429 else []
    example = {
        "type": f"urn:chat-system:problem:{code}",
        "title": title,
        "status": status,
        "detail": f"{title}.",
        "code": code,
        "request_id": "5f0c2a9be1d4-2a",
    }
    if code == "invalid":
        example |= {"errors": [{"pointer": "/body", "detail": "Expected str of length >= 1"}]}
    return {
        "description": f"`{code}`: {title.lower()}.",
        "headers": {name: {"$ref": f"#/components/headers/{name}"} for name in names},
        "content": {"application/problem+json": {"schema": _reference(Problem), "example": example}},
    }


def _parameter(parameter: Parameter) -> dict[str, Any]:
    return {
        "name": parameter.name,
        "in": parameter.where,
        "required": parameter.required,
        "description": parameter.doc,
        "schema": parameter.schema,
    }


def _path_parameters(path: str) -> list[dict[str, Any]]:
    names = [part[1:-1] for part in path.split("/") if part.startswith("{")]
    return [
        {
            "name": name,
            "in": "path",
            "required": True,
            **_PATH_PARAMETERS[name],
        }
        for name in names
    ]


def _reference(kind: Any) -> dict[str, Any]:
    if get_origin(kind) is list:
        return {"type": "array", "items": _reference(get_args(kind)[0])}
    if get_origin(kind) is dict:
        return {"type": "object", "additionalProperties": {"type": "string"}}
    if kind is str:
        return {"type": "string"}
    return {"$ref": f"#/components/schemas/{kind.__name__}"}
