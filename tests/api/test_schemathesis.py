"""The OpenAPI document against the server that serves it: whatever its schemas allow and forbid, the server does so.

Schemathesis makes requests up from the document: those that fit and those that don't, those at the edges of every
schema, and methods that no path has. What comes back must be described: its status, type, headers and body. Each
operation is tried in an application of its own that holds what its path names.

The stream of events is left out, because it never ends: tests/api/test_live.py is about it. What a schema can't say
(`fits`) the server must refuse with 400.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from typing import Any

import httpx
import msgspec
import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis import GenerationMode
from schemathesis.config import GenerationConfig, ProjectConfig, ProjectsConfig
from schemathesis.core.parameters import ParameterLocation
from schemathesis.openapi.checks import RejectedPositiveData
from schemathesis.specs.openapi.checks import ignored_auth, positive_data_acceptance

from chat_system.errors import Invalid
from chat_system.web.openapi import document
from chat_system.web.request import refuse_ambiguous
from chat_system.web.routes import OPERATIONS
from tests.houses import House

EXAMPLES = 12
SCENARIOS = 10
STEPS = 12
WALKS_MAX = 4
BUDGET = settings(deadline=None, max_examples=EXAMPLES, suppress_health_check=list(HealthCheck), derandomize=True)
BY_NAME = {operation.name: operation for operation in OPERATIONS}

# Parameters that exclude each other, and cursors, of which a schema knows no more than that they are text.
CURSORS = {"listApplications": {"after", "before"}, "searchApplication": {"after"}}
ALONE = {"page": {"after", "before"}, "changed_after": {"after", "before", "order"}}


def load(*modes: GenerationMode) -> schemathesis.BaseSchema:
    """The document, for some kinds of requests; the stream left out."""
    generation = GenerationConfig(modes=list(modes), max_examples=EXAMPLES, deterministic=True)
    config = schemathesis.Config(projects=ProjectsConfig(default=ProjectConfig(generation=generation)))
    served = msgspec.json.decode(msgspec.json.encode(document(OPERATIONS)))
    return schemathesis.openapi.from_dict(served, config=config).exclude(operation_id="streamEvents")


FITTING = load(GenerationMode.POSITIVE)
MISFITTING = load(GenerationMode.NEGATIVE)
# It wants 401 for a token that is missing or unknown. The contract has 400 and 404: tests/api/test_access.py.
NOT_ASKED = [ignored_auth]
KEYS = itertools.count(1)


@pytest.fixture(scope="module")
def http(house: House) -> Iterator[httpx.Client]:
    """Makes what the requests are about."""
    with httpx.Client(base_url=house.url, trust_env=False, timeout=30) as client:
        yield client


def settle(case: Any, http: httpx.Client) -> None:
    """Let a request be about a fresh application with a chat and a message, unless its path is what does not fit."""
    token = http.post("/applications", json={"name": "Made up"}).json()["token"]
    http.post(f"/applications/{token}/chats").raise_for_status()
    http.post(f"/applications/{token}/chats/1/messages", json={"body": "Made up"}).raise_for_status()
    components = case.meta.components if case.meta is not None else {}
    path = components.get(ParameterLocation.PATH)
    if path is None or path.mode is GenerationMode.POSITIVE:
        real = {"token": token, "number": 1, "message_number": 1}
        case.path_parameters = {name: real[name] for name in case.path_parameters or {}}
    if BY_NAME[case.operation.definition.raw["operationId"]].access == "alias":
        case.headers["Authorization"] = f"Bearer {token}"
    if "Idempotency-Key" in (case.headers or {}):
        case.headers["Idempotency-Key"] = f"key-{next(KEYS)}"


def reconcile(case: Any) -> None:
    """Drop parameters that exclude others, and cursors that no server made."""
    query = case.query or {}
    dropped = CURSORS.get(case.operation.definition.raw["operationId"], set())
    for alone, others in ALONE.items():
        dropped = dropped | others if alone in query else dropped
    case.query = {name: value for name, value in query.items() if name not in dropped}


def fits(case: Any) -> bool:
    """Whether a request that fits its schema also keeps what a schema does not say: no U+0000, nothing blank."""
    if "\0" in str((case.query or {}).get("q", "")):
        return False
    kind = BY_NAME[case.operation.definition.raw["operationId"]].body
    if kind is None or not isinstance(case.body, dict):
        return True
    encoded = json.dumps(case.body).encode()
    try:
        refuse_ambiguous(encoded)
        body: Any = msgspec.json.decode(encoded, type=kind)
        body.check()
    except (Invalid, msgspec.ValidationError):
        return False
    return True


@FITTING.parametrize()
@BUDGET
def test_what_the_document_allows_is_accepted(case: Any, house: House, http: httpx.Client) -> None:
    """Every request that fits is a success, and its answer is as described."""
    settle(case, http)
    reconcile(case)
    if fits(case):
        case.call_and_validate(base_url=house.url, excluded_checks=NOT_ASKED)
    else:
        response = case.call(base_url=house.url)
        assert response.status_code == 400
        case.validate_response(response, excluded_checks=[*NOT_ASKED, positive_data_acceptance])


@MISFITTING.parametrize()
@BUDGET
def test_what_the_document_forbids_is_refused(case: Any, house: House, http: httpx.Client) -> None:
    """Wrong types, missing and unknown fields, values beyond their limits, other methods: refused as described."""
    settle(case, http)
    case.call_and_validate(base_url=house.url, excluded_checks=NOT_ASKED)


EDGES = [
    pytest.param(
        operation.name,
        parameter.name,
        int(parameter.schema.get(edge, default)),
        id=f"{operation.name}-{parameter.name}-{edge}",
    )
    for operation in OPERATIONS
    if operation.name != "streamEvents"
    for parameter in operation.parameters
    if parameter.schema["type"] == "integer"
    for edge, default in (("minimum", -(2**70)), ("maximum", 2**70))
]


@pytest.mark.parametrize(("name", "parameter", "value"), EDGES)
def test_numbers_at_the_edges_of_their_schemas_are_accepted(
    http: httpx.Client, name: str, parameter: str, value: int
) -> None:
    """A number that the document sets no limit to has none."""
    token = http.post("/applications", json={"name": "Made up"}).json()["token"]
    http.post(f"/applications/{token}/chats").raise_for_status()
    path = BY_NAME[name].path.format(token=token, number=1, message_number=1)
    params = {"q": "x"} if path.endswith("search") else {}
    response = http.get(path, params={**params, parameter: str(value)}, headers={"Authorization": f"Bearer {token}"})
    assert response.status_code == 200, response.text


def test_a_walk_through_linked_operations_is_as_described(house: House) -> None:
    """What one operation answered goes into the next, erased things included: always as the document says."""
    walked: set[str] = set()
    generated = FITTING.as_state_machine()

    class Walk(generated):  # type: ignore[misc,valid-type]
        """A client that goes from one operation to those that its answer leads to."""

        def before_call(self, case: Any) -> None:
            reconcile(case)
            super().before_call(case)

        def get_call_kwargs(self, case: Any) -> dict[str, Any]:
            return {"base_url": house.url}

        def after_call(self, response: Any, case: Any) -> None:
            super().after_call(response, case)
            walked.add(f"{case.method} {case.operation.path} {response.status_code}")

        def validate_response(self, response: Any, case: Any, *args: Any, **options: Any) -> None:
            try:
                super().validate_response(response, case, *args, **options)
            except schemathesis.core.failures.FailureGroup as failures:
                # Names, keys and tokens that were made up are refused for good reasons; all else must be right.
                if not all(isinstance(one, RejectedPositiveData) for one in failures.exceptions):
                    raise

    # Where walks lead depends on tokens that are made up: they may leave each application before its chats are seen.
    expected = {"POST /applications 201", "GET /applications/{token}/chats 200", "DELETE /applications/{token} 204"}
    for turn in range(WALKS_MAX):
        budget = settings(BUDGET, max_examples=SCENARIOS, stateful_step_count=STEPS, derandomize=turn == 0)
        Walk.run(settings=budget)
        if expected <= walked:
            break
    assert not expected - walked
