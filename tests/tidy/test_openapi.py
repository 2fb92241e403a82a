"""The OpenAPI document: valid, with examples that fit, and changed only on purpose.

The snapshot beside this file is what the last commit served. To renew it after a change that is meant:

    chat-system openapi > tests/tidy/openapi.json
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]
from openapi_spec_validator import OpenAPIV31SpecValidator
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

from chat_system.web.openapi import document, problems_of
from chat_system.web.problems import STATUSES
from chat_system.web.routes import OPERATIONS, Operation
from tests.tidy.tree import text_of

SNAPSHOT = "tests/tidy/openapi.json"
DOCUMENT: dict[str, Any] = json.loads(msgspec.json.encode(document(OPERATIONS)))
BASE = "urn:openapi"
REGISTRY: Registry[Any] = Registry().with_resource(
    BASE, Resource.from_contents(DOCUMENT, default_specification=DRAFT202012)
)


def faults(schema: dict[str, Any], value: object) -> list[str]:
    """What a JSON schema of the document finds wrong with a value."""
    absolute = json.loads(json.dumps(schema).replace('"#/', f'"{BASE}#/'))
    validator = Draft202012Validator(absolute, registry=REGISTRY, format_checker=Draft202012Validator.FORMAT_CHECKER)
    return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(value)]


def described(operation: Operation) -> dict[str, Any]:
    """What the document says of an operation."""
    found: dict[str, Any] = DOCUMENT["paths"][operation.path][operation.method.lower()]
    return found


def contents(operation: Operation) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every body that an operation takes or answers, by name, with its schema and example."""
    here = described(operation)
    bodies = {"request": here.get("requestBody", {})} | here["responses"]
    for name, body in bodies.items():
        shared = body.get("$ref", "").rsplit("/", 1)[-1]
        there = DOCUMENT["components"]["responses"][shared] if shared else body
        for kind, content in there.get("content", {}).items():
            yield f"{name} {kind}", content


def test_the_document_is_the_one_that_was_meant() -> None:
    """It equals the snapshot. After a change that is meant, see the head of this file."""
    assert json.loads(text_of(SNAPSHOT)) == DOCUMENT


def test_the_document_is_valid_openapi() -> None:
    """By the validator of the specification, version 3.1."""
    OpenAPIV31SpecValidator(DOCUMENT).validate()  # type: ignore[no-untyped-call,unused-ignore]
    assert DOCUMENT["openapi"].startswith("3.1")


def test_schemas_can_find_fault() -> None:
    """The check of examples below is none that accepts anything."""
    message = {"$ref": "#/components/schemas/Message"}
    example = described(next(one for one in OPERATIONS if one.name == "readMessage"))["responses"]["200"]["content"]
    good = example["application/json"]["example"]
    assert faults(message, good) == []
    wrong: list[dict[str, Any]] = [
        {"number": 0},
        {"body": 5},
        {"created_at": "yesterday"},
        {"metadata": []},
        {"revision": "1"},
    ]
    for bad in wrong:
        assert faults(message, good | bad) != [], bad


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)
def test_every_example_fits_its_schema(operation: Operation) -> None:
    """Each body that is taken or answered, errors included, has one."""
    bodies = list(contents(operation))
    assert bodies or operation.status == 204
    for name, content in bodies:
        assert "example" in content, name
        assert faults(content["schema"], content["example"]) == [], name


@pytest.mark.parametrize("operation", [one for one in OPERATIONS if one.body], ids=lambda operation: operation.name)
def test_every_example_of_a_request_is_accepted(operation: Operation) -> None:
    """By the very struct that reads it."""
    kind: Any = operation.body
    msgspec.convert(described(operation)["requestBody"]["content"]["application/json"]["example"], kind).check()


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)
def test_every_operation_is_described(operation: Operation) -> None:
    """A summary, a sentence or two, a tag, and every error that it may answer."""
    here = described(operation)
    assert here["operationId"] == operation.name
    assert here["summary"]
    assert here["description"].endswith(".")
    assert here["tags"][0] in {tag["name"] for tag in DOCUMENT["tags"]}
    assert set(here["responses"]) == {
        str(operation.status),
        *(str(STATUSES[code][0]) for code in problems_of(operation)),
    }
    for parameter in here["parameters"]:
        assert parameter["description"].endswith((".", "?")), parameter["name"]
        default = parameter["schema"].get("default")
        assert default is None or faults(parameter["schema"], default) == []


def test_every_operation_answers_errors_that_fit_its_path() -> None:
    """What has a parameter may not be found, what takes a body may refuse it, and anything may be unavailable."""
    for operation in OPERATIONS:
        codes = set(problems_of(operation))
        assert "unavailable" in codes
        assert ("not_found" in codes) == ("{" in operation.path), operation.name
        if operation.body is not None:
            assert {"invalid", "too_large", "unsupported_media_type"} <= codes, operation.name
        if operation.parameters:
            assert "invalid" in codes, operation.name
        if any(parameter.name == "Idempotency-Key" for parameter in operation.parameters):
            assert "idempotency_mismatch" in codes, operation.name


def test_an_alias_is_described_like_what_it_stands_for() -> None:
    """The same body and the same answer."""
    by_name = {operation.name: operation for operation in OPERATIONS}
    aliases = [operation for operation in OPERATIONS if operation.alias_of]
    assert len(aliases) == 3
    for alias in aliases:
        original = by_name[str(alias.alias_of)]
        assert (alias.method, alias.body, alias.answer, alias.status) == (
            original.method,
            original.body,
            original.answer,
            original.status,
        )
        assert {one.name for one in original.parameters} <= {one.name for one in alias.parameters}


def test_what_needs_a_token_does_not_say_that_none_is_needed() -> None:
    """The short paths that name no application answer 400 without a token: no security at all is no choice there."""
    for operation in OPERATIONS:
        if operation.access == "alias":
            assert {} not in described(operation)["security"], operation.name
        elif operation.access == "admin":
            assert {} in described(operation)["security"], "without an admin key everything is open"


def test_every_component_is_used() -> None:
    """No schema, answer or header of the document is there for nothing; two answers belong to every path."""
    text = json.dumps(DOCUMENT)
    for kind, components in DOCUMENT["components"].items():
        for name in components if kind != "securitySchemes" else ():
            everywhere = kind == "responses" and name in ("internal", "method_not_allowed")
            assert everywhere or f'"#/components/{kind}/{name}"' in text, f"{kind}/{name}"
